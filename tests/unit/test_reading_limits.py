"""Limits on reading encoded, refused or counted values: just within each limit, and just beyond it."""

import gzip
import io
import json
import tracemalloc
import zlib

import brotli
import pytest
import zstandard

from extproc.core.apis import FAMILIES
from extproc.core.apis.response import reader_for
from extproc.core.errors import BodyFault, BodyNotUnderstood, ResponseFault, ResponseNotUnderstood
from extproc.core.facts import Api, ResponseHead
from extproc.core.reading.brotli_window import with_small_window
from extproc.core.reading.decoding import decoder_for
from extproc.core.reading.encoded import decoded_body
from extproc.core.reading.refusal import read_overflow
from extproc.core.usage import Overflow, Usage


def gzip_of(size: int, name: str = "") -> bytes:
    """Return gzip data of this size, padded with the file name in the header."""
    file = io.BytesIO()
    with gzip.GzipFile(name or "x" * (size - len(gzip_of(size, "x")) + 1), "wb", fileobj=file) as writer:
        writer.write(b"one two")
    return file.getvalue()


def zstd_frame(window_log: int) -> bytes:
    """Return a frame that requires a window of 2 ** window_log bytes."""
    parameters = zstandard.ZstdCompressionParameters(window_log=window_log, write_content_size=False)
    encoder = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return encoder.compress(b"one two") + encoder.flush()


def fault_of(encoding: str, body: bytes) -> BodyFault | None:
    """Return the fault for which a request's body is not decoded."""
    try:
        decoded_body(encoding, body)
    except BodyNotUnderstood as error:
        return error.fault
    return None


@pytest.mark.parametrize(
    ("encoding", "within", "beyond"),
    [
        ("gzip", gzip_of(96 * 1024), gzip_of(96 * 1024 + 1)),
        ("gzip", gzip.compress(bytes(512 * 1024), mtime=0), gzip.compress(bytes(512 * 1024 + 1), mtime=0)),
        ("zstd", zstd_frame(23), zstd_frame(24)),
    ],
    ids=["input", "output", "window"],
)
def test_an_encoded_body_is_read_up_to_its_limits(encoding: str, within: bytes, beyond: bytes) -> None:
    """96 KiB of input, 512 KiB of output, and the 8 MiB window that RFC 8878 recommends every decoder support."""
    assert [None, BodyFault.ENCODED] == [fault_of(encoding, within), fault_of(encoding, beyond)]


def test_zlib_data_is_not_accepted_as_gzip() -> None:
    """Not all servers would accept it."""
    assert BodyFault.ENCODED == fault_of("gzip", zlib.compress(b"{}"))


def test_a_frame_that_was_cut_just_at_the_limit_is_incomplete() -> None:
    """Its output so far fills the limit, but the frame is not complete."""
    encoder = zstandard.ZstdCompressor().compressobj()
    begun = encoder.compress(bytes(512 * 1024)) + encoder.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    assert BodyFault.ENCODED == fault_of("zstd", begun)
    assert bytes(512 * 1024) == decoded_body("zstd", begun + encoder.flush())


@pytest.mark.parametrize("first", range(256))
def test_only_a_window_that_is_larger_than_needed_is_reduced(first: int) -> None:
    """RFC 7932, 9.1: a first byte that is even encodes the window 16 in one bit,
    and its other bits belong to the stream.
    """
    larger = first % 2 == 1 and first % 16 > 0b0011
    expected = first // 16 * 16 + 0b0011 if larger else first
    assert bytes((expected, 7)) == with_small_window(bytes((first, 7)), 1_000)


def test_a_bomb_behind_a_response_that_used_up_the_limit_is_not_inflated() -> None:
    """When the limit is used up, nothing more is decoded; 0 left does not mean unlimited."""
    encoder = brotli.Compressor(quality=1)
    begun = encoder.process(b"a" * 1_000) + encoder.flush()
    bomb = encoder.process(bytes(1 << 25)) + encoder.finish()
    decoder = decoder_for("br", 1_000)
    assert b"a" * 1_000 == decoder.feed(begun)
    tracemalloc.start()
    try:
        with pytest.raises(ResponseNotUnderstood) as caught:
            decoder.feed(bomb)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert ResponseFault.TOO_LARGE is caught.value.fault
    assert peak_bytes < 4 << 20


@pytest.mark.parametrize(("size", "read"), [(16 * 1024, True), (16 * 1024 + 1, False)])
def test_a_refusal_of_16_kib_is_read(size: int, *, read: bool) -> None:
    """A longer one is not read: refusals have a few hundred bytes."""
    refusal = json.dumps({"error": {"message": "no", "code": "context_length_exceeded"}}).encode().ljust(size)
    reader = reader_for(Api.CHAT, ResponseHead(400, "application/json"), 1 << 20)
    try:
        reader.feed(refusal)
        found: object = reader.finish()
    except ResponseNotUnderstood as error:
        found = error.fault
    assert (Overflow(None) if read else ResponseFault.TOO_LARGE) == found


@pytest.mark.parametrize(("named", "at_least"), [(-1, None), (0, None), (1, 1), (2, 2)])
def test_the_smallest_prompt_that_a_refusal_can_name_is_one_token(named: int, at_least: int | None) -> None:
    """Zero is not a valid count, in a field or in a sentence."""
    error = {"type": "exceed_context_size_error", "n_prompt_tokens": named}
    assert Overflow(at_least) == read_overflow(json.dumps({"error": error}).encode())
    sentence = f"This model's maximum context length is 8 tokens. Your request has {named} input tokens."
    assert Overflow(at_least or (1 if named < 0 else None)) == read_overflow(
        json.dumps({"message": sentence}).encode()
    )


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((10_000_000, 10_000_000, 0), Usage(10_000_000, 10_000_000)),
        ((10_000_001, 1, 0), ResponseFault.WRONG_USAGE),
        ((1, 10_000_001, 0), ResponseFault.WRONG_USAGE),
        ((1, 0, 1), Usage(1, 0, 1)),
        ((2, 0, 1), Usage(2, 0, 1)),
        ((0, 1, 0), ResponseFault.WRONG_USAGE),
        ((1, -1, 0), ResponseFault.WRONG_USAGE),
    ],
)
def test_counts_up_to_ten_million_are_accepted(
    counts: tuple[int, int, int], expected: Usage | ResponseFault
) -> None:
    """A prompt has at least one token, all of which may be cached; an output may have none."""
    prompt, completion, cached = counts
    usage = {"prompt_tokens": prompt, "completion_tokens": completion}
    response = {"choices": [], "usage": usage | {"prompt_tokens_details": {"cached_tokens": cached}}}
    try:
        found: object = FAMILIES[Api.CHAT].read_response(json.dumps(response).encode())
    except ResponseNotUnderstood as error:
        found = error.fault
    assert expected == found
