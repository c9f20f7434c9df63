"""What one replica has learned itself, and what it is to believe: its own and the others'.

The problem. Replicas behind one gateway each see a part of the traffic. Each is to decide by what all have
learned; yet what a replica publishes must be its own, or the same response comes back from every side and counts
again and again.

The idea. What the estimator decides by, the view, is own + others'. The responses of a replica fade the whole view
and add to it, so the others' part of it is known at any time: what was put there, times what has faded since. Then

    own    = view - kept x others'           no second set of sums on the way of a request
    view'  = g x own + sum of others'        others': the newest of each replica
    change = view' - view                    put into the estimator, faded by the responses that came meanwhile

g = min(1, M / weight of all), M being what one router remembers: the memory of the fleet stays that of one router
that saw all, whose old responses are pushed out by the new ones of every replica. It also fades replicas that see
no traffic, and needs no clock: age is counted in responses.

q is moved by each response, up by misses and down by all others. All replicas take the mean (by weight) of where
each began the interval, plus the moves of all: what one router's q would have done, an interval late; but up by no
more than one replica alone and two misses. Rejected: the mean of where they end, which is a controller of a
fraction of the step, and under-counted 1.7 % where 1 % was promised.

A model that a replica started anew (another tokenizer behind its name) is of a later generation; generations do
not mix. A replica joins the generation that most replicas hold if it is later than its own: a single one, behind a
broken counter, harms only itself.

Prior art: information filters are fused by adding information matrices, and what two nodes have in common is
subtracted so that it is not counted twice (Grime and Durrant-Whyte, 1994); one entry for each replica, written by
it alone, with the newest winning, is the state-based G-counter (Shapiro et al., 2011); gossip averaging for q
(Kempe et al., 2003). Rejected: one set of sums in the store that all add to (a lock or a script for each response,
and a lost reply counts twice); means alone (they would need the weights anyway).
"""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Generic

import numpy as np
import numpy.typing as npt

from extproc.core.estimator.bound import START, STEP
from extproc.core.estimator.change import Change, ModelChange, RowChange
from extproc.core.estimator.merging import only
from extproc.core.estimator.packing import Numbers
from extproc.core.estimator.protocol import CategoryKey, LearnedState
from extproc.core.estimator.tables import K, Models, Table, Tables, Terms, added, kept_within, state_of, tables_of

__all__ = ["Exchanged", "Share"]

# What is kept of each row of a table, shape (n, columns) or (n, 1): from counts, responses since, and columns.
_Kept = Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64], int], Numbers]
# What changes by less than this of itself is left as it is: it would cost a solution for nothing.
NOTHING = 1e-9
# Beyond the farthest move of one, moves up of several answer the same surprise, of which they did not hear from
# each other: added up they would be far too far. By chance alone they rarely come to so much more.
APART = 2 * STEP


@dataclass(frozen=True, slots=True)
class Exchanged:
    """`own` is to be published; `change` to be made; `base` is the one that was given, faded as all else is."""

    own: LearnedState
    change: Change
    base: LearnedState | None


@dataclass(slots=True)
class _Others(Generic[K]):
    """The others' part of a table of the view, the whole of it, and how much of own was kept, by the same rows.

    All as it was when it was put there, at the view's counts `whole.counts`.
    """

    part: Table[K]
    whole: Table[K]
    keep: Numbers

    @classmethod
    def all_of(cls, table: Table[K]) -> "_Others[K]":
        return cls(table, table, np.ones((len(table.index), 1)))

    def forget(self, keys: Collection[K]) -> None:
        if not keys:
            return
        kept = [key for key in self.part.index if key not in keys]
        self.keep = self.keep[[self.part.index[key] for key in kept]]
        self.part, self.whole = self.part.aligned(kept), self.whole.aligned(kept)

    def scaled(self, table: Table[K]) -> Table[K]:
        rows = [self.part.index[key] for key in table.index]
        return _scaled(table, self.keep[rows]) if rows else table


