"""Letting things go on as they came: the neutral reply to each event, in each body mode."""

from collections.abc import Iterator

from extproc.core.exchange.events import (
    Action,
    BodyMode,
    ContinueBody,
    ContinueHeaders,
    ContinueTrailers,
    EchoBody,
    Event,
    Modes,
    Phase,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
)

__all__ = ["ECHO_PIECE_BYTES", "DuplexBodies", "neutral_reply"]

# Envoy refuses streamed_response pieces over 64 KiB less its framing.
ECHO_PIECE_BYTES = 62 * 1024


def neutral_reply(event: Event, modes: Modes) -> list[Action]:
    """Return the reply that changes nothing; none for what needs no reply."""
    match event:
        case RequestHeaders():
            return [ContinueHeaders(Phase.REQUEST)]
        case ResponseHeaders():
            return [ContinueHeaders(Phase.RESPONSE)]
        case RequestBody(data, ended):
            return _body_reply(Phase.REQUEST, modes.request_body, data, ended)
        case ResponseBody(data, ended):
            return _body_reply(Phase.RESPONSE, modes.response_body, data, ended)
        case RequestTrailers():
            return [ContinueTrailers(Phase.REQUEST)]
        case ResponseTrailers():
            return [ContinueTrailers(Phase.RESPONSE)]
        case _:
            return []


def _body_reply(phase: Phase, mode: BodyMode, data: bytes, ended: bool) -> list[Action]:  # noqa: FBT001
    if mode is not BodyMode.FULL_DUPLEX_STREAMED:
        return [ContinueBody(phase)]
    return list(_echo(phase, data, ended))


def _echo(phase: Phase, data: bytes, ended: bool) -> Iterator[EchoBody]:  # noqa: FBT001
    for start in range(0, max(len(data), 1), ECHO_PIECE_BYTES):
        end = start + ECHO_PIECE_BYTES
        yield EchoBody(phase, data[start:end], end_of_stream=ended and end >= len(data))


class DuplexBodies:
    """Which full-duplex bodies are under way: while one is, the stream must not be closed."""

    def __init__(self, modes: Modes) -> None:
        self.any_mode = BodyMode.FULL_DUPLEX_STREAMED in (modes.request_body, modes.response_body)
        self._modes = modes
        self._request = self._response = False

    @property
    def under_way(self) -> bool:
        """Whether closing now would lose bytes."""
        return self._request or self._response

    def note(self, event: Event) -> None:
        """Follow the bodies' beginnings and ends."""
        match event:
            case RequestHeaders(end_of_stream=ended):
                self._request = self._modes.request_body is BodyMode.FULL_DUPLEX_STREAMED and not ended
            case ResponseHeaders(end_of_stream=ended):
                self._response = self._modes.response_body is BodyMode.FULL_DUPLEX_STREAMED and not ended
            case RequestBody(end_of_stream=True) | RequestTrailers():
                self._request = False
            case ResponseBody(end_of_stream=True) | ResponseTrailers():
                self._response = False
            case _:
                pass
