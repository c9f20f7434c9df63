"""Decoding of a complete request body's content-encoding, within bounds on size and time.

The time to inflate depends on input and output: random letters take 50 ns per byte of input, runs 2 ns per byte of
output. So both are bounded. A request whose body exceeds a bound goes to the default pool, whose server decodes or
rejects the body as it would without us.
"""

import zlib
from collections.abc import Callable
from typing import Final

import brotli
import zstandard

from extproc.core.errors import BodyFault, BodyNotUnderstood
from extproc.core.reading.brotli_window import with_small_window

__all__ = ["MAX_DECODED_BYTES", "MAX_ENCODED_BYTES", "decoded_body"]

MAX_ENCODED_BYTES: Final = 96 << 10
MAX_DECODED_BYTES: Final = 512 << 10
# A frame may declare any window size; decoders should support at least this (RFC 8878, 3.1.1.1.2).
ZSTD_WINDOW_BYTES: Final = 8 << 20


def decoded_body(content_encoding: str, body: bytes) -> bytes:
    """Return the decoded body; the encoding is one of identity, gzip, deflate, br and zstd, not a combination.

    Raises BodyNotUnderstood (ENCODED) for another encoding, a body that does not decode, or one beyond the bounds.
    """
    name = content_encoding.strip().lower()
    if name in _NONE:
        return body
    decode = _DECODERS.get(name)
    if decode is None:
        raise BodyNotUnderstood(BodyFault.ENCODED, f"content-encoding {content_encoding[:64]!r}")
    if len(body) > MAX_ENCODED_BYTES:
        raise BodyNotUnderstood(BodyFault.ENCODED, f"{len(body)} bytes of {name}; {MAX_ENCODED_BYTES} are read")
    try:
        decoded = decode(body)
    except (zlib.error, brotli.error, zstandard.ZstdError) as error:
        raise BodyNotUnderstood(BodyFault.ENCODED, f"{name}: {error}") from None
    if decoded is None or len(decoded) > MAX_DECODED_BYTES:
        raise BodyNotUnderstood(BodyFault.ENCODED, f"{name}: incomplete, or more than {MAX_DECODED_BYTES} bytes")
    return decoded


def _inflate(body: bytes, wbits: int) -> bytes | None:
    inflate = zlib.decompressobj(wbits)
    decoded = inflate.decompress(body, MAX_DECODED_BYTES + 1)
    return decoded if inflate.eof and not inflate.unused_data else None


def _gunzip(body: bytes) -> bytes | None:
    return _inflate(body, 16 + zlib.MAX_WBITS)


def _undeflate(body: bytes) -> bytes | None:
    """Inflate zlib or, as some clients send it, raw deflate."""
    try:
        return _inflate(body, zlib.MAX_WBITS)
    except zlib.error:
        return _inflate(body, -zlib.MAX_WBITS)


def _unbrotli(body: bytes) -> bytes | None:
    decompressor = brotli.Decompressor()
    small = with_small_window(body, MAX_DECODED_BYTES)
    decoded: bytes = decompressor.process(small, output_buffer_limit=MAX_DECODED_BYTES + 1)
    return decoded if decompressor.is_finished() else None


def _unzstd(body: bytes) -> bytes | None:
    decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES)
    with decompressor.stream_reader(body) as reader:
        decoded = reader.read(MAX_DECODED_BYTES + 1)
    return decoded if _is_whole_zstd(body, len(decoded)) else None


def _is_whole_zstd(body: bytes, decoded_bytes: int) -> bool:
    """Return whether a frame is complete, or too long anyway; the reader above does not report a truncated one."""
    if decoded_bytes > MAX_DECODED_BYTES:
        return True
    whole = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES).decompressobj()
    whole.decompress(body)  # its output is as long as what was read above, so it is bounded
    return whole.eof and not whole.unused_data


_NONE: Final = frozenset({"", "identity"})
_DECODERS: Final[dict[str, Callable[[bytes], bytes | None]]] = {
    "gzip": _gunzip,
    "x-gzip": _gunzip,
    "deflate": _undeflate,
    "br": _unbrotli,
    "zstd": _unzstd,
}
