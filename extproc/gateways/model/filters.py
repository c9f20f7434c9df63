"""HTTP filters of a gateway, the router's among them."""

from dataclasses import dataclass
from enum import StrEnum

from extproc.gateways.parsing.sources import Place

__all__ = ["Filter", "Kind", "Modes", "Processor"]


class Kind(StrEnum):
    """What a filter does, as far as its position matters. Determined by its type, since names are arbitrary."""

    PROCESSOR = "ext_proc"
    DECOMPRESSOR = "decompressor"
    COMPRESSOR = "compressor"
    RATE_LIMIT = "rate limit"
    AUTH = "authentication"
    BUFFER = "buffer"
    FILE_BUFFER = "file_system_buffer"
    TERMINAL = "router"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Filter:
    """One HTTP filter of the chain."""

    name: str
    kind: Kind
    place: Place
    disabled: bool = False
    changes: frozenset[str] = frozenset()
    """The router's headers that this filter removes or overwrites."""
    asks_retries: frozenset[str] = frozenset()
    """Headers that this filter adds to requests, and by which they ask Envoy for retries."""
    route_comes_last: bool = False
    """What a route has this filter do to headers comes after what its host and table do, not before."""
    waits: bool = False
    """The filter may hold a request at its head while it waits for a server or a timer, unless its route says
    otherwise."""
    returns_bodies: bool = False
    """The filter is an external processor in full duplex, unless its route says otherwise."""
    only_observes: bool = False
    """The filter is an external processor for whose replies Envoy does not wait, whatever a route says."""
    has_limits: bool = False
    """The filter has rate limits of its own, for routes that have none."""
    whole_bytes: int | None = None
    """The filter holds each body until it has ended, and refuses larger ones than this (a 413), unless its route
    says otherwise; None if it does not."""
    body_limit_bytes: int | None = None
    """The filter sets this limit for what all filters of the chain may hold of a request's body; None if it sets
    none."""


@dataclass(frozen=True, slots=True)
class Modes:
    """Which parts of a request and its response are sent to the router; values are Envoy's names."""

    request_headers: str = "DEFAULT"
    request_body: str = "NONE"
    request_trailers: str = "DEFAULT"
    response_headers: str = "DEFAULT"
    response_body: str = "NONE"
    response_trailers: str = "DEFAULT"


@dataclass(frozen=True, slots=True)
class Processor:
    """The router's filter, with one route's overrides applied."""

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
    """The route is not selected again, even if the router asks for it."""
    namespaces: frozenset[str]
    """Namespaces of dynamic metadata that Envoy accepts from the router."""
    withheld: frozenset[str]
    """Headers that the router reads, in requests or responses, but is not sent."""
    refused: frozenset[str] = frozenset()
    """Headers that the router sets but Envoy does not accept from it."""
    refusal_fails: bool = False
    """A refused header fails the request."""
    only_observes: bool = False
    """Envoy does not wait for the router's replies (observability_mode)."""
    lets_respond: bool = False
    """Envoy sends a response of the router's own to the client (disable_immediate_response is not set)."""
    lets_change: bool = False
    """Envoy accepts headers from the router that it does not set."""
