"""Reduction of a brotli stream's window to the number of bytes that are read from it.

The decoder outputs nothing before it has filled its window. So a decompression bomb takes 8 ms with the 4 MiB
window that encoders use by default and 30 ms with the largest one, and memory of the window's size. Decoding needs
no window larger than the output that is read, because back-references point into output that was decoded before.
The window's size is in the first four bits of the stream (RFC 7932, 9.1), which are rewritten.
"""

from typing import Final

__all__ = ["with_small_window"]

# An odd value other than 1 means 18 bits or more; an even one means 16 bits; 1 means one of the other sizes up to
# 17 bits, or an extension that decoders reject.
_BITS: Final = 0b1111
_OF_18_BITS: Final = 0b0011
# A window of n bits has 2^n bytes minus this.
_LESS_BYTES: Final = 16


def with_small_window(stream: bytes, read_bytes: int) -> bytes:
    """Return a stream that decodes to the same first `read_bytes` bytes; `stream` may be only its beginning."""
    first = stream[0] if stream else 0
    asked = first & _BITS
    enough = _OF_18_BITS + 2 * max(0, (read_bytes + _LESS_BYTES - 1).bit_length() - 18)
    if not asked & 1 or asked <= enough:
        return stream
    return bytes((first & ~_BITS | enough,)) + stream[1:]
