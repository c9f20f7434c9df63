"""Conversion of the other HTTP filters of a connection manager into the model."""

from collections.abc import Iterable
from typing import Any, Final

from envoy.extensions.filters.http.compressor.v3.compressor_pb2 import Compressor
from envoy.extensions.filters.http.decompressor.v3.decompressor_pb2 import Decompressor
from envoy.extensions.filters.http.file_system_buffer.v3.file_system_buffer_pb2 import (
    FileSystemBufferFilterConfig,
)
from envoy.extensions.filters.http.mcp.v3.mcp_pb2 import Mcp
from envoy.extensions.filters.http.ratelimit.v3.rate_limit_pb2 import RateLimit
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import HttpFilter

from extproc.gateways.envoy.changed_headers import asks_retries, changed, route_comes_last
from extproc.gateways.envoy.waiting import only_observes, returns_bodies, waits
from extproc.gateways.envoy.whole_bodies import whole_bytes
from extproc.gateways.model import Filter, Kind
from extproc.gateways.parsing.parts import Part

__all__ = ["filter_of"]

# Defaults of Envoy 1.40.
MCP_BYTES: Final = 8 << 10
FILE_BUFFER_BYTES: Final = 1 << 20
_FILTERS: Final = "envoy.extensions.filters.http."
_KINDS: Final = {
    "ext_proc": Kind.PROCESSOR,
    "decompressor": Kind.DECOMPRESSOR,
    "compressor": Kind.COMPRESSOR,
    "ratelimit": Kind.RATE_LIMIT,
    "local_ratelimit": Kind.RATE_LIMIT,
    "rate_limit_quota": Kind.RATE_LIMIT,
    "ext_authz": Kind.AUTH,
    "jwt_authn": Kind.AUTH,
    "oauth2": Kind.AUTH,
    "basic_auth": Kind.AUTH,
    "api_key_auth": Kind.AUTH,
    "rbac": Kind.AUTH,
    "router": Kind.TERMINAL,
    "buffer": Kind.BUFFER,
    "file_system_buffer": Kind.FILE_BUFFER,
}


def filter_of(part: Part[HttpFilter], names: Iterable[str]) -> Filter:
    """Return one filter of the chain; `names` are the headers that the router sets."""
    message = part.message
    name = message.typed_config.TypeName() if message.HasField("typed_config") else ""
    package = name.removeprefix(_FILTERS).split(".")[0] if name.startswith(_FILTERS) else ""
    kind = _KINDS.get(package, Kind.OTHER)
    settings = part.field("typed_config")
    if _leaves_requests(settings) or _leaves_responses(settings):
        kind = Kind.OTHER
    return Filter(
        name=message.name,
        kind=kind,
        place=part.place,
        disabled=message.disabled,
        changes=changed(settings, names),
        asks_retries=asks_retries(settings),
        route_comes_last=route_comes_last(settings),
        waits=waits(settings),
        returns_bodies=returns_bodies(settings),
        only_observes=only_observes(settings),
        has_limits=_has_limits(settings),
        whole_bytes=whole_bytes(settings),
        body_limit_bytes=_body_limit(settings),
    )


def _has_limits(settings: Part[Any]) -> bool:
    held = settings.unpacked(RateLimit)
    return bool(held and held.message.rate_limits)


def _body_limit(settings: Part[Any]) -> int | None:
    """Return the limit for held bodies that a filter sets, whatever the listener's or the route's is."""
    if mcp := settings.unpacked(Mcp):
        return mcp.number("max_request_body_size", MCP_BYTES) or None
    if buffer := settings.unpacked(FileSystemBufferFilterConfig):
        return buffer.field("request").number("memory_buffer_bytes_limit", FILE_BUFFER_BYTES)
    return None


def _leaves_requests(settings: Part[Any]) -> bool:
    """Return whether this is a decompressor that handles responses only."""
    held = settings.unpacked(Decompressor)
    return bool(held and _is_off(held.message.request_direction_config.common_config))


def _leaves_responses(settings: Part[Any]) -> bool:
    """Return whether this is a compressor that handles requests only."""
    held = settings.unpacked(Compressor)
    return bool(held and _is_off(held.message.response_direction_config.common_config))


def _is_off(direction: Any) -> bool:  # noqa: ANN401  (the messages have no types)
    return bool(direction.HasField("enabled") and not direction.enabled.default_value.value)
