"""Which share of the tokens of several prompts the longest one has, as far as bytes show it.

Each prompt is a separate sequence, so a pool's context has to hold the longest one. All of them are estimated as
one text, and the bytes say how to divide the estimate. Digits and signs count as several letters: a tokenizer that
splits numbers into digits (Llama 2, Qwen) makes .9 to 1.0 tokens per byte of a table, and .2 of prose. Languages
differ less, and no class of bytes tells them apart; placing/budget.py has a margin for that. Rejected: a larger
margin for everything, which sends lists of like prompts to the long pool; an estimate for each prompt, which costs
as much as that many requests.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["longest_share"]

# How many letters one digit or sign counts as.
DIGIT_LETTERS: Final = 4
_BLANK, _ASCII_END, _FIRST_LETTER, _LETTERS, _LOWER_CASE = 32, 128, 97, 26, 32


def longest_share(texts: Sequence[bytes], parts: int = 1) -> float:
    """Return the share of the longest of several prompts, by their weights; 1.0 if all are empty.

    With `parts` the texts are the first parts of all prompts, then all second parts, and so on.
    """
    if len(texts) == parts:
        return 1.0
    each = _weights(texts).reshape(parts, -1).sum(axis=0)
    total = int(each.sum())
    return int(each.max()) / total if total else 1.0


def _weights(texts: Sequence[bytes]) -> npt.NDArray[np.int64]:
    """Return the weight of each text, shape (len(texts),): its bytes, and those of digits and signs repeatedly."""
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    filled = lengths > 0
    starts = np.concatenate(([0], np.cumsum(lengths[filled])[:-1]))
    text = np.frombuffer(b"".join(texts), np.uint8)
    is_letter = ((text | _LOWER_CASE) - _FIRST_LETTER) < _LETTERS
    is_dense = ~is_letter & (text > _BLANK) & (text < _ASCII_END)
    result = lengths.copy()
    if len(text):
        result[filled] += (DIGIT_LETTERS - 1) * np.add.reduceat(is_dense, starts, dtype=np.int64)
    return result
