"""Clusters of a gateway: the servers that a route leads to, or that the router's filter asks."""

from dataclasses import dataclass

from extproc.gateways.model.routes import Retry
from extproc.gateways.sources import Place

__all__ = ["Cluster"]


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
