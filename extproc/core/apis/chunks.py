"""Usage of OpenAI's chat and text completions, whose responses and streams share one format.

A stream consists of chunks and then `[DONE]`, or ends cleanly after a finish reason and usage. Usage comes in the
last chunk before that (`include_usage`) or, as running totals, in every chunk (vLLM's `continuous_usage_stats`);
in other chunks it is absent or null. So the reader keeps the bytes of the last chunk that may hold usage and
decodes only that one, at the end: each token costs a few byte searches. Quotes inside JSON strings are escaped, so
`"usage":` never matches text that the model generated.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from extproc.core.apis.bodies import is_set
from extproc.core.errors import ResponseFault, ResponseNotUnderstood
from extproc.core.reading.reader import EventReader
from extproc.core.reading.refusal import read_overflow
from extproc.core.reading.sse import SseEvent
from extproc.core.reading.usages import Cached, checked_usage, decode_response
from extproc.core.usage import Overflow, Usage

__all__ = ["CUTS", "ChunkReader", "TokenCounts", "read_response"]


class _CachedTokens(msgspec.Struct, frozen=True, gc=False):
    cached_tokens: Cached = None


class TokenCounts(msgspec.Struct, frozen=True, gc=False):
    """OpenAI's usage object; for embeddings it has no completion tokens."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _CachedTokens | None = None

    def checked(self, *, cut_by_length: bool = False) -> Usage:
        """Return the counts as a Usage. Raises ResponseNotUnderstood."""
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
        """Whether this is an error: nested, or flat as in vLLM before 0.11."""
        return self.object == "error" or is_set(self.error)

    def was_cut(self) -> bool:
        return any(choice.finish_reason in CUTS for choice in self.choices or ())


# Reasons for which an output is shorter than it would have been; the last two are vLLM's and SGLang's.
CUTS: Final = ("length", "abort", "error")
_RESPONSE = msgspec.json.Decoder(_Response)


def read_response(body: bytes | bytearray) -> Usage:
    """Read the usage of a complete response. Raises ResponseNotUnderstood."""
    response = decode_response(_RESPONSE, body)
    if response.usage is None or response.is_error:
        raise ResponseNotUnderstood(ResponseFault.NO_USAGE)
    return response.usage.checked(cut_by_length=response.was_cut())


class ChunkReader(EventReader):
    """Reads the usage from a stream of completion chunks."""

    _with_usage = b""
    _was_cut = False
    _overflow: Overflow | None = None
    _batch: Sequence[SseEvent] = ()  # the last two batches, which are searched for a finish reason
    _batch_before: Sequence[SseEvent] = ()

    def see(self, events: list[SseEvent]) -> None:
        """Process the next events. Raises ResponseNotUnderstood if one of them is an error."""
        if events:
            self._batch_before, self._batch = self._batch, events
        for event in events:
            data = event.data
            # rfind costs half as much as `in`, and this runs once per token.
            usage_at = data.rfind(_USAGE)
            if usage_at >= 0 and not data.startswith(_NULLS, usage_at + len(_USAGE)):
                self._with_usage = data
            if (
                data.rfind(b'"length"') >= 0
                or data.rfind(b'"abort"') >= 0
                or data.rfind(b':"error"') >= 0
                or data.startswith(_ERRORS)
            ):
                self._look_into(data)
            elif data == b"[DONE]":
                self.complete = True

    def usage(self) -> Usage | Overflow:
        """Return the usage of the complete stream, or the refusal that it consists of.

        Raises ResponseNotUnderstood.
        """
        if self._overflow is not None:
            return self._overflow
        if not self.complete and not self._ended_cleanly():
            raise ResponseNotUnderstood(ResponseFault.CUT_SHORT, "no [DONE], and no finish reason with usage")
        if not self._with_usage:
            raise ResponseNotUnderstood(ResponseFault.NO_USAGE)
        chunk = decode_response(_RESPONSE, self._with_usage, ResponseFault.BROKEN_SSE)
        if chunk.usage is None:
            raise ResponseNotUnderstood(ResponseFault.NO_USAGE)
        return chunk.usage.checked(cut_by_length=self._was_cut)

    def _ended_cleanly(self) -> bool:
        """Return whether usage and a finish reason were seen; called at the end of the stream."""
        last = [event.data for event in (*self._batch_before, *self._batch)][-_LAST_CHUNKS:]
        return bool(self._with_usage) and any(
            choice.finish_reason
            for data in last
            for choice in decode_response(_RESPONSE, data, ResponseFault.CUT_SHORT).choices or ()
        )

    def _look_into(self, data: bytes) -> None:
        chunk = decode_response(_RESPONSE, data, ResponseFault.BROKEN_SSE)
        if chunk.is_error:
            # Older versions of SGLang begin a stream before they check the request's length (its issue 22785).
            self._overflow = read_overflow(data) if self._is_first(data) else None
            if self._overflow is not None:
                self.complete = True
                return
            raise ResponseNotUnderstood(ResponseFault.NO_USAGE, "the stream contains an error")
        self._was_cut = self._was_cut or chunk.was_cut()

    def _is_first(self, data: bytes) -> bool:
        """Return whether this is the stream's first event; later errors are about the output."""
        return not self._batch_before and data is self._batch[0].data


_USAGE: Final = b'"usage":'
_LAST_CHUNKS: Final = 8  # enough for the finish reasons of a few sequences, and the usage
_NULLS: Final = (b"null", b" null")
_ERRORS: Final = (b'{"error"', b'{"object":"error"', b'{"object": "error"')
