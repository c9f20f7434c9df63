"""Envoy's own configuration, converted into the model."""
