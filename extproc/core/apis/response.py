"""Selection of the reader for a response, by its status, content type and encoding.

A response is decompressed, then either collected and decoded once (JSON) or searched event by event (SSE). Memory
is bounded by `max_bytes` for JSON and by MAX_EVENT_BYTES for a stream, from which only the last usage is kept.
"""

from functools import partial
from typing import Final

from extproc.core.apis import FAMILIES
from extproc.core.errors import ResponseFault, ResponseNotUnderstood
from extproc.core.facts import Api, ResponseHead
from extproc.core.reading.decoding import decoder_for
from extproc.core.reading.reader import JsonReader, UsageReader
from extproc.core.reading.refusal import MAX_REFUSAL_BYTES, REFUSAL_STATUSES, read_refusal

__all__ = ["MAX_EVENT_BYTES", "reader_for", "usage_reader"]

# The last event of a Responses stream repeats the whole response and its tools; all others are far smaller.
MAX_EVENT_BYTES: Final = 1 << 20


def reader_for(api: Api, head: ResponseHead, max_bytes: int, *, may_fill_context: bool = False) -> UsageReader:
    """Return the reader for a response with this head: it reads usage from a 2xx, an overflow from a refusal.

    `may_fill_context` says that the prompt may be as long as the pool's context (refusal.py).
    Raises ResponseNotUnderstood for a status, content type or encoding from which nothing can be learned.
    """
    if head.succeeded:
        return usage_reader(api, head.content_type, head.content_encoding, max_bytes)
    if head.status in REFUSAL_STATUSES:
        read = partial(read_refusal, may_fill_context=may_fill_context)
        return JsonReader(decoder_for(head.content_encoding, MAX_REFUSAL_BYTES), read)
    raise ResponseNotUnderstood(ResponseFault.STATUS, str(head.status))


def usage_reader(api: Api, content_type: str, content_encoding: str, max_bytes: int) -> UsageReader:
    """Return the reader for the usage of a successful response.

    `max_bytes` bounds the size of the decompressed response, which includes all events of a stream, though they
    are not kept. Raises ResponseNotUnderstood for a content type or encoding from which nothing can be read.
    """
    family = FAMILIES[api]
    decoder = decoder_for(content_encoding, max_bytes)
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == "application/json":
        return JsonReader(decoder, family.read_response)
    if media_type == "text/event-stream" and family.events is not None:
        return family.events(decoder, MAX_EVENT_BYTES)
    raise ResponseNotUnderstood(ResponseFault.NOT_JSON, f"content-type {content_type[:64]!r} of {api}")
