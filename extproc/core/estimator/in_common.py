"""Whether two states hold what was learned from the same responses, which a merge would count twice.

A state does not say which router it comes from. But each model has the last scores that moved its bound, and how
many there were before: two states of one router, or of two that began with the same file, have the same scores at
the same places, unless one of them is older by all that are kept. Routers that learned separately do not: a score
depends on each response, and on all that were learned from before it.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Final

import numpy as np

from extproc.core.estimator.packing import Numbers, unpacked
from extproc.core.estimator.protocol import LearnedState, ModelState

__all__ = ["in_common"]

# Fewer weigh little, and may be the same in two routers that began with the same requests, such as probes.
ENOUGH: Final = 32


def in_common(states: Sequence[LearnedState]) -> tuple[int, int] | None:
    """Return the places of two states that hold the same responses, or None if none are seen to."""
    learned = [(place, state) for place, state in enumerate(states) if state.estimator_kind]
    pairs = combinations(learned, 2)
    return next(((one, two) for (one, a), (two, b) in pairs if _overlap(a, b)), None)


def _overlap(one: LearnedState, two: LearnedState) -> bool:
    if one == two:
        return any(row.observations for rows in (one.models, one.categories, one.outputs) for row in rows)
    rows = {row.model: row for row in one.models}
    return any(_same_scores(rows[row.model], row) for row in two.models if row.model in rows)


def _same_scores(one: ModelState, two: ModelState) -> bool:
    if one.generation != two.generation:
        return False
    scores = [unpacked(row.scores) for row in (one, two)]
    begins = [row.scored - len(kept) for row, kept in zip((one, two), scores, strict=True)]
    begin, end = max(begins), min(one.scored, two.scored)
    if end - begin < ENOUGH:
        return False
    left, right = (kept[begin - own : end - own] for kept, own in zip(scores, begins, strict=True))
    return _equal(left, right) >= ENOUGH


def _equal(left: Numbers, right: Numbers) -> int:
    """Return how many scores are the same; 0 is the score of every estimate that was exact."""
    return int(np.count_nonzero((left == right) & (left != 0)))
