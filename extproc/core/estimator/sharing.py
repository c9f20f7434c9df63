"""Separation of what a replica has learned itself from what it is to believe: that plus the others' knowledge.

The problem. Replicas behind one gateway each see a part of the traffic. Each should decide by what all of them
have learned; but what a replica publishes must be only its own, otherwise the same response returns from every
side and is counted again and again.

The idea. What the estimator decides by, the view, is own + others'. Each response of the replica fades the whole
view and adds to it, so the others' part of the view is known at any time: it is what was put in, faded by the
responses since. Then

    own    = view - kept x others'           no second set of sums on the request path
    view'  = aged own + sum of others'       others': the newest version of each replica
    change = view' - view                    applied to the estimator, faded by the responses since

ageing.py describes how own knowledge ages, agreeing.py how replicas agree on q.

A model whose prices a replica replaced (another tokenizer behind its name) is of a later generation; generations
do not mix. If the model that was set aside comes back (rivals.py), so does the others' part of it. A replica joins
the generation that most replicas have if it is later than its own: a single one, behind a broken counter, harms
only itself.

Prior art: information filters are fused by adding information matrices, and what two nodes have in common is
subtracted so that it is not counted twice (Grime and Durrant-Whyte, 1994); one entry per replica, written only by
that replica, with the newest winning, is the state-based G-counter (Shapiro et al., 2011); gossip averaging for q
(Kempe et al., 2003). Rejected: one set of sums in the store that all replicas add to (a lock or a script for each
response, and a lost reply counts twice); means alone (they would need the weights anyway).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from extproc.core.estimator.ageing import Fading, Others, Own
from extproc.core.estimator.agreeing import agreed_generations, agreed_q, by_key, own_bounds
from extproc.core.estimator.change import Change, ModelChange, RowChange, is_of
from extproc.core.estimator.merging import only
from extproc.core.estimator.protocol import CategoryKey, LearnedState
from extproc.core.estimator.shares import NOTHING, differs, filled, means_of, per_weight, row_changes, shares
from extproc.core.estimator.state_tables import state_of, tables_of
from extproc.core.estimator.tables import Models, Table, Tables
from extproc.core.estimator.terms import Terms, kept_within

__all__ = ["Exchanged", "Share"]


@dataclass(frozen=True, slots=True)
class Exchanged:
    """`own` is to be published, `change` to be applied; `base` is the given one, faded like everything else."""

    own: Tables
    change: Change
    base: LearnedState | None


class Share:
    """One replica's part in the shared knowledge. Pure: the view and what others published are passed in."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._models: Others[str] = Others.all_of(Table.zeros((), 0))
        self._generations: dict[str, int] = {}
        self._q: dict[str, tuple[float, int]] = {}  # as agreed, and the scores seen here by then
        # By model: its previous generation and the others' part of that, in case it comes back (rivals.py).
        self._aside: dict[str, tuple[int, Others[str]]] = {}
        self._categories: Others[CategoryKey] = Others.all_of(Table.zeros((), 0))
        self._outputs: Others[CategoryKey] = Others.all_of(Table.zeros((), 0))

    def exchange(self, view: LearnedState, peers: Sequence[Tables], base: LearnedState | None = None) -> Exchanged:
        """Return this replica's own knowledge, and the change that brings the view up to date.

        `peers` are the other replicas' tables as last published, `base` is the knowledge of replicas that have
        stopped. The change is assumed to be applied: any part that cannot be must be reported to `skipped`. Raises
        ConfigurationError for an invalid state.
        """
        now = tables_of(view, self._terms)
        old = [] if base is None or not base.estimator_kind else [tables_of(base, self._terms)]
        generations = agreed_generations(now, peers, old)
        joined = {
            name for name, row in now.models.sums.index.items() if generations[name] != now.models.generations[row]
        }
        others = [only(each, generations) for each in (*peers, *old)]
        own_models, models = self._share_models(
            now.models, [each.models for each in others], len(peers), generations, joined
        )
        own_categories, categories = self._share_categories(now.categories, [o.categories for o in others], joined)
        own_outputs, outputs = self._share_outputs(now.outputs, [each.outputs for each in others])
        own = Tables(now.kind, now.features, own_models, filled(own_categories), filled(own_outputs))
        faded = None if not old else state_of(self._faded(old[0]))
        return Exchanged(own, Change(models, categories, outputs), faded)

    def tell(self, version: bytes) -> None:
        """Called before the own knowledge of the last exchange is published, as this version.

        It may reach the store whatever becomes of the reply.
        """
        for each in (self._models, self._categories, self._outputs):
            each.tell(version)

    def holds(self, version: bytes) -> None:
        """Called when the store was seen to hold this version."""
        for each in (self._models, self._categories, self._outputs):
            each.holds(version)

    def give_up(self, version: bytes = b"") -> None:
        """Called when a version of what was published is in the base: it is others' from then on, own is the rest.

        If the version is not known, all own knowledge up to the last exchange is others'.
        """
        for each in (self._models, self._categories, self._outputs):
            each.give_up(version)
        for _, aside in self._aside.values():
            if version in aside.told:
                aside.give_up(version)

    def skipped(self, change: Change) -> None:
        """Called with the part of a change that could not be applied: the view does not contain it."""
        self._models.forget({each.model for each in change.models})
        for each in change.models:
            self._q.pop(each.model, None)
        self._categories.forget({each.key for each in change.categories})
        self._outputs.forget({each.key for each in change.outputs})

    def _faded(self, base: Tables) -> Tables:
        """Return a base, scaled down like this replica's own knowledge."""
        models = base.models
        return Tables(
            base.kind,
            base.features,
            replace(models, sums=self._models.scaled(models.sums)),
            self._categories.scaled(base.categories),
            self._outputs.scaled(base.outputs),
        )

    def adopt(self, view: LearnedState) -> None:
        """Treat everything in the view as others' knowledge: it came from a file."""
        now = tables_of(view, self._terms)
        self._models, bounds = Others.all_of(now.models.sums), now.models.bounds
        of_model = zip(bounds.q.tolist(), bounds.scored.tolist(), strict=True)
        self._q = dict(zip(now.models.sums.index, of_model, strict=True))
        self._generations = dict(zip(now.models.sums.index, now.models.generations.tolist(), strict=True))
        self._categories = Others.all_of(now.categories)
        self._outputs = Others.all_of(now.outputs)

    def _share_models(
        self,
        now: Models,
        others: Sequence[Models],
        live_others: int,
        generations: dict[str, int],
        joined: set[str],
    ) -> tuple[Models, tuple[ModelChange, ...]]:
        index = now.sums.index
        replaced = {name for name, row in index.items() if self._generations.get(name, 0) != now.generations[row]}
        self._put_aside(now, replaced)
        for name in replaced | joined:
            self._q.pop(name, None)
        fading = Fading(self._terms.kept_of_models, self._terms.model_memories, self._terms.prices_and_scale)
        mine = Own.of(now.sums, self._models, fading)
        mine.clear([name for name in index if name in joined])
        sums = [each.sums for each in others]
        own, part, target, keep = shares(mine, sums, self._models, fading, self._terms.kept_of_own_models)
        keys = list(target.index)
        view, bounds = now.sums.aligned(keys, target.values.shape[1]), own_bounds(now, keys, self._q)
        live = [Models(own, bounds, now.generations, now.counters), *others[:live_others]]
        otherwise = agreed_q(self._terms.epsilon, others[live_others:], keys, bounds.q)
        q_now, q = bounds.q, agreed_q(self._terms.epsilon, live, keys, otherwise)
        scored = [
            0 if name in joined else scored for name, scored in zip(keys, bounds.scored.tolist(), strict=True)
        ]
        self._q = dict(zip(keys, zip(q.tolist(), scored, strict=True), strict=True))
        self._models = self._models.later(part, target, keep, mine.old)
        self._generations = {name: generations[name] for name in keys}
        self._aside = {name: aside for name, aside in self._aside.items() if name in self._generations}
        came_from = by_key(now.sums, now.generations, keys)
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
            if differs(target, view, row) or abs(q[row] - q_now[row]) > NOTHING
        )
        counters = np.zeros((len(keys), 3), np.int64)
        counters[[own.index[name] for name in index]] = now.counters
        held = np.array([generations[name] for name in keys], np.int64)
        return Models(own, bounds, held, counters), changes

    def _put_aside(self, now: Models, replaced: set[str]) -> None:
        """Store the others' part of models that changed generation, and restore the part of the current one."""
        for name in replaced:
            before, aside = self._models.of({name}), self._aside.get(name)
            self._models.forget({name})
            if aside is not None and aside[0] == now.generations[now.sums.index[name]]:
                self._models = self._models.joined(aside[1])
            self._aside[name] = self._generations.get(name, 0), before

    def _share_categories(
        self, now: Table[CategoryKey], others: Sequence[Table[CategoryKey]], joined: set[str]
    ) -> tuple[Table[CategoryKey], tuple[RowChange, ...]]:
        memory = self._terms.category_memory
        fading = Fading(self._terms.kept_of_categories, (memory,))
        mine = Own.of(now, self._categories, fading)
        mine.clear([key for key in now.index if is_of(key, joined)])
        own, part, target, keep = shares(
            mine, others, self._categories, fading, lambda table: kept_within(memory, table.weights)
        )
        # In the estimator the weight of the means follows from the number of responses; it is not the sum of the
        # parts' weights.
        counts = (self._terms.category_weights(target.counts) * per_weight(target))[:, None]
        self._categories = self._categories.later(part, target, keep, mine.old).weighted(counts)
        view = now.aligned(list(target.index), target.values.shape[1])
        means, before = means_of(target), means_of(view)
        return own, row_changes(target, view, means - before)

    def _share_outputs(
        self, now: Table[CategoryKey], others: Sequence[Table[CategoryKey]]
    ) -> tuple[Table[CategoryKey], tuple[RowChange, ...]]:
        memory = self._terms.output_memory
        fading = Fading(self._terms.kept_of_outputs, (memory,))
        mine = Own.of(now, self._outputs, fading)
        for table in (mine.old, mine.new):
            np.maximum(table.values, 0.0, out=table.values)
        own, part, target, keep = shares(
            mine, others, self._outputs, fading, lambda table: kept_within(memory, table.weights)
        )
        self._outputs = self._outputs.later(part, target, keep, mine.old)
        view = now.aligned(list(target.index), target.values.shape[1])
        return own, row_changes(target, view, target.values - view.values)
