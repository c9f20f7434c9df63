"""The size of an image in a request's body: its pixels, and a size class, from a few bytes of its header.

The tokens of an image depend on its pixels. Qwen2-VL and Qwen2.5-VL: one token per 28 x 28 pixels, at most 16,384
(model card, and preprocessor_config.json: patch_size 14, merge_size 2, max_pixels 12,845,056). OpenAI's GPT-4o: 85
tokens, plus 170 per tile of 512 x 512 after scaling down to a short side of 768 (guide "Images and vision"). So
the area explains most of the token count, and the tokens per image are learned separately for each size class.

The image comes as base64 inside JSON, and neither is decoded completely (image_headers.py). Base64 that contains
JSON escapes or line breaks does not allow random access: only a window at its start is read. If the size cannot be
read, it is guessed from the number of bytes; that is good enough for a size class in formats that take about as
many as a JPEG. In others a page can take 3 KB (a fax in a TIFF), and the size is unknown.
"""

import re

import msgspec

from extproc.core.apis.image_headers import header_pixels, shows_size_by_bytes
from extproc.core.facts import ImageSize

__all__ = ["MEDIUM_PIXELS", "SMALL_PIXELS", "image_pixels", "pixels_by_bytes", "size_of"]

SMALL_PIXELS = 512 * 512
MEDIUM_PIXELS = 1024 * 1024
# For images without a readable size: two bits per pixel, as in a photograph saved as a medium-quality JPEG.
PIXELS_PER_BYTE = 4

# Base64 follows `data:image/png;base64,` in a URL, or is the `data` of a source; both occur near the start.
_INLINE = re.compile(rb'"(?:data:[^"]*?;base64,|data"\s*:\s*")')
INLINE_WITHIN = 1024
WINDOW = 4096  # characters of escaped base64 that are read


def image_pixels(source: msgspec.Raw) -> int:
    """Return the number of pixels of an image; `source` is a JSON URL or an object that holds the image.

    It is 0 if the image is not in the body (http URLs, file ids, an empty source), or if its bytes do not show its
    size. Never raises.
    """
    view = memoryview(source)
    inline = _INLINE.search(view, 0, INLINE_WITHIN)
    if inline is None:
        return 0
    encoded = view[inline.end() :]
    plain = _plain(encoded)
    if pixels := header_pixels(plain):
        return pixels
    guess = pixels_by_bytes(len(encoded))
    return max(guess, 1) if guess > MEDIUM_PIXELS or shows_size_by_bytes(plain) else 0


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
