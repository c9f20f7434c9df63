"""What the traps look at: one gateway that asks the router, in Envoy's terms, with the place of each part.

What is not said in a configuration is here with the value that Envoy takes for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from extproc.gateways.header_match import HeaderMatch
from extproc.gateways.sources import Place

__all__ = [
    "Cluster",
    "Filter",
    "Flavour",
    "Gateway",
    "Host",
    "Kind",
    "Limits",
    "Modes",
    "Processor",
    "Retry",
    "Route",
]

# Envoy takes conditions that it does not know for none, and a policy without conditions for no policy.
CONDITIONS: Final = frozenset(
    [
        *("5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "envoy-ratelimited"),
        *("retriable-4xx", "refused-stream", "retriable-status-codes", "retriable-headers"),
        *("http3-post-connect-failure", "cancelled", "deadline-exceeded", "internal", "resource-exhausted"),
        "unavailable",
    ]
)


class Flavour(StrEnum):
    """What configures the gateway: what can be said there, and in which words."""

    ENVOY = "envoy"
    ISTIO = "istio"
    ENVOY_GATEWAY = "envoy-gateway"


class Kind(StrEnum):
    """What a filter does, as far as its order matters; by its type, since names are anybody's choice."""

    PROCESSOR = "ext_proc"
    DECOMPRESSOR = "decompressor"
    COMPRESSOR = "compressor"
    RATE_LIMIT = "rate limit"
    AUTH = "authentication"
    BUFFER = "buffer"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Filter:
    """One HTTP filter, in the order of requests."""

    name: str
    kind: Kind
    place: Place
    disabled: bool = False
    changes: frozenset[str] = frozenset()
    """Headers of the router's that it takes away, or writes over."""


@dataclass(frozen=True, slots=True)
class Modes:
    """What of a request and its response passes the router; names are Envoy's."""

    request_headers: str = "DEFAULT"
    request_body: str = "NONE"
    request_trailers: str = "DEFAULT"
    response_headers: str = "DEFAULT"
    response_body: str = "NONE"
    response_trailers: str = "DEFAULT"


@dataclass(frozen=True, slots=True)
class Processor:
    """The router's filter, as one route sees it."""

    name: str
    place: Place
    cluster: str
    modes: Modes
    modes_place: Place
    sends_body_at_once: bool
    """send_body_without_waiting_for_header_response"""
    fails_open: bool
    message_timeout_ms: float
    timeout_place: Place
    keeps_route: bool
    """The route is not chosen again, whatever the router says."""
    namespaces: frozenset[str]
    """Those of dynamic metadata that are received."""
    withheld: frozenset[str]
    """Headers that the router reads, in requests or responses, and does not get."""
    refused: frozenset[str] = frozenset()
    """Headers that the router sets, and that Envoy does not take from it."""
    refusal_fails: bool = False
    """Such a header is an error of the request's."""
    only_observes: bool = False
    """Envoy does not wait for what the router says."""


@dataclass(frozen=True, slots=True)
class Retry:
    """A retry policy."""

    place: Place
    conditions: frozenset[str]
    statuses: frozenset[int]
    previous_priorities: bool
    """The first retry goes to a priority that was not tried."""
    tries: int = 1
    """How often a request is tried again; 0 still is a policy."""
    for_some: bool = False
    """Only requests with certain headers are tried again."""
    patience_ms: float = 0.0
    """Of one try, or of its silence; 0 is none."""

    @property
    def acts(self) -> bool:
        """Whether Envoy keeps the request for it at all."""
        return bool(self.conditions & CONDITIONS)


@dataclass(frozen=True, slots=True)
class Route:
    """One way for requests."""

    name: str
    place: Place
    takes_every_path: bool
    headers: tuple[HeaderMatch, ...]
    other_conditions: bool
    percent: float
    """Of the requests that match, by `runtime_fraction`; 100 without one."""
    clusters: tuple[str, ...]
    """Empty where the route answers by itself."""
    timeout_ms: float
    """Of the whole response, or of its silence, whichever ends it first; 0 is none."""
    retry: Retry | None
    processor: Processor | None
    """None where the filter is off."""
    waits_for_whole_body: bool
    """A buffer filter before the router's holds the body until it has ended."""
    body_limit_bytes: int
    """What is held of a body in mode BUFFERED."""
    body_limit_place: Place
    retry_limit_bytes: int | None = None
    """What is kept of a body to be sent again, where that is said apart from the listener's buffer."""
    redirects_place: Place | None = None
    """Where it is said that Envoy itself follows a pool's redirects; None where it does not."""

    @property
    def takes_all(self) -> bool:
        """Whether no request passes it by."""
        return self.takes_every_path and not self.headers and not self.other_conditions and self.percent > 0

    def header(self, name: str) -> HeaderMatch | None:
        """Return the condition on a header, if there is one."""
        return next((each for each in self.headers if each.name == name and not each.inverted), None)


