"""Lack of repeats: what distinguishes random letters, keys, base64 and random syllables from text, in any script.

They contain the same bytes and scripts as text, but words recur in text. In a kilobyte of prose, code or tables,
one in 50 to 1,500 pairs of positions has the same four bytes at both; in random letters one in 457,000. (For
letters of a script other than Latin it is eight bytes, and one pair in 1,000 to 9,200: of four bytes, half only
identify the script.) Measured is the share of the expected repeats that is missing (the collision entropy of
Renyi, 1961, above 10.6 bits).

Rejected: the entropy of single bytes or pairs, which is that of their script; a table of the pairs that taught the
model, 8 KB of state.
"""

import numpy as np
import numpy.typing as npt

from extproc.core.estimator.sampling import blocks_of

__all__ = ["GRAM", "LONG_GRAM", "missing_repeats"]

# Repeats of the same four bytes are searched for in blocks of 1 KB (in eight blocks of a long text), starting at
# every other byte.
REPEATS_BLOCK_BYTES = 1024
MOST_REPEATS_BLOCKS = 8
GRAM, LONG_GRAM = 4, 8  # bytes
# In ordinary text at least one in 1,500 pairs of positions has the same four bytes at both. In a kilobyte in the
# letters of a script other than Latin, at least one in 9,200 has the same eight bytes (Arabic).
USUAL_REPEATS = {GRAM: 1 / 1_500, LONG_GRAM: 1 / 9_200}
# Added to the repeats counted in a block, and to those expected: a short block says little.
DOUBTED_REPEATS = {GRAM: 8, LONG_GRAM: 4}
# Chinese, Polish and Turkish lack up to this share of the repeats at no cost in tokens. If it counted, it would
# teach that random letters are free.
USUALLY_MISSING = 0.15


def missing_repeats(text: bytes, gram: int) -> float:
    """Return how far a text falls short of the usual repetition: 0 for normal text, up to 1 for random letters.

    `gram` is GRAM, or LONG_GRAM for letters of a script other than Latin.
    """
    if len(text) > MOST_REPEATS_BLOCKS * REPEATS_BLOCK_BYTES:
        text = blocks_of(text, MOST_REPEATS_BLOCKS, REPEATS_BLOCK_BYTES)
    blocks = 1 + (len(text) - 1) // REPEATS_BLOCK_BYTES
    each = (len(text) - gram) // (2 * blocks)
    # The repeats expected in a block, without those that are added.
    usual = USUAL_REPEATS[gram] * each * (each - 1) / 2
    grams = np.ndarray((blocks, each), _GRAMS[gram], text, 0, (2 * each, 2)).copy()
    grams.sort()
    # As one row, counted by Python: fewer numpy calls, which cost the most with cold caches.
    in_order = grams.reshape(-1)
    repeats = (in_order[1:] == in_order[:-1]).tobytes()
    missing = 0.0
    for first in range(0, blocks * each, each):
        count = repeats.count(1, first, first + each - 1)
        if count < usual:
            missing += usual - count
    missing /= (usual + DOUBTED_REPEATS[gram]) * blocks
    return (missing - USUALLY_MISSING) / (1 - USUALLY_MISSING) if missing > USUALLY_MISSING else 0.0


# Made once: converting it from a Python object takes numpy longer than using it.
_GRAMS: dict[int, npt.DTypeLike] = {GRAM: np.dtype("<u4"), LONG_GRAM: np.dtype("<u8")}