class Share:
    """One replica's part in what all know. Pure: it is told the view and what the others have published."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._models: _Others[str] = _Others.all_of(Table.zeros((), 0))
        self._generations: dict[str, int] = {}
        self._q: dict[str, float] = {}
        self._categories: _Others[CategoryKey] = _Others.all_of(Table.zeros((), 0))
        self._outputs: _Others[CategoryKey] = _Others.all_of(Table.zeros((), 0))

    def exchange(self, view: LearnedState, peers: Sequence[Tables], base: LearnedState | None = None) -> Exchanged:
        """Return this replica's own knowledge, and the change that brings the view up to date.

        `peers` are the other replicas' as they published it last, `base` what replicas left that are no more. The
        change is taken to be made: what of it is not has to be told to `skipped`. Raises ConfigurationError for a
        state that cannot be.
        """
        now = tables_of(view, self._terms)
        old = [] if base is None or not base.estimator_kind else [tables_of(base, self._terms)]
        generations = _generations(now, peers, old)
        joined = {
            name for name, row in now.models.sums.index.items() if generations[name] != now.models.generations[row]
        }
        others = [only(each, generations) for each in (*peers, *old)]
        own_models, models = self._share_models(
            now.models, [each.models for each in others], len(peers), generations, joined
        )
        own_categories, categories = self._share_categories(now.categories, [o.categories for o in others], joined)
        own_outputs, outputs = self._share_outputs(now.outputs, [each.outputs for each in others])
        own = state_of(Tables(now.kind, now.features, own_models, _filled(own_categories), _filled(own_outputs)))
        faded = None if not old else state_of(self._faded(old[0]))
        return Exchanged(own, Change(models, categories, outputs), faded)

    def give_up(self) -> None:
        """Called when what was published is in the base: what is in the view is others', and own what comes."""
        self._models.part = self._models.whole
        self._categories.part = self._categories.whole
        self._outputs.part = self._outputs.whole

    def skipped(self, change: Change) -> None:
        """Called with what of a change could not be made: it is no part of the view."""
        self._models.forget({each.model for each in change.models})
        for each in change.models:
            self._q.pop(each.model, None)
        self._categories.forget({each.key for each in change.categories})
        self._outputs.forget({each.key for each in change.outputs})

    def _faded(self, base: Tables) -> Tables:
        """Return a base, scaled down as this replica's own knowledge was."""
        models = base.models
        return Tables(
            base.kind,
            base.features,
            Models(
                self._models.scaled(models.sums), models.q, models.q_moved, models.generations, models.counters
            ),
            self._categories.scaled(base.categories),
            self._outputs.scaled(base.outputs),
        )

    def adopt(self, view: LearnedState) -> None:
        """Take all that the view holds now for others' knowledge: it came from a file."""
        now = tables_of(view, self._terms)
        self._models = _Others.all_of(now.models.sums)
        self._generations = dict(zip(now.models.sums.index, now.models.generations.tolist(), strict=True))
        self._categories = _Others.all_of(now.categories)
        self._outputs = _Others.all_of(now.outputs)

    def _share_models(
        self,
        now: Models,
        others: Sequence[Models],
        live_others: int,
        generations: dict[str, int],
        joined: set[str],
    ) -> tuple[Models, tuple[ModelChange, ...]]:
        index = now.sums.index
        anew = {name for name, row in index.items() if self._generations.get(name, 0) != now.generations[row]}
        self._models.forget(anew)
        for name in anew | joined:
            self._q.pop(name, None)
        own = _own(now.sums, self._models, lambda _, since, n: self._terms.kept_of_models(since, n))
        _clear(own, [name for name in own.index if name in joined])
        own, part, target, keep = _shares(own, [each.sums for each in others], self._terms.kept_of_own_models)
        keys = list(target.index)
        view, q_now = now.sums.aligned(keys, target.values.shape[1]), _by_key(now.sums, now.q, keys, START)
        moved = q_now - np.array([self._q.get(name, q) for name, q in zip(keys, q_now.tolist(), strict=True)])
        live = [Models(own, q_now, moved, now.generations, now.counters), *others[:live_others]]
        q = _agreed(live, keys, _agreed(others[live_others:], keys, q_now))
        self._q = dict(zip(keys, q.tolist(), strict=True))
        self._models = _Others(part, target, keep)
        self._generations = {name: generations[name] for name in keys}
        came_from = _by_key(now.sums, now.generations, keys)
        changes = tuple(
            ModelChange(
                name,
                int(came_from[row]),
                generations[name],
                int(view.counts[row]),
                int(target.counts[row] - view.counts[row]),
                float(target.weights[row] - view.weights[row]),
                float(q[row] - q_now[row]),
                target.values[row] - view.values[row],
            )
            for row, name in enumerate(keys)
            if _differs(target, view, row) or abs(q[row] - q_now[row]) > NOTHING
        )
        counters = np.zeros((len(keys), 3), np.int64)
        counters[[own.index[name] for name in index]] = now.counters
        held = np.array([generations[name] for name in keys], np.int64)
        return Models(own, q_now, moved, held, counters), changes

    def _share_categories(
        self, now: Table[CategoryKey], others: Sequence[Table[CategoryKey]], joined: set[str]
    ) -> tuple[Table[CategoryKey], tuple[RowChange, ...]]:
        own = _own(now, self._categories, lambda before, since, _: self._kept(before, since))
        _clear(own, [key for key in own.index if key.model in joined])
        own, part, target, keep = _shares(
            own, others, lambda table: kept_within(self._terms.category_memory, table.weights)
        )
        # The means in the estimator count what its number of responses comes to, not what the parts weigh
        # together.
        counts = (self._terms.category_weights(target.counts) / np.maximum(target.weights, TINY))[:, None]
        self._categories = _Others(_scaled(part, counts), _scaled(target, counts), keep)
        view = now.aligned(list(target.index), target.values.shape[1])
        means, before = _means(target), _means(view)
        return own, _row_changes(target, view, means - before)

    def _share_outputs(
        self, now: Table[CategoryKey], others: Sequence[Table[CategoryKey]]
    ) -> tuple[Table[CategoryKey], tuple[RowChange, ...]]:
        fades = self._terms.kept_of_outputs
        own = _own(now, self._outputs, lambda _, since, __: fades(since)[:, None])
        np.maximum(own.values, 0.0, out=own.values)
        own, part, target, keep = _shares(
            own, others, lambda table: kept_within(self._terms.output_memory, table.weights)
        )
        self._outputs = _Others(part, target, keep)
        view = (
            now.aligned(list(target.index))
            if now.index
            else Table.zeros(list(target.index), target.values.shape[1])
        )
        return own, _row_changes(target, view, target.values - view.values)

    def _kept(self, before: npt.NDArray[np.int64], since: npt.NDArray[np.int64]) -> Numbers:
        return self._terms.kept_of_categories(before, before + since)[:, None]


