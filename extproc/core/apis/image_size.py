"""The size of an image in a request's body: its pixels, and a size class, from a few bytes of its header.

The tokens of an image depend on its pixels. Qwen2-VL and Qwen2.5-VL: one token per 28 x 28 pixels, at most 16,384
(model card, and preprocessor_config.json: patch_size 14, merge_size 2, max_pixels 12,845,056). OpenAI's GPT-4o: 85
tokens, plus 170 per tile of 512 x 512 after scaling down to a short side of 768 (guide "Images and vision"). So
the area explains most of the token count, and the tokens per image are learned separately for each size class.

The image comes as base64 inside JSON, and neither is decoded completely. Base64 allows random access, so the size
is read at the offset that the format defines; in a JPEG, the segments before it are skipped by their length
fields. The time does not depend on the length of the image. Base64 that contains JSON escapes or line breaks does
not allow random access: only a window at its start is read. If the size cannot be read, it is guessed from the
number of bytes; that is good enough for a size class.

Formats: PNG (W3C PNG, 11.2.1), JPEG (ITU-T T.81, B.2.2), GIF (89a, section 18), WebP (RFC 9649, RFC 6386).
Rejected: an image library, which requires the complete image; decoding a fixed 64 KB first, which takes many times
as long and still misses a frame header that follows a large colour profile.
"""

import re
from binascii import Error as BadBase64
from binascii import a2b_base64
from struct import unpack_from
from typing import Final

import msgspec

from extproc.core.facts import ImageSize

__all__ = ["MEDIUM_PIXELS", "SMALL_PIXELS", "image_pixels", "pixels_by_bytes", "size_of"]

SMALL_PIXELS = 512 * 512
MEDIUM_PIXELS = 1024 * 1024
# For images without a readable size: two bits per pixel, as in a photograph saved as a medium-quality JPEG. Images
# in formats that compress less are over-estimated, which is the safe side.
PIXELS_PER_BYTE = 4

# Base64 follows `data:image/png;base64,` in a URL, or is the `data` of a source; both occur near the start.
_INLINE = re.compile(rb'"(?:data:[^"]*?;base64,|data"\s*:\s*")')
INLINE_WITHIN = 1024
WINDOW = 4096  # characters of escaped base64 that are read
HEAD = 30  # bytes; a WebP's size field ends there
# Real files have about ten segments before the frame header: Exif, colour profile, tables.
MAX_SEGMENTS = 14
SEGMENT = 9  # bytes: marker and length; in a frame header also precision, height and width
_FRAME_HEADERS: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_FILL = 0xFF


def image_pixels(source: msgspec.Raw) -> int:
    """Return the number of pixels of an image; `source` is a JSON URL or an object that holds the image.

    It is 0 if the image is not in the body (http URLs, file ids, an empty source). Never raises.
    """
    view = memoryview(source)
    inline = _INLINE.search(view, 0, INLINE_WITHIN)
    if inline is None:
        return 0
    encoded = view[inline.end() :]
    return max(_pixels(_plain(encoded)) or pixels_by_bytes(len(encoded)), 1)


def pixels_by_bytes(encoded_bytes: int) -> int:
    """Return a guess of the number of pixels of an image from the length of its base64 alone."""
    return encoded_bytes * 3 // 4 * PIXELS_PER_BYTE


def size_of(pixels: int) -> ImageSize:
    """Return the size class of an image with this many pixels, UNKNOWN for 0."""
    if pixels == 0:
        return ImageSize.UNKNOWN
    if pixels <= SMALL_PIXELS:
        return ImageSize.SMALL
    return ImageSize.MEDIUM if pixels <= MEDIUM_PIXELS else ImageSize.LARGE


def _plain(encoded: memoryview) -> memoryview | bytes:
    """Return the base64 unchanged or, if it contains JSON escapes, the unescaped text of a window at its start."""
    window = bytes(encoded[:WINDOW])
    end = window.find(b'"')
    if end >= 0:
        window = window[:end]
    if b"\\" not in window:
        return encoded if end < 0 else window
    cut = window.rfind(b"\\", -5)  # an escape has up to 6 characters, so the last one may be incomplete
    if end < 0 <= cut:
        window = window[:cut]
    try:
        text = msgspec.json.decode(b'"%b"' % window, type=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return b""
    return b"".join(text.encode("ascii", "replace").split())


def _pixels(encoded: memoryview | bytes) -> int:
    """Return width times height; 0 if they cannot be read."""
    head = _read(encoded, 0, HEAD).ljust(HEAD, b"\0")
    width = height = 0
    if head.startswith(b"\x89PNG\r\n\x1a\n") and head[12:16] == b"IHDR":
        width, height = unpack_from(">II", head, 16)
    elif head.startswith(b"\xff\xd8"):
        width, height = _jpeg_size(encoded)
    elif head.startswith((b"GIF87a", b"GIF89a")):
        width, height = unpack_from("<HH", head, 6)
    elif head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        width, height = _webp_size(head)
    return width * height


def _jpeg_size(encoded: memoryview | bytes) -> tuple[int, int]:
    """Return the width and height from the frame header, skipping the segments before it; zeros if not found."""
    at = 2
    for _ in range(MAX_SEGMENTS):
        segment = _read(encoded, at, SEGMENT)
        if len(segment) < SEGMENT or segment[0] != _FILL:
            break
        marker, length, height, width = unpack_from(">xBHxHH", segment)
        if marker in _FRAME_HEADERS:
            return width, height
        at += 1 if marker == _FILL else 2 + length
    return 0, 0


def _webp_size(head: bytes) -> tuple[int, int]:
    """Return the width and height from the first chunk: lossy, lossless, or extended (the canvas)."""
    match head[12:16]:
        case b"VP8 " if head[23:26] == b"\x9d\x01\x2a":
            width, height = unpack_from("<HH", head, 26)
            return width & 0x3FFF, height & 0x3FFF
        case b"VP8L" if head[20] == 0x2F:  # noqa: PLR2004  (the signature)
            bits = int.from_bytes(head[21:25], "little")
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8X":
            return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    return 0, 0


def _read(encoded: memoryview | bytes, at: int, count: int) -> bytes:
    """Return up to `count` decoded bytes from byte offset `at`; 4 characters encode 3 bytes."""
    group, skipped = divmod(at, 3)
    characters = encoded[group * 4 : (group + count // 3 + 2) * 4]
    try:
        return a2b_base64(characters)[skipped : skipped + count]
    except BadBase64:  # the end has no padding
        return _read_groups(characters)[skipped : skipped + count]


def _read_groups(characters: memoryview | bytes) -> bytes:
    """Decode the complete groups of 4 characters; return b"" if they are not base64 either."""
    try:
        return a2b_base64(characters[: len(characters) // 4 * 4])
    except BadBase64:
        return b""
