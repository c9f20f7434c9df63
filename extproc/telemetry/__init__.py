"""Metrics and logs: listeners to the frozen objects of core, and nothing that decides."""
