"""Compression of responses, with each piece flushed so that it can be decoded on arrival."""

import zlib
from typing import Protocol

import brotli

from extproc.emulator.settings import Compression

__all__ = ["Encoder", "encoder_for"]

_GZIP_WINDOW = zlib.MAX_WBITS | 16


class Encoder(Protocol):
    """Encodes a body piece by piece."""

    def encode(self, data: bytes) -> bytes:
        """Return the encoded piece; nothing is held back."""
        ...

    def finish(self) -> bytes:
        """Return the bytes that end the body."""
        ...


def encoder_for(compression: Compression, accept_encoding: str) -> Encoder | None:
    """Return the encoder for a response; None if compression is off or the client does not accept it."""
    accepted = {each.partition(";")[0].strip() for each in accept_encoding.lower().split(",")}
    if compression is Compression.NONE or compression.value not in accepted:
        return None
    if compression is Compression.BROTLI:
        return _Brotli()
    return _Zlib(_GZIP_WINDOW if compression is Compression.GZIP else zlib.MAX_WBITS)


class _Zlib:
    def __init__(self, window: int) -> None:
        self._encoder = zlib.compressobj(wbits=window)

    def encode(self, data: bytes) -> bytes:
        return self._encoder.compress(data) + self._encoder.flush(zlib.Z_SYNC_FLUSH)

    def finish(self) -> bytes:
        return self._encoder.flush()


class _Brotli:
    def __init__(self) -> None:
        self._encoder = brotli.Compressor(quality=4)

    def encode(self, data: bytes) -> bytes:
        return bytes(self._encoder.process(data) + self._encoder.flush())

    def finish(self) -> bytes:
        return bytes(self._encoder.finish())
