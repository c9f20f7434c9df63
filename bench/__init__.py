"""Benchmarks that print ratios; `make bench` writes them to bench/results.md."""
