"""Learned knowledge as tables of fading sums, which are merged by addition.

Nearly everything that an estimator learns is a sum over responses whose older terms fade, or a mean: such a sum
divided by its weight. A table holds one kind of them: for each key the number of responses, their faded number
(the weight) and a row of sums. The rows of one key from several replicas add up, whatever their number and order;
a mean computed from the sums is then the mean of the replicas' means by their weights.

    table       key            row of sums                                             fades by
    models      model          A (upper triangle), b; the scale's A, b                 forgetting; the scale's
    categories  model, key     weight x (bytes per token, deviation, residual, spread^2)   the slowest step
    outputs     model, key     ended, cut                                              FADING

The residual of a model is the category with an empty key; that of all models has an empty model, too, so that of
the model without a name has a key (change.py). q, the bound's multiple, is not a sum but a controller's position:
when merged, it is the mean by weight; replicas recompute it from the scores of all (agreeing.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from extproc.core.errors import ConfigurationError
from extproc.core.estimator.packing import Numbers, all_finite
from extproc.core.estimator.protocol import CategoryKey
from extproc.core.estimator.scale import SCALE_FACTORS

__all__ = [
    "CATEGORY_COLUMNS",
    "NO_SCORES",
    "NO_WEIGHT",
    "Bounds",
    "K",
    "Models",
    "Table",
    "Tables",
    "added",
    "all_keys",
    "checked",
    "checked_bounds",
    "model_columns",
    "settled",
]

K = TypeVar("K", str, CategoryKey)

CATEGORY_COLUMNS = 4
NO_SCORES: Numbers = np.zeros(0)
# Less than rounding leaves of a weight of one response.
NO_WEIGHT = 1e-9


@dataclass(frozen=True, slots=True)
class Table(Generic[K]):
    """Rows by key: `counts` of responses and their faded `weights`, shape (n,); `values`, shape (n, columns)."""

    index: dict[K, int]
    counts: npt.NDArray[np.int64]
    weights: Numbers
    values: Numbers

    @classmethod
    def zeros(cls, keys: Sequence[K], columns: int) -> "Table[K]":
        """Return a table of zeros."""
        n = len(keys)
        return cls(
            {key: i for i, key in enumerate(keys)}, np.zeros(n, np.int64), np.zeros(n), np.zeros((n, columns))
        )

    def add(self, other: "Table[K]") -> None:
        """Add the rows of another table, whose keys are all in this one."""
        if list(self.index) == list(other.index):
            rows: Any = slice(None)
        else:
            rows = np.fromiter(map(self.index.__getitem__, other.index), np.intp, len(other.index))
        self.counts[rows] += other.counts
        self.weights[rows] += other.weights
        self.values[rows] += other.values

    def aligned(self, keys: Sequence[K], columns: int = 0) -> "Table[K]":
        """Return the rows of these keys, zeros for missing ones; an empty table returns `columns` columns."""
        if self.index and keys == list(self.index):
            return Table(self.index, self.counts.copy(), self.weights.copy(), self.values.copy())
        table = Table.zeros(keys, self.values.shape[1] if self.index else columns)
        here = [(row, self.index[key]) for row, key in enumerate(keys) if key in self.index]
        if here:
            to, of = map(list, zip(*here, strict=True))
            table.counts[to], table.weights[to] = self.counts[of], self.weights[of]
            table.values[to] = self.values[of]
        return table


@dataclass(frozen=True, slots=True)
class Bounds:
    """By the rows of a table of models: q, shape (n,), the last scores that moved it, and q before those.

    `scored` counts all scores that have moved it.
    """

    q: Numbers
    began: Numbers
    scores: tuple[Numbers, ...]
    scored: npt.NDArray[np.int64]

    @classmethod
    def at(cls, q: Numbers) -> "Bounds":
        """Return bounds of which no scores are known."""
        return cls(q, q, (NO_SCORES,) * len(q), np.zeros(len(q), np.int64))

    def of_rows(self, rows: Sequence[int]) -> "Bounds":
        """Return the bounds of some rows."""
        return Bounds(self.q[rows], self.began[rows], tuple(self.scores[row] for row in rows), self.scored[rows])


@dataclass(frozen=True, slots=True)
class Models:
    """The table of models, and by its rows: bounds, generations, counters.

    Counters, shape (n, 3), count responses that were clipped, refused, and truncated by the pool.
    """

    sums: Table[str]
    bounds: Bounds
    generations: npt.NDArray[np.int64]
    counters: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Tables:
    """The contents of one state, with the kind of the estimator and the features that sums are over."""

    kind: str
    features: tuple[str, ...]
    models: Models
    categories: Table[CategoryKey]
    outputs: Table[CategoryKey]


def model_columns(features: int) -> tuple[int, int, int, int]:
    """Return the number of sums of a model: of A's upper triangle, of b, and of the scale's A and b."""
    return features * (features + 1) // 2, features, SCALE_FACTORS**2, SCALE_FACTORS


def checked(table: Table[K]) -> Table[K]:
    """Return a table from another process. Raises ConfigurationError if its numbers are not finite."""
    if not all_finite(table.weights, table.values) or (table.weights < 0).any():
        raise ConfigurationError("learned state holds numbers that are not finite")
    return table


def checked_bounds(bounds: Bounds) -> Bounds:
    """Return bounds from another process. Raises ConfigurationError if they are not finite."""
    if not all_finite(bounds.q, bounds.began, *bounds.scores):
        raise ConfigurationError("learned bounds are not finite")
    return bounds


def settled(tables: Tables) -> Tables:
    """Return tables of a replica that were read before, without scores: those were taken over then."""
    return replace(tables, models=replace(tables.models, bounds=Bounds.at(tables.models.bounds.q)))


def added(tables: Sequence[Table[K]], keys: Sequence[K] | None = None) -> Table[K]:
    """Return the sum of tables, over these keys or all that any of them has."""
    keys = all_keys(tables) if keys is None else keys
    widths = {table.values.shape[1] for table in tables if table.index}
    if len(widths) > 1:
        raise ConfigurationError("learned rows of different lengths do not merge")
    total: Table[K] = Table.zeros(keys, widths.pop() if widths else tables[0].values.shape[1])
    for table in tables:
        if table.index:
            total.add(table)
    return total


def all_keys(tables: Sequence[Table[K]]) -> list[K]:
    """Return the keys of all tables, in order; an index that several tables share is read once."""
    distinct = {id(table.index): table.index for table in tables}
    return list(dict.fromkeys(chain.from_iterable(distinct.values())))