def _generations(now: Tables, told: Sequence[Tables], old: Sequence[Tables]) -> dict[str, int]:
    """Return the generation of each model that this replica holds with: its own, or a later one that most hold."""
    votes: dict[str, Counter[int]] = {}
    for each in (now, *told):
        for name, row in each.models.sums.index.items():
            if each.models.sums.counts[row]:
                votes.setdefault(name, Counter())[int(each.models.generations[row])] += 1
    for each in old:
        for name, row in each.models.sums.index.items():
            votes.setdefault(name, Counter({int(each.models.generations[row]): 1}))
    most = {name: max(counts, key=lambda g: (counts[g], g)) for name, counts in votes.items()}
    for name, row in now.models.sums.index.items():
        most[name] = max(most.get(name, 0), int(now.models.generations[row]))
    for each in told:  # that have a model without any response
        for name, row in each.models.sums.index.items():
            most.setdefault(name, int(each.models.generations[row]))
    return most


def _own(view: Table[K], others: _Others[K], kept: _Kept) -> Table[K]:
    """Return the view without what others' part of it has faded to; of a row that was made anew, all of it."""
    keys = list(view.index)
    part = others.part.aligned(keys) if others.part.index else Table.zeros(keys, view.values.shape[1])
    at = others.whole.aligned(keys).counts
    void = view.counts < at
    part.values[void], part.weights[void], part.counts[void], at[void] = 0.0, 0.0, 0, 0
    fade = kept(at, view.counts - at, view.values.shape[1])
    return Table(
        view.index,
        view.counts - part.counts,
        np.maximum(view.weights - fade[:, 0] * part.weights, 0.0),
        view.values - fade * part.values,
    )


