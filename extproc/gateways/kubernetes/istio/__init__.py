"""Istio's manifests, translated into the Envoy configuration that Istio generates."""
