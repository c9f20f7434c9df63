"""How large an image is that stands in a request's body: a class of pixels, from a few bytes of its header.

Vision models charge by pixels. Qwen2-VL and Qwen2.5-VL: a token for each 28 x 28, at most 16,384 (model card, and
preprocessor_config.json: patch_size 14, merge_size 2, max_pixels 12,845,056). OpenAI's GPT-4o: 85 tokens, and 170
for each tile of 512 x 512 after shrinking to a short side of 768 (guide "Images and vision"). So the area says
most of the price, and a class of areas gets a price of its own.

The image comes as base64 inside JSON. Neither is decoded as a whole: base64 can be read at any place, so the size
is read where the format has it, and a JPEG is walked by hopping from segment to segment. That takes the same time
for any length of image. Base64 that is escaped or broken into lines has no such places: of that only a window is
looked at. Where no size can be read the bytes tell: it is no more than a class.

Formats: PNG (W3C PNG, 11.2.1), JPEG (ITU-T T.81, B.2.2), GIF (89a, section 18), WebP (RFC 9649, RFC 6386).
Rejected: an image library, which wants the whole image; decoding a fixed 64 KB first, which takes many times as
long and still misses what stands behind a large colour profile.
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
# For what has no readable size: two bits a pixel, a photograph as JPEG of middling quality. Formats that pack less
# densely come out larger than they are, which is the safe side.
PIXELS_PER_BYTE = 4

# Base64 starts after `data:image/png;base64,` in a URL, or is the `data` of a source; both stand near the start.
_INLINE = re.compile(rb'"(?:data:[^"]*?;base64,|data"\s*:\s*")')
INLINE_WITHIN = 1024
WINDOW = 4096  # characters of escaped base64 that are looked at
HEAD = 30  # bytes; a WebP's size ends there
# Real files have about ten segments before the frame header: Exif, colour profile, tables.
MAX_SEGMENTS = 14
SEGMENT = 9  # bytes: marker, length, and of a frame header precision, height and width
_FRAME_HEADERS: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_FILL = 0xFF


def image_pixels(source: msgspec.Raw) -> int:
    """Return the pixels of an image from the JSON that says where it is: a URL, or an object that holds it.

    They are 0 for what is not in the body (http URLs, file ids, nothing at all); nothing is an error.
    """
    view = memoryview(source)
    inline = _INLINE.search(view, 0, INLINE_WITHIN)
    if inline is None:
        return 0
    encoded = view[inline.end() :]
    return max(_pixels(_plain(encoded)) or pixels_by_bytes(len(encoded)), 1)


def pixels_by_bytes(encoded_bytes: int) -> int:
    """Return the pixels of an image of which only the length of its base64 is known."""
    return encoded_bytes * 3 // 4 * PIXELS_PER_BYTE


def size_of(pixels: int) -> ImageSize:
    """Return the class of an image of so many pixels, UNKNOWN for none."""
    if pixels == 0:
        return ImageSize.UNKNOWN
    if pixels <= SMALL_PIXELS:
        return ImageSize.SMALL
    return ImageSize.MEDIUM if pixels <= MEDIUM_PIXELS else ImageSize.LARGE


def _plain(encoded: memoryview) -> memoryview | bytes:
    """Return base64 as it is, or, where JSON escapes are in it, what a window of it stands for."""
    window = bytes(encoded[:WINDOW])
    end = window.find(b'"')
    if end >= 0:
        window = window[:end]
    if b"\\" not in window:
        return encoded if end < 0 else window
    cut = window.rfind(b"\\", -5)  # an escape has up to 6 characters: the last may not be whole
    if end < 0 <= cut:
        window = window[:cut]
    try:
        text = msgspec.json.decode(b'"%b"' % window, type=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return b""
    return b"".join(text.encode("ascii", "replace").split())


def _pixels(encoded: memoryview | bytes) -> int:
    """Return width times height; 0 where they cannot be read."""
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
    """Hop over the segments to the frame header."""
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
    """Read the first chunk: lossy, lossless, or the canvas of the extended form."""
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
    """Return `count` decoded bytes from byte `at`, or as many as there are: 4 characters hold 3 bytes."""
    group, skipped = divmod(at, 3)
    characters = encoded[group * 4 : (group + count // 3 + 2) * 4]
    try:
        return a2b_base64(characters)[skipped : skipped + count]
    except BadBase64:  # the end, without its padding
        return _read_groups(characters)[skipped : skipped + count]


def _read_groups(characters: memoryview | bytes) -> bytes:
    """Decode as many whole groups of 4 as there are; nothing when that is no base64 either."""
    try:
        return a2b_base64(characters[: len(characters) // 4 * 4])
    except BadBase64:
        return b""
