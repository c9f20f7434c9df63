"""Usage in the responses of Anthropic's `/v1/messages`, as vLLM and Anthropic send it."""

from typing import Final

import msgspec

from extproc.core.errors import ResponseFault, ResponseNotUnderstood
from extproc.core.reading.reader import EventReader
from extproc.core.reading.sse import SseEvent
from extproc.core.reading.usages import checked_usage, decode_response
from extproc.core.usage import Usage

__all__ = ["MessageReader", "read_response"]


class _TokenCounts(msgspec.Struct, frozen=True, gc=False):
    """Anthropic's usage: cached tokens are not included in input_tokens."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None

    def prompt_tokens(self) -> int | None:
        if self.input_tokens is None:
            return None
        return self.input_tokens + (self.cache_read_input_tokens or 0) + (self.cache_creation_input_tokens or 0)


class _Response(msgspec.Struct, frozen=True, gc=False):
    usage: _TokenCounts | None = None
    stop_reason: str | None = None


_RESPONSE = msgspec.json.Decoder(_Response)


def read_response(body: bytes | bytearray) -> Usage:
    """Read the usage of a complete response. Raises ResponseNotUnderstood."""
    response = decode_response(_RESPONSE, body)
    if response.usage is None:
        raise ResponseNotUnderstood(ResponseFault.NO_USAGE)
    return _checked(response.usage, response.usage.output_tokens, response.stop_reason)


def _checked(prompt: _TokenCounts, output_tokens: int | None, stop_reason: str | None) -> Usage:
    cut = stop_reason in _CUT
    return checked_usage(prompt.prompt_tokens(), output_tokens, prompt.cache_read_input_tokens, cut_by_length=cut)


# The client's output limit, and the model's context length.
_CUT: Final = frozenset({"max_tokens", "model_context_window_exceeded"})


class _Event(msgspec.Struct, frozen=True, gc=False):
    type: str | None = None
    message: _Response | None = None
    delta: _Response | None = None
    usage: _TokenCounts | None = None


_EVENT = msgspec.json.Decoder(_Event)


class MessageReader(EventReader):
    """Reads the usage from a stream of message events.

    `message_start` has the prompt's counts. Each `message_delta` has the output tokens so far and, with newer
    servers, the prompt's counts again, which then take precedence. Blocks and their deltas are not decoded.
    """

    _prompt: _TokenCounts | None = None
    _output_tokens: int | None = None
    _stop_reason: str | None = None

    def see(self, events: list[SseEvent]) -> None:
        """Process the next events. Raises ResponseNotUnderstood if one of them is an error."""
        for event in events:
            if self.complete:
                return  # some servers append OpenAI's [DONE]
            if event.event in _COUNTED or (not event.event and b'"content_block_' not in event.data):
                self._look_into(event.data)

    def usage(self) -> Usage:
        """Return the usage of the complete stream. Raises ResponseNotUnderstood."""
        if not self.complete and (self._stop_reason is None or self._output_tokens is None):
            raise ResponseNotUnderstood(ResponseFault.CUT_SHORT, "no message_stop, and no stop reason with usage")
        if self._prompt is None:
            raise ResponseNotUnderstood(ResponseFault.NO_USAGE)
        return _checked(self._prompt, self._output_tokens, self._stop_reason)

    def _look_into(self, data: bytes) -> None:
        event = decode_response(_EVENT, data, ResponseFault.BROKEN_SSE)
        match event.type:
            case "message_start":
                self._prompt = event.message.usage if event.message else None
            case "message_delta":
                self._count(event.usage)
                self._stop_reason = (event.delta and event.delta.stop_reason) or self._stop_reason
            case "message_stop":
                self.complete = True
            case "error":
                raise ResponseNotUnderstood(ResponseFault.NO_USAGE, "the stream contains an error")

    def _count(self, usage: _TokenCounts | None) -> None:
        if usage is None:
            return
        if usage.output_tokens is not None:
            self._output_tokens = usage.output_tokens
        counted = self._prompt.prompt_tokens() if self._prompt else None
        if (usage.prompt_tokens() or 0) > (counted or 0):  # a lower count merely lacks the cached part
            self._prompt = usage


_COUNTED: Final = frozenset({b"message_start", b"message_delta", b"message_stop", b"error"})
