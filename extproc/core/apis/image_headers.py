"""The pixels of an image from a few bytes of its header, read from base64 that is not decoded completely.

Base64 allows random access, so the size is read at the offset that the format defines: in a JPEG behind segments
that are skipped by their length fields, in a TIFF in the directory that the header points to. The time does not
depend on the length of the image.

Formats: PNG (W3C PNG, 11.2.1), JPEG (ITU-T T.81, B.2.2), GIF (89a, section 18), WebP (RFC 9649, RFC 6386), AVIF
and HEIC (ISO/IEC 23008-12, 6.5.3: the property `ispe`), TIFF (6.0, section 2), BMP. Rejected: an image library,
which requires the complete image; decoding a fixed 64 KB first, which takes many times as long and still misses a
frame header that follows a large colour profile.
"""

from binascii import Error as BadBase64
from binascii import a2b_base64
from struct import unpack_from
from typing import Final

__all__ = ["header_pixels", "shows_size_by_bytes"]

HEAD = 30  # bytes; a WebP's size field ends there
# Real files have about ten segments before the frame header: Exif, colour profile, tables.
MAX_SEGMENTS = 14
SEGMENT = 9  # bytes: marker and length; in a frame header also precision, height and width
_FRAME_HEADERS: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_FILL = 0xFF
_PNG, _JPEG, _GIFS, _RIFF = b"\x89PNG\r\n\x1a\n", b"\xff\xd8", (b"GIF87a", b"GIF89a"), b"RIFF"
# Boxes before the sizes of an AVIF or HEIC; a photograph of a telephone has 50 tiles, whose list takes 2 KB.
BOXES_BYTES = 6 * 1024
MAX_ENTRIES = 16  # of a TIFF's directory, in ascending order; width and height are among the first
_WIDTH_TAG, _HEIGHT_TAG, _SHORT = 256, 257, 3


def header_pixels(encoded: memoryview | bytes) -> int:
    """Return width times height of an image in base64; 0 if they cannot be read. Never raises."""
    head = _read(encoded, 0, HEAD).ljust(HEAD, b"\0")
    width = height = 0
    if head.startswith(_PNG) and head[12:16] == b"IHDR":
        width, height = unpack_from(">II", head, 16)
    elif head.startswith(_JPEG):
        width, height = _jpeg_size(encoded)
    elif head.startswith(_GIFS):
        width, height = unpack_from("<HH", head, 6)
    elif head.startswith(_RIFF) and head[8:12] == b"WEBP":
        width, height = _webp_size(head)
    elif head[4:8] == b"ftyp":
        width, height = _heif_size(_read(encoded, 0, BOXES_BYTES))
    elif head.startswith((b"II*\0", b"MM\0*")):
        width, height = _tiff_size(encoded, head)
    elif head.startswith(b"BM"):
        width, height = map(abs, unpack_from("<ii", head, 18))  # a negative height: rows from the top
    return width * height


def shows_size_by_bytes(encoded: memoryview | bytes) -> bool:
    """Return whether an image is empty, or in one of the formats that take at least about two bits per pixel."""
    head = _read(encoded, 0, HEAD)
    return not head or head.startswith((_PNG, _JPEG, *_GIFS, _RIFF))


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


def _heif_size(boxes: bytes) -> tuple[int, int]:
    """Return the largest of the sizes: an image in tiles has one for them, one for the whole, and thumbnails."""
    largest, at = (0, 0), boxes.find(b"ispe")
    while 0 <= at <= len(boxes) - 16:
        size = unpack_from(">II", boxes, at + 8)  # after the name, and four bytes of version and flags
        largest = max(largest, size, key=lambda each: each[0] * each[1])
        at = boxes.find(b"ispe", at + 4)
    return largest


def _tiff_size(encoded: memoryview | bytes, head: bytes) -> tuple[int, int]:
    """Return the width and height from the first directory; zeros if they are not among its first entries."""
    order = "<" if head.startswith(b"II") else ">"
    (at,) = unpack_from(f"{order}I", head, 4)
    entries = _read(encoded, at + 2, MAX_ENTRIES * 12)
    found = {}
    for start in range(0, len(entries) - 11, 12):
        tag, kind = unpack_from(f"{order}HH", entries, start)
        (found[tag],) = unpack_from(f"{order}{'H' if kind == _SHORT else 'I'}", entries, start + 8)
    return found.get(_WIDTH_TAG, 0), found.get(_HEIGHT_TAG, 0)


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
