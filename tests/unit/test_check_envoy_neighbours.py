"""`dualpool check envoy` on filters after the router's, and on what they would do with bodies."""

from typing import Any

import pytest

from tests.envoy.harness.gateway import connection_manager, load, route, virtual_host
from tests.traps.bitten import BITTEN
from tests.traps.bitten_chain import insert
from tests.traps.finding import names_in

TRAP = "waiting-filter-after"
SERVICE = {"envoy_grpc": {"cluster_name": "other"}}
PERCENT = {"numerator": 100}
KEYS = {"http_uri": {"uri": "https://keys", "cluster": "keys", "timeout": "1s"}}
CALL = "function envoy_on_request(h) h:httpCall('authz', {}, '', 100) end"
READ = "function envoy_on_request(h) h:body() end"
ASKING: dict[str, Any] = {"domain": "d", "rate_limit_service": {"grpc_service": SERVICE}}
LIMITS: list[dict[str, Any]] = [{"actions": [{"remote_address": {}}]}]
# Filters that may hold a request's head until something replies, and others of the same types that never do.
WAITING: dict[str, tuple[str, dict[str, Any]]] = {
    "authorization": ("ext_authz.v3.ExtAuthz", {"grpc_service": SERVICE}),
    "rate limit": ("ratelimit.v3.RateLimit", ASKING | {"rate_limits": LIMITS}),
    "keys": ("jwt_authn.v3.JwtAuthentication", {"providers": {"p": {"remote_jwks": KEYS}}}),
    "call": ("lua.v3.Lua", {"default_source_code": {"inline_string": CALL}}),
    "call of a route": ("lua.v3.Lua", {"source_codes": {"a": {"inline_string": CALL}}}),
    "delay": ("fault.v3.HTTPFault", {"delay": {"fixed_delay": "1s", "percentage": PERCENT}}),
    "heads": ("ext_proc.v3.ExternalProcessor", {"grpc_service": SERVICE}),
}
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "own keys": ("jwt_authn.v3.JwtAuthentication", {"providers": {"p": {"local_jwks": {"inline_string": "{}"}}}}),
    "script": ("lua.v3.Lua", {"default_source_code": {"inline_string": READ}}),
    "abort": ("fault.v3.HTTPFault", {"abort": {"http_status": 503, "percentage": PERCENT}}),
    "picker": (
        "ext_proc.v3.ExternalProcessor",
        {"grpc_service": SERVICE, "processing_mode": {"request_body_mode": "FULL_DUPLEX_STREAMED"}},
    ),
    "observer": ("ext_proc.v3.ExternalProcessor", {"grpc_service": SERVICE, "observability_mode": True}),
    "responses": (
        "ext_proc.v3.ExternalProcessor",
        {"grpc_service": SERVICE, "processing_mode": {"request_header_mode": "SKIP"}},
    ),
    "no rate limit": ("ratelimit.v3.RateLimit", ASKING),
    "local": ("local_ratelimit.v3.LocalRateLimit", {"stat_prefix": "x"}),
}


def found(mode: str, kind: str, settings: dict[str, Any], *, before: bool) -> set[str]:
    """Return what is found in a file with another filter right before or after the router's."""
    document = load(mode)
    insert(document, "other", kind, before=before, **settings)
    return names_in(document)


@pytest.mark.parametrize("name", WAITING)
def test_filters_that_may_wait(name: str) -> None:
    """Each of them is found after the router's filter in full duplex; not before it, nor in the other modes."""
    kind, settings = WAITING[name]
    assert TRAP in found("full-duplex", kind, settings, before=False)
    assert TRAP not in found("full-duplex", kind, settings, before=True)
    assert all(TRAP not in found(mode, kind, settings, before=False) for mode in ("streamed", "buffered"))


@pytest.mark.parametrize("name", OTHERS)
def test_filters_that_do_not_wait(name: str) -> None:
    """Settings with which a filter asks nobody at a request's head are no trap."""
    kind, settings = OTHERS[name]
    assert TRAP not in found("full-duplex", kind, settings, before=False)


@pytest.mark.parametrize("level", ["host", "route", "settings", "another route"])
def test_rate_limits_of_routes(level: str) -> None:
    """A filter that asks a rate limit service waits where the route, or its host, says what to ask."""
    document = load("full-duplex")
    insert(document, "limit", "ratelimit.v3.RateLimit", before=False, **ASKING)
    kind = "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute"
    long, host = route(document, "long"), virtual_host(document)
    if level == "host":
        host["rate_limits"] = LIMITS
    elif level == "route":
        long["route"]["rate_limits"] = LIMITS
    elif level == "settings":
        long.setdefault("typed_per_filter_config", {})["limit"] = {"@type": kind, "rate_limits": LIMITS}
    else:
        route(document, "upgrade")["route"]["rate_limits"] = LIMITS
    assert (level != "another route") == (TRAP in names_in(document))


