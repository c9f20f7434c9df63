import gzip
import tracemalloc
import zlib
from functools import partial
from hashlib import shake_128
from random import Random

import brotli
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.core.errors import ResponseFault, ResponseNotUnderstood
from extproc.core.reading.brotli_window import with_small_window
from extproc.core.reading.decoding import decoder_for

TEXT = b'{"usage": {"prompt_tokens": 7}} ' * 500
CAP = 1 << 20


def raw_deflate(data: bytes) -> bytes:
    """Deflate without the zlib header, which is how some servers interpret the name."""
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


ENCODED = {
    "": ("", TEXT),
    "identity": ("identity", TEXT),
    "gzip": ("gzip", gzip.compress(TEXT)),
    "x-gzip": ("X-GZIP", gzip.compress(TEXT)),
    "gzip members": (" gzip ", gzip.compress(TEXT[:100]) + gzip.compress(b"") + gzip.compress(TEXT[100:])),
    "gzip with zeros": ("gzip", gzip.compress(TEXT[:9]) + b"\0" * 7 + gzip.compress(TEXT[9:]) + b"\0" * 5),
    "deflate": ("deflate", zlib.compress(TEXT)),
    "raw deflate": ("deflate", raw_deflate(TEXT)),
    "br": ("br", brotli.compress(TEXT)),
}
ALL_ENCODED = pytest.mark.parametrize(("encoding", "body"), list(ENCODED.values()), ids=list(ENCODED))
FAST_BROTLI = partial(brotli.compress, quality=1)
COMPRESSED = pytest.mark.parametrize(
    ("encoding", "compress"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", raw_deflate), ("br", FAST_BROTLI)],
    ids=["gzip", "deflate", "raw deflate", "br"],
)


def decode(encoding: str, *pieces: bytes, cap: int = CAP) -> bytes:
    """Decode a body that arrives in pieces."""
    decoder = decoder_for(encoding, cap)
    return b"".join([*map(decoder.feed, pieces), decoder.finish()])


def fault_of(encoding: str, *pieces: bytes, cap: int = CAP) -> ResponseFault | None:
    """Return why a body cannot be decoded, or None if it can."""
    try:
        decode(encoding, *pieces, cap=cap)
    except ResponseNotUnderstood as error:
        return error.fault
    return None


@ALL_ENCODED
@settings(max_examples=30)
@given(cuts=st.lists(st.integers(0, 200), max_size=10), step=st.integers(1, 400))
def test_any_chunking_gives_the_same_bytes(encoding: str, body: bytes, cuts: list[int], step: int) -> None:
    """A body decodes to the same bytes wherever it is cut."""
    ends = sorted({*cuts, *range(200, len(body), step), len(body)})
    pieces = [body[a:b] for a, b in zip([0, *ends], ends, strict=False)]
    assert decode(encoding, *pieces) == TEXT


@COMPRESSED
def test_output_comes_with_its_input(encoding: str, compress: object) -> None:
    """Most of the output is available before the last bytes of input: nothing is held back until the end."""
    assert callable(compress)
    noise = shake_128(b"").digest(50_000)
    decoder = decoder_for(encoding, CAP)
    assert len(decoder.feed(compress(noise)[:-10])) > len(noise) // 2


@pytest.mark.parametrize("encoding", ["zstd", "gzip, br", "compress", "identity, gzip", "nonsense"])
def test_unknown_encodings(encoding: str) -> None:
    """An unknown encoding, or a list of several, is rejected at once."""
    with pytest.raises(ResponseNotUnderstood) as caught:
        decoder_for(encoding, CAP)
    assert caught.value.fault == ResponseFault.ENCODING


@COMPRESSED
def test_truncated_bodies(encoding: str, compress: object) -> None:
    """A body that ends early counts as cut short, and so does an empty one."""
    assert callable(compress)
    body = compress(TEXT)
    assert {fault_of(encoding, body[:n]) for n in (0, 1, 2, 10, len(body) - 1)} == {ResponseFault.CUT_SHORT}


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", TEXT),
        ("gzip", gzip.compress(TEXT, mtime=0) + b"garbage"),
        ("gzip", gzip.compress(TEXT, mtime=0)[:-8] + b"\0" * 8),
        ("deflate", b"\xff\xff" + TEXT),
        ("deflate", zlib.compress(TEXT) + b"garbage"),
        ("br", b"\xff" + TEXT),
        ("br", brotli.compress(TEXT) + b"garbage"),
    ],
)
@pytest.mark.parametrize("size", [1, 10, 100_000])
def test_broken_bodies(encoding: str, body: bytes, size: int) -> None:
    """Data that does not match its encoding, or continues after its end, is a fault of the encoding."""
    assert fault_of(encoding, *(body[i : i + size] for i in range(0, len(body), size))) == ResponseFault.ENCODING