def _shares(
    own: Table[K], others: Sequence[Table[K]], keep_of: Callable[[Table[K]], Numbers]
) -> tuple[Table[K], Table[K], Table[K], Numbers]:
    """Return own (scaled down where all weigh more than is remembered), others' sum, both together, the scale."""
    parts: list[Table[K]] = [own]
    parts.extend(others)
    keys = list(dict.fromkeys(key for table in parts for key in table.index))
    columns = max(table.values.shape[1] for table in parts)
    parts[0] = Table.zeros(keys, columns)
    part: Table[K] = added(parts, keys)
    own = own.aligned(keys, columns)
    both = Table(part.index, own.counts + part.counts, own.weights + part.weights, own.values + part.values)
    keep = keep_of(both)
    own = _scaled(own, keep)
    both = Table(part.index, both.counts, own.weights + part.weights, own.values + part.values)
    return own, part, both, keep


def _row_changes(target: Table[CategoryKey], view: Table[CategoryKey], values: Numbers) -> tuple[RowChange, ...]:
    responses = (target.counts - view.counts).tolist()
    moved = np.abs(target.values - view.values)
    changed = np.max(moved - NOTHING * np.abs(view.values), axis=1, initial=0.0).tolist()
    return tuple(
        RowChange(key, int(view.counts[row]), responses[row], values[row])
        for key, row in target.index.items()
        if changed[row] > 0 or responses[row]
    )


def _filled(table: Table[CategoryKey]) -> Table[CategoryKey]:
    """Return the rows that hold something."""
    return table.aligned([key for key, row in table.index.items() if table.counts[row]])


def _clear(table: Table[K], keys: Sequence[K]) -> None:
    rows = [table.index[key] for key in keys]
    table.counts[rows], table.weights[rows], table.values[rows] = 0, 0.0, 0.0


def _scaled(table: Table[K], keep: Numbers) -> Table[K]:
    """Return a table times `keep`, shape (n, 1) or (n, columns), whose first column is for the weights, too."""
    return Table(table.index, table.counts, keep[:, 0] * table.weights, keep * table.values)


def _means(table: Table[CategoryKey]) -> Numbers:
    return table.values / np.maximum(table.weights, TINY)[:, None]


def _differs(one: Table[K], other: Table[K], row: int) -> bool:
    if one.counts[row] != other.counts[row]:
        return True
    largest = np.abs(other.values[row]).max(initial=TINY)
    return bool(np.abs(one.values[row] - other.values[row]).max(initial=0.0) > NOTHING * largest)


def _by_key(
    table: Table[str], column: npt.NDArray[Any], keys: Sequence[str], missing: float = 0
) -> npt.NDArray[Any]:
    """Return a column beside a table for these keys, `missing` where the table does not have them."""
    if not table.index:
        return np.full(len(keys), missing, column.dtype)
    rows = np.array([table.index.get(key, 0) for key in keys], np.intp)
    here = np.array([key in table.index for key in keys])
    return np.where(here, column[rows], np.array(missing, column.dtype))


def _agreed(parts: Sequence[Models], keys: Sequence[str], otherwise: Numbers) -> Numbers:
    """Return the q that replicas agree on; `otherwise` where none of them has any weight."""
    weight, began, moved, farthest = (np.zeros(len(keys)) for _ in range(4))
    for part in parts:
        share = part.sums.aligned(keys).weights
        moves = _by_key(part.sums, part.q_moved, keys)
        weight += share
        began += share * (_by_key(part.sums, part.q, keys) - moves)
        moved += moves
        farthest = np.maximum(farthest, moves)
    moved = np.minimum(moved, farthest + APART)
    return np.where(weight > TINY, np.maximum(began / np.maximum(weight, TINY) + moved, 0.0), otherwise)


TINY = 1e-300