@dataclass(frozen=True, slots=True)
class Host:
    """A virtual host: its routes in the order in which they are tried."""

    name: str
    place: Place
    routes: tuple[Route, ...]


@dataclass(frozen=True, slots=True)
class Cluster:
    """Servers that requests go to."""

    name: str
    place: Place
    priorities: tuple[frozenset[str], ...]
    """The servers of each priority, as host:port; of an aggregate, those of its members. Empty where unknown."""
    members: tuple[str, ...]
    """The clusters that an aggregate is made of."""
    discovery: str
    """Envoy's type: STATIC, STRICT_DNS, LOGICAL_DNS, EDS, AGGREGATE ..."""
    least_request: bool
    http2: bool
    connect_timeout_ms: float
    max_requests: int
    max_pending_requests: int
    max_retries: int
    stream_window_bytes: int
    max_outbound_frames: int
    panics: bool = True
    """Asks servers that are known to be dead when most are."""
    ejects_at_once: bool = False
    """Leaves a server alone after the first request that it fails by itself."""
    gathers_news: bool = True
    """Holds back what it learns of its servers' health until the next second."""
    patience_ms: float = 0.0
    """Of a whole exchange; 0 is none."""
    retry: Retry | None = None
    """What routes have that say nothing of retries, nor their virtual host."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the connection manager takes."""

    buffer_bytes: int
    buffer_place: Place
    max_headers: int
    max_head_kib: int
    place: Place
    duration_ms: float = 0.0
    """Of a whole exchange, where its route says nothing; 0 is none."""
    silence_ms: float = 0.0
    """Within an exchange, where its route says nothing; 0 is none."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """One HTTP connection manager with the router's filter in it."""

    flavour: Flavour
    place: Place
    limits: Limits
    stripped: frozenset[str]
    """Headers of clients that go before the first choice of a route."""
    filters: tuple[Filter, ...]
    processor: Processor
    hosts: tuple[Host, ...]
    clusters: Mapping[str, Cluster]
    upgrades: bool = False
    """Requests may ask for another protocol, as websockets do."""
    cluster_ips: frozenset[str] = frozenset()
    """Hosts that are known to be one address for many servers."""

    @property
    def processors(self) -> tuple[Processor, ...]:
        """The router's filter as each of the routes sees it, where routes are known; each way once."""
        seen = [route.processor for host in self.hosts for route in host.routes if route.processor]
        return tuple(dict.fromkeys(seen)) or (self.processor,)

    def retry(self, route: Route) -> Retry | None:
        """Return the policy that a route's requests are tried again by, its cluster's where it has none itself."""
        clusters = [self.clusters[name] for name in route.clusters if name in self.clusters]
        found = route.retry or next((each.retry for each in clusters if each.retry), None)
        return found if found and found.acts else None

    def priorities(self, route: Route) -> tuple[frozenset[str], ...]:
        """Return the servers of a route's first cluster by priority; an unknown cluster stands for itself."""
        return self.servers(route.clusters[0]) if route.clusters else ()

    def servers(self, name: str) -> tuple[frozenset[str], ...]:
        """Return the servers of a cluster by priority; an unknown one stands for itself."""
        cluster = self.clusters.get(name)
        return cluster.priorities if cluster and cluster.priorities else (frozenset({name}),)

    def patience_ms(self, route: Route) -> float:
        """Return when a response of this route ends at the latest, be it in the middle; 0 is never."""
        clusters = [self.clusters[name] for name in route.clusters if name in self.clusters]
        inner = [self.clusters[name] for each in clusters for name in each.members if name in self.clusters]
        retry = self.retry(route)
        said = [route.timeout_ms, *(each.patience_ms for each in (*clusters, *inner))]
        return min((each for each in (*said, retry.patience_ms if retry else 0.0) if each > 0), default=0.0)
