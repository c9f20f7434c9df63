"""Bodies built to cost the router as much as possible; each is valid JSON, or nearly, of a given size.

The units to repeat are in worst_kinds.py. A body above a limit is cheap, so each kind is tried just below each of
the limits: the most steps, filled up with as much plain text as is read; the most work of this kind alone; and the
most bytes, which should be rejected before they cost anything.
"""

import gzip
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from random import Random
from typing import Final, NamedTuple

import brotli
import zstandard

from bench.worst_kinds import KINDS, Kind, nested_documents
from extproc.core.apis.prompt import MAX_REREAD_BYTES, MAX_STEPS
from extproc.core.apis.work import FREE_BYTES, MAX_WORK, work_of
from extproc.core.facts import Api
from extproc.core.reading.encoded import MAX_DECODED_BYTES, MAX_ENCODED_BYTES

__all__ = ["WorstBody", "worst_bodies"]


class WorstBody(NamedTuple):
    """One body; `name` says what it repeats."""

    name: str
    api: Api
    body: bytes
    encoding: str = ""


def worst_bodies(size: int) -> Iterator[WorstBody]:
    """Yield all bodies, each of at most `size` bytes; one at a time, because together they are large."""
    for kind in KINDS:
        yield from _of_kind(kind, size)
    for depth in (8, 64, 300):
        body = nested_documents(depth, MAX_REREAD_BYTES // (depth + 1))
        yield WorstBody(f"documents in documents, {depth} deep", Api.MESSAGES, body)
    yield from _compressed()


def _of_kind(kind: Kind, size: int) -> Iterator[WorstBody]:
    name, api = kind.name, kind.api
    room = (size - len(kind.of(0))) // len(kind.unit)
    steps = min(room, MAX_STEPS - 8)
    yield WorstBody(f"{name}, most steps and text", api, _with_text(kind.of(steps), size))
    yield WorstBody(f"{name}, most steps and blanks", api, kind.of(steps).ljust(size))
    yield WorstBody(f"{name}, uncounted", api, kind.of(max(FREE_BYTES - len(kind.of(0)), 0) // len(kind.unit)))
    yield WorstBody(f"{name}, most work", api, kind.of(min(room, _most_units(kind))))
    yield WorstBody(
        f"{name}, half of the work, and text", api, _with_text(kind.of(min(room, _most_units(kind) // 2)), size)
    )
    yield WorstBody(f"{name}, most bytes", api, kind.of(room))


def _most_units(kind: Kind) -> int:
    """Return the largest number of units that is still read."""
    each = work_of(kind.unit * 64) / 64
    units = int((MAX_WORK - work_of(kind.of(0))) / each)
    while units > 0 and work_of(kind.of(units)) > MAX_WORK:
        units -= units // 50 + 1
    return units


def _with_text(body: bytes, size: int) -> bytes:
    """Return a body with an added key of plain text, as long as the remaining bytes and work allow."""
    opening, key, end = body[:1], b'"zz":"', b'",'
    left = min(size - len(body), MAX_WORK - work_of(body)) - len(key) - len(end) - 100
    if opening != b"{" or left < 0:
        return body
    return opening + key + b"a" * left + end + body[1:]


def _compressed() -> Iterator[WorstBody]:
    """Yield compressed bodies of the largest size allowed before or after decoding: random text, and bombs."""
    letters = bytes(Random(0).choices(range(ord("a"), ord("z") + 1), k=MAX_DECODED_BYTES))  # noqa: S311
    parts = next(kind for kind in KINDS if kind.name == "parts without a kind")
    foreign = next(kind for kind in KINDS if kind.name == "foreign text")
    inner = {
        "parts": _with_text(parts.of(MAX_STEPS - 8), MAX_DECODED_BYTES),
        "most parts": parts.of(_most_units(parts)),
        "foreign text": foreign.of((MAX_DECODED_BYTES - 64) // len(foreign.unit)),
    }
    for encoding, encode in _ENCODERS.items():
        sizes = range(MAX_ENCODED_BYTES, MAX_DECODED_BYTES, 8 << 10)
        texts = (encode(_TEXT % letters[:size]) for size in sizes)
        most = [text for text in texts if len(text) <= MAX_ENCODED_BYTES][-1]
        yield WorstBody(f"letters in {encoding}", Api.CHAT, most, encoding)
        yield WorstBody(f"a bomb in {encoding}", Api.CHAT, encode(_TEXT % (b"a" * (64 << 20))), encoding)
        for name, body in inner.items():
            yield WorstBody(f"{name} in {encoding}", Api.CHAT, encode(body), encoding)


_TEXT: Final = b'{"messages":[{"content":"%b"}]}'
_ENCODERS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": partial(brotli.compress, quality=5),
    "zstd": zstandard.compress,
}
