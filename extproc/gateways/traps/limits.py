"""Traps of timeouts and size limits that depend on each other."""

from collections.abc import Iterator
from typing import Final

from extproc.gateways.model import UNLIMITED, Gateway, Host, Route
from extproc.gateways.router import Router
from extproc.gateways.traps.around import READ, UNREAD, held_path
from extproc.gateways.traps.routes import arriving, body_mode, default_routes
from extproc.gateways.traps.trap import Hit, Severity, Trap

__all__ = ["TRAPS"]

# The largest head that Envoy accepts by default (100 headers, 60 KiB), plus what Envoy, the router and the
# pseudo-headers add to it.
HEADERS_NEEDED: Final = 113
HEAD_KIB_NEEDED: Final = 61
# Margin for a busy router.
ROOM_MS: Final = 100
PAUSE_MS: Final = 5_000
# Longer than a router pauses that still works.
PATIENCE_MS: Final = 5_000


def _message_timeout(gateway: Gateway, router: Router) -> Iterator[Hit]:
    deadline = router.configuration.exchange.deadline_ms
    for each in gateway.processors:
        given = f"message_timeout is {each.message_timeout_ms:g} ms"
        if each.modes.request_body == "STREAMED" and each.message_timeout_ms < deadline + ROOM_MS:
            yield Hit(each.timeout_place, f"{given}, exchange.deadline_ms {deadline}")
        if each.modes.request_body == "FULL_DUPLEX_STREAMED" and each.message_timeout_ms < PAUSE_MS:
            yield Hit(each.timeout_place, f"{given} in full duplex")


def _message_timeout_long(gateway: Gateway, router: Router) -> Iterator[Hit]:
    longest = router.configuration.exchange.deadline_ms + PATIENCE_MS
    for each in gateway.processors:
        if each.modes.request_body in ("STREAMED", "BUFFERED") and each.message_timeout_ms > longest:
            yield Hit(each.timeout_place, f"message_timeout is {each.message_timeout_ms / 1000:g} s")


def _buffer_below_early_decision(gateway: Gateway, router: Router) -> Iterator[Hit]:
    held, limits = router.configuration.exchange.max_held_bytes, gateway.limits
    routes = [route for host in gateway.hosts for route in arriving(host, router)]
    streaming = [route for route in routes if body_mode(route) == "STREAMED"]
    given = [route.body_limit_bytes for route in streaming if not route.waits_for_whole_body]
    if not routes and any(each.modes.request_body == "STREAMED" for each in gateway.processors):
        given = [limits.buffer_bytes]
    if any(each <= held for each in given):
        what = f"{limits.buffer_name} is {limits.buffer_bytes:,}, exchange.max_held_bytes {held:,}"
        yield Hit(limits.buffer_place, what)


def _buffer_below_body_cap(gateway: Gateway, router: Router) -> Iterator[Hit]:
    held = router.configuration.exchange.max_held_bytes
    for host, route in _buffering(gateway, router):
        limit = route.body_limit_bytes
        if route.waits_for_whole_body:
            continue  # the filter that does so refuses larger bodies, whether or not the router reads them
        if limit <= held:
            yield Hit(route.body_limit_place, f'route "{route.name}" holds {limit:,} bytes of a body')
            continue
        held_at = held_path(host, route, "content-length", str(limit + 1), (*READ, *UNREAD))
        if limit < UNLIMITED and held_at is not None:
            what = f'bodies over {limit:,} bytes do not bypass the router on route "{route.name}"'
            yield Hit(route.body_limit_place, f"{what}, as those of {held_at}")


def _message_limit(gateway: Gateway, router: Router) -> Iterator[Hit]:
    largest = router.configuration.listen.max_message_bytes
    for _, route in _buffering(gateway, router):
        if route.body_limit_bytes > largest:
            size = "any size" if route.body_limit_bytes == UNLIMITED else f"{route.body_limit_bytes:,} bytes"
            what = f"bodies of {size}, listen.max_message_bytes is {largest:,}"
            yield Hit(route.body_limit_place, f'route "{route.name}" sends {what}')


def _buffering(gateway: Gateway, router: Router) -> Iterator[tuple[Host, Route]]:
    """Yield the routes on which requests arrive in mode BUFFERED: their limits decide which bodies are held."""
    for host in gateway.hosts:
        for route in default_routes(host, router):
            if body_mode(route) == "BUFFERED":
                yield host, route


def _head_limits(gateway: Gateway, _: Router) -> Iterator[Hit]:
    limits = gateway.limits
    if limits.max_headers < HEADERS_NEEDED or limits.max_head_kib < HEAD_KIB_NEEDED:
        what = f"request heads are limited to {limits.max_headers} headers and {limits.max_head_kib} KiB"
        yield Hit(limits.place, what)


