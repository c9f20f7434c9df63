"""Neutral replies, which forward everything unchanged, for each event and body mode; closing a stream."""

from collections.abc import Sequence
from typing import Final

from extproc.core.exchange.events import (
    Abort,
    BodyMode,
    Broken,
    Close,
    ContinueBody,
    ContinueHeaders,
    ContinueTrailers,
    EchoBody,
    Event,
    Modes,
    Phase,
    Reply,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
)

__all__ = ["ECHO_PIECE_BYTES", "NEUTRAL", "DuplexBodies", "Replies", "closing", "neutral_replies"]

Replies = Sequence[Reply]

# Envoy rejects a streamed_response chunk over 64 KiB minus its framing.
ECHO_PIECE_BYTES: Final = 62 * 1024


def neutral_replies(event: Event, modes: Modes) -> Replies:
    """Return the replies that change nothing; none for an event that needs no reply."""
    if modes.full_duplex:
        match event:
            case RequestBody(data, ended) if modes.request_body is BodyMode.FULL_DUPLEX_STREAMED:
                return _echo(Phase.REQUEST, data, ended)
            case ResponseBody(data, ended) if modes.response_body is BodyMode.FULL_DUPLEX_STREAMED:
                return _echo(Phase.RESPONSE, data, ended)
            case _:
                pass
    return NEUTRAL.get(type(event), ())


NEUTRAL: Final[dict[type, tuple[Reply, ...]]] = {
    RequestHeaders: (ContinueHeaders(Phase.REQUEST),),
    RequestBody: (ContinueBody(Phase.REQUEST),),
    RequestTrailers: (ContinueTrailers(Phase.REQUEST),),
    ResponseHeaders: (ContinueHeaders(Phase.RESPONSE),),
    ResponseBody: (ContinueBody(Phase.RESPONSE),),
    ResponseTrailers: (ContinueTrailers(Phase.RESPONSE),),
}


def closing(replies: Replies, duplex: "DuplexBodies | None") -> Replies:
    """Return the last replies of a stream, with a close at the end; with `duplex`, only if no byte would be lost.

    Without `duplex` the close replaces all replies except the one that carries a decision.
    """
    if duplex is None:
        for reply in replies:
            if isinstance(reply, ContinueHeaders | ContinueBody) and reply.decision is not None:
                return [reply, CLOSE]
        return [CLOSE]
    if duplex.under_way or Abort() in replies:
        return replies
    return [*replies, CLOSE]


CLOSE: Final = Close()


def _echo(phase: Phase, data: bytes, ended: bool) -> list[Reply]:  # noqa: FBT001
    starts = range(0, max(len(data), 1), ECHO_PIECE_BYTES)
    return [
        EchoBody(phase, data[start : start + ECHO_PIECE_BYTES], ended and start == starts[-1]) for start in starts
    ]


class DuplexBodies:
    """Tracks which full-duplex bodies are in progress: during one, a close would lose bytes."""

    def __init__(self, modes: Modes) -> None:
        self._request_mode = modes.request_body is BodyMode.FULL_DUPLEX_STREAMED
        self._response_mode = modes.response_body is BodyMode.FULL_DUPLEX_STREAMED
        self._request = self._response = self._before = False

    @property
    def under_way(self) -> bool:
        """Whether closing now would lose bytes."""
        return self._request or self._response

    def observe(self, event: Event) -> None:
        """Track where the bodies begin and end."""
        if isinstance(event, Broken):
            return
        self._before = self.under_way
        match event:
            case RequestHeaders(end_of_stream=ended):
                self._request = self._request_mode and not ended
            case ResponseHeaders(end_of_stream=ended):
                self._response = self._response_mode and not ended
            case RequestBody(end_of_stream=True) | RequestTrailers():
                self._request = False
            case ResponseBody(end_of_stream=True) | ResponseTrailers():
                self._response = False
            case _:
                pass

    def loses(self, event: Broken) -> bool:
        """Return whether bytes are lost if the stream ends here.

        A message that could not be decoded may be the first of a response. A reply that could not be encoded may
        belong to the end of a body that was in progress before the event.
        """
        return self.under_way or self._response_mode or (event.unsent and self._before)
