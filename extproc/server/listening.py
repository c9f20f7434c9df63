"""Where we listen, and how: gRPC's options, credentials from files, and what is said when it cannot be."""

import ssl
from pathlib import Path
from typing import Final

import grpc

from extproc.config.schema import ListenSettings, TlsFiles
from extproc.core.errors import ConfigurationError
from extproc.server.grpc_core import CannotListen, Core, OnCall, Options

__all__ = ["listen"]

MESSAGE_MARGIN_BYTES: Final = 1 << 20
# A gateway that vanished without a word is noticed within 80 s, and its streams end.
_KEEPALIVE: Final = (
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
)


def listen(core: Core, settings: ListenSettings, on_call: OnCall) -> str:
    """Bind the address; return it with its real port.

    Raises ConfigurationError for an address or TLS file that cannot be used.
    """
    credentials = None if settings.tls is None else _credentials(settings.tls)
    try:
        port = core.listen(settings.address, _options(settings), credentials, on_call)
    except CannotListen as error:
        if settings.tls is not None:
            _check_pem(settings.tls)
        raise ConfigurationError(f"listen.address: {settings.address!r} cannot be bound: {error}") from error
    if settings.address.startswith("unix:"):
        return settings.address
    return f"{settings.address.rpartition(':')[0]}:{port}"


def _options(settings: ListenSettings) -> Options:
    limit = settings.max_message_bytes + MESSAGE_MARGIN_BYTES
    return (
        ("grpc.max_receive_message_length", limit),
        ("grpc.max_send_message_length", limit),
        # Two processes on one port would each see a part of the traffic without anybody's intent.
        ("grpc.so_reuseport", 0),
        *_KEEPALIVE,
    )


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
