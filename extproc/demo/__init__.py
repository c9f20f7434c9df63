"""The demo: real clients, a real Envoy, the router and two emulated pools, and what came of every request."""
