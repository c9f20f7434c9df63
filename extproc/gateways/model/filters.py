"""Filters of a gateway, and the router's among them."""

from dataclasses import dataclass
from enum import StrEnum

from extproc.gateways.sources import Place

__all__ = ["Filter", "Kind", "Modes", "Processor"]


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
