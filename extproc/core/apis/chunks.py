"""The usage of OpenAI's chat and text completions, whose responses and streams have the same frame.

A stream is chunks and then `[DONE]`, or a clean end after finish reason and usage. Its usage comes in the last
chunk before that (`include_usage`) or, counted on, in every chunk (vLLM's `continuous_usage_stats`); chunks
without it have none or null. So the stream keeps the bytes of the last chunk that may hold usage and decodes that
one alone, at the end: a token costs a few searches.
Inside JSON strings quotes are escaped, so that `"usage":` is never a part of what the model said.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from extproc.core.apis.bodies import is_set
from extproc.core.errors import ResponseFault, ResponseNotUnderstood
from extproc.core.reading.reader import EventReader
from extproc.core.reading.sse import SseEvent
from extproc.core.reading.usages import Cached, checked_usage, decode_response
from extproc.core.usage import Usage

__all__ = ["ChunkReader", "TokenCounts", "read_response"]


class _CachedTokens(msgspec.Struct, frozen=True, gc=False):
    cached_tokens: Cached = None


class TokenCounts(msgspec.Struct, frozen=True, gc=False):
    """OpenAI's usage object; embeddings have it without completion tokens."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _CachedTokens | None = None

    def checked(self, *, cut_by_length: bool = False) -> Usage:
        """Make a Usage of it. Raises ResponseNotUnderstood."""
        details = self.prompt_tokens_details
        cached_tokens = details.cached_tokens if details else None
        return checked_usage(
            self.prompt_tokens, self.completion_tokens, cached_tokens, cut_by_length=cut_by_length
        )


class _Choice(msgspec.Struct, frozen=True, gc=False):
    finish_reason: str | None = None


class _Response(msgspec.Struct, frozen=True, gc=False):
    usage: TokenCounts | None = None
    choices: Sequence[_Choice] | None = None
    error: msgspec.Raw = msgspec.Raw()
    object: str | None = None

    @property
    def is_error(self) -> bool:
        """Whether this is an error: nested, or flat as vLLM wrote it before 0.11."""
        return self.object == "error" or is_set(self.error)

    def was_cut(self) -> bool:
        return any(choice.finish_reason == "length" for choice in self.choices or ())


_RESPONSE = msgspec.json.Decoder(_Response)


def read_response(body: bytes | bytearray) -> Usage:
    """Read the usage of a whole response. Raises ResponseNotUnderstood."""
    response = decode_response(_RESPONSE, body)
    if response.usage is None or response.is_error:
        raise ResponseNotUnderstood(ResponseFault.NO_USAGE)
    return response.usage.checked(cut_by_length=response.was_cut())


class ChunkReader(EventReader):
    """Finds the usage in a stream of completion chunks."""

    _with_usage = b""
    _was_cut = False
    _batch: Sequence[SseEvent] = ()  # the last two that came, where a finish reason is looked for
    _batch_before: Sequence[SseEvent] = ()

    def see(self, events: list[SseEvent]) -> None:
        """Look at the next events. Raises ResponseNotUnderstood when one of them is an error."""
        if events:
            self._batch_before, self._batch = self._batch, events
        for event in events:
            data = event.data
            # rfind costs half of what `in` does, and this runs once per token.
            usage_at = data.rfind(_USAGE)
            if usage_at >= 0 and not data.startswith(_NULLS, usage_at + len(_USAGE)):
                self._with_usage = data
            if data.rfind(b'"length"') >= 0 or data.startswith(_ERRORS):
                self._look_into(data)
            elif data == b"[DONE]":
                self.complete = True

    def usage(self) -> Usage:
        """Return the usage of the complete stream. Raises ResponseNotUnderstood."""
        if not self.complete and not self._ended_cleanly():
            raise ResponseNotUnderstood(ResponseFault.CUT_SHORT, "no [DONE], and no finish reason with usage")
        if not self._with_usage:
            raise ResponseNotUnderstood(ResponseFault.NO_USAGE)
        chunk = decode_response(_RESPONSE, self._with_usage, ResponseFault.BROKEN_SSE)
        if chunk.usage is None:
            raise ResponseNotUnderstood(ResponseFault.NO_USAGE)
        return chunk.usage.checked(cut_by_length=self._was_cut)

    def _ended_cleanly(self) -> bool:
        """Tell whether usage and a finish reason were seen; called at the stream's end."""
        last = [event.data for event in (*self._batch_before, *self._batch)][-_LAST_CHUNKS:]
        return bool(self._with_usage) and any(
            choice.finish_reason
            for data in last
            for choice in decode_response(_RESPONSE, data, ResponseFault.CUT_SHORT).choices or ()
        )

    def _look_into(self, data: bytes) -> None:
        chunk = decode_response(_RESPONSE, data, ResponseFault.BROKEN_SSE)
        if chunk.is_error:
            raise ResponseNotUnderstood(ResponseFault.NO_USAGE, "the stream holds an error")
        self._was_cut = self._was_cut or chunk.was_cut()


_USAGE: Final = b'"usage":'
_LAST_CHUNKS: Final = 8  # a finish reason of each of a few sequences, and the usage
_NULLS: Final = (b"null", b" null")
_ERRORS: Final = (b'{"error"', b'{"object":"error"', b'{"object": "error"')
