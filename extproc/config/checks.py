"""What the types of a configuration do not say: addresses and names that would not work."""

import dataclasses
import re

from extproc.config.schema import Configuration
from extproc.core.errors import ConfigurationError
from extproc.core.placing.policy import Pools

__all__ = ["check"]

MAX_PORT = 65_535
# RFC 9110 tokens, lower-case as HTTP/2 has them.
_HEADER_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")
# What goes into a header value and a metric label without quoting.
_POOL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
# They address, frame or describe the message: Envoy refuses to change some, a request would not survive others.
_FRAMING = {"host", "content-length", "transfer-encoding", "content-encoding", "content-type"} | {
    *("connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade")
}
_CREDENTIALS = {"authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "api-key"}


def check(configuration: Configuration) -> None:
    """Raise ConfigurationError for what cannot work."""
    Pools(configuration.pools)
    _check_listen_address(configuration.listen.address)
    _check_address("admin.address", configuration.admin.address)
    for index, pool in enumerate(configuration.pools):
        if not _POOL_NAME.fullmatch(pool.name):
            raise ConfigurationError(
                f"pools[{index}].name: {pool.name!r} given; letters, digits, dots, dashes, at most 63, are allowed"
            )
    names = {f"headers.{key}": value for key, value in dataclasses.asdict(configuration.headers).items()}
    if configuration.tenant_header:
        names["tenant_header"] = configuration.tenant_header
    for field, name in names.items():
        _check_header_name(field, name)
    if len(set(names.values())) < len(names):
        raise ConfigurationError(f"header names must differ from each other: {names} given")


def _check_listen_address(address: str) -> None:
    if not address.startswith("unix:"):
        _check_address("listen.address", address)
    elif not address.removeprefix("unix:").strip("/"):
        raise ConfigurationError(f"listen.address: {address!r} given; host:port or unix:/path is needed")


def _check_address(field: str, address: str) -> None:
    """Refuse what is no host and port; gRPC would take a port over 65535 modulo 65536."""
    host, _, port = address.rpartition(":")
    ambiguous = ":" in host and not (host.startswith("[") and host.endswith("]"))
    if not host or ambiguous or not port.isdecimal() or int(port) > MAX_PORT:
        raise ConfigurationError(
            f"{field}: {address!r} given; host:port is needed, port from 0 to {MAX_PORT}, an IPv6 host in brackets"
        )


def _check_header_name(field: str, name: str) -> None:
    if not _HEADER_NAME.fullmatch(name):
        raise ConfigurationError(f"{field}: {name!r} given; a lower-case header name is needed")
    if name in _FRAMING:
        raise ConfigurationError(f"{field}: {name!r} given; any but {', '.join(sorted(_FRAMING))} is allowed")
    if name in _CREDENTIALS:
        why = "would be shown as a metric's label" if field == "tenant_header" else "would be overwritten"
        raise ConfigurationError(
            f"{field}: {name!r} given; its value is a credential and {why}; any header without one is allowed"
        )
