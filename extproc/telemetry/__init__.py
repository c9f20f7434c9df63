"""Metrics, logs and traces: listeners to the frozen objects of core, and nothing that decides."""
