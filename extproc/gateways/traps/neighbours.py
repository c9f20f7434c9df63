"""Traps of filters after the router's that cannot stand how Envoy passes bodies on to them."""

from collections.abc import Iterator
from typing import Final

from extproc.gateways.model import Gateway, Kind
from extproc.gateways.router import Router
from extproc.gateways.traps.around import READ, held_path
from extproc.gateways.traps.order import after, in_modes, split
from extproc.gateways.traps.routes import arriving, body_mode, pools_of
from extproc.gateways.traps.trap import Hit, Severity, Trap

__all__ = ["TRAPS"]

# The first version in which a second ext_proc filter in full duplex gets whole bodies from the first.
PROCESSORS_IN_A_ROW: Final = (1, 38)
# Of ordinary text; JSON around it makes bodies larger.
BYTES_PER_TOKEN: Final = 4


def _waiting_filter_after(gateway: Gateway, _: Router) -> Iterator[Hit]:
    routes = [route for host in gateway.hosts for route in host.routes if route.processor]
    on = frozenset[str]().union(*(route.filters_on & route.waiting for route in routes))
    returning = frozenset[str]().union(*(route.filters_on & route.returning for route in routes))
    for each in split(gateway)[1]:
        where = f'after the router\'s "{gateway.processor.name}" in full duplex'
        if each.name in on if routes else each.waits and not each.disabled:
            yield Hit(each.place, f'"{each.name}" may wait for a reply {where}')
        elif gateway.is_before(*PROCESSORS_IN_A_ROW) and (
            each.name in returning if routes else each.returns_bodies and not each.disabled
        ):
            yield Hit(each.place, f'"{each.name}" returns bodies {where}, and this Envoy is older than 1.38')


def _body_limit_lowered(gateway: Gateway, router: Router) -> Iterator[Hit]:
    found = (route for host in gateway.hosts for route in arriving(host, router))
    routes = [route for route in found if body_mode(route) == "BUFFERED"]
    behind = split(gateway)[1]
    for each in gateway.filters:
        limit = each.body_limit_bytes
        if limit is None or (each.kind is Kind.FILE_BUFFER and each in behind):
            continue  # behind, that one is a trap of its own
        if any(each.name in route.filters_on and limit < route.body_limit_bytes for route in routes):
            yield Hit(each.place, f'"{each.name}" limits what is held of a body to {limit:,} bytes')


def _authorized_by_body(gateway: Gateway, router: Router) -> Iterator[Hit]:
    for host in gateway.hosts:
        needed = max(pool.context_tokens for pool in pools_of(host, router)) * BYTES_PER_TOKEN
        for route in arriving(host, router):
            cap = route.authorization_cap
            if cap is None or cap.limit_bytes >= needed:
                continue
            if held_path(host, route, "content-length", str(cap.limit_bytes + 1), READ) is not None:
                what = (
                    f"refuses bodies over {cap.limit_bytes:,} bytes; the largest pool holds prompts of {needed:,}"
                )
                yield Hit(cap.place, f'"{cap.filter}" {what}')


TRAPS: Final = (
    Trap(
        "waiting-filter-after",
        Severity.ERROR,
        "In full duplex a filter after the router's gets bodies piece by piece as the router returns them. If it "
        "holds a request at its head to ask a server, and goes on after the client's last byte but before the "
        "router's, Envoy ends the body there: the pool reads the beginning of the prompt, and answers it with "
        "200. A larger buffer limit does not prevent that. Before Envoy 1.38 an ext_proc filter in full duplex "
        "loses bodies there, too: the pool gets none.",
        "Put such a filter before the router's, or use STREAMED or BUFFERED (an endpoint picker's filter: "
        "FULL_DUPLEX_STREAMED, and Envoy 1.38 or later).",
        in_modes(_waiting_filter_after, "FULL_DUPLEX_STREAMED"),
        "test_neighbours.py::test_a_filter_that_waits_after_the_router_s_in_full_duplex",
    ),
    Trap(
        "buffer-after",
        Severity.ERROR,
        "When the router's stream ends before a body does (an early decision, its deadline), Envoy counts twice "
        "what it passes on to a buffer filter behind: the pool is told a content-length that is too large, and "
        "waits for bytes that never come.",
        "Put the buffer filter before the router's, or leave it out: Envoy buffers by itself what a retry needs.",
        in_modes(after(Kind.BUFFER), "STREAMED"),
        "test_neighbours.py::test_a_buffer_filter_after_the_router_s",
    ),
    Trap(
        "file-buffer-after",
        Severity.ERROR,
        "Envoy 1.40 crashes (a segmentation fault) when some bodies of some hundred kilobytes arrive at a time, "
        "in BUFFERED at one of a few megabytes, whatever the filter is configured to do with them.",
        "Put file_system_buffer before the router's filter.",
        in_modes(after(Kind.FILE_BUFFER), "STREAMED", "BUFFERED", "FULL_DUPLEX_STREAMED"),
        "test_neighbours.py::test_a_file_buffer_filter_after_the_router_s",
    ),
    Trap(
        "body-limit-lowered",
        Severity.ERROR,
        "The filters mcp and file_system_buffer set a limit of their own for what Envoy holds of a body, for all "
        "filters of the chain. Where the router's filter waits for the whole body, larger ones hang (mcp: some "
        "hundred kilobytes are enough) or are a 413.",
        "mcp: max_request_body_size: 0, or the filter off on the pools' routes; file_system_buffer: "
        "request.memory_buffer_bytes_limit at the route's request_body_buffer_limit; or use STREAMED.",
        _body_limit_lowered,
        "test_neighbours.py::test_a_filter_that_lowers_the_limit_of_bodies",
    ),
    Trap(
        "authorized-by-body",
        Severity.WARNING,
        "An ext_authz filter that is to send bodies to its service refuses those over max_request_bytes with 413, "
        "before or after the router's filter and whatever failure_mode_allow says: no larger prompt gets to any "
        "pool, although the largest has room for it (counted with 4 bytes to a token).",
        "with_request_body: max_request_bytes above the largest prompts; allow_partial_message: true where the "
        "beginning of a body is enough; or no body (Envoy Gateway, which has no partial messages: a larger "
        "extAuth.bodyToExtAuth.maxRequestBytes, or no bodyToExtAuth; Istio: includeRequestBodyInCheck).",
        _authorized_by_body,
        "test_neighbours.py::test_a_filter_that_authorizes_requests_by_their_bodies",
    ),
)
