"""Encoding of arrays of numbers as bytes: little-endian doubles, one after the other.

Learned numbers leave the event loop's thread in this form, because copying an array's memory takes a microsecond,
and converting it to a tuple takes a hundred times as long.
"""

from math import isfinite

import numpy as np
import numpy.typing as npt

from extproc.core.errors import ConfigurationError

__all__ = ["DOUBLE_BYTES", "Numbers", "all_finite", "packed", "unpacked"]

DOUBLE_BYTES = 8

Numbers = npt.NDArray[np.float64]


def packed(numbers: npt.ArrayLike) -> bytes:
    """Return the numbers of an array of any shape as bytes, row by row."""
    return np.asarray(numbers, "<f8").tobytes()


def unpacked(data: bytes) -> Numbers:
    """Return the numbers, shape (n,), read-only. Raises ConfigurationError if a number is incomplete."""
    if len(data) % DOUBLE_BYTES:
        raise ConfigurationError(f"learned numbers have {len(data)} bytes, not a multiple of {DOUBLE_BYTES}")
    return np.frombuffer(data, "<f8")


def all_finite(*numbers: float | Numbers) -> bool:
    """Return whether no number is infinite or NaN."""
    return all(isfinite(each) if isinstance(each, int | float) else np.isfinite(each).all() for each in numbers)
