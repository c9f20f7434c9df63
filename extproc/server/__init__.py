"""The running router: gRPC's C core, which only this room knows, health, reload, drain, admin HTTP."""
