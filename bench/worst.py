"""Bodies that are made to cost the router as much as they can; each is valid JSON, or nearly, of a given size.

What a hostile client can multiply: elements, which cost a fixed time each however few bytes they have; escapes;
keys; token ids; images, whose headers are hopped through; numbers inside tool arguments; and text that the
estimator counts. A body that turns out to cost more than these joins the list.
"""

import base64
import gzip
import json
import sys
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from random import Random
from typing import Final, NamedTuple

import brotli
import zstandard

from extproc.core.apis.bodies import MAX_CONTAINERS, MAX_VALUES
from extproc.core.apis.prompt import MAX_STEPS
from extproc.core.facts import Api
from extproc.core.reading.encoded import MAX_DECODED_BYTES, MAX_ENCODED_BYTES

__all__ = ["WorstBody", "worst_bodies"]


class WorstBody(NamedTuple):
    """One body; `name` says what it multiplies."""

    name: str
    api: Api
    body: bytes
    encoding: str = ""


def worst_bodies(size: int) -> Iterator[WorstBody]:
    """Yield all bodies, each of `size` bytes: as many elements as there is room for, and as many as are read.

    What is above a limit costs least, so that each element comes also just below each of the limits, with white
    space for the rest.
    """
    for name, api, head, unit, last, tail in _REPEATED:
        room = (size - len(head) - len(last) - len(tail)) // len(unit)
        for times, limit in sorted({min(room, limit // per): word for word, limit, per in _limits(unit)}.items()):
            body = head + unit * times + last + tail
            yield WorstBody(f"{name}, {limit}", api, body.ljust(size))
    yield from _compressed()


def _compressed() -> Iterator[WorstBody]:
    """Yield bodies as large as they may be before and after they are decoded: text of no pattern, and bombs."""
    letters = bytes(Random(0).choices(range(ord("a"), ord("z") + 1), k=MAX_DECODED_BYTES))  # noqa: S311
    for encoding, encode in _ENCODERS.items():
        sizes = range(MAX_ENCODED_BYTES, MAX_DECODED_BYTES, 4 << 10)
        texts = (encode(_TEXT % letters[:size]) for size in sizes)
        most = [text for text in texts if len(text) <= MAX_ENCODED_BYTES][-1]
        yield WorstBody(f"letters in {encoding}", Api.CHAT, most, encoding)
        yield WorstBody(f"a bomb in {encoding}", Api.CHAT, encode(_TEXT % (b"a" * (64 << 20))), encoding)
        parts = _PARTS + b"{}," * (MAX_STEPS - 8) + b"{}]}]}"
        yield WorstBody(f"empty parts in {encoding}", Api.CHAT, encode(parts.ljust(MAX_DECODED_BYTES)), encoding)


_TEXT: Final = b'{"messages":[{"content":"%b"}]}'
_ENCODERS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": partial(brotli.compress, quality=5),
    "zstd": zstandard.compress,
}


def _limits(unit: bytes) -> Iterator[tuple[str, int, int]]:
    """Yield name, limit and how much of it a unit takes."""
    yield "most steps", MAX_STEPS - 8, 1
    if brackets := unit.count(b"{") + unit.count(b"["):
        yield "most brackets", MAX_CONTAINERS - 8, brackets
    if commas := unit.count(b","):
        yield "most commas", MAX_VALUES - 8, commas
    yield "most bytes", sys.maxsize, 1


# A JPEG of one short segment after the other, and no frame header: all of them are hopped over.
_JPEG: Final = base64.b64encode(b"\xff\xd8" + b"\xff\xe0\x00\x07\x00\x00\x00\x00\x00" * 20)
_IMAGE: Final = b'{"type":"image_url","image_url":{"url":"data:image/jpeg;base64,%b"}},' % _JPEG
_USER: Final = b'{"model":"m","messages":[{"role":"user","content":"Hi"}],'
_PARTS: Final = b'{"model":"m","messages":[{"role":"user","content":['
_TOOL: Final = b'{"type":"function","function":{"name":"f"}},'
_CALL: Final = b'{"model":"m","messages":[{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":"'

_REPEATED: Final = (
    ("numbers as tools", Api.CHAT, _USER + b'"tools":[', b"1,", b"1", b"]}"),
    ("empty objects as tools", Api.CHAT, _USER + b'"tools":[', b"{},", b"{}", b"]}"),
    ("tools", Api.CHAT, _USER + b'"tools":[', _TOOL, _TOOL[:-1], b"]}"),
    ("numbers in one tool", Api.CHAT, _USER + b'"tools":[{"a":[', b"1,", b"1", b"]}]}"),
    ("keys in one tool", Api.CHAT, _USER + b'"tools":[{', b'"a":1,', b'"a":1', b"}]}"),
    ("escapes in one tool", Api.CHAT, _USER + b'"tools":["', b"\\u0041", b"", b'"]}'),
    ("nested tools", Api.CHAT, _USER + b'"tools":[', b"[", b"", b"]}"),
    ("escaped keys in one tool", Api.CHAT, _USER + b'"tools":[{', b'"\\u00e9":1,', b'"a":1', b"}]}"),
    ("numbers as documents", Api.CHAT, _USER + b'"documents":[', b"1,", b"1", b"]}"),
    ("empty parts", Api.CHAT, _PARTS, b"{},", b"{}", b"]}]}"),
    ("empty strings as parts", Api.CHAT, _PARTS, b'"",', b'""', b"]}]}"),
    ("short parts", Api.CHAT, _PARTS, b'{"text":"a"},', b"{}", b"]}]}"),
    ("parts without a kind", Api.CHAT, _PARTS, b'{"image_url":""},', b"{}", b"]}]}"),
    ("tiny images", Api.CHAT, _PARTS, _IMAGE, _IMAGE[:-1], b"]}]}"),
    ("images of no bytes", Api.CHAT, _PARTS, b'{"image_url":"data:;base64,"},', b"{}", b"]}]}"),
    ("empty messages", Api.CHAT, b'{"model":"m","messages":[', b"{},", b"{}", b"]}"),
    ("short messages", Api.CHAT, b'{"model":"m","messages":[', b'{"content":"a"},', b"{}", b"]}"),
    ("named messages", Api.CHAT, b'{"model":"m","messages":[', b'{"name":"a","reasoning":"b"},', b"{}", b"]}"),
    (
        "empty tool calls",
        Api.CHAT,
        b'{"model":"m","messages":[{"tool_calls":[',
        b'{"function":{}},',
        b"{}",
        b"]}]}",
    ),
    ("numbers in arguments", Api.CHAT, _CALL + b"\\\\u0041[", b"1,", b"1", b']"}}]}]}'),
    ("objects in arguments", Api.CHAT, _CALL + b'[\\"\\\\u0041\\",', b"{},", b"{}", b']"}}]}]}'),
    ("escapes in text", Api.CHAT, b'{"messages":[{"content":"', b"\\u0041", b"", b'"}]}'),
    ("line ends in text", Api.CHAT, b'{"messages":[{"content":"', b"\\n", b"", b'"}]}'),
    ("braces in text", Api.CHAT, b'{"messages":[{"content":"', b"{", b"", b'"}]}'),
    ("text", Api.CHAT, b'{"messages":[{"content":"', b"word ", b"", b'"}]}'),
    ("foreign text", Api.CHAT, b'{"messages":[{"content":"', "\u8bcd\u00e9\u0436".encode(), b"", b'"}]}'),
    ("unknown keys", Api.CHAT, _USER, b'"zz":1,', b'"zz":1', b"}"),
    ("the same key", Api.CHAT, _USER, b'"model":"",', b'"model":""', b"}"),
    ("lists of messages", Api.CHAT, b"{", b'"messages":[],', b'"messages":[]', b"}"),
    ("nothing but brackets", Api.CHAT, b"", b"[", b"", b""),
    ("white space", Api.CHAT, b'{"messages":[{"content":"a"}]', b" ", b"", b"}"),
    ("token ids", Api.COMPLETIONS, b'{"model":"m","prompt":[', b"1,", b"1", b"]}"),
    ("lists of token ids", Api.COMPLETIONS, b'{"model":"m","prompt":[', b"[1],", b"[1]", b"]}"),
    ("empty prompts", Api.COMPLETIONS, b'{"model":"m","prompt":[', b'"",', b'""', b"]}"),
    ("short prompts", Api.COMPLETIONS, b'{"model":"m","prompt":[', b'"a",', b'""', b"]}"),
    ("a long prompt", Api.COMPLETIONS, b'{"model":"m","prompt":"', b"word ", b"", b'"}'),
    ("token ids to embed", Api.EMBEDDINGS, b'{"model":"m","input":[', b"1,", b"1", b"]}"),
    ("a long text to embed", Api.EMBEDDINGS, b'{"model":"m","input":"', b"word ", b"", b'"}'),
    ("documents to rerank", Api.RERANK, b'{"query":"a","documents":[', b'"b",', b'"b"', b"]}"),
    ("objects to rerank", Api.RERANK, b'{"query":"a","documents":[', b'{"text":"b"},', b"{}", b"]}"),
    ("texts to score", Api.SCORE, b'{"text_1":"a","text_2":[', b'"b",', b'"b"', b"]}"),
    ("token ids to go on from", Api.GENERATE, b'{"token_ids":[', b"1,", b"1", b"]}"),
    ("ways to sample", Api.GENERATE, b'{"text":"a","sampling_params":[', b"{},", b"{}", b"]}"),
    ("empty items", Api.RESPONSES, b'{"model":"m","input":[', b"{},", b"{}", b"]}"),
    ("strings as items", Api.RESPONSES, b'{"model":"m","input":[', b'"",', b'""', b"]}"),
    ("parts of items", Api.RESPONSES, b'{"model":"m","input":[{"content":[', b"{},", b"{}", b"]}]}"),
    ("summaries", Api.RESPONSES, b'{"input":[{"type":"reasoning","summary":[', b"{},", b"{}", b"]}]}"),
    ("empty blocks", Api.MESSAGES, b'{"model":"m","messages":[{"content":[', b"{},", b"{}", b"]}]}"),
    ("system blocks", Api.MESSAGES, b'{"messages":[],"system":[', b"{},", b"{}", b"]}"),
    (
        "tool inputs",
        Api.MESSAGES,
        b'{"messages":[{"content":[',
        b'{"type":"tool_use","input":{}},',
        b"{}",
        b"]}]}",
    ),
    (
        "documents",
        Api.MESSAGES,
        b'{"messages":[{"content":[',
        b'{"type":"document","source":{}},',
        b"{}",
        b"]}]}",
    ),
    (
        "numbers in one input",
        Api.MESSAGES,
        b'{"messages":[{"content":[{"type":"tool_use","input":[',
        b"1,",
        b"1",
        b"]}]}]}",
    ),
)


def nested_blocks(depth: int) -> bytes:
    """Return a message whose blocks stand in each other."""
    block = json.dumps({"type": "tool_result", "content": "x"}).encode()
    for _ in range(depth):
        block = b'{"type":"tool_result","content":%b}' % block
    return b'{"messages":[{"content":[%b]}]}' % block
