"""The option --workers: of the commands that run the router, check its gateway, or render one for it."""

import argparse
from typing import Final

__all__ = ["number_of_workers"]

MAX_WORKERS: Final = 256


def number_of_workers(text: str) -> int:
    """Return the number of the router's processes. Raises ArgumentTypeError for what is none."""
    if not (text.isdecimal() and 1 <= int(text) <= MAX_WORKERS):
        raise argparse.ArgumentTypeError(f"{text!r} given; allowed: a whole number from 1 to {MAX_WORKERS}")
    return int(text)
