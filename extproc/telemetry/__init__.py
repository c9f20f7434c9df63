"""Metrics, logs and traces: listeners to core's frozen objects, without influence on decisions."""
