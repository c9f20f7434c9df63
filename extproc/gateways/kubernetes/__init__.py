"""Manifests of gateways in Kubernetes, and what their control planes generate from them."""
