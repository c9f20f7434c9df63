"""Agreement of replicas on values that are not sums: generations and q, the bound's multiple.

q is the state of a controller. Each response moves it: up if the bound was exceeded, down otherwise. So replicas
publish the scores of their responses (bound.py), and each replays the scores of all of them, evenly interleaved,
from the mean (by weight) of the values of q at which they started. The result is what one router's q would have
been, delayed by one exchange interval.

Two rules were rejected. The mean of the values at which replicas end: when q has to rise, each of N replicas
misses as often as a single router would before its q has risen, and 1.7 % were under-counted where 1 % was
promised. That mean plus the moves of all replicas: each replica has already answered the same surprise in full, so
q swings; at 4,000 responses between exchanges of 16 replicas, 2.5 % were under-counted.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from extproc.core.estimator.ageing import TINY
from extproc.core.estimator.bound import START, followed
from extproc.core.estimator.packing import Numbers
from extproc.core.estimator.tables import NO_SCORES, Bounds, Models, Table, Tables

__all__ = ["Agreed", "agreed_generations", "agreed_q", "by_key", "own_bounds"]

Agreed = Mapping[str, tuple[float, int]]
"""By model: the q agreed on at the last exchange, and how many scores this replica had seen by then."""


def own_bounds(now: Models, keys: Sequence[str], agreed: Agreed) -> Bounds:
    """Return this replica's bounds of the named models, with the scores since the last exchange."""
    began, scores = by_key(now.sums, now.bounds.began, keys, START), [NO_SCORES] * len(keys)
    scored = by_key(now.sums, now.bounds.scored, keys)
    for row, name in enumerate(keys):
        if name not in now.sums.index:
            continue
        scores[row] = now.bounds.scores[now.sums.index[name]]
        if name in agreed:
            q, before = agreed[name]
            since = int(scored[row]) - before
            if 0 <= since <= len(scores[row]):
                began[row], scores[row] = q, scores[row][len(scores[row]) - since :]
    return Bounds(by_key(now.sums, now.bounds.q, keys, START), began, tuple(scores), scored)


def agreed_q(epsilon: float, parts: Sequence[Models], keys: Sequence[str], otherwise: Numbers) -> Numbers:
    """Return the q that replicas agree on; `otherwise` for models of which no replica has any weight."""
    q = otherwise.copy()
    for place, key in enumerate(keys):
        rows = [(part, part.sums.index[key]) for part in parts if key in part.sums.index]
        rows = [(part, row) for part, row in rows if part.sums.weights[row] > TINY]
        if rows:
            weights = np.array([part.sums.weights[row] for part, row in rows])
            began = weights.dot([part.bounds.began[row] for part, row in rows]) / weights.sum()
            scores = _mixed([part.bounds.scores[row] for part, row in rows])
            q[place] = followed(began, scores, epsilon)
    return q


def agreed_generations(now: Tables, peers: Sequence[Tables], old: Sequence[Tables]) -> dict[str, int]:
    """Return the generation of each model that this replica adopts: its own, or a later one that most have."""
    votes: dict[str, Counter[int]] = {}
    for each in (now, *peers):
        for name, row in each.models.sums.index.items():
            if each.models.sums.counts[row]:
                votes.setdefault(name, Counter())[int(each.models.generations[row])] += 1
    for each in old:
        for name, row in each.models.sums.index.items():
            votes.setdefault(name, Counter({int(each.models.generations[row]): 1}))
    most = {name: max(counts, key=lambda g: (counts[g], g)) for name, counts in votes.items()}
    for name, row in now.models.sums.index.items():
        most[name] = max(most.get(name, 0), int(now.models.generations[row]))
    for each in peers:  # models that peers know, but without a response
        for name, row in each.models.sums.index.items():
            most.setdefault(name, int(each.models.generations[row]))
    return most


def _mixed(scores: Sequence[Numbers]) -> list[float]:
    """Interleave the scores of several replicas as one router might have seen them: each evenly spread."""
    places = np.concatenate([(np.arange(len(each)) + 0.5) / len(each) for each in scores])
    pooled = np.concatenate(scores)
    order = np.lexsort((pooled, places))  # ties by score, so the order of replicas does not matter
    mixed: list[float] = pooled[order].tolist()
    return mixed


def by_key(
    table: Table[str], column: npt.NDArray[Any], keys: Sequence[str], missing: float = 0
) -> npt.NDArray[Any]:
    """Return the values of a table's column for these keys, `missing` for keys that the table does not have."""
    return np.array([column[table.index[key]] if key in table.index else missing for key in keys], column.dtype)
