"""One gateway that asks the router, as a whole."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from extproc.gateways.model.clusters import Cluster
from extproc.gateways.model.filters import Filter, Processor
from extproc.gateways.model.routes import Host, Retry, Route
from extproc.gateways.sources import Place

__all__ = ["Flavour", "Gateway", "Limits"]


class Flavour(StrEnum):
    """What configures the gateway: what can be said there, and in which words."""

    ENVOY = "envoy"
    ISTIO = "istio"
    ENVOY_GATEWAY = "envoy-gateway"


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
    """Headers of clients that go before a route is chosen: of the router's, and of Envoy's for retries."""
    filters: tuple[Filter, ...]
    processor: Processor
    hosts: tuple[Host, ...]
    clusters: Mapping[str, Cluster]
    trusting_place: Place | None = None
    """Where it is said which clients' words to Envoy itself count; None where nobody's do."""
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
