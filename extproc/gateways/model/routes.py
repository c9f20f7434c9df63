"""Routes of a gateway, and what is tried again on them."""

from dataclasses import dataclass
from typing import Final

from extproc.gateways.header_match import HeaderMatch
from extproc.gateways.model.filters import Processor
from extproc.gateways.sources import Place

__all__ = ["NUMBER_HEADER", "RETRY_HEADERS", "Host", "Retry", "Route"]

# Envoy takes conditions that it does not know for none, and a policy without conditions for no policy.
CONDITIONS: Final = frozenset(
    [
        *("5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "envoy-ratelimited"),
        *("retriable-4xx", "refused-stream", "retriable-status-codes", "retriable-headers"),
        *("http3-post-connect-failure", "cancelled", "deadline-exceeded", "internal", "resource-exhausted"),
        "unavailable",
    ]
)
# By these a client that Envoy counts as internal gets retries on any route.
RETRY_HEADERS: Final = ("x-envoy-retry-on", "x-envoy-retry-grpc-on")
# And by this as many as it says, where a route has any.
NUMBER_HEADER: Final = "x-envoy-max-retries"


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
    removed: frozenset[str] = frozenset()
    """Headers of clients that go when the route has been chosen."""

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
