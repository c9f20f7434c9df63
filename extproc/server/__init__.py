"""The running router: gRPC's C core (used only in this package), health, reload, drain, admin HTTP."""
