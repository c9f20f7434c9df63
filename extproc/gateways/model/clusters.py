"""Clusters of a gateway: the servers behind a route, or the routers that the ext_proc filter asks."""

from dataclasses import dataclass
from typing import Final

from extproc.gateways.model.routes import Retry
from extproc.gateways.parsing.sources import Place

__all__ = ["CONNECTION_WINDOW_BYTES", "STREAM_WINDOW_BYTES", "Cluster"]

# Envoy's defaults for both of its sides (1.40).
STREAM_WINDOW_BYTES: Final = 16 << 20
CONNECTION_WINDOW_BYTES: Final = 24 << 20


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster, or an aggregate of clusters."""

    name: str
    place: Place
    priorities: tuple[frozenset[str], ...]
    """The servers of each priority, as host:port; an aggregate has its members' priorities. Empty if unknown."""
    members: tuple[str, ...]
    """The clusters that an aggregate consists of."""
    discovery: str
    """Envoy's discovery type: STATIC, STRICT_DNS, LOGICAL_DNS, EDS ...; AGGREGATE; or the name of an extension."""
    least_request: bool
    http2: bool
    tls: bool | None
    """Whether Envoy speaks TLS with the servers; None if that depends on the server, or on a mesh."""
    connect_timeout_ms: float
    max_requests: int
    max_pending_requests: int
    max_retries: int
    """Retries at a time on routes of the priority DEFAULT; the router's streams have that one, too."""
    max_high_retries: int
    """The same on routes of the priority HIGH."""
    stream_window_bytes: int
    max_outbound_frames: int
    pinged: bool = False
    """Envoy sends pings, and closes a connection on which none is answered (connection_keepalive)."""
    panics: bool = True
    """Envoy sends requests to unhealthy servers when most of them are unhealthy (panic mode)."""
    ejects_on_first_failure: bool = False
    """Outlier detection ejects a server on its first connection failure or similar local-origin failure."""
    batches_updates: bool = True
    """Updates of the servers' health are batched (update_merge_window, 1 s by default)."""
    takes_given: bool = False
    """A filter, such as an endpoint picker's, may name the server of each request."""
    max_duration_ms: float = 0.0
    """Longest duration of a whole exchange (max_stream_duration); 0 means unlimited."""
    retry: Retry | None = None
    """The retry policy of routes that have none themselves or on their virtual host."""

    @property
    def is_followed(self) -> bool:
        """Whether it is known how the cluster chooses servers: not if an extension does, but for aggregates."""
        return "." not in self.discovery
