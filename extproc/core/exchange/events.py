"""What can happen to an exchange, and what it can answer: plain events and actions, free of any wire format.

A gateway's ext_proc stream is translated to events by `wire/`, and actions back to its messages. Sources for the
body modes: Envoy's `processing_mode.proto` and `external_processor.proto`.
"""

from dataclasses import dataclass
from enum import Enum

from extproc.core.facts import RequestHead
from extproc.core.placing.decision import Decision

__all__ = [
    "MAY_DECIDE",
    "Action",
    "BodyMode",
    "Close",
    "ContinueBody",
    "ContinueHeaders",
    "ContinueTrailers",
    "Deadline",
    "EchoBody",
    "Event",
    "Modes",
    "Phase",
    "RequestBody",
    "RequestHeaders",
    "RequestTrailers",
    "ResponseBody",
    "ResponseHead",
    "ResponseHeaders",
    "ResponseTrailers",
]


class BodyMode(Enum):
    """How the gateway gives us a body; Envoy's ProcessingMode.BodySendMode by number."""

    NONE = 0
    STREAMED = 1
    BUFFERED = 2
    BUFFERED_PARTIAL = 3
    FULL_DUPLEX_STREAMED = 4
    OTHER = 5


@dataclass(frozen=True, slots=True)
class Modes:
    """The gateway's own word on how it talks, from the first message's protocol_config.

    `body_without_waiting` is send_body_without_waiting_for_header_response: in STREAMED, body chunks come while
    the headers' response is still held.
    """

    request_body: BodyMode = BodyMode.BUFFERED
    response_body: BodyMode = BodyMode.BUFFERED
    body_without_waiting: bool = False


class Phase(Enum):
    """Which half of the exchange an action belongs to."""

    REQUEST = "request"
    RESPONSE = "response"


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """The few response headers that matter here. `attempts` is Envoy's x-envoy-attempt-count, 1 when absent."""

    status: int
    content_type: str = ""
    content_encoding: str = ""
    attempts: int = 1

    @property
    def succeeded(self) -> bool:
        """Whether the status is a 2xx."""
        return 200 <= self.status < 300  # noqa: PLR2004


@dataclass(frozen=True, slots=True)
class RequestHeaders:
    """The request's headers; `end_of_stream` when no body follows."""

    head: RequestHead
    end_of_stream: bool = False


@dataclass(frozen=True, slots=True)
class RequestBody:
    """A piece of the request body, or all of it."""

    data: bytes
    end_of_stream: bool


@dataclass(frozen=True, slots=True)
class RequestTrailers:
    """The request ended with trailers."""


@dataclass(frozen=True, slots=True)
class ResponseHeaders:
    """The response's headers."""

    head: ResponseHead
    end_of_stream: bool = False


@dataclass(frozen=True, slots=True)
class ResponseBody:
    """A piece of the response's body."""

    data: bytes
    end_of_stream: bool


@dataclass(frozen=True, slots=True)
class ResponseTrailers:
    """The response ended with trailers."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """The time that a held request may wait for its body is over."""


Event = (
    RequestHeaders | RequestBody | RequestTrailers | ResponseHeaders | ResponseBody | ResponseTrailers | Deadline
)


@dataclass(frozen=True, slots=True)
class ContinueHeaders:
    """Let the headers go on; with a decision, mutate the request's headers by it and choose the route again."""

    phase: Phase
    decision: Decision | None = None


@dataclass(frozen=True, slots=True)
class ContinueBody:
    """Let a body message go on as it came; with a decision (BUFFERED), mutate the headers by it."""

    phase: Phase
    decision: Decision | None = None


@dataclass(frozen=True, slots=True)
class EchoBody:
    """Send a piece of body back (FULL_DUPLEX_STREAMED)."""

    phase: Phase
    data: bytes
    end_of_stream: bool


@dataclass(frozen=True, slots=True)
class ContinueTrailers:
    """Let the trailers go on."""

    phase: Phase


@dataclass(frozen=True, slots=True)
class Close:
    """Close the stream cleanly; all that is still to come passes without us."""


Action = ContinueHeaders | ContinueBody | EchoBody | ContinueTrailers | Close
# The actions that can carry a decision.
MAY_DECIDE = (ContinueHeaders, ContinueBody)
