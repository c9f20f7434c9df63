"""Clipping of errors: usage may be wrong, and must then have almost no effect."""

from math import log
from typing import Final

__all__ = ["MAX_CLIP", "WILD", "clipped_error"]

CLIP_SCALES = 5.0
MIN_CLIP = 0.1
MAX_CLIP: Final = log(2)
WILD: Final = log(4)
"""A log error beyond which a counter must be broken, so it says nothing about the size of real errors."""


def clipped_error(error: float, scale: float) -> float:
    """Return the part of a log error that is believed if errors have this scale."""
    usual = CLIP_SCALES * scale
    limit = MIN_CLIP if usual < MIN_CLIP else usual if usual < MAX_CLIP else MAX_CLIP
    return -limit if error < -limit else limit if error > limit else error
