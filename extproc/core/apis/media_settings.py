"""Settings of one image or video, next to its URL, that decide how many tokens it takes, as SGLang has them."""

import re
from typing import Final

import msgspec

__all__ = ["has_settings"]

WITHIN: Final = 256  # bytes of the beginning, and of the end
# White space is never given back: with much of it, a null would cost four times as much.
_SETTING: Final = re.compile(
    rb'"(?:(?:max|min)_dynamic_patch|max_(?:long_side_pixel|frames|tokens_per_frame|image_tokens)|fps)"\s*+:\s*+[^n]'
)
_OBJECT: Final = ord("{")


def has_settings(source: msgspec.Raw) -> bool:
    """Return whether an image or a video sets its number of tiles, frames, pixels or tokens.

    Only an object does. The bytes of the media, which are its URL, are not searched.
    """
    view = memoryview(source)
    if not view or view[0] != _OBJECT:
        return False
    return bool(_SETTING.search(view[:WITHIN]) or (len(view) > WITHIN and _SETTING.search(view[-WITHIN:])))
