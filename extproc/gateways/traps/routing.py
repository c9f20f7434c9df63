"""Traps of routes: where requests end up, and what cuts them off there."""

from collections.abc import Iterator
from typing import Final

from extproc.gateways.model import RETRY_HEADERS, Gateway, Host, Route
from extproc.gateways.router import Router
from extproc.gateways.traps.around import READ, held_path, serves
from extproc.gateways.traps.routes import (
    arriving,
    asking_hosts,
    body_mode,
    default_routes,
    is_reached,
    leads_to,
    may_generate,
    pool_routes,
    pools_of,
    takes_bodies,
)
from extproc.gateways.traps.trap import Hit, Severity, Trap

__all__ = ["MIN_TIMEOUT_MS", "TRAPS"]

MIN_TIMEOUT_MS: Final = 300_000
WITH_BODIES: Final = ("POST", "PUT", "PATCH", "DELETE")


def _retries_on_default_route(gateway: Gateway, router: Router) -> Iterator[Hit]:
    for route in _half_sent(gateway, router):
        if retry := gateway.retry(route):
            conditions = ",".join(sorted(retry.conditions))
            yield Hit(retry.place, f'route "{route.name}" has retries ({conditions}) in mode {body_mode(route)}')
        elif place := route.asks_retries_place:
            what = f"asks for retries by a header that is added here, in mode {body_mode(route)}"
            yield Hit(place, f'route "{route.name}" {what}')


def _retries_by_clients(gateway: Gateway, router: Router) -> Iterator[Hit]:
    if gateway.trusting_place is None:
        return
    for route in _half_sent(gateway, router):
        kept = [name for name in RETRY_HEADERS if name not in gateway.stripped | route.removed]
        if kept:
            what = f'{" and ".join(kept)} of internal clients give route "{route.name}" retries'
            yield Hit(gateway.trusting_place, f"{what} in mode {body_mode(route)}")


def _redirects_on_default_route(gateway: Gateway, router: Router) -> Iterator[Hit]:
    for route in _half_sent(gateway, router):
        if route.redirects_place:
            yield Hit(route.redirects_place, f'route "{route.name}" follows redirects in mode {body_mode(route)}')


def _half_sent(gateway: Gateway, router: Router) -> Iterator[Route]:
    """Yield the routes that can send requests on before their bodies have ended."""
    for host in gateway.hosts:
        for route in host.routes:
            in_pieces = body_mode(route) in {"STREAMED", "FULL_DUPLEX_STREAMED"}
            sends_bodies = bool(route.clusters) and takes_bodies(route, *WITH_BODIES)
            whole = route.waits_for_whole_body or route.header(router.sets[0]) is not None
            if in_pieces and sends_bodies and not whole:
                yield route


def _default_route_not_largest(gateway: Gateway, router: Router) -> Iterator[Hit]:
    smaller: dict[frozenset[frozenset[str]], list[Route]] = {}
    for route in pool_routes(gateway, router):
        smaller.setdefault(gateway.first_servers(route), []).append(route)
    for host in asking_hosts(gateway):
        found, largest = arriving(host, router), pools_of(host, router)[-1].name
        if not found and not any(route.matches_all and route.clusters for route in host.routes):
            what = "has no route for requests that are not sent to a smaller pool"
            yield Hit(host.place, f'host "{host.name}" {what}')
        for route in found:
            servers = gateway.first_servers(route)
            same = (each for led_to, routes in smaller.items() if led_to <= servers for each in routes)
            if other := next((each for each in same if not leads_to(each, router.sets[0], largest)), None):
                what = f'route "{route.name}" leads to the same servers as route "{other.name}"'
                yield Hit(route.place, f'{what}, not to the pool "{largest}"')


def _pool_without_route(gateway: Gateway, router: Router) -> Iterator[Hit]:
    header = router.sets[0]
    if gateway.hosts and not asking_hosts(gateway):
        yield Hit(
            gateway.processor.place, f'the router\'s filter "{gateway.processor.name}" is off on every route'
        )
    for host in asking_hosts(gateway):
        for pool in pools_of(host, router)[:-1]:
            leading = [
                route
                for route in host.routes
                if leads_to(route, header, pool.name) and is_reached(route, host, {header: pool.name})
            ]
            leading = [route for route in leading if serves(host, route, {header: pool.name})]
            if not leading:
                yield Hit(host.place, f'host "{host.name}" has no reachable route for {header}: {pool.name}')
            elif (off := _arrives_off(host, leading, header)) is not None:
                name = gateway.processor.name
                yield Hit(off.place, f'the router\'s filter "{name}" is off on the route "{off.name}"')


def _arrives_off(host: Host, leading: list[Route], header: str) -> Route | None:
    """Return the route on which requests for a pool arrive, without its header, if the filter is off on it.

    None if the filter is on for some of them: other applications may share the paths.
    """
    near = [
        route
        for route in host.routes
        if all(match.matches_absent for match in route.headers if match.name == header) and route.percent > 0
    ]
    # The first route is most often enough: each is compared with many others.
    if any(route.processor and _is_beside(route, leading) and is_reached(route, host, {}) for route in near):
        return None
    off = (route for route in near if route.takes_path and _is_beside(route, leading))
    return next((route for route in off if is_reached(route, host, {})), None)


