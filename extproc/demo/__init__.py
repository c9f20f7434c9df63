"""The demo: real clients, a real Envoy, the router, two emulated pools, and the outcome of every request."""
