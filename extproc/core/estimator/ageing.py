"""Ageing of a replica's own knowledge while other replicas learn at the same time.

A replica's own sums age with the responses of all replicas. What it had at the last exchange fades by the number
of responses that the others have had since; what it learned after that exchange fades as if the others' responses
had been spread evenly among its own. So from the first response on, the sums of all replicas add up to those of a
single router that saw all traffic; replicas that see no traffic fade; and no clock is needed, because responses
are counted.

All together should weigh no more than one router's memory M. Replicas that have learned separately for a long time
weigh more when they meet. Each then scales down its own by what it sees of all, but the others' only falls as they
publish it, so the views come down to M in the course of a few exchanges. A replica gives up at most the equivalent
of M responses at a time: otherwise two replicas that meet could each discard their own knowledge and rely on the
other's.

Rejected: scaling down alone. Until M was reached, nothing faded with the responses of other replicas, so for
thousands of responses the scale kept what it had learned from immature prices; and after that the memory was half
as long again as it should be.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Generic

import numpy as np
import numpy.typing as npt

from extproc.core.estimator.packing import Numbers
from extproc.core.estimator.tables import NO_WEIGHT, K, Table, added

__all__ = ["TINY", "Counts", "Fading", "Others", "Own", "scaled"]

Counts = npt.NDArray[np.int64]
TINY = 1e-300
# How many publications a replica remembers that may be in the store: the one that it found there and a few later
# ones. A store that is read and does not confirm would otherwise add one with each exchange.
MAX_TOLD = 4


@dataclass(frozen=True, slots=True)
class Fading:
    """How the rows of a table fade, in groups of columns that fade at the same rate.

    `kept` returns the share of each group that is left, shape (n, groups), given the counts and the number of
    further responses. `memory` is how many responses each group remembers; `widths` returns how many columns
    belong to each group. Weights fade like the first group.
    """

    kept: Callable[[Counts, Numbers], Numbers]
    memory: tuple[float, ...]
    widths: Callable[[int], Sequence[int]] = lambda columns: (columns,)

    def times(self, factors: Numbers, table: Table[K]) -> Table[K]:
        """Return a table multiplied by factors, shape (n, groups)."""
        of_columns = np.repeat(factors, self.widths(table.values.shape[1]), axis=1)
        return Table(table.index, table.counts, factors[:, 0] * table.weights, of_columns * table.values)


@dataclass(slots=True)
class Others(Generic[K]):
    """The others' part of a view's table, the whole table, and the share of own knowledge that was kept.

    All three have the same rows, and describe the view at the last exchange, when its counts were `whole.counts`.
    `told` is what the replica has published, by version, the latest last, aged to that exchange: a part of its own
    knowledge, which becomes the others' if that version is folded. `latest` names the version, if any, that is
    all of its own knowledge.
    """

    part: Table[K]
    whole: Table[K]
    keep: Numbers
    told: dict[bytes, Table[K]] = field(default_factory=dict)
    latest: bytes = b""

    @classmethod
    def all_of(cls, table: Table[K]) -> "Others[K]":
        """Treat everything in a table as learned by other replicas."""
        return cls(table, table, np.ones((len(table.index), 1)))

    def forget(self, keys: Collection[K]) -> None:
        """Called when these rows of the view were replaced, so that this no longer describes them."""
        if not keys:
            return
        kept = [key for key in self.part.index if key not in keys]
        self.keep = self.keep[[self.part.index[key] for key in kept]]
        self.part, self.whole = self.part.aligned(kept), self.whole.aligned(kept)
        self.told = {version: _without(table, keys) for version, table in self.told.items()}

    def of(self, keys: Collection[K]) -> "Others[K]":
        """Return the rows of these keys; keys that are not in the table are left out."""
        here = [key for key in self.part.index if key in keys]
        keep = self.keep[[self.part.index[key] for key in here]]
        others = {key for key in self.part.index if key not in keys}
        told = {version: _without(table, others) for version, table in self.told.items()}
        return Others(self.part.aligned(here), self.whole.aligned(here), keep, told)

    def joined(self, other: "Others[K]") -> "Others[K]":
        """Return the rows of both, which have no key in common."""
        columns = max(each.keep.shape[1] for each in (self, other))  # a table that was always empty has none
        keep = [np.broadcast_to(each.keep, (len(each.keep), columns)) for each in (self, other)]
        tables = added([self.part, other.part]), added([self.whole, other.whole])
        told = {
            version: added([table, other.told[version]]) if version in other.told else table
            for version, table in self.told.items()
        }
        return Others(*tables, np.concatenate(keep, axis=0), told)

    def later(self, part: Table[K], whole: Table[K], keep: Numbers, old: Table[K]) -> "Others[K]":
        """Return what describes the next exchange.

        `old` is what the view still had of the replica's own knowledge. Rows that were reset since have less of it
        than was told, and nothing of what was told is the replica's own any more.
        """
        now = Others(part, whole, keep)
        owned = dict(zip(old.index, old.counts.tolist(), strict=True))
        for version, table in self.told.items():
            told = dict(zip(table.index, table.counts.tolist(), strict=True))
            reset = {key for key in told if owned.get(key, -1) < told[key]}
            now.told[version] = now.scaled(_without(table, reset))
        return now

    def weighted(self, factors: Numbers) -> "Others[K]":
        """Return all of it times factors, shape (n, 1)."""
        rows = self.part.index
        told = {
            version: scaled(table, factors[[rows[key] for key in table.index]]) if table.index else table
            for version, table in self.told.items()
        }
        return Others(scaled(self.part, factors), scaled(self.whole, factors), self.keep, told)

    def tell(self, version: bytes) -> None:
        """Called before own knowledge is published: from now on the store may hold this version of it."""
        keys, part, whole = list(self.whole.index), self.part, self.whole
        part = part.aligned(keys, whole.values.shape[1])
        self.told.pop(version, None)
        while len(self.told) >= MAX_TOLD:
            del self.told[list(self.told)[1]]
        self.told[version] = Table(
            whole.index, whole.counts - part.counts, whole.weights - part.weights, whole.values - part.values
        )
        self.latest = version

    def holds(self, version: bytes) -> None:
        """Called when the store was seen to hold this version: earlier ones have been replaced."""
        if version in self.told:
            versions = list(self.told)
            self.told = {each: self.told[each] for each in versions[versions.index(version) :]}

    def give_up(self, version: bytes) -> None:
        """Treat this version as learned by other replicas; all own knowledge, if it is not known what it had."""
        told = self.told.get(version)
        if told is None or version == self.latest:
            self.part = self.whole
        elif told.index:
            self.part = added([self.part, told], list(self.part.index))
        self.told, self.latest = {}, b""

    def scaled(self, table: Table[K]) -> Table[K]:
        """Age a table that belongs to no replica as much as own knowledge has aged since the last exchange.

        Rows that nobody else has stay as they are: they are categories of a model whose generation is no longer in
        use.
        """
        rows = [self.part.index.get(key, -1) for key in table.index]
        keep = np.append(self.keep, np.ones((1, self.keep.shape[1])), axis=0)
        return scaled(table, keep[rows]) if rows else table


@dataclass(frozen=True, slots=True)
class Own(Generic[K]):
    """A replica's own part of a view: `old` from before the last exchange, faded; `new` from after it.

    `since` counts the responses that made `new`; `at` holds the view's counts at that exchange.
    """

    old: Table[K]
    new: Table[K]
    at: Counts
    since: Counts

    @classmethod
    def of(cls, view: Table[K], others: Others[K], fading: Fading) -> "Own[K]":
        """Subtract what the others' part of a view has faded to. A row that was reset has no old part."""
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
        """Zero the rows of these keys."""
        rows = [self.old.index[key] for key in keys]
        for table in (self.old, self.new):
            table.counts[rows], table.weights[rows], table.values[rows] = 0, 0.0, 0.0

    def aged(self, fresh: Counts, fading: Fading) -> tuple[Table[K], Numbers]:
        """Return the table after `fresh` responses of other replicas, and the share to keep of older knowledge."""
        since = self.since[:, None].astype(np.float64)
        later = np.minimum(fresh[:, None], fading.memory)
        kept = fading.kept(self.at, since)
        kept_of_all = fading.kept(self.at, since + later)
        old = fading.times(kept_of_all / np.maximum(kept, TINY), self.old)
        new = fading.times(_interleaved(kept_of_all, since, later), self.new)
        weights, values = np.maximum(old.weights + new.weights, 0.0), old.values + new.values
        if len(fading.memory) == 1:
            values[weights <= NO_WEIGHT] = 0.0  # what rounding leaves would be a mean of any size
        return Table(old.index, old.counts + new.counts, weights, values), kept_of_all


def _interleaved(kept: Numbers, since: Numbers, later: Numbers) -> Numbers:
    """Return the factor for a fading sum over `since` responses if `later` others are spread evenly among them.

    `kept` is what all of these responses leave of anything older. If each response keeps a share k, a sum over n
    weighs (1 - k^n) / (1 - k).
    """
    n = np.maximum(since, 1)
    each, with_others = np.power(kept, 1 / (n + later)), np.power(kept, 1 / n)
    alone = np.where(each < 1, (1 - np.power(each, n)) / np.maximum(1 - each, TINY), n)
    together = np.where(with_others < 1, (1 - kept) / np.maximum(1 - with_others, TINY), n)
    return np.asarray(together / alone)


def _without(table: Table[K], keys: Collection[K]) -> Table[K]:
    return table.aligned([key for key in table.index if key not in keys], table.values.shape[1])


def scaled(table: Table[K], keep: Numbers) -> Table[K]:
    """Return a table times `keep`, shape (n, 1) or (n, columns); the first column applies to the weights, too."""
    return Table(table.index, table.counts, keep[:, 0] * table.weights, keep * table.values)
