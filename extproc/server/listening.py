"""The grpc.aio server: options, credentials, the raw-bytes handler, and the health service."""

from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from extproc.config.schema import ListenSettings, TlsFiles
from extproc.core.errors import ConfigurationError
from extproc.server.streams import Streams

__all__ = ["Health", "listen"]

SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"
# The names that endpoint pickers answer to, so that a gateway's probes need no change; "" is the server itself.
HEALTH_NAMES = ("", "liveness", "readiness", SERVICE)
MESSAGE_MARGIN_BYTES = 1 << 20


class Health:
    """gRPC health (grpc.health.v1) and readiness, set together."""

    def __init__(self) -> None:
        self.ready = False
        self.servicer = health.aio.HealthServicer()  # type: ignore[attr-defined]  # missing in the stubs

    async def set_ready(self, *, ready: bool) -> None:
        """Tell all who ask or watch. Liveness stays SERVING: a draining process must not be killed for it."""
        self.ready = ready
        status = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in HEALTH_NAMES:
            alive = health_pb2.HealthCheckResponse.SERVING if name == "liveness" else status
            await self.servicer.set(name, alive)


def listen(settings: ListenSettings, streams: Streams, healths: Health) -> tuple[grpc.aio.Server, str]:
    """Make a server bound to its address, not started yet; return it and the address with its real port.

    Raises ConfigurationError for an address or TLS file that cannot be used.
    """
    limit = settings.max_message_bytes + MESSAGE_MARGIN_BYTES
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", limit),
            ("grpc.max_send_message_length", limit),
            # Two processes on one port would each see a part of the traffic without anybody's intent.
            ("grpc.so_reuseport", 0),
        ]
    )
    # Without serializers the handler sees and returns raw bytes: wire/ parses what it needs, once.
    handler = grpc.stream_stream_rpc_method_handler(streams.process)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Process": handler}),))
    health_pb2_grpc.add_HealthServicer_to_server(healths.servicer, server)
    return server, _bind(server, settings)


def _bind(server: grpc.aio.Server, settings: ListenSettings) -> str:
    try:
        if settings.tls is None:
            port = server.add_insecure_port(settings.address)
        else:
            port = server.add_secure_port(settings.address, _credentials(settings.tls))
    except RuntimeError as error:
        raise ConfigurationError(f"listen.address: {settings.address!r} cannot be bound: {error}") from error
    if settings.address.startswith("unix:"):
        return settings.address
    return f"{settings.address.rpartition(':')[0]}:{port}"


def _credentials(files: TlsFiles) -> grpc.ServerCredentials:
    key = _read(files.private_key_file, "private_key_file")
    certificate = _read(files.certificate_file, "certificate_file")
    authority = _read(files.client_ca_file, "client_ca_file") if files.client_ca_file else None
    return grpc.ssl_server_credentials(
        [(key, certificate)], root_certificates=authority, require_client_auth=authority is not None
    )


def _read(name: str, field: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"listen.tls.{field}: {error}") from error
