"""How old a replica's own knowledge is, when others learn at the same time.

Own ages by the responses of all: what came before the last exchange by those that the others have had since, what
came after it as if theirs had come evenly between. So the sums of all replicas are those of one router that saw
all, from the first responses on; replicas that see no traffic fade; and no clock is needed, since responses are
counted. All together never weigh more than one router's memory M: where replicas meet that have long learned
apart, all are scaled down, and none gives up more at once than by M responses, or two that meet might each leave
it to the other. Rejected: that scaling alone. Until M is reached nothing faded by others' responses, so that what
young prices had taught the scale stayed for thousands; after it the memory was half as long again.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Generic

import numpy as np
import numpy.typing as npt

from extproc.core.estimator.packing import Numbers
from extproc.core.estimator.tables import K, Table, added

__all__ = ["TINY", "Counts", "Fading", "Others", "Own", "scaled"]

Counts = npt.NDArray[np.int64]
TINY = 1e-300


@dataclass(frozen=True, slots=True)
class Fading:
    """How the rows of a table fade, in groups of columns that fade alike.

    `kept` says what is left of each group, shape (n, groups), from counts, after so many responses more; `memory`
    how many each group remembers; `widths` how many of so many columns it has. Weights fade as the first does.
    """

    kept: Callable[[Counts, Numbers], Numbers]
    memory: tuple[float, ...]
    widths: Callable[[int], Sequence[int]] = lambda columns: (columns,)

    def times(self, factors: Numbers, table: Table[K]) -> Table[K]:
        """Return a table times factors, shape (n, groups)."""
        of_columns = np.repeat(factors, self.widths(table.values.shape[1]), axis=1)
        return Table(table.index, table.counts, factors[:, 0] * table.weights, of_columns * table.values)


@dataclass(slots=True)
class Others(Generic[K]):
    """The others' part of a table of the view, the whole of it, and how much of own was kept, by the same rows.

    All as it was when it was put there, at the view's counts `whole.counts`.
    """

    part: Table[K]
    whole: Table[K]
    keep: Numbers

    @classmethod
    def all_of(cls, table: Table[K]) -> "Others[K]":
        """Take all that a table holds for others'."""
        return cls(table, table, np.ones((len(table.index), 1)))

    def forget(self, keys: Collection[K]) -> None:
        """Called when rows of the view are others than those that this is of."""
        if not keys:
            return
        kept = [key for key in self.part.index if key not in keys]
        self.keep = self.keep[[self.part.index[key] for key in kept]]
        self.part, self.whole = self.part.aligned(kept), self.whole.aligned(kept)

    def of(self, keys: Collection[K]) -> "Others[K]":
        """Return the rows of those of these keys that are here."""
        here = [key for key in self.part.index if key in keys]
        keep = self.keep[[self.part.index[key] for key in here]]
        return Others(self.part.aligned(here), self.whole.aligned(here), keep)

    def joined(self, other: "Others[K]") -> "Others[K]":
        """Return the rows of both, which are of different keys."""
        columns = other.part.values.shape[1]
        keep = [np.broadcast_to(each.keep, (len(each.keep), columns)) for each in (self, other)]
        tables = added([self.part, other.part]), added([self.whole, other.whole])
        return Others(*tables, np.concatenate(keep, axis=0))

    def scaled(self, table: Table[K]) -> Table[K]:
        """Return a table that is no replica's, as much older as all of it is since the last exchange."""
        rows = [self.part.index[key] for key in table.index]
        return scaled(table, self.keep[rows]) if rows else table


@dataclass(frozen=True, slots=True)
class Own(Generic[K]):
    """A replica's own part of a view: what it had at the last exchange, faded, and what came in `since` responses.

    `at` is what the view had counted at that exchange.
    """

    old: Table[K]
    new: Table[K]
    at: Counts
    since: Counts

    @classmethod
    def of(cls, view: Table[K], others: Others[K], fading: Fading) -> "Own[K]":
        """Subtract what others' part of a view has faded to; of a row that was made anew nothing is old."""
        keys, columns = list(view.index), view.values.shape[1]
        part, whole = others.part.aligned(keys, columns), others.whole.aligned(keys, columns)
        void = view.counts < whole.counts
        for table in (part, whole):
            table.counts[void], table.weights[void], table.values[void] = 0, 0.0, 0.0
        since = view.counts - whole.counts
        kept = fading.kept(whole.counts, since[:, None].astype(np.float64))
        faded = fading.times(kept, whole)
        mine = Table(
            view.index, whole.counts - part.counts, whole.weights - part.weights, whole.values - part.values
        )
        new = Table(view.index, since, view.weights - faded.weights, view.values - faded.values)
        return cls(fading.times(kept, mine), new, whole.counts, since)

    def aligned(self, keys: Sequence[K], columns: int) -> "Own[K]":
        """Return the rows of these keys."""
        rows = np.array([self.old.index.get(key, -1) for key in keys], np.intp)
        counts = [np.append(each, 0)[rows] for each in (self.at, self.since)]
        return Own(self.old.aligned(keys, columns), self.new.aligned(keys, columns), *counts)

    def clear(self, keys: Sequence[K]) -> None:
        """Drop what is known of these."""
        rows = [self.old.index[key] for key in keys]
        for table in (self.old, self.new):
            table.counts[rows], table.weights[rows], table.values[rows] = 0, 0.0, 0.0

    def aged(self, fresh: Counts, fading: Fading) -> tuple[Table[K], Numbers]:
        """Return it as it is after `fresh` responses of others, and what is kept of what is no replica's."""
        since = self.since[:, None].astype(np.float64)
        later = np.minimum(fresh[:, None], fading.memory)
        kept = fading.kept(self.at, since)
        kept_of_all = fading.kept(self.at, since + later)
        old = fading.times(kept_of_all / np.maximum(kept, TINY), self.old)
        new = fading.times(_interleaved(kept_of_all, since, later), self.new)
        weights = np.maximum(old.weights + new.weights, 0.0)
        return Table(old.index, old.counts + new.counts, weights, old.values + new.values), kept_of_all


def _interleaved(kept: Numbers, since: Numbers, later: Numbers) -> Numbers:
    """Return by what to scale a fading sum over `since` responses, `later` ones of others evenly among them.

    `kept` is what all of these leave of what was before. With k kept of each response, a sum over n weighs
    (1 - k^n) / (1 - k).
    """
    n = np.maximum(since, 1)
    each, with_others = np.power(kept, 1 / (n + later)), np.power(kept, 1 / n)
    alone = np.where(each < 1, (1 - np.power(each, n)) / np.maximum(1 - each, TINY), n)
    together = np.where(with_others < 1, (1 - kept) / np.maximum(1 - with_others, TINY), n)
    return np.asarray(together / alone)


def scaled(table: Table[K], keep: Numbers) -> Table[K]:
    """Return a table times `keep`, shape (n, 1) or (n, columns), whose first column is for the weights, too."""
    return Table(table.index, table.counts, keep[:, 0] * table.weights, keep * table.values)
