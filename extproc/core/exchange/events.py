"""The events and replies of an exchange, independent of any wire format.

`wire/` translates the messages of a gateway's ext_proc stream to events, and replies to messages. Sources for the
body modes: Envoy's `processing_mode.proto` and `external_processor.proto`. Events and replies are frozen msgspec
structs, since several are created per message and a frozen dataclass costs five times as much to create.
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
    """The request's headers; `end_of_stream` is True if no body follows."""

    head: RequestHead
    end_of_stream: bool = False


class RequestBody(msgspec.Struct, frozen=True, gc=False):
    """A chunk of the request body, or all of it."""

    data: bytes
    end_of_stream: bool


class RequestTrailers(msgspec.Struct, frozen=True, gc=False):
    """The request ended with trailers."""


class ResponseHeaders(msgspec.Struct, frozen=True, gc=False):
    """The response's headers."""

    head: ResponseHead
    end_of_stream: bool = False


class ResponseBody(msgspec.Struct, frozen=True, gc=False):
    """A chunk of the response body."""

    data: bytes
    end_of_stream: bool


class ResponseTrailers(msgspec.Struct, frozen=True, gc=False):
    """The response ended with trailers."""


class Deadline(msgspec.Struct, frozen=True, gc=False):
    """A held request has waited for its body as long as it may."""


class Shed(msgspec.Struct, frozen=True, gc=False):
    """The router is overloaded: an exchange that is still undecided goes to the default pool."""


class Drain(msgspec.Struct, frozen=True, gc=False):
    """The router is shutting down: the exchange should end as soon as that is harmless."""


class Broken(msgspec.Struct, frozen=True, gc=False):
    """A message could not be decoded or, with `unsent`, a reply not encoded; nothing more can be sent."""

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
    """Forward the headers; with a decision, apply it to the request's headers and clear the route cache."""

    phase: Phase
    decision: Decision | None = None


class ContinueBody(msgspec.Struct, frozen=True, gc=False):
    """Forward a body message unchanged; with a decision (BUFFERED), apply it to the headers."""

    phase: Phase
    decision: Decision | None = None


class EchoBody(msgspec.Struct, frozen=True, gc=False):
    """Send a chunk of the body back (FULL_DUPLEX_STREAMED)."""

    phase: Phase
    data: bytes
    end_of_stream: bool


class ContinueTrailers(msgspec.Struct, frozen=True, gc=False):
    """Forward the trailers."""

    phase: Phase


class Close(msgspec.Struct, frozen=True, gc=False):
    """Close the stream cleanly; the rest of the exchange bypasses us."""


class Abort(msgspec.Struct, frozen=True, gc=False):
    """Close the stream with an error, so that the gateway knows that a part of a body is lost."""


Reply = ContinueHeaders | ContinueBody | EchoBody | ContinueTrailers | Close | Abort