def _connection_window(gateway: Gateway, _: Router) -> Iterator[Hit]:
    limits = gateway.limits
    if limits.windows_place is not None and limits.connection_window_bytes <= limits.stream_window_bytes:
        what = f"{limits.stream_window_bytes:,} bytes, and the connection's is {limits.connection_window_bytes:,}"
        yield Hit(limits.windows_place, f"the window of an HTTP/2 stream is {what}")


TRAPS: Final = (
    Trap(
        "message-timeout",
        Severity.ERROR,
        "In STREAMED the timer starts with the headers: slow uploads become failures instead of decisions, and "
        "JSON responses whose bodies come late become failures instead of lessons. In full duplex it also covers "
        "the response, whose bytes the router has: if the router pauses, the client gets a 504. The default is "
        "200 ms.",
        "STREAMED: message_timeout: 0.5s, well above exchange.deadline_ms. Full duplex: 30s.",
        _message_timeout,
        "test_traps_of_the_filter.py::test_deadline_behind_the_message_timeout",
    ),
    Trap(
        "message-timeout-long",
        Severity.WARNING,
        "A router that hangs holds each request for so long before Envoy sends it on, and clients give up: "
        "failure_mode_allow does not act earlier.",
        "message_timeout: 0.5s, or somewhat more than the router's exchange.deadline_ms (Envoy Gateway: "
        "messageTimeout). Only in full duplex it has to be long, for responses.",
        _message_timeout_long,
        "test_traps_of_the_filter.py::test_a_router_that_hangs_and_a_timeout_of_minutes",
    ),
    Trap(
        "buffer-below-early-decision",
        Severity.ERROR,
        "The router waits for a body's end up to max_held_bytes, but Envoy stops sending chunks at its buffer "
        "limit: every body between the two waits for message_timeout.",
        "Above exchange.max_held_bytes: request_body_buffer_limit of the route or host (from Envoy 1.37 on), or "
        "per_connection_buffer_limit_bytes (1 MiB unless set), and for HTTP/2 the "
        "connection manager's http2_protocol_options.initial_stream_window_size (16 MiB unless set); for HTTP/3 "
        "the listener's udp_listener_config.quic_options.quic_protocol_options.initial_stream_window_size (16 MiB "
        "unless set; that of the connection manager has no effect).",
        _buffer_below_early_decision,
        "test_traps_of_the_filter.py::test_buffer_below_what_the_router_holds",
    ),
    Trap(
        "buffer-below-body-cap",
        Severity.WARNING,
        "In mode BUFFERED a body over the buffer limit is a 413, which neither the router nor a pool ever sees. "
        "Before Envoy 1.37 request_body_buffer_limit does not raise it.",
        "Raise request_body_buffer_limit (before Envoy 1.37 the listener's per_connection_buffer_limit_bytes, and "
        "for HTTP/2 initial_stream_window_size; Envoy Gateway: ClientTrafficPolicy connection.bufferLimit, and "
        "for HTTP/2 http2.initialStreamWindowSize, 64 KiB unless set), and put a route before it that sends "
        "larger content-lengths to the largest pool with the router's filter off.",
        _buffer_below_body_cap,
        "test_bodies.py::test_over_the_buffer_limit",
    ),
    Trap(
        "message-limit",
        Severity.WARNING,
        "A buffered body is one message, and gRPC refuses messages over listen.max_message_bytes: the filter "
        "fails open, and the largest bodies are never decided.",
        "request_body_buffer_limit below listen.max_message_bytes.",
        _message_limit,
        "test_traps_of_the_filter.py::test_body_over_the_message_limit",
    ),
    Trap(
        "connection-window-small",
        Severity.WARNING,
        "A pool that does not read an upload leaves it in Envoy, up to its stream's window. If that is all of the "
        "connection's window, every other request on the same HTTP/2 connection waits for it: behind a proxy that "
        "shares connections, requests of other clients.",
        "http2_protocol_options.initial_connection_window_size above initial_stream_window_size, for several "
        "streams (Envoy Gateway: ClientTrafficPolicy http2.initialConnectionWindowSize, 1 MiB unless set).",
        _connection_window,
        "test_envoy_gateway.py::test_an_upload_that_is_not_read_and_the_other_requests_on_its_connection",
    ),
    Trap(
        "head-limits",
        Severity.WARNING,
        "Envoy checks its limits again after the router has added to a request's head, and a head that "
        "exceeds them then is a 500 whatever failure_mode_allow says: at Envoy's defaults from 91 headers on, "
        "or within 200 bytes of 60 KiB. In STREAMED and in full duplex Envoy 1.37.0 crashes instead (a "
        "segmentation fault).",
        "max_request_headers_kb: 96 and common_http_protocol_options: {max_headers_count: 200} (Envoy Gateway: an "
        "EnvoyPatchPolicy).",
        _head_limits,
        "test_heads.py::test_heads_at_envoy_s_defaults",
    ),
)
