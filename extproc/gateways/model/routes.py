"""Routes of a gateway, and their retry policies."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from extproc.gateways.matching.headers import HeaderMatch
from extproc.gateways.matching.paths import PathMatch
from extproc.gateways.model.filters import Processor
from extproc.gateways.parsing.sources import Place

__all__ = ["CONDITIONS", "NUMBER_HEADER", "RETRY_HEADERS", "BodyCap", "Host", "Retry", "Route"]

# Envoy ignores conditions that it does not know, and treats a policy without conditions as no policy.
CONDITIONS: Final = frozenset(
    [
        *("5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "envoy-ratelimited"),
        *("retriable-4xx", "refused-stream", "retriable-status-codes", "retriable-headers"),
        *("http3-post-connect-failure", "cancelled", "deadline-exceeded", "internal", "resource-exhausted"),
        "unavailable",
    ]
)
ALL_PERCENT: Final = 100
# With these headers a client that Envoy considers internal gets retries on any route.
RETRY_HEADERS: Final = ("x-envoy-retry-on", "x-envoy-retry-grpc-on")
# With this one such a client sets the number of retries, on routes that have any.
NUMBER_HEADER: Final = "x-envoy-max-retries"


@dataclass(frozen=True, slots=True)
class Retry:
    """A retry policy."""

    place: Place
    conditions: frozenset[str]
    statuses: frozenset[int]
    previous_priorities: bool
    """The first retry goes to a priority that was not tried yet."""
    num_retries: int = 1
    """How often a request is retried; a policy with 0 retries is still a policy."""
    restricted: bool = False
    """Only requests with certain headers are retried."""
    try_timeout_ms: float = 0.0
    """Timeout of one try, or of the time without a byte in it, whichever is shorter; 0 means none."""

    @property
    def acts(self) -> bool:
        """Whether Envoy applies the policy, and so keeps each request for a retry."""
        return bool(self.conditions & CONDITIONS)


@dataclass(frozen=True, slots=True)
class BodyCap:
    """The size over which a filter that holds whole bodies refuses them."""

    filter: str
    place: Place
    limit_bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """One route of a virtual host; it equals no other, so that finding it among thousands compares no contents."""

    name: str
    place: Place
    path: PathMatch
    headers: tuple[HeaderMatch, ...]
    other_conditions: frozenset[str]
    """Conditions on something other than path and headers, as text."""
    percent: float
    """Share of the matching requests that the route takes (`runtime_fraction`), in percent; 100 if not set."""
    clusters: tuple[str, ...]
    """Empty if the route replies by itself."""
    timeout_ms: float
    """Timeout of the whole response, or of the time without a byte in it, whichever is shorter; 0 means none."""
    retry: Retry | None
    processor: Processor | None
    """None if the filter is off."""
    waits_for_whole_body: bool
    """A filter before the router's holds each body until it has ended."""
    body_limit_bytes: int
    """What filters can hold of a body here: the listener's limit, or the route's if that is larger."""
    body_limit_place: Place
    authorization_cap: BodyCap | None = None
    """The lowest limit of the filters that authorize requests by their bodies, before or after the router's."""
    filters_on: frozenset[str] = frozenset()
    """Names of the filters that are enabled on the route."""
    tuned: frozenset[str] = frozenset()
    """Names of the filters for which the route has settings of its own, which its virtual host does not have."""
    waiting: frozenset[str] = frozenset()
    """Names of those that may hold a request at its head here while they wait for a server or a timer."""
    returning: frozenset[str] = frozenset()
    """Names of the external processors that are in full duplex here."""
    retry_limit_bytes: int | None = None
    """The largest body that Envoy keeps for a retry, if set separately from the listener's buffer limit."""
    redirects_place: Place | None = None
    """Where internal_redirect_policy makes Envoy itself follow a pool's redirects; None if it is not set."""
    removed: frozenset[str] = frozenset()
    """Client headers that are removed after the route has been selected."""
    is_high: bool = False
    """Its requests count towards the circuit breakers of the priority HIGH."""
    asks_retries_place: Place | None = None
    """Where a header is added to requests that asks Envoy for retries, as one of an internal client does."""
    upgrades: frozenset[str] = frozenset()
    """Protocols such as websocket, in lower case, to which requests may switch that pass the router's filter."""

    @property
    def takes_path(self) -> bool:
        """Whether the route takes every request with its path; below 100 % (`runtime_fraction`) it does not."""
        return not (self.headers or self.other_conditions) and self.percent >= ALL_PERCENT

    def takes_all_of(self, other: "Route", sent: Mapping[str, str] = MappingProxyType({})) -> bool:
        """Return whether the route takes every request that another matches and that has the headers `sent`.

        False if that is not known.
        """
        if self.percent < ALL_PERCENT or not self.path.covers(other.path):
            return False
        known = {each.name: each.exact for each in other.headers if each.exact is not None and not each.inverted}
        known |= sent
        return self.other_conditions <= other.other_conditions and all(
            each in other.headers or each.matches_known(known) for each in self.headers
        )

    @property
    def matches_all(self) -> bool:
        """Whether the route takes every request."""
        return self.takes_path and self.path.is_any

    def allows_method(self, *methods: str) -> bool:
        """Return whether requests with one of these methods may match."""
        said = [match for match in self.headers if match.name == ":method"]
        return any(all(match.matches(method) for match in said) for method in methods)

    def header(self, name: str) -> HeaderMatch | None:
        """Return the condition on a header, None if there is none or only an inverted one."""
        return next((each for each in self.headers if each.name == name and not each.inverted), None)


@dataclass(frozen=True, slots=True, eq=False)
class Host:
    """A virtual host, with its routes in the order in which they are tried; it equals no other."""

    name: str
    place: Place
    routes: tuple[Route, ...]
