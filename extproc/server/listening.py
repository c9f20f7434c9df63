"""Listening for gRPC: addresses, options, and the errors when an address cannot be bound."""

from typing import Final

import grpc

from extproc.config.schema import ListenSettings
from extproc.core.errors import ConfigurationError
from extproc.server.grpc_core import CannotListen, Core, OnCall, Options
from extproc.server.tls import Certificates, check_pem
from extproc.server.unix_socket import bound_as_configured

__all__ = ["listen", "listen_for_probes"]

MESSAGE_MARGIN_BYTES: Final = 1 << 20
# A gateway that vanishes silently is noticed within 80 s, and its streams end. It may ping us to notice the same,
# but in no flood: gRPC ends a connection, and all its streams, when a few pings come at less than this distance,
# by default 5 minutes, and nothing is sent in between.
_KEEPALIVE: Final = (
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 100),
    ("grpc.http2.max_pings_without_data", 0),
)
_FOR_ALL: Final = (
    # Otherwise two processes on one port would each get a part of the traffic, and nobody would notice.
    ("grpc.so_reuseport", 0),
    *_KEEPALIVE,
)
# By default gRPC refuses some new streams while a thousand wait, as after a pause of the process. In full duplex
# that fails their requests; overload.py sends them on undecided.
_NONE_REFUSED: Final = (
    ("grpc.server.max_pending_requests", 1 << 30),
    ("grpc.server.max_pending_requests_hard_limit", 1 << 30),
)
# The port for probes asks for no certificate, whatever the gateway's port does: whoever reaches it must not be
# able to make the router hold much. A probe sends the name of a service.
_FOR_PROBES: Final = (
    ("grpc.max_receive_message_length", 4096),
    ("grpc.max_concurrent_streams", 100),  # of a connection
)


def listen(core: Core, settings: ListenSettings, certificates: Certificates | None, on_call: OnCall) -> str:
    """Bind the address; return it with the real port. `certificates` are those of `settings.tls`.

    Raises ConfigurationError for an address or TLS file that cannot be used.
    """
    tls = None if certificates is None else certificates.credentials()
    try:
        with bound_as_configured(settings):
            return _bind(core, settings.address, _options(settings), tls, on_call)
    except CannotListen as error:
        if settings.tls is not None:
            check_pem(settings.tls)
        raise ConfigurationError(f"listen.address: {settings.address!r} cannot be bound: {error}") from error


def listen_for_probes(core: Core, settings: ListenSettings, on_call: OnCall) -> str:
    """Bind `listen.health_address` without TLS, if it is set; return it with the real port, or "".

    Raises ConfigurationError.
    """
    if not settings.health_address:
        return ""
    try:
        return _bind(core, settings.health_address, (*_FOR_PROBES, *_FOR_ALL), None, on_call)
    except CannotListen as error:
        raise ConfigurationError(
            f"listen.health_address: {settings.health_address!r} cannot be bound: {error}"
        ) from error


def _bind(core: Core, address: str, options: Options, tls: grpc.ServerCredentials | None, on_call: OnCall) -> str:
    port = core.listen(address, options, tls, on_call)
    return address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"


def _options(settings: ListenSettings) -> Options:
    limit = settings.max_message_bytes + MESSAGE_MARGIN_BYTES
    return (
        ("grpc.max_receive_message_length", limit),
        ("grpc.max_send_message_length", limit),
        *_NONE_REFUSED,
        *_FOR_ALL,
    )