def _is_beside(route: Route, leading: list[Route]) -> bool:
    return any(route.path.may_overlap(each.path) for each in leading)


def _response_cut(gateway: Gateway, router: Router) -> Iterator[Hit]:
    for host in asking_hosts(gateway):
        for route in host.routes:
            wanted = (route.processor or route.header(router.sets[0])) and may_generate(route)
            timeout_ms = gateway.response_timeout_ms(route)
            if wanted and 0 < timeout_ms < MIN_TIMEOUT_MS:
                yield Hit(route.place, f'route "{route.name}" ends responses after {timeout_ms / 1000:g} s')


def _upgrade_hangs(gateway: Gateway, router: Router) -> Iterator[Hit]:
    for host in asking_hosts(gateway):
        for route in default_routes(host, router):
            if body_mode(route) != "BUFFERED":
                continue
            paths = {name: held_path(host, route, "upgrade", name, READ) for name in sorted(route.upgrades)}
            if held := {name: path for name, path in paths.items() if path is not None}:
                what = f"holds bodies of requests that ask for an upgrade ({', '.join(held)})"
                yield Hit(route.place, f'route "{route.name}" {what}, as of {next(iter(held.values()))}')


TRAPS: Final = (
    Trap(
        "retries-on-default-route",
        Severity.ERROR,
        "When the router's stream ends before a body does (an early decision, its deadline, its death), Envoy "
        "sends a route that has retries what it held and then the body again from its first byte "
        "(envoy#36119): the pool reads a prompt that was never sent, and answers it with 200. In full duplex a "
        "body that ends in trailers, as HTTP/2 allows, arrives twice in a row.",
        "No retry_policy on a route that gets requests before their bodies have ended, nor on its virtual "
        "host or cluster, and no x-envoy-retry-on that they or a filter add; num_retries: 0 counts, too. Istio "
        "adds a policy by default: say retries: {attempts: 0}. In Envoy Gateway leave `retry` out of the "
        "HTTPRoute and of the BackendTrafficPolicy that is in force on it, which may be the Gateway's.",
        _retries_on_default_route,
        "test_numbered_bodies.py::test_retries_on_the_default_route_corrupt_bodies",
    ),
    Trap(
        "retries-by-clients",
        Severity.ERROR,
        "A client that Envoy considers internal can enable retries by a header on a route that has none, and they "
        "corrupt its bodies in the same way, with status 200.",
        "request_headers_to_remove: [x-envoy-retry-on, x-envoy-retry-grpc-on] on a route that gets requests "
        "before their bodies have ended, or no internal_address_config (before Envoy 1.33: one without "
        "clients in it).",
        _retries_by_clients,
        "test_numbered_bodies.py::test_retries_on_the_default_route_corrupt_bodies",
    ),
    Trap(
        "redirects-on-default-route",
        Severity.ERROR,
        "To follow a redirect Envoy would have to send the body again, so it holds bodies as it does for "
        "retries, and corrupts the same ones in the same way: with STREAMED those that outlast the router's "
        "stream, in full duplex those that end in trailers.",
        "No internal_redirect_policy on a route that gets requests before their bodies have ended.",
        _redirects_on_default_route,
        "test_numbered_bodies.py::test_retries_on_the_default_route_corrupt_bodies",
    ),
    Trap(
        "default-route-not-largest",
        Severity.ERROR,
        "Requests that the router cannot decide stay on the route that they arrived on: long prompts, bodies "
        "that are not understood, and everything while the router is down. A smaller pool refuses the long ones; "
        "without such a route they are a 404.",
        "Let the route without the pool header go to the last of the router's `pools` (of those for the host's "
        "models). A condition with invert_match on a value of that header does not match requests without it; "
        "present_match: false does.",
        _default_route_not_largest,
        "test_traps_of_routes.py::test_default_route_to_the_short_pool",
    ),
    Trap(
        "pool-without-route",
        Severity.ERROR,
        "The router sets the header, but no route matches it, or a route before it takes everything; or the "
        "filter is off on every route, and the router is never asked: nothing ever goes to that pool.",
        "Match the pool header (headers.pool) with the pool's name, before the route that takes everything; "
        "and where the filter is disabled, enable it on the route that requests arrive on and on the pool's.",
        _pool_without_route,
        "test_traps_of_routes.py::test_short_route_behind_the_default_one",
    ),
    Trap(
        "response-cut",
        Severity.WARNING,
        "The route's timeout (15 s unless set) covers the whole response, so longer generations are cut. So "
        "do per_try_timeout and max_stream_duration; idle timeouts end requests with a long prefill, and long "
        "responses that are not streamed.",
        "timeout: 0s on the routes of the pools, no per_try_timeout, per_try_idle_timeout or "
        "max_stream_duration, and a stream_idle_timeout (or the route's idle_timeout) of 10 minutes, which "
        "ends requests that are stuck.",
        _response_cut,
        "test_traps_of_routes.py::test_route_timeout_cuts_a_response",
    ),
    Trap(
        "upgrade-hangs",
        Severity.WARNING,
        "The body of a POST that asks for another protocol does not end: mode BUFFERED waits for its end "
        "until the client gives up.",
        "A route before it that matches the header `upgrade` on the same paths, with the router's filter off.",
        _upgrade_hangs,
        "test_upgrades.py::test_a_post_that_upgrades_hangs_in_buffered_mode",
    ),
)
