"""Envoy Gateway's manifests, translated into the Envoy configuration that it generates."""
