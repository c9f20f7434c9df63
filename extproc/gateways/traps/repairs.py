"""Traps of repairs: requests that a smaller pool refuses or cannot take should be retried in the next pool."""

from collections.abc import Iterator
from typing import Final

from extproc.gateways.model import NUMBER_HEADER, Gateway, Kind, Retry, Route
from extproc.gateways.router import Router, pools_from
from extproc.gateways.traps.order import split
from extproc.gateways.traps.routes import arriving, body_mode, default_routes, pool_routes
from extproc.gateways.traps.trap import Hit, Severity, Trap

__all__ = ["TRAPS"]

MIN_RETRIES: Final = 100
# Each of these retries a request whose pool was down.
UNCONNECTED: Final = frozenset(["connect-failure", "reset", "reset-before-request", "5xx", "gateway-error"])


def _repair_missing(gateway: Gateway, router: Router) -> Iterator[Hit]:
    largest = _largest(gateway, router)
    for route in pool_routes(gateway, router):
        if _picker_chooses(gateway, route):
            continue
        if _is_largest_of_its_models(route, router):
            continue
        retry = gateway.retry(route)
        if retry is None or not _repeats(retry, 400):
            yield Hit(route.place, f'route "{route.name}" does not retry refusals (400)')
        elif not retry.conditions & UNCONNECTED and not _repeats(retry, 503):
            yield Hit(retry.place, f'route "{route.name}" does not retry requests that find no server')
        elif any(_is_alone(gateway, name) for name in _smaller(gateway, route, largest)):
            yield Hit(route.place, f'route "{route.name}" retries refusals, but has only one pool')


def _repeats(retry: Retry, status: int) -> bool:
    """Return whether every request that gets this status is retried."""
    acts = retry.num_retries > 0 and not retry.restricted
    return acts and "retriable-status-codes" in retry.conditions and status in retry.statuses


def _is_largest_of_its_models(route: Route, router: Router) -> bool:
    """Return whether no later pool serves the models of this route's pool, so that its refusals are final."""
    match = route.header(router.sets[0])
    pools = router.configuration.pools
    led_to = [pool for pool in pools[:-1] if match is not None and match.matches(pool.name)]
    return all(len(pools_from(pools, pool)) == 1 for pool in led_to)


def _repair_declined(gateway: Gateway, router: Router) -> Iterator[Hit]:
    if gateway.trusting_place is None or NUMBER_HEADER in gateway.stripped:
        return
    for route in pool_routes(gateway, router):
        if gateway.retry(route) and NUMBER_HEADER not in route.removed:
            what = f'route "{route.name}" obeys {NUMBER_HEADER} from internal clients'
            yield Hit(gateway.trusting_place, what)


def _repair_same_pool(gateway: Gateway, router: Router) -> Iterator[Hit]:
    for route in pool_routes(gateway, router):
        retry = gateway.retry(route)
        clusters = [gateway.clusters[name] for name in route.clusters if name in gateway.clusters]
        chosen = _picker_chooses(gateway, route) or not all(each.is_followed for each in clusters)
        if retry and not retry.previous_priorities and not chosen:
            what = "has retries without previous_priorities, or they do not apply from the first failure on"
            yield Hit(retry.place, f'route "{route.name}" {what}')


def _repair_limit(gateway: Gateway, router: Router) -> Iterator[Hit]:
    largest = _largest(gateway, router)
    for route in pool_routes(gateway, router):
        names = _smaller(gateway, route, largest)
        for cluster in (gateway.clusters[name] for name in names if name in gateway.clusters):
            limit = cluster.max_high_retries if route.is_high else cluster.max_retries
            if gateway.retry(route) and limit < MIN_RETRIES:
                of_priority = " on routes of priority HIGH" if route.is_high else ""
                what = f"allows {limit} repairs at a time{of_priority}"
                yield Hit(cluster.place, f'cluster "{cluster.name}" {what}')


