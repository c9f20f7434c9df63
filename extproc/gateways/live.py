"""Reading the live configuration from the admin ports of an Envoy and of the router."""

import urllib.request
from http.client import HTTPException
from typing import Final

from extproc.config.loading import parse_shown
from extproc.config.schema import Configuration
from extproc.core.errors import ConfigurationError
from extproc.fetching import about_token, fetched, reason_of
from extproc.gateways.parsing.sources import LocatedMap, read

__all__ = ["dump_of", "router_configuration"]

TIMEOUT_S: Final = 10.0
MAX_BYTES: Final = 64 << 20


def dump_of(url: str) -> list[LocatedMap]:
    """Return an Envoy's configuration, endpoints included. Raises ConfigurationError if it cannot be read."""
    address = f"{url.rstrip('/')}/config_dump?include_eds"
    return read(_get(address), url)


def router_configuration(url: str, token: str = "") -> Configuration:
    """Return the configuration in force at the router with this admin address; `token` is sent if it is given.

    Raises ConfigurationError if it cannot be read.
    """
    address = f"{url.rstrip('/')}/config"
    text = _get(address, token)
    try:
        return parse_shown(text)
    except ConfigurationError as error:
        raise ConfigurationError(*error.sentences, source=address) from error


def _get(address: str, token: str = "") -> str:
    if not address.startswith(("http://", "https://")):
        raise ConfigurationError(f"{address}: an http:// or https:// address of an admin port is needed")
    try:
        request = urllib.request.Request(address)  # noqa: S310  (its scheme is checked above)
        if token:
            # Not sent on redirects, which may lead to another host.
            request.add_unredirected_header("Authorization", f"Bearer {token}")
        with fetched(request, TIMEOUT_S) as response:
            data: bytes = response.read(MAX_BYTES + 1)
    except (OSError, HTTPException, ValueError) as error:
        raise ConfigurationError(f"{address}: {about_token(error, token) or reason_of(error)}") from error
    if len(data) > MAX_BYTES:
        raise ConfigurationError(f"{address}: more than {MAX_BYTES:,} bytes")
    return data.decode("utf-8", "replace")
