"""The running router: ext_proc and health on gRPC's C core, admin HTTP, drain. Only here are sockets known."""