@ALL_ENCODED
@pytest.mark.parametrize("size", [1, 50, 100_000])
def test_cap_on_the_output(encoding: str, body: bytes, size: int) -> None:
    """A body that decodes to exactly the allowed size passes; one more byte does not."""
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    faults = [fault_of(encoding, *pieces, cap=cap) for cap in (len(TEXT), len(TEXT) - 1, 0)]
    assert faults == [None, ResponseFault.TOO_LARGE, ResponseFault.TOO_LARGE]


@pytest.mark.parametrize("bits", [10, 16, 17, 18, 19, 21, 24])
@pytest.mark.parametrize("cap", [(1 << 18) - 16, (1 << 18) - 15, 600_000])
@pytest.mark.parametrize("size", [1000, 10_000_000])
def test_brotli_is_decoded_with_any_window(bits: int, cap: int, size: int) -> None:
    """The window is made as small as the cap allows, and copies from that far back still resolve."""
    text = Random(bits).randbytes(1000) + b"one two three" * (cap // 13)
    text = text[: cap - 900] + text[:900]
    body = brotli.compress(text, lgwin=bits, quality=2)
    decoder = decoder_for("br", cap)
    assert text == b"".join(decoder.feed(body[i : i + size]) for i in range(0, len(body), size)) + decoder.finish()


def test_brotlis_memory_depends_on_the_cap_and_not_on_the_window() -> None:
    """A stream can request a window of up to 16 MiB; a refusal of some kilobytes gets 256 KiB."""
    largest = b"\x0f"
    asked = [
        with_small_window(largest, cap)[0] for cap in (1000, (1 << 18) - 16, (1 << 18) - 15, 4 << 20, 16 << 20)
    ]
    assert [0b0011, 0b0011, 0b0101, 0b1101, 0b1111] == asked


@COMPRESSED
def test_bombs_cost_no_more_memory_than_the_cap(encoding: str, compress: object) -> None:
    """A few kilobytes that would inflate to 64 MB stop at the cap and use little more memory than that."""
    assert callable(compress)
    bomb = compress(b"\0" * (1 << 26))
    tracemalloc.start()
    try:
        fault = fault_of(encoding, bomb, cap=1 << 20)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert fault == ResponseFault.TOO_LARGE
    assert peak_bytes < 4 << 20


def test_many_empty_members() -> None:
    """A megabyte of empty gzip members is decoded in linear time."""
    member = gzip.compress(b"")
    assert decode("gzip", member * ((1 << 20) // len(member))) == b""


@settings(max_examples=60)
@given(encoding=st.sampled_from(["gzip", "deflate", "br"]), pieces=st.lists(st.binary(max_size=40), max_size=5))
def test_any_bytes_decode_or_give_our_own_error(encoding: str, pieces: list[bytes]) -> None:
    """Decoding any bytes ends either in bytes or in ResponseNotUnderstood."""
    assert fault_of(encoding, *pieces) in {None, ResponseFault.ENCODING, ResponseFault.CUT_SHORT}


@pytest.mark.parametrize("first", [0x08, 0x01])
def test_a_zlib_header_is_recognised_by_two_bytes(first: int) -> None:
    """Without the header, the first byte may look like its method, or both bytes may pass its check, by chance."""
    text = b"x" * (5 if first & 0x0F == 8 else 23)
    stored = bytes([first, len(text), 0, 255 - len(text), 255]) + text
    end = b"" if first & 1 else raw_deflate(b"")
    assert (first == 0x01) == ((first * 256 + len(text)) % 31 == 0)
    assert text == decode("deflate", stored + end)


def test_an_empty_raw_deflate_body_is_two_bytes() -> None:
    """There is no third byte to wait for."""
    assert 2 == len(raw_deflate(b""))
    assert b"" == decode("deflate", raw_deflate(b""))
