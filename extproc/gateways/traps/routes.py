"""Routes of a gateway: which requests arrive on them, and which lead to pools. Several groups of traps ask."""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Final

from extproc.core.apis import api_of
from extproc.core.placing.pool import Pool
from extproc.gateways.matching.paths import PathMatch
from extproc.gateways.model import Gateway, Host, Route
from extproc.gateways.router import Router, share_a_model
from extproc.gateways.traps.earlier import earlier_routes

__all__ = [
    "arriving",
    "asking_hosts",
    "body_mode",
    "default_routes",
    "is_reached",
    "leads_to",
    "may_generate",
    "pool_routes",
    "pools_of",
    "takes_bodies",
]

# Where the pools' servers answer at once to requests without a body, whether or not a route asks for GET.
WITHOUT_BODIES: Final = ("/health", "/metrics", "/v1/models", "/version")
# Below it some servers take requests that the router does not read: /v1/models/{model}:predict of KServe, for one.
MODELS: Final = "/v1/models"


@lru_cache(maxsize=1)  # many traps ask for them, one gateway after the other
def pool_routes(gateway: Gateway, router: Router) -> tuple[Route, ...]:
    """Return the routes to which the router sends requests: those of all pools but the default."""
    return tuple(_pool_routes(gateway, router))


def _pool_routes(gateway: Gateway, router: Router) -> Iterator[Route]:
    header, names = router.sets[0], [pool.name for pool in router.configuration.pools[:-1]]
    for host in gateway.hosts:
        for route in host.routes:
            match = route.header(header)
            if (
                match
                and route.clusters
                and any(match.matches(name) and is_reached(route, host, {header: name}) for name in names)
            ):
                yield route


def default_routes(host: Host, router: Router) -> Iterator[Route]:
    """Yield the routes on which requests arrive, and stay unless the router sets a header."""
    for route in host.routes:
        said = {match.name for match in route.headers} & set(router.sets)
        absent = all(match.matches_absent for match in route.headers)
        arrives = takes_bodies(route, "POST") and not _asks_only(route.path)
        if route.processor and route.clusters and arrives and (absent or not said):
            yield route


def arriving(host: Host, router: Router) -> list[Route]:
    """Return those of them on which requests arrive that the router reads, and not only such as `/v1/models`."""
    return [route for route in default_routes(host, router) if may_generate(route)]


def asking_hosts(gateway: Gateway) -> list[Host]:
    """Return the virtual hosts with a route to servers on which the router is asked, and may place requests."""
    return [
        host
        for host in gateway.hosts
        if any(route.processor and route.clusters and may_generate(route) for route in host.routes)
    ]


def leads_to(route: Route, header: str, pool: str) -> bool:
    """Return whether a route takes the requests that the router sends to a pool."""
    match = route.header(header)
    return match is not None and match.matches(pool) and route.percent > 0 and route.allows_method("POST")


def pools_of(host: Host, router: Router) -> tuple[Pool, ...]:
    """Return the pools that a host should lead to: all, or those of its models if it leads to some only."""
    pools, header = router.configuration.pools, router.sets[0]
    led_to = [pool for pool in pools if any(leads_to(route, header, pool.name) for route in host.routes)]
    if not led_to or not all(pool.models for pool in led_to):
        return tuple(pools)
    return tuple(pool for pool in pools if any(share_a_model(pool, each) for each in led_to))


def body_mode(route: Route) -> str:
    """Return the mode in which the router gets bodies on a route; NONE if the filter is off."""
    return route.processor.modes.request_body if route.processor else "NONE"


def takes_bodies(route: Route, *methods: str) -> bool:
    """Return whether a route may get requests with these methods that have a body."""
    path = route.path
    below_models = path.kind.endswith("prefix") and path.text.rstrip("/") == MODELS
    return route.allows_method(*methods) and not path.is_tunnel and (below_models or not _asks_only(path))


def _asks_only(path: PathMatch) -> bool:
    """Return whether none of a route's requests is one that the router may place."""
    return path.text.rstrip("/") in WITHOUT_BODIES


def may_generate(route: Route) -> bool:
    """Return whether a route may get requests that the router reads."""
    path = route.path
    other = path.kind == "path" and not path.any_case and api_of("POST", path.text) is None
    return takes_bodies(route, "POST") and not _asks_only(path) and not other


def is_reached(route: Route, host: Host, sent: Mapping[str, str]) -> bool:
    """Return whether no route before this one takes all of its requests that have the headers `sent`."""
    return not earlier_routes(host).hides(route, sent)
