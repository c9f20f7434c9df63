"""A gateway that asks the router: its limits, filters, routes and clusters together."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from extproc.gateways.model.clusters import CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES, Cluster
from extproc.gateways.model.filters import Filter, Processor
from extproc.gateways.model.routes import Host, Retry, Route
from extproc.gateways.parsing.sources import Place

__all__ = ["UNLIMITED", "Flavour", "Gateway", "Limits"]

UNLIMITED: Final = (1 << 63) - 1
"""A number of bytes that no body has."""


class Flavour(StrEnum):
    """What the gateway is configured by; this determines which settings exist and how they are named."""

    ENVOY = "envoy"
    ISTIO = "istio"
    ENVOY_GATEWAY = "envoy-gateway"


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the listener and its connection manager."""

    buffer_bytes: int
    """How much of a body filters can hold, unless its route says otherwise: the smallest of the limits for each
    version of HTTP that the listener speaks."""
    buffer_name: str
    """The field that sets this limit."""
    buffer_place: Place
    max_headers: int
    max_head_kib: int
    place: Place
    stream_window_bytes: int = STREAM_WINDOW_BYTES
    """What a client may send of one HTTP/2 body before it is read."""
    connection_window_bytes: int = CONNECTION_WINDOW_BYTES
    """The same of all bodies on one HTTP/2 connection."""
    windows_place: Place | None = None
    """Where these windows are set; None if clients cannot speak HTTP/2."""
    duration_ms: float = 0.0
    """Longest duration of an exchange, unless its route sets its own; 0 means unlimited."""
    idle_ms: float = 0.0
    """Longest time without a byte within an exchange, unless its route sets its own; 0 means unlimited."""
    routes_have_own: bool = True
    """A route's or host's request_body_buffer_limit replaces `buffer_bytes`; before Envoy 1.37 it does not."""


@dataclass(frozen=True, slots=True, eq=False)
class Gateway:
    """One HTTP connection manager with the router's filter in it; it equals no other."""

    flavour: Flavour
    place: Place
    limits: Limits
    stripped: frozenset[str]
    """Client headers that are removed before a route is selected, of the router's and of Envoy's retry headers."""
    filters: tuple[Filter, ...]
    processor: Processor
    hosts: tuple[Host, ...]
    clusters: Mapping[str, Cluster]
    trusting_place: Place | None = None
    """Where internal_address_config lists the clients whose x-envoy-* headers Envoy obeys. None if it is not set:
    then Envoy obeys no client (since 1.33)."""
    passes_expect: bool = False
    """`Expect: 100-continue` goes to the pool, which answers it; otherwise Envoy does so itself."""
    logs_by_grpc: bool = True
    """It sends an access log to some gRPC service, or its input does not tell."""
    cluster_ips: frozenset[str] = frozenset()
    """Hosts that are known to be a single address for several servers."""
    version: tuple[int, int] | None = None
    """Envoy's major and minor version if the input tells it, as a config dump does."""

    def is_before(self, major: int, minor: int) -> bool:
        """Return whether this Envoy is known to be older than a version."""
        return self.version is not None and self.version < (major, minor)

    @property
    def forwards(self) -> bool:
        """Whether any request is sent on, as far as the routes are known: a listener may just redirect all."""
        return not self.hosts or any(route.clusters for host in self.hosts for route in host.routes)

    @property
    def processors(self) -> tuple[Processor, ...]:
        """The distinct variants of the router's filter on the routes; the filter itself if no routes are known."""
        seen = [route.processor for host in self.hosts for route in host.routes if route.processor]
        return tuple(dict.fromkeys(seen)) or (self.processor,)

    def retry(self, route: Route) -> Retry | None:
        """Return the retry policy in effect on a route: its own, or its cluster's; None if it never retries."""
        clusters = [self.clusters[name] for name in route.clusters if name in self.clusters]
        found = route.retry or next((each.retry for each in clusters if each.retry), None)
        return found if found and found.acts else None

    def first_servers(self, route: Route) -> frozenset[frozenset[str]]:
        """Return the servers of the first priority of each of a route's clusters."""
        return frozenset(self.servers(name)[0] for name in route.clusters)

    def servers(self, name: str) -> tuple[frozenset[str], ...]:
        """Return the servers of a cluster by priority; an unknown cluster counts as one server of its name."""
        cluster = self.clusters.get(name)
        return cluster.priorities if cluster and cluster.priorities else (frozenset({name}),)

    def knows_servers(self, name: str) -> bool:
        """Return whether the input has a cluster's servers; manifests always say which they are, if not where."""
        cluster = self.clusters.get(name)
        if cluster is None:
            return False
        elsewhere = cluster.discovery == "EDS" or not cluster.is_followed
        return not (elsewhere and not cluster.priorities and self.flavour is Flavour.ENVOY)

    def response_timeout_ms(self, route: Route) -> float:
        """Return the shortest timeout that can cut off a response on this route; 0 means that there is none."""
        clusters = [self.clusters[name] for name in route.clusters if name in self.clusters]
        inner = [self.clusters[name] for each in clusters for name in each.members if name in self.clusters]
        retry = self.retry(route)
        said = [route.timeout_ms, *(each.max_duration_ms for each in (*clusters, *inner))]
        return min((each for each in (*said, retry.try_timeout_ms if retry else 0.0) if each > 0), default=0.0)
