"""Traps in the order of filters."""

from collections.abc import Iterator
from typing import Final

from extproc.gateways.model import Filter, Flavour, Gateway, Kind
from extproc.gateways.router import Router
from extproc.gateways.traps.order import after, before, in_modes, is_on, split
from extproc.gateways.traps.routes import asking_hosts
from extproc.gateways.traps.trap import Hit, Severity, Trap

__all__ = ["TRAPS"]

ISTIO_S_PICKER: Final = "envoy.filters.http.ext_proc"


def _duplicate_filter_name(gateway: Gateway, _: Router) -> Iterator[Hit]:
    seen: set[str] = set()
    for each in gateway.filters:
        if each.kind is Kind.PROCESSOR and each.name in seen:
            yield Hit(each.place, f'two filters are called "{each.name}"')
        seen.add(each.name)


def _after_the_end(gateway: Gateway, _: Router) -> Iterator[Hit]:
    end = next((at for at, each in enumerate(gateway.filters) if each.kind is Kind.TERMINAL), None)
    if end is not None:
        for each in gateway.filters[end + 1 :]:
            yield Hit(each.place, f'"{each.name}" is after "{gateway.filters[end].name}"')
    elif gateway.filters[-1].name == gateway.processor.name:
        yield Hit(gateway.processor.place, f'"{gateway.processor.name}" is the last filter')


def _pool_header_changed(gateway: Gateway, router: Router) -> Iterator[Hit]:
    for each in split(gateway)[1]:
        if router.sets[0] in each.changes and is_on(gateway, each):
            yield Hit(each.place, f'"{each.name}" changes {router.sets[0]} after "{gateway.processor.name}"')


def _endpoint_picker_before(gateway: Gateway, router: Router) -> Iterator[Hit]:
    """Other servers may be asked first, such as one that checks prompts or reads the model from the body."""
    if any(_processes(each) and is_on(gateway, each) for each in split(gateway)[1]):
        return  # which is the picker, and in its place
    processors, takes = filter(_processes, gateway.filters), _takes_endpoints(gateway)
    pickers = {each.place for each in processors if takes or _is_istio_s_picker(gateway, each)}
    yield from (hit for hit in before(Kind.PROCESSOR)(gateway, router) if hit.place in pickers)


def _processes(filter_: Filter) -> bool:
    return filter_.kind is Kind.PROCESSOR and not filter_.only_observes


def _takes_endpoints(gateway: Gateway) -> bool:
    """Return whether a filter may choose the servers of the router's routes; True if that is not known."""
    routes = [route for host in asking_hosts(gateway) for route in host.routes]
    names = {name for route in routes for name in route.clusters} & gateway.clusters.keys()
    members = {inner for name in names for inner in gateway.clusters[name].members} & gateway.clusters.keys()
    known = [gateway.clusters[name] for name in names | members]
    return not known or any(each.takes_given for each in known)


def _is_istio_s_picker(gateway: Gateway, filter_: Filter) -> bool:
    """Return whether this is Istio's filter for InferencePools, whose clusters are not in manifests."""
    return gateway.flavour is Flavour.ISTIO and filter_.name == ISTIO_S_PICKER


def _rate_limit_before(gateway: Gateway, router: Router) -> Iterator[Hit]:
    """One limit for all routes of a host is the same wherever the filter is."""
    header = router.sets[0]
    of_hosts = [route for host in asking_hosts(gateway) for route in host.routes]
    routes = [route for route in of_hosts if route.processor or route.header(header)]
    names = frozenset[str]().union(*(route.tuned for route in routes))
    tuned = {each.place for each in gateway.filters if each.name in names}
    yield from (hit for hit in before(Kind.RATE_LIMIT)(gateway, router) if hit.place in tuned)


def _always_on(gateway: Gateway, _: Router) -> Iterator[Hit]:
    ours = next(each for each in gateway.filters if each.name == gateway.processor.name)
    if not ours.disabled and any(each.modes.response_headers != "SKIP" for each in gateway.processors):
        yield Hit(ours.place, f'"{ours.name}" is also enabled for requests that have no route')


_IN_PIECES: Final = ("STREAMED", "FULL_DUPLEX_STREAMED")
_DECOMPRESS: Final = "Decompress in a listener of its own in front of this one, or use BUFFERED."

