"""How much of an error is believed: usage may be broken, and then it is to move next to nothing."""

from math import log
from typing import Final

__all__ = ["MAX_CLIP", "WILD", "clipped_error"]

CLIP_SCALES = 5.0
MIN_CLIP = 0.1
MAX_CLIP: Final = log(2)
WILD: Final = log(4)
"""A log error beyond which a counter is broken, so that it tells nothing of how far real errors reach."""


def clipped_error(error: float, scale: float) -> float:
    """Return what is believed of a log error, where errors have this scale."""
    limit = min(max(MIN_CLIP, CLIP_SCALES * scale), MAX_CLIP)
    return min(max(error, -limit), limit)
