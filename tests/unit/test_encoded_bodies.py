"""Compressed request bodies are decoded within bounds; bodies beyond them go to the default pool."""

import gzip
import json
import zlib
from collections.abc import Callable
from random import Random

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from extproc.compose import compose
from extproc.config.loading import parse
from extproc.core.errors import BodyFault, BodyNotUnderstood
from extproc.core.facts import Api, RequestHead
from extproc.core.listener import Listener
from extproc.core.placing.policy import Reason
from extproc.core.reading.encoded import MAX_DECODED_BYTES, MAX_ENCODED_BYTES, decoded_body

Encode = Callable[[bytes], bytes]


def raw_deflate(data: bytes) -> bytes:
    """Deflate without the zlib header."""
    return zlib.compress(data, wbits=-zlib.MAX_WBITS)


def zstd_stream(data: bytes) -> bytes:
    """Compress as a stream, which leaves the size out of the frame's header."""
    encoder = zstandard.ZstdCompressor().compressobj()
    return encoder.compress(data) + encoder.flush()


ENCODINGS: list[tuple[str, Encode]] = [
    ("gzip", gzip.compress),
    ("x-gzip", gzip.compress),
    ("deflate", zlib.compress),
    ("deflate", raw_deflate),
    ("br", brotli.compress),
    ("zstd", zstandard.compress),
    ("zstd", zstd_stream),
]
EVERY = pytest.mark.parametrize(("encoding", "encode"), ENCODINGS)
PLACER = compose(parse(""), Listener()).placer


def fault_of(encoding: str, body: bytes) -> BodyFault | None:
    """Return why a body is not decoded."""
    try:
        decoded_body(encoding, body)
    except BodyNotUnderstood as error:
        return error.fault
    return None


@EVERY
@given(data=st.binary(max_size=500))
def test_every_encoding_is_decoded(encoding: str, encode: Encode, data: bytes) -> None:
    """Decoding restores the original body, whatever the case of the encoding's name."""
    assert data == decoded_body(encoding, encode(data)) == decoded_body(f" {encoding.upper()}", encode(data))


@pytest.mark.parametrize("name", ["", "identity", "Identity", "IDENTITY "])
def test_identity_is_no_encoding(name: str) -> None:
    """A body that is declared as not encoded is read as it is."""
    assert b"{}" == decoded_body(name, b"{}")


@EVERY
def test_a_body_that_was_cut_is_not_decoded(encoding: str, encode: Encode) -> None:
    """A prefix is never mistaken for the whole body."""
    body = encode(b"one two three " * 50)
    assert {BodyFault.ENCODED} == {fault_of(encoding, body[:end]) for end in range(len(body))}


@EVERY
def test_bombs_are_not_decoded(encoding: str, encode: Encode) -> None:
    """A body that would inflate beyond the bound is not decoded; one that just fits is."""
    assert len(decoded_body(encoding, encode(b"a" * MAX_DECODED_BYTES))) == MAX_DECODED_BYTES
    assert BodyFault.ENCODED == fault_of(encoding, encode(b"a" * (MAX_DECODED_BYTES + 1)))
    assert BodyFault.ENCODED == fault_of(encoding, encode(bytes(32 << 20)))


@EVERY
def test_bytes_after_the_end_are_a_fault(encoding: str, encode: Encode) -> None:
    """Servers differ in how they treat bytes after the end."""
    assert BodyFault.ENCODED == fault_of(encoding, encode(b"{}") + b"more")


@pytest.mark.parametrize("bits", range(10, 25))
def test_brotli_is_decoded_with_any_window(bits: int) -> None:
    """The decoder's window is at most 1 MiB, which is more than all that is decoded."""
    text = Random(bits).randbytes(1000) + b"one two three" * 39_000 + b"more"
    text += text[: MAX_DECODED_BYTES - len(text)]
    assert MAX_DECODED_BYTES == len(text)
    assert text == decoded_body("br", brotli.compress(text, lgwin=bits))


def test_brotli_beyond_its_standard_is_not_read() -> None:
    """The marker of an extension with windows of up to 1 GiB is not a valid window."""
    assert BodyFault.ENCODED == fault_of("br", b"\x11\x1e" + brotli.compress(b"one")[1:])


@pytest.mark.parametrize("encoding", ["compress", "gzip, br", "aws-chunked", "\u00e9"])
def test_other_encodings_are_not_decoded(encoding: str) -> None:
    """Combinations and unknown names are left to the pool."""
    assert BodyFault.ENCODED == fault_of(encoding, b"{}")


@EVERY
@given(body=st.binary(max_size=300))
def test_any_bytes_are_decoded_or_rejected(encoding: str, encode: Encode, body: bytes) -> None:
    """Bytes that do not have the declared encoding raise our own error and no other."""
    assert fault_of(encoding, body) in {None, BodyFault.ENCODED}


@EVERY
def test_too_many_compressed_bytes_are_not_read(encoding: str, encode: Encode) -> None:
    """Input is bounded as well as output."""
    valid = encode(Random(0).randbytes(MAX_ENCODED_BYTES))
    assert MAX_ENCODED_BYTES < len(valid) < MAX_ENCODED_BYTES + 1_000
    assert BodyFault.ENCODED == fault_of(encoding, valid)


@EVERY
def test_a_compressed_request_is_placed_by_its_content(encoding: str, encode: Encode) -> None:
    """A short prompt goes to the short pool as it would uncompressed; one that is long after decoding does not."""

    def place(text: str) -> tuple[str, Reason, bool]:
        body = encode(json.dumps({"model": "m", "messages": [{"content": text}], "max_tokens": 9}).encode())
        decision = PLACER.decide(Api.CHAT, RequestHead("POST", content_encoding=encoding), body)
        return decision.pool.name, decision.reason, decision.estimate is not None

    assert ("short", Reason.FITS, True) == place("Hi")
    assert ("long", Reason.EARLY, False) == place("word " * 60_000)
