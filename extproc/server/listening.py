"""The grpc.aio server: options, credentials, the raw-bytes handler, and the health service."""

import ssl
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
        # gRPC does not say which of the two it is.
        if settings.tls is not None:
            _check_pem(settings.tls)
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


def _check_pem(files: TlsFiles) -> None:
    """Raise ConfigurationError that names the files which cannot be used; OpenSSL says what is wrong with them."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate, key, authority = files.certificate_file, files.private_key_file, files.client_ca_file
    try:
        # With a password given OpenSSL does not ask for one on the terminal.
        context.load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"listen.tls: certificate_file {certificate!r} and private_key_file {key!r} given; PEM files of a "
            f"certificate and of its key, not encrypted, are needed: {error}"
        ) from error
    try:
        if authority:
            context.load_verify_locations(authority)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"listen.tls.client_ca_file: {authority!r} given; a PEM file of certificates is needed: {error}"
        ) from error


def _read(name: str, field: str) -> bytes:
    try:
        content = Path(name).read_bytes()
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"listen.tls.{field}: {error}") from error
    if not content:
        # gRPC would listen with an empty authority, and then serve nobody.
        raise ConfigurationError(f"listen.tls.{field}: {name!r} given, which is empty; a PEM file is needed")
    return content