def _repair_body_limit(gateway: Gateway, router: Router) -> Iterator[Hit]:
    smaller = frozenset(pool_routes(gateway, router))
    for host in gateway.hosts:
        # In mode BUFFERED, bodies over the limit of the route on which they arrive are refused there.
        held = [route.body_limit_bytes for route in default_routes(host, router) if body_mode(route) == "BUFFERED"]
        wanted = min((*held, router.configuration.exchange.max_held_bytes))
        for route in (each for each in host.routes if each in smaller):
            limit = route.retry_limit_bytes
            if limit is not None and limit < wanted and gateway.retry(route):
                yield Hit(route.place, f'route "{route.name}" keeps bodies of up to {limit:,} bytes for a retry')


def _largest(gateway: Gateway, router: Router) -> frozenset[frozenset[str]]:
    """Return the servers on which requests stay that the router sends nowhere, of each cluster."""
    routes = (each for host in gateway.hosts for each in arriving(host, router))
    return frozenset(servers for each in routes for servers in gateway.first_servers(each))


def _smaller(gateway: Gateway, route: Route, largest: frozenset[frozenset[str]]) -> list[str]:
    """Return the clusters of a pool's route but the largest pool's, which may get a share of its requests."""
    return [name for name in route.clusters if gateway.servers(name)[0] not in largest]


def _is_alone(gateway: Gateway, name: str) -> bool:
    """Return whether a cluster has the servers of one pool only; False if that is not known."""
    return gateway.knows_servers(name) and len(gateway.servers(name)) == 1


def _picker_chooses(gateway: Gateway, route: Route) -> bool:
    """Return whether an endpoint picker follows the router: its choice is final, a retry asks no other picker."""
    return any(each.kind is Kind.PROCESSOR and each.name in route.filters_on for each in split(gateway)[1])


TRAPS: Final = (
    Trap(
        "repair-missing",
        Severity.WARNING,
        "A request that a smaller pool refuses because its prompt was under-counted is an error for the "
        "client, and so is one that finds that pool down. (The largest pool of a model needs no retry.)",
        "On the pool's route retry once on retriable-status-codes (400, 404, 413, 422, 503), connect-failure, "
        "refused-stream and reset, with the next pool as the second priority (an aggregate cluster; in Envoy "
        "Gateway a Backend with fallback: true).",
        _repair_missing,
        "test_traps_of_repairs.py::test_refusal_without_a_retry",
    ),
    Trap(
        "repair-declined",
        Severity.WARNING,
        "A client that Envoy considers internal can set the number of retries by a header. With 0 it gets the "
        "smaller pool's 400 for requests that the next pool would serve.",
        "request_headers_to_remove: [x-envoy-max-retries] on the pool's route, or no internal_address_config "
        "(before Envoy 1.33: one without clients in it).",
        _repair_declined,
        "test_traps_of_repairs.py::test_client_that_wants_no_retries",
    ),
    Trap(
        "repair-same-pool",
        Severity.WARNING,
        "The retry goes to the pool that has just refused, and is refused again.",
        "retry_priority envoy.retry_priorities.previous_priorities with update_frequency: 1 (Envoy Gateway: "
        "retry.numAttemptsPerPriority: 1).",
        _repair_same_pool,
        "test_traps_of_repairs.py::test_retry_without_previous_priorities",
    ),
    Trap(
        "repair-limit",
        Severity.WARNING,
        "A retry counts until its response has ended. Above max_retries (3 unless set) of the route's cluster "
        "requests are no longer retried, and clients get the smaller pool's 400.",
        "circuit_breakers: {thresholds: [{max_retries: 1024}]} on the cluster of the pool's route, with the "
        "route's priority if it has one.",
        _repair_limit,
        "test_traps_of_repairs.py::test_more_repairs_than_the_breaker_lets_through",
    ),
    Trap(
        "repair-body-limit",
        Severity.WARNING,
        "A body that a route may not keep is not sent again: clients get the smaller pool's 400 for every "
        "body over the limit.",
        "No request_body_buffer_limit or per_request_buffer_limit_bytes below exchange.max_held_bytes on the"
        " pool's route or its virtual host.",
        _repair_body_limit,
        "test_traps_of_repairs.py::test_repairs_that_do_not_happen",
    ),
)
