"""Benchmarks that print ratios; `make bench` writes them to bench/results.md."""

import os

# As the command line does, set before numpy is loaded: with matrices this small a second thread would only spin.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
