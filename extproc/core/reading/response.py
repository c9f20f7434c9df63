"""What a response says: its usage, out of bytes that come in any pieces, or that the request did not fit.

A response is decompressed, then either collected and decoded once (JSON) or searched event by event (SSE). Memory
is bounded by `max_bytes` for JSON and by `max_event_bytes` for a stream, of which only the last usage is kept.
"""

import re
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from extproc.core.apis import chat, completions, embeddings, messages, responses
from extproc.core.errors import ResponseFault, ResponseNotUnderstood
from extproc.core.facts import Api
from extproc.core.reading.decoding import decoder_for
from extproc.core.reading.sse import SseParser
from extproc.core.reading.usages import UsageStream
from extproc.core.usage import Overflow, Usage

__all__ = ["MAX_EVENT_BYTES", "UsageReader", "read_overflow"]

# The last event of a Responses stream repeats the whole response and its tools; all others are far smaller.
MAX_EVENT_BYTES: Final = 1 << 20


class UsageReader:
    """Reads the usage of one successful response. After an error it is spent.

    `max_bytes` bounds the decompressed response, in bytes; a stream's events count too, though they are not kept.
    Raises ResponseNotUnderstood for a content type or encoding from which nothing can be read.
    """

    def __init__(
        self,
        api: Api,
        content_type: str,
        content_encoding: str,
        max_bytes: int,
        max_event_bytes: int = MAX_EVENT_BYTES,
    ) -> None:
        self._decoder = decoder_for(content_encoding, max_bytes)
        self._content = _content_for(api, content_type, max_event_bytes)

    def feed(self, data: bytes) -> None:
        """Read the next bytes of the body. Raises ResponseNotUnderstood."""
        self._content.feed(self._decoder.feed(data))

    @property
    def complete(self) -> bool:
        """Whether a stream's last event was seen: clients hang up there, before the body's end has passed."""
        return self._content.complete

    def finish(self) -> Usage:
        """Return the usage of the complete response. Raises ResponseNotUnderstood."""
        if not self._content.complete:
            self._content.feed(self._decoder.finish())
        return self._content.finish()


class _Content(Protocol):
    @property
    def complete(self) -> bool: ...

    def feed(self, data: bytes) -> None: ...

    def finish(self) -> Usage: ...


def _content_for(api: Api, content_type: str, max_event_bytes: int) -> _Content:
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == "application/json":
        return _Json(_WHOLE[api])
    if media_type == "text/event-stream" and api in _STREAMS:
        return _Events(_STREAMS[api](), max_event_bytes)
    raise ResponseNotUnderstood(ResponseFault.NOT_JSON, f"content-type {content_type[:64]!r} of {api}")


class _Json:
    complete = False  # its end is the body's

    def __init__(self, read: Callable[[bytearray], Usage]) -> None:
        self._read = read
        self._body = bytearray()

    def feed(self, data: bytes) -> None:
        self._body += data

    def finish(self) -> Usage:
        return self._read(self._body)


class _Events:
    def __init__(self, usage: UsageStream, max_event_bytes: int) -> None:
        self._usage = usage
        self._parser = SseParser(max_event_bytes)

    def feed(self, data: bytes) -> None:
        self._usage.see(self._parser.feed(data))

    @property
    def complete(self) -> bool:
        return self._usage.complete

    def finish(self) -> Usage:
        return self._usage.finish()


_WHOLE: Final[dict[Api, Callable[[bytearray], Usage]]] = {
    Api.CHAT: chat.read_response,
    Api.COMPLETIONS: completions.read_response,
    Api.EMBEDDINGS: embeddings.read_response,
    Api.RESPONSES: responses.read_response,
    Api.MESSAGES: messages.read_response,
}
_STREAMS: Final[dict[Api, Callable[[], UsageStream]]] = {
    Api.CHAT: chat.ChunkStream,
    Api.COMPLETIONS: completions.ChunkStream,
    Api.RESPONSES: responses.ResponseStream,
    Api.MESSAGES: messages.MessageStream,
}


class _Error(msgspec.Struct, frozen=True, gc=False):
    message: str = ""
    param: str | None = None
    code: str | int | None = None


class _Refusal(_Error, frozen=True, gc=False):
    """An error as it is nested now, and as vLLM wrote it flat before 0.11."""

    error: _Error | None = None


_REFUSAL = msgspec.json.Decoder(_Refusal)


def read_overflow(body: bytes) -> Overflow | None:
    """Recognise the refusal of a request that does not fit the pool's context; None for any other body.

    The message is all that every version of vLLM has in common; newer ones name a `param` too, but `max_tokens`
    also stands for values that are wrong in themselves. Counts in it are lower bounds of the prompt: newer
    versions stop counting where the context ends. Never raises.
    """
    try:
        refusal = _REFUSAL.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    error = refusal.error or refusal
    if not (
        error.code == "context_length_exceeded" or error.param in _INPUT_PARAMS or _OVERFLOW.search(error.message)
    ):
        return None
    named = _PROMPT_TOKENS.search(error.message)
    return Overflow(next((int(count) for count in named.groups() if count), 0) or None if named else None)


_INPUT_PARAMS: Final = frozenset({"input_tokens", "input_text"})
# vLLM: the API servers' checks of all versions, and the engine's own.
_OVERFLOW: Final = re.compile(
    r"maximum context length is [0-9]|context length is only [0-9]|cannot be greater than max_model_len"
    r"|longer than the maximum model length|too long to fit into the model"
)
_PROMPT_TOKENS: Final = re.compile(
    r"\b([0-9]{1,9}) (?:input tokens|tokens in the (?:messages|input|prompt)|in (?:the messages|your prompt))"
    r"|messages resulted in ([0-9]{1,9}) tokens"
    r"|prompt \((?:total )?length ([0-9]{1,9})\)"
    r"|maximum input length of ([0-9]{1,9}) tokens \(at most"
)
