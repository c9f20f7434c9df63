"""Benchmarks that print ratios; `make bench` writes them to bench/results.md."""

import os

# As the command line sets it, before numpy is loaded: a second thread would spin for matrices as small as ours.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
