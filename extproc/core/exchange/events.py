"""What can happen to an exchange, and what it can reply: plain events and replies, free of any wire format.

A gateway's ext_proc stream is translated to events by `wire/`, and replies back to its messages. Sources for the
body modes: Envoy's `processing_mode.proto` and `external_processor.proto`. Events and replies are frozen structs
of msgspec's, since several are made per message, and a frozen dataclass costs five times as much to make.
"""

from enum import IntEnum

import msgspec

from extproc.core.exchange.modes import BodyMode, Modes
from extproc.core.facts import RequestHead, ResponseHead
from extproc.core.placing.decision import Decision

__all__ = [
    "Abort",
    "BodyMode",
    "Broken",
    "Close",
    "ContinueBody",
    "ContinueHeaders",
    "ContinueTrailers",
    "Deadline",
    "Drain",
    "EchoBody",
    "Event",
    "Modes",
    "Phase",
    "Reply",
    "RequestBody",
    "RequestHeaders",
    "RequestTrailers",
    "ResponseBody",
    "ResponseHeaders",
    "ResponseTrailers",
    "Shed",
]


class Phase(IntEnum):
    """Which half of the exchange a reply belongs to."""

    REQUEST = 0
    RESPONSE = 1


class RequestHeaders(msgspec.Struct, frozen=True, gc=False):
    """The request's headers; `end_of_stream` when no body follows."""

    head: RequestHead
    end_of_stream: bool = False


class RequestBody(msgspec.Struct, frozen=True, gc=False):
    """A piece of the request body, or all of it."""

    data: bytes
    end_of_stream: bool


class RequestTrailers(msgspec.Struct, frozen=True, gc=False):
    """The request ended with trailers."""


class ResponseHeaders(msgspec.Struct, frozen=True, gc=False):
    """The response's headers."""

    head: ResponseHead
    end_of_stream: bool = False


class ResponseBody(msgspec.Struct, frozen=True, gc=False):
    """A piece of the response's body."""

    data: bytes
    end_of_stream: bool


class ResponseTrailers(msgspec.Struct, frozen=True, gc=False):
    """The response ended with trailers."""


class Deadline(msgspec.Struct, frozen=True, gc=False):
    """The time that a held request may wait for its body is over."""


class Shed(msgspec.Struct, frozen=True, gc=False):
    """The router has more to do than it can in time: an exchange that is still undecided is given up."""


class Drain(msgspec.Struct, frozen=True, gc=False):
    """The router is shutting down: the exchange is to end as soon as that is harmless."""


class Broken(msgspec.Struct, frozen=True, gc=False):
    """A message could not be decoded, or (`unsent`) a reply not encoded; nothing more can be said."""

    error: Exception
    unsent: bool = False


Event = (
    RequestHeaders
    | RequestBody
    | RequestTrailers
    | ResponseHeaders
    | ResponseBody
    | ResponseTrailers
    | Deadline
    | Shed
    | Drain
    | Broken
)


class ContinueHeaders(msgspec.Struct, frozen=True, gc=False):
    """Let the headers go on; with a decision, mutate the request's headers by it and choose the route again."""

    phase: Phase
    decision: Decision | None = None


class ContinueBody(msgspec.Struct, frozen=True, gc=False):
    """Let a body message go on as it came; with a decision (BUFFERED), mutate the headers by it."""

    phase: Phase
    decision: Decision | None = None


class EchoBody(msgspec.Struct, frozen=True, gc=False):
    """Send a piece of body back (FULL_DUPLEX_STREAMED)."""

    phase: Phase
    data: bytes
    end_of_stream: bool


class ContinueTrailers(msgspec.Struct, frozen=True, gc=False):
    """Let the trailers go on."""

    phase: Phase


class Close(msgspec.Struct, frozen=True, gc=False):
    """Close the stream cleanly; all that is still to come passes without us."""


class Abort(msgspec.Struct, frozen=True, gc=False):
    """Close the stream with an error: a part of a body is lost, and the gateway has to know."""


Reply = ContinueHeaders | ContinueBody | EchoBody | ContinueTrailers | Close | Abort