def test_an_authorization_that_the_routes_switch_off() -> None:
    """A filter that is off on every route of the router's is no trap; it is one again where a route enables it."""
    document = load("full-duplex")
    insert(document, "authz", "ext_authz.v3.ExtAuthz", before=False, grpc_service=SERVICE)
    kind = "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute"
    virtual_host(document)["typed_per_filter_config"]["authz"] = {"@type": kind, "disabled": True}
    assert set() == names_in(document)
    settings = {"@type": kind, "check_settings": {}}
    route(document, "long").setdefault("typed_per_filter_config", {})["authz"] = settings
    assert TRAP in names_in(document)


BUFFER: tuple[str, dict[str, Any]] = ("buffer.v3.Buffer", {"max_request_bytes": 16 << 20})
ROOM: dict[str, Any] = {"manager_config": {}, "request": {"memory_buffer_bytes_limit": 32 << 20}}
FILES: tuple[str, dict[str, Any]] = ("file_system_buffer.v3.FileSystemBufferFilterConfig", ROOM)


@pytest.mark.parametrize(
    ("chosen", "trap", "modes"),
    [
        (BUFFER, "buffer-after", {"streamed"}),
        (FILES, "file-buffer-after", {"streamed", "buffered", "full-duplex"}),
    ],
)
def test_buffers(chosen: tuple[str, dict[str, Any]], trap: str, modes: set[str]) -> None:
    """Each is found after the router's filter in the modes in which it does harm, and never before it."""
    for mode in ("streamed", "buffered", "full-duplex"):
        assert ({trap} if mode in modes else set()) == found(mode, *chosen, before=False)
        assert set() == found(mode, *chosen, before=True)


def test_a_small_file_buffer() -> None:
    """Its limit is found before the router's filter; behind it, the crash comes first."""
    small: dict[str, Any] = {"manager_config": {}}
    assert {"body-limit-lowered"} == found("buffered", FILES[0], small, before=True)
    assert {"file-buffer-after"} == found("buffered", FILES[0], small, before=False)


@pytest.mark.parametrize("mode", ["streamed", "buffered", "full-duplex"])
def test_a_compressor_of_requests_only_is_no_trap(mode: str) -> None:
    """What a compressor after the router's filter does with requests is not seen by the router."""
    document = load(mode)
    BITTEN["compressor-after"](document)
    filters = connection_manager(document)["http_filters"]
    settings = next(each for each in filters if each["name"] == "compressor")["typed_config"]
    settings["request_direction_config"] = {"common_config": {"min_content_length": 30}}
    assert {"compressor-after"} == names_in(document)
    settings["response_direction_config"] = {"common_config": {"enabled": {"default_value": False}}}
    assert set() == names_in(document)


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(
    ("mode", "size", "found"),
    [
        ("buffered", None, {"body-limit-lowered"}),
        ("buffered", 1 << 20, {"body-limit-lowered"}),
        ("buffered", 0, set()),
        ("buffered", 64 << 20, set()),
        ("streamed", None, set()),
        ("full-duplex", None, set()),
    ],
)
def test_a_limit_of_the_mcp_filter(mode: str, size: int | None, found: set[str], before: bool) -> None:  # noqa: FBT001
    """It applies to all filters of the chain, wherever it stands, and 0 is none."""
    document = load(mode)
    insert(document, "mcp", "mcp.v3.Mcp", before=before, max_request_body_size=size)
    assert found == names_in(document)
    off = {"mcp": {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}}
    virtual_host(document).setdefault("typed_per_filter_config", {}).update(off)
    assert set() == names_in(document)


@pytest.mark.parametrize("limit", [64 << 10, 4 << 20])
@pytest.mark.parametrize("mode", ["streamed", "buffered"])
def test_a_buffer_filter_in_front_replaces_the_listener_s_limit(mode: str, limit: int) -> None:
    """It holds whole bodies first, and refuses those over its own limit whether or not the router reads them."""
    document = load(mode)
    document["static_resources"]["listeners"][0]["per_connection_buffer_limit_bytes"] = 64 << 10
    for each in (virtual_host(document), *virtual_host(document)["routes"]):
        each.pop("request_body_buffer_limit", None)
    assert names_in(document) & {"buffer-below-body-cap", "buffer-below-early-decision"}
    insert(document, "whole", "buffer.v3.Buffer", before=True, max_request_bytes=limit)
    assert set() == names_in(document)


@pytest.mark.parametrize(
    ("own", "found"),
    [
        ({}, {"message-limit"}),
        ({"buffer": {"max_request_bytes": 4 << 20}}, set()),
        ({"disabled": True}, set()),
    ],
)
def test_a_buffer_filter_in_front_that_holds_more_than_a_message(own: dict[str, Any], found: set[str]) -> None:
    """A body over the router's limit of a message does not get to it; a route may have a limit of its own."""
    document = load("buffered")
    insert(document, "whole", "buffer.v3.Buffer", before=True, max_request_bytes=256 << 20)
    kind = "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.BufferPerRoute"
    if own:
        virtual_host(document).setdefault("typed_per_filter_config", {})["whole"] = {"@type": kind, **own}
    assert found == names_in(document)