TRAPS: Final = (
    Trap(
        "duplicate-filter-name",
        Severity.ERROR,
        "Per-route settings are matched by the filter's name: settings for an endpoint picker's filter apply "
        "to the router's, too, and then the picker is asked twice and the router never.",
        "Another name for the router's filter, such as `dualpool`.",
        _duplicate_filter_name,
        "test_filter_order.py::test_our_filter_is_not_asked_by_the_picker_s_name",
    ),
    Trap(
        "after-the-end",
        Severity.ERROR,
        "The last filter has to be the one that sends requests on, envoy.filters.http.router: Envoy refuses a "
        "listener with another one after it or in its place. A gateway that was running keeps its former "
        "configuration, and never asks the router.",
        "Put the filter before envoy.filters.http.router (Istio: INSERT_BEFORE it, not ADD or REPLACE, nor "
        "INSERT_AFTER it or without a subFilter; Envoy Gateway: patch http_filters/0, not http_filters/-).",
        _after_the_end,
        "test_traps_of_the_chain.py::test_envoy_refuses_a_filter_after_the_end",
    ),
    Trap(
        "pool-header-changed",
        Severity.ERROR,
        "The route is chosen again after the router's filter, by the headers as they are then: if the "
        "pool's header has been removed or overwritten, everything stays on the default route.",
        "No filter after the router's that removes or overwrites the pool's header (to keep it from the pool, "
        "use request_headers_to_remove on the route, which acts after the choice).",
        _pool_header_changed,
        "test_filter_order.py::test_a_filter_behind_the_router_s_that_changes_the_pool_s_header",
    ),
    Trap(
        "always-on",
        Severity.WARNING,
        "A malformed request has no route, and gets a reply of Envoy's own (400, 426, 431). The router's "
        "filter holds that reply to tell the router about it, and meanwhile the connection is closed: the "
        "client never learns why.",
        "disabled: true on the filter, and ExtProcPerRoute {overrides: {}} on the virtual hosts, or routes, "
        "that it is meant for.",
        _always_on,
        "test_heads.py::test_malformed_heads_where_the_filter_is_always_on",
    ),
    Trap(
        "decompressor-before",
        Severity.WARNING,
        "It adds trailers to what it decompresses: in STREAMED such requests are decided at the deadline, and "
        "in full duplex a pool gets the body twice. The router reads compressed bodies without it.",
        _DECOMPRESS,
        in_modes(before(Kind.DECOMPRESSOR), *_IN_PIECES),
        "test_filter_order.py::test_a_decompressor_before_the_router_s_filter",
    ),
    Trap(
        "decompressor-after",
        Severity.ERROR,
        "It adds trailers at the end of what it decompresses, and in STREAMED and full duplex Envoy then "
        "sends the pool two ends: the next request on that connection, whoever sends it, is refused with 400.",
        _DECOMPRESS,
        in_modes(after(Kind.DECOMPRESSOR), *_IN_PIECES),
        "test_filter_order.py::test_a_decompressor_after_the_router_s_filter",
    ),
    Trap(
        "compressor-after",
        Severity.WARNING,
        "Responses pass filters from last to first: the router has to undo the compression of each response "
        "that it learns from.",
        "Compressors before the router's filter.",
        after(Kind.COMPRESSOR),
        "test_traps_of_the_chain.py::test_compressor_behind_the_router",
    ),
    Trap(
        "endpoint-picker-before",
        Severity.ERROR,
        "The picker chooses an endpoint of the pool that a request arrives on, the largest, before the router has "
        "chosen a pool.",
        "Put the router's filter before the picker's (Istio: INSERT_BEFORE envoy.filters.http.ext_proc).",
        _endpoint_picker_before,
        "test_traps_of_the_chain.py::test_picker_before_the_router",
    ),
    Trap(
        "rate-limit-before",
        Severity.WARNING,
        "A filter before the router's uses the settings of the route that requests arrive on: the largest "
        "pool's limit, for requests of all pools. (One limit for all routes of a host does no harm.)",
        "Put rate limits after the router's filter (in full duplex only those that do not ask a server, such as "
        "local_ratelimit: waiting-filter-after).",
        _rate_limit_before,
        "test_filter_order.py::test_a_filter_before_the_router_s_acts_for_the_route_that_a_request_arrives_on",
    ),
    Trap(
        "auth-after",
        Severity.WARNING,
        "The router also reads requests that are then refused: they cost it time, and are counted in its metrics.",
        "Put authentication before the router's filter (Envoy Gateway: authorization rules by filterOrder in an "
        "EnvoyProxy).",
        after(Kind.AUTH),
        "test_traps_of_the_chain.py::test_authentication_behind_the_router",
    ),
)
