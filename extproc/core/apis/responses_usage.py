"""Usage of OpenAI's `/v1/responses`: of a complete response, and of a stream, whose last event repeats it."""

from typing import Final

import msgspec
from msgspec.structs import replace

from extproc.core.apis.bodies import is_set
from extproc.core.errors import ResponseFault, ResponseNotUnderstood
from extproc.core.reading.reader import EventReader
from extproc.core.reading.sse import SseEvent
from extproc.core.reading.usages import Cached, checked_usage, decode_response
from extproc.core.usage import Usage

__all__ = ["ResponseReader", "read_response"]

MAX_TURNS_BYTES: Final = 4096  # of the list of their input tokens


class _InputDetails(msgspec.Struct, frozen=True, gc=False):
    cached_tokens: Cached = None
    input_tokens_per_turn: msgspec.Raw = msgspec.Raw()


class _TokenCounts(msgspec.Struct, frozen=True, gc=False):
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _InputDetails | None = None


class _Incomplete(msgspec.Struct, frozen=True, gc=False):
    reason: str | None = None


class _Response(msgspec.Struct, frozen=True, gc=False):
    usage: _TokenCounts | None = None
    incomplete_details: _Incomplete | None = None
    status: str | None = None

    def checked(self) -> Usage:
        """Return the counts as a Usage.

        If the server called its own tools, vLLM's input_tokens are the sum over all turns; only the first turn is
        the request's prompt. Raises ResponseNotUnderstood.
        """
        usage = self.usage
        if usage is None or self.status in _FAILED:
            raise ResponseNotUnderstood(ResponseFault.NO_USAGE)
        prompt_tokens = usage.input_tokens
        details = usage.input_tokens_details or _InputDetails()
        cached_tokens = details.cached_tokens
        turns = _turns(details.input_tokens_per_turn)
        if len(turns) > 1:
            prompt_tokens = turns[0]
            cached_tokens = None
        cut = self.incomplete_details is not None and self.incomplete_details.reason == "max_output_tokens"
        found = checked_usage(prompt_tokens, usage.output_tokens, cached_tokens, cut_by_length=cut)
        return replace(found, several_turns=True) if len(turns) > 1 else found


def _turns(counts: msgspec.Raw) -> list[int]:
    """Return the input tokens of each turn. Raises ResponseNotUnderstood for more than any server counts."""
    if len(counts) > MAX_TURNS_BYTES:
        raise ResponseNotUnderstood(ResponseFault.WRONG_USAGE, f"{len(counts)} bytes of input_tokens_per_turn")
    return (decode_response(_TURNS, bytes(counts)) or []) if is_set(counts) else []


_TURNS = msgspec.json.Decoder(list[int] | None)
# Statuses of responses that have ended without a complete output.
_FAILED: Final = ("failed", "cancelled")
_RESPONSE = msgspec.json.Decoder(_Response)


def read_response(body: bytes | bytearray) -> Usage:
    """Read the usage of a complete response. Raises ResponseNotUnderstood."""
    return decode_response(_RESPONSE, body).checked()


class _Event(msgspec.Struct, frozen=True, gc=False):
    type: str | None = None
    response: _Response | None = None


_EVENT = msgspec.json.Decoder(_Event)


class ResponseReader(EventReader):
    """Reads the usage from a stream of response events: the last event repeats the complete response."""

    _response: _Response | None = None

    def see(self, events: list[SseEvent]) -> None:
        """Process the next events. Raises ResponseNotUnderstood if one of them is an error."""
        for event in events:
            if event.event in _LAST or (not event.event and any(kind in event.data for kind in _LAST_QUOTED)):
                self._look_into(event.data)

    def usage(self) -> Usage:
        """Return the usage of the complete stream. Raises ResponseNotUnderstood."""
        if self._response is None:
            raise ResponseNotUnderstood(ResponseFault.CUT_SHORT, "no response.completed")
        return self._response.checked()

    def _look_into(self, data: bytes) -> None:
        event = decode_response(_EVENT, data, ResponseFault.BROKEN_SSE)
        if event.type in {"response.failed", "error"}:
            raise ResponseNotUnderstood(ResponseFault.NO_USAGE, "the stream contains an error")
        if event.type in {"response.completed", "response.incomplete"}:
            self._response = event.response or _Response()
            self.complete = True


_LAST: Final = frozenset({b"response.completed", b"response.incomplete", b"response.failed", b"error"})
_LAST_QUOTED: Final = tuple(b'"%b"' % name for name in _LAST)
