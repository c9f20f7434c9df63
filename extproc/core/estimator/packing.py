"""Rows of numbers as bytes: little-endian doubles, one after the other.

What is learned leaves the deciding thread in this form, because a copy of an array's memory takes a microsecond,
and a tuple of its numbers a hundred times as long.
"""

from math import isfinite

import numpy as np
import numpy.typing as npt

from extproc.core.errors import ConfigurationError

__all__ = ["DOUBLE_BYTES", "Numbers", "all_finite", "packed", "unpacked"]

DOUBLE_BYTES = 8

Numbers = npt.NDArray[np.float64]


def packed(numbers: npt.ArrayLike) -> bytes:
    """Return numbers of an array of any shape as bytes, in rows."""
    return np.asarray(numbers, "<f8").tobytes()


def unpacked(data: bytes) -> Numbers:
    """Return the numbers, shape (n,), not to be written to. Raises ConfigurationError for a part of a number."""
    if len(data) % DOUBLE_BYTES:
        raise ConfigurationError(f"learned numbers of {len(data)} bytes are no doubles")
    return np.frombuffer(data, "<f8")


def all_finite(*numbers: float | Numbers) -> bool:
    """Tell whether no number is infinite or none at all."""
    return all(isfinite(each) if isinstance(each, int | float) else np.isfinite(each).all() for each in numbers)
