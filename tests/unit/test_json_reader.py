"""Where a JSON response ends: at the brace that completes the document, not only with the end of the body."""

import gzip
import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.apis.response import reader_for, usage_reader
from extproc.core.errors import ResponseFault, ResponseNotUnderstood
from extproc.core.facts import Api, ResponseHead
from extproc.core.reading.decoding import decoder_for
from extproc.core.reading.reader import JsonReader, UsageReader
from extproc.core.usage import Overflow, Usage

CAP = 1 << 20
MESSAGE = {"role": "assistant", "content": 'A brace: } {"usage": {}}'}
RESPONSE = json.dumps(
    {
        "choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 5, "prompt_tokens_details": {}},
        "metadata": {"nested": {}},
    }
).encode()
REFUSAL = json.dumps({"object": "error", "error": {"code": "context_length_exceeded"}, "x": {}}).encode()


def chat_reader(encoding: str = "") -> UsageReader:
    """Return a reader for a chat response."""
    return usage_reader(Api.CHAT, "application/json", encoding, CAP)


@given(cuts=st.lists(st.integers(0, len(RESPONSE) - 1)), ending=st.sampled_from([b"", b"\n", b"\r\n", b" "]))
def test_a_response_is_not_complete_before_its_last_byte(cuts: list[int], ending: bytes) -> None:
    """However it is cut, also behind inner braces, it is not complete before, and its usage is the same."""
    reader = chat_reader()
    edges = [0, *sorted(cuts), len(RESPONSE)]
    for start, end in pairwise(edges):
        assert not reader.complete
        reader.feed(RESPONSE[start:end] + (ending if end == len(RESPONSE) else b""))
    # Each try needs twice as many bytes as the one before, so a short last piece may wait for the body's end.
    assert reader.complete or len(cuts) > 0
    assert reader.finish() == Usage(11, 5)


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n"])
def test_a_response_in_one_piece_is_complete_at_once(ending: bytes) -> None:
    """With or without a line end behind it."""
    reader = chat_reader()
    reader.feed(RESPONSE + ending)
    assert reader.complete
    assert reader.finish() == Usage(11, 5)


def test_a_compressed_response_is_complete_with_its_encoding() -> None:
    """The document may be damaged until the checksum behind it was compared."""
    packed = gzip.compress(RESPONSE)
    reader = chat_reader("gzip")
    reader.feed(packed[:-8])
    assert not reader.complete
    reader.feed(packed[-8:])
    assert reader.complete
    assert reader.finish() == Usage(11, 5)


@pytest.mark.parametrize("trailer", [b"", b"wrong sum"])
def test_a_compressed_response_without_its_checksum_is_not_read(trailer: bytes) -> None:
    """A response that was cut, or whose checksum is wrong, has no usage."""
    reader = chat_reader("gzip")
    reader.feed(gzip.compress(RESPONSE)[:-8])
    with pytest.raises(ResponseNotUnderstood):  # noqa: PT012  (either of the two)
        reader.feed(trailer)
        reader.finish()


def test_a_refusal_is_complete_with_its_document() -> None:
    """The first part alone is no refusal, but more of it may follow."""
    reader = reader_for(Api.CHAT, ResponseHead(400, "application/json"), CAP)
    cut = REFUSAL.index(b"}") + 1
    reader.feed(REFUSAL[:cut])
    assert not reader.complete
    reader.feed(REFUSAL[cut:])
    assert reader.finish() == Overflow(None)


@pytest.mark.parametrize(
    ("body", "fault"), [(b"{}", ResponseFault.NO_USAGE), (b'{"usage": {}', ResponseFault.NOT_JSON)]
)
def test_a_document_that_is_not_accepted_waits_for_the_end(body: bytes, fault: ResponseFault) -> None:
    """Its fault is known only when no more can follow."""
    reader = chat_reader()
    reader.feed(body)
    assert not reader.complete
    with pytest.raises(ResponseNotUnderstood) as raised:
        reader.finish()
    assert raised.value.fault is fault


def test_the_number_of_attempts_is_bounded() -> None:
    """Of ten thousand pieces that end in braces, each attempt has at least twice the bytes of the one before."""
    attempts: list[int] = []

    def read(body: bytearray) -> Usage:
        attempts.append(len(body))
        raise ResponseNotUnderstood(ResponseFault.NOT_JSON)

    reader = JsonReader(decoder_for("", CAP), read)
    for _ in range(10_000):
        reader.feed(b'{"x":{}')
    assert len(attempts) > 1
    assert all(2 * before <= after for before, after in pairwise(attempts))
