"""Decisions before the end of the body, when more bytes have arrived than any non-default pool could hold.

A token is at most 16 bytes of text, so 16 bytes per token of the largest non-default pool are enough. Base64 media
is not text: it is subtracted by searching for its two JSON forms, without parsing. JSON escapes can make the body
longer than its text (up to threefold in practice); that errs towards the larger pool, which is harmless.

APIs that accept lists of prompts are not decided early: each prompt is a separate sequence, and a large body may
consist of many small ones.
"""

from typing import Final

import numpy as np

from extproc.core.apis import FAMILIES
from extproc.core.estimator.evidence import MAX_BYTES_PER_TOKEN
from extproc.core.facts import Api, RequestFacts

__all__ = ["EarlyRule", "media_bytes"]

_MARKERS = (b";base64,", b'"data"')
MAX_SPANS: Final = 512
MAX_PLACES: Final = 8 * MAX_SPANS
BLOCK_BYTES: Final = 128 << 10
# At most one match per this many bytes counts as few.
FEW: Final = 1024


class EarlyRule:
    """Decides when to stop waiting for a body.

    At most `max_held_bytes` of any body are held. This must be below the gateway's buffer limit, or the upload
    stalls.
    """

    def __init__(self, largest_optional_tokens: int, max_held_bytes: int) -> None:
        self.max_held_bytes = max_held_bytes
        self.text_bytes = min(int(largest_optional_tokens * MAX_BYTES_PER_TOKEN), max_held_bytes)

    def is_beyond(self, facts: RequestFacts) -> bool:
        """Return whether the text of a request alone is long enough for an early decision."""
        return len(facts.text) >= self.text_bytes and not FAMILIES[facts.api].several_prompts

    def is_enough(self, api: Api, body: bytes) -> bool:
        """Return whether the length of a body, complete or not, decides it without parsing."""
        return len(body) >= self.text_bytes and self.next_look(api, body) == 0

    def first_look(self, api: Api) -> int:
        """Return how many bytes of a body must have arrived before the first check."""
        return self.max_held_bytes if FAMILIES[api].several_prompts else self.text_bytes

    def next_look(self, api: Api, body: bytes) -> int:
        """Return how many bytes must have arrived before the next check; 0 if the body is decided now."""
        if len(body) >= self.max_held_bytes:
            return 0
        if FAMILIES[api].several_prompts:
            return self.max_held_bytes
        media = media_bytes(body) if len(body) >= self.text_bytes else 0
        wanted = self.text_bytes + media
        if len(body) >= wanted:
            return 0
        # At least a quarter more each time, so that the total work of all checks is linear in the bytes.
        return min(max(wanted, len(body) + len(body) // 4), self.max_held_bytes)


def media_bytes(body: bytes) -> int:
    """Return how many bytes of a JSON body, which may be incomplete, are base64 media; never an over-count.

    At most MAX_SPANS of each form are found, among the first MAX_PLACES matches of its marker: media beyond that
    counts as text, which errs towards the larger pool.
    """
    spans: list[tuple[int, int]] = []
    for marker in _MARKERS:
        end = 0
        enough = len(spans) + MAX_SPANS
        for place in _places(body, marker):
            if place < end:
                continue
            start = place + len(marker)
            if marker == b'"data"':
                start = body.find(b'"', start) + 1 or len(body)
            end = body.find(b'"', start)
            end = len(body) if end < 0 else end
            spans.append((start, end))
            if len(spans) == enough:
                break
    return _union(spans)


def _places(body: bytes, marker: bytes) -> list[int]:
    """Return the offsets of a marker: about the first MAX_PLACES.

    bytes.find examines byte by byte, which for a large body costs more than everything else that is done with it.
    Comparing all bytes of a block with the marker's first byte in numpy costs a fraction of that, and so do
    comparisons with its next bytes, which are made while many matches are left.
    """
    places: list[int] = []
    for begin in range(0, len(body) - len(marker) + 1, BLOCK_BYTES):
        read = np.frombuffer(body, np.uint8, min(BLOCK_BYTES + len(marker) - 1, len(body) - begin), begin)
        starts = len(read) - len(marker) + 1
        found, compared = read[:starts] == marker[0], 1
        while np.count_nonzero(found) > starts // FEW and compared < len(marker):
            found &= read[compared : starts + compared] == marker[compared]
            compared += 1
        maybe = begin + found.nonzero()[0][:MAX_PLACES]
        places += [place for place in maybe.tolist() if body.startswith(marker, place)]
        if len(places) >= MAX_PLACES:
            break
    return places


def _union(spans: list[tuple[int, int]]) -> int:
    """Return the length of the union of the spans. Each ends at the next quote, so ends ascend like starts."""
    total = reached = 0
    for start, end in sorted(spans):
        total += end - max(start, reached)
        reached = end
    return total
