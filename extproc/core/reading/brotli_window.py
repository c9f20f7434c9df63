"""Making a brotli stream ask for no larger window than what is read of it.

The decoder gives nothing out before it has filled its window, so that a bomb takes 8 ms with the 4 MiB that
encoders ask for unless they are told otherwise, and 30 with the largest, and as much memory. What is decoded needs
none larger than itself: a window is where copies come from, and they come from what was decoded before. How large
it is, is a matter of the stream's first four bits (RFC 7932, 9.1), so those are changed.
"""

from typing import Final

__all__ = ["with_small_window"]

# Odd, from 18 bits on; even means 16 bits, and 1 the rest up to 17, or an extension that decoders refuse.
_BITS: Final = 0b1111
_OF_18_BITS: Final = 0b0011
# A window of n bits is so many bytes smaller than the power of two.
_LESS_BYTES: Final = 16


def with_small_window(stream: bytes, read_bytes: int) -> bytes:
    """Return a stream that decodes to the same up to `read_bytes`; `stream` may be its beginning alone."""
    first = stream[0] if stream else 0
    asked = first & _BITS
    enough = _OF_18_BITS + 2 * max(0, (read_bytes + _LESS_BYTES - 1).bit_length() - 18)
    if not asked & 1 or asked <= enough:
        return stream
    return bytes((first & ~_BITS | enough,)) + stream[1:]
