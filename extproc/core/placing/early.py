"""Deciding before the end of the body: when so much has come that no smaller pool could hold it.

A token is at most 16 bytes of text, so 16 x the largest smaller pool's tokens are enough. Base64 media is no text:
it is left out of the count by looking for its two JSON forms, without parsing. JSON escapes can make the body
longer than its text (up to threefold in practice); the error is towards the larger pool, where nothing is lost.

APIs that take lists of prompts are waited for: each prompt is a sequence of its own, and a large body may be many
small ones.
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
# One place in so many is few.
FEW: Final = 1024


class EarlyRule:
    """Says when a body need not be waited for, or read, any further.

    `max_held_bytes` is the most that is held of any body: below the gateway's buffer limit, or it stalls.
    """

    def __init__(self, largest_optional_tokens: int, max_held_bytes: int) -> None:
        self.max_held_bytes = max_held_bytes
        self.text_bytes = min(int(largest_optional_tokens * MAX_BYTES_PER_TOKEN), max_held_bytes)

    def is_beyond(self, facts: RequestFacts) -> bool:
        """Tell whether a request's text alone would have been decided before its end."""
        return len(facts.text) >= self.text_bytes and not FAMILIES[facts.api].several_prompts

    def is_enough(self, api: Api, body: bytes) -> bool:
        """Tell whether what has come of a body, or all of it, is decided without being read."""
        return len(body) >= self.text_bytes and self.next_look(api, body) == 0

    def first_look(self, api: Api) -> int:
        """Return how many bytes of a body have to be there before anything can be said."""
        return self.max_held_bytes if FAMILIES[api].several_prompts else self.text_bytes

    def next_look(self, api: Api, body: bytes) -> int:
        """Return how many bytes have to be there before the next look; 0 when it is decided now."""
        if len(body) >= self.max_held_bytes:
            return 0
        if FAMILIES[api].several_prompts:
            return self.max_held_bytes
        media = media_bytes(body) if len(body) >= self.text_bytes else 0
        wanted = self.text_bytes + media
        if len(body) >= wanted:
            return 0
        # At least a quarter more each time, so that all looks together stay linear in the bytes.
        return min(max(wanted, len(body) + len(body) // 4), self.max_held_bytes)


def media_bytes(body: bytes) -> int:
    """Return how many bytes of a JSON body are base64 media, as far as it is there (never more than there are).

    Of each form no more than MAX_SPANS are looked for, in the first MAX_PLACES of its marks: what is beyond counts
    as text, for the larger pool.
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
    """Return where a marker is: about the first MAX_PLACES.

    bytes.find steps from byte to byte, which for a large body costs more than all else that is done with it.
    Comparing all bytes of a block with one is a fraction of that, and so with the next while many places are left.
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
    """Return how many bytes are in any of the spans. Each ends at the next quote, so ends ascend as starts do."""
    total = reached = 0
    for start, end in sorted(spans):
        total += end - max(start, reached)
        reached = end
    return total
