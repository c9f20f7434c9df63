"""Detection of filters that hold a request at its head until something else has happened, and only then go on."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from envoy.extensions.filters.http.dynamic_forward_proxy.v3.dynamic_forward_proxy_pb2 import (
    FilterConfig as DynamicForwardProxy,
)
from envoy.extensions.filters.http.ext_authz.v3.ext_authz_pb2 import ExtAuthz
from envoy.extensions.filters.http.ext_proc.v3.ext_proc_pb2 import ExternalProcessor, ExtProcPerRoute
from envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import ProcessingMode
from envoy.extensions.filters.http.fault.v3.fault_pb2 import HTTPFault
from envoy.extensions.filters.http.gcp_authn.v3.gcp_authn_pb2 import GcpAuthnFilterConfig
from envoy.extensions.filters.http.jwt_authn.v3.config_pb2 import JwtAuthentication
from envoy.extensions.filters.http.lua.v3.lua_pb2 import Lua, LuaPerRoute
from envoy.extensions.filters.http.oauth2.v3.oauth_pb2 import OAuth2
from envoy.extensions.filters.http.ratelimit.v3.rate_limit_pb2 import RateLimit

from extproc.gateways.model import Filter
from extproc.gateways.parsing.parts import Part

__all__ = ["Holding", "holds", "only_observes", "returns_bodies", "waits"]


@dataclass(frozen=True, slots=True)
class Holding:
    """Whether a filter may hold a request's head, and whether it is an external processor in full duplex."""

    waits: bool
    returns_bodies: bool


def waits(settings: Part[Any]) -> bool:
    """Return whether a filter may hold a request's head while it waits for a server or a timer."""
    return any((held := settings.unpacked(kind)) and may(held.message) for kind, may in _MAY.items())


def returns_bodies(settings: Part[Any]) -> bool:
    """Return whether a filter is an external processor in full duplex: it passes on what its server returns."""
    held = settings.unpacked(ExternalProcessor)
    return bool(held and _is_duplex(held.message.processing_mode))


def only_observes(settings: Part[Any]) -> bool:
    """Return whether a filter is an external processor for whose replies Envoy does not wait."""
    held = settings.unpacked(ExternalProcessor)
    return bool(held and held.message.observability_mode)


def holds(settings: Part[Any], filter_: Filter) -> Holding | None:
    """Return what a filter does with a route's own settings for it; None if those leave what it does by itself."""
    if fault := settings.unpacked(HTTPFault):  # replaces the filter's settings
        return Holding(_may_delay(fault.message), returns_bodies=False)
    lua = settings.unpacked(LuaPerRoute)
    if lua and (lua.message.disabled or lua.message.HasField("source_code")):
        return Holding("httpCall" in lua.message.source_code.inline_string, returns_bodies=False)
    processor = settings.unpacked(ExtProcPerRoute)
    if processor and processor.message.overrides.HasField("processing_mode"):
        modes = processor.message.overrides.processing_mode
        return Holding(not filter_.only_observes and _holds_heads(modes), _is_duplex(modes))
    return None


def _always(_: Any) -> bool:  # noqa: ANN401  (the messages have no types)
    return True


def _may_delay(fault: Any) -> bool:  # noqa: ANN401
    return bool(fault.HasField("delay"))


def _may_fetch_keys(jwt: Any) -> bool:  # noqa: ANN401
    return any(provider.HasField("remote_jwks") for provider in jwt.providers.values())


def _may_ask(processor: Any) -> bool:  # noqa: ANN401
    """Return whether an external processor holds heads so; in full duplex it passes bodies on by itself."""
    return not processor.observability_mode and _holds_heads(processor.processing_mode)


def _holds_heads(modes: ProcessingMode) -> bool:
    return modes.request_header_mode != ProcessingMode.SKIP and not _is_duplex(modes)


def _is_duplex(modes: ProcessingMode) -> bool:
    return bool(modes.request_body_mode == ProcessingMode.FULL_DUPLEX_STREAMED)


def _may_call(lua: Any) -> bool:  # noqa: ANN401
    return any("httpCall" in code for code in _codes(lua))


def _codes(lua: Any) -> Iterator[str]:  # noqa: ANN401
    yield lua.inline_code
    yield lua.default_source_code.inline_string
    yield from (each.inline_string for each in lua.source_codes.values())


_MAY: Final[dict[Any, Callable[[Any], bool]]] = {
    DynamicForwardProxy: _always,
    ExtAuthz: _always,
    ExternalProcessor: _may_ask,
    GcpAuthnFilterConfig: _always,
    HTTPFault: _may_delay,
    JwtAuthentication: _may_fetch_keys,
    Lua: _may_call,
    OAuth2: _always,
    RateLimit: _always,
}
