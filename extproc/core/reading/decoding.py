"""Incremental decoding of a response's content-encoding, with a bound on the output.

A few bytes can inflate to gigabytes, so each decoder is asked for at most one byte more than is still allowed; if
that byte comes, the bound is exceeded. Memory is limited to the bound plus the decompressor's window (for br, 256
KiB or twice the bound). Combinations of encodings and zstd are not decoded: such responses are not learned from.
"""

import zlib
from collections.abc import Iterator
from typing import Protocol

import brotli

from extproc.core.errors import ResponseFault, ResponseNotUnderstood
from extproc.core.reading.brotli_window import with_small_window

__all__ = ["Decoder", "decoder_for"]


class Decoder(Protocol):
    """Decodes one body. It must not be used after an error."""

    def feed(self, data: bytes) -> bytes:
        """Return the output for the next `data`. Raises ResponseNotUnderstood (ENCODING, TOO_LARGE)."""
        ...

    @property
    def may_end(self) -> bool:
        """Whether the body may end here: its encoding is complete."""
        ...

    def finish(self) -> bytes:
        """Return the remaining output at the end of the body. Raises ResponseNotUnderstood (CUT_SHORT)."""
        ...


def decoder_for(content_encoding: str, max_bytes: int) -> Decoder:
    """Return a decoder for a content-encoding header whose output is at most `max_bytes` in all.

    Raises ResponseNotUnderstood (ENCODING) for an encoding that is not supported.
    """
    match content_encoding.strip().lower():
        case "" | "identity":
            return _Identity(max_bytes)
        case "gzip" | "x-gzip":
            return _Gzip(max_bytes)
        case "deflate":
            return _Deflate(max_bytes)
        case "br":
            return _Brotli(max_bytes)
    raise ResponseNotUnderstood(ResponseFault.ENCODING, f"content-encoding {content_encoding[:64]!r}")


class _Bounded:
    """Bounds the bytes of output."""

    def __init__(self, max_bytes: int) -> None:
        self._left_bytes = max_bytes

    def _counted(self, output: bytes) -> bytes:
        self._left_bytes -= len(output)
        if self._left_bytes < 0:
            raise ResponseNotUnderstood(ResponseFault.TOO_LARGE)
        return output


class _Identity(_Bounded):
    may_end = True

    def feed(self, data: bytes) -> bytes:
        self._left_bytes -= len(data)
        if self._left_bytes < 0:
            raise ResponseNotUnderstood(ResponseFault.TOO_LARGE)
        return data

    def finish(self) -> bytes:
        return b""


class _Zlib(_Bounded):
    """One zlib stream; `wbits` selects its container format."""

    def __init__(self, max_bytes: int, wbits: int) -> None:
        super().__init__(max_bytes)
        self._wbits = wbits
        self._inflate = zlib.decompressobj(wbits)

    def _inflated(self, data: bytes) -> bytes:
        try:
            return self._counted(self._inflate.decompress(data, self._left_bytes + 1))
        except zlib.error as error:
            raise ResponseNotUnderstood(ResponseFault.ENCODING, str(error)) from None

    @property
    def may_end(self) -> bool:
        return self._inflate.eof

    def finish(self) -> bytes:
        if not self.may_end:
            raise ResponseNotUnderstood(ResponseFault.CUT_SHORT)
        return b""


class _Gzip(_Zlib):
    """Consecutive gzip members, with optional zeros between and after them (RFC 1952, 2.2)."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(max_bytes, _GZIP)

    def feed(self, data: bytes) -> bytes:
        # zlib copies the input that follows a member; steps prevent quadratic time for many tiny members.
        steps = range(0, len(data), _GZIP_STEP_BYTES)
        return b"".join(
            piece for start in steps for piece in self._members(data[start : start + _GZIP_STEP_BYTES])
        )

    def _members(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._inflate.eof:
                data = data.lstrip(b"\0")
                if not data:
                    return
                self._inflate = zlib.decompressobj(self._wbits)
            yield self._inflated(data)
            data = self._inflate.unused_data


_GZIP = 16 + zlib.MAX_WBITS
_GZIP_STEP_BYTES = 4096


class _Deflate(_Zlib):
    """HTTP's deflate: zlib by the standard, raw deflate from some servers; the first two bytes show which."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(max_bytes, zlib.MAX_WBITS)
        self._head: bytes | None = b""

    def feed(self, data: bytes) -> bytes:
        if self._head is not None:
            data = self._head + data
            if len(data) < _ZLIB_HEADER_BYTES:
                self._head = data
                return b""
            self._head = None
            if not _is_zlib_header(data):
                self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        output = self._inflated(data)
        if self._inflate.unused_data:
            raise ResponseNotUnderstood(ResponseFault.ENCODING, "bytes after the end of the deflate stream")
        return output


_ZLIB_HEADER_BYTES = 2


def _is_zlib_header(data: bytes) -> bool:
    method_is_deflate = data[0] & 0x0F == 8  # noqa: PLR2004  (RFC 1950, 2.2)
    return method_is_deflate and (data[0] * 256 + data[1]) % 31 == 0


class _Brotli(_Bounded):
    def __init__(self, max_bytes: int) -> None:
        super().__init__(max_bytes)
        self._decompressor = brotli.Decompressor()
        self._begun = False

    def feed(self, data: bytes) -> bytes:
        if data and not self._begun:
            data = with_small_window(data, self._left_bytes)
            self._begun = True
        try:
            return self._counted(self._decompressor.process(data, output_buffer_limit=self._left_bytes + 1))
        except brotli.error as error:
            raise ResponseNotUnderstood(ResponseFault.ENCODING, str(error)) from None

    @property
    def may_end(self) -> bool:
        finished: bool = self._decompressor.is_finished()
        return finished

    def finish(self) -> bytes:
        if not self.may_end:
            raise ResponseNotUnderstood(ResponseFault.CUT_SHORT)
        return b""
