"""The running router: grpc.aio service, admin HTTP, health and drain; the only room that knows sockets."""
