"""Merging of what several routers have learned: for files, workers, and replicas that have stopped.

Sums of one generation of a model add up; means are averaged by their weights (tables.py). Sums of two generations
belong to two tokenizers: the generation with the most weight stays, the later one in case of a tie. The weight
fades; numbers of responses from before a change would outlast all that was learned after it. Merging is
commutative, and merging with an empty state changes nothing. It is not idempotent, and must not be: evidence that
arrives twice counts twice. To prevent that, what each replica has learned is stored under the replica's own name,
and only the newest version is used (sharing.py).
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from math import fsum

import numpy as np

from extproc.core.errors import ConfigurationError
from extproc.core.estimator.ageing import scaled
from extproc.core.estimator.change import is_of
from extproc.core.estimator.protocol import CategoryKey, LearnedState
from extproc.core.estimator.state_tables import state_of, tables_of
from extproc.core.estimator.tables import Bounds, K, Models, Table, Tables, added
from extproc.core.estimator.terms import Terms, kept_within

__all__ = ["bounded", "merged", "only", "without_model"]


def merged(states: Sequence[LearnedState], terms: Terms) -> LearnedState:
    """Return the combined knowledge of routers that learned separately; an empty state if none has learned.

    Raises ConfigurationError for states of different kinds of estimator, or over different features.
    """
    learned = [state for state in states if state.estimator_kind]
    if not learned:
        return LearnedState("")
    kinds = sorted({state.estimator_kind for state in learned})
    if len(kinds) > 1:
        raise ConfigurationError(f"learned states of kinds {' and '.join(kinds)} do not merge")
    if len({state.features for state in learned if state.models}) > 1:
        raise ConfigurationError("learned states over different features do not merge")
    tables = [tables_of(state, terms) for state in learned]
    generation = _heaviest_generations(tables)
    tables = [only(each, generation) for each in tables]
    with_models = [each for each in tables if each.models.sums.index] or tables[:1]
    return state_of(
        Tables(
            kinds[0],
            next((each.features for each in tables if each.features), ()),
            _added_models([each.models for each in with_models]),
            added([each.categories for each in tables]),
            added([each.outputs for each in tables]),
        )
    )


def bounded(state: LearnedState, terms: Terms) -> LearnedState:
    """Return a state with at most the weight of one router: the sums of many are scaled down, means are kept."""
    tables = tables_of(state, terms)
    sums = tables.models.sums
    models = replace(tables.models, sums=scaled(sums, terms.kept_of_own_models(sums)))
    categories = _at_most(tables.categories, terms.category_memory)
    outputs = _at_most(tables.outputs, terms.output_memory)
    return state_of(replace(tables, models=models, categories=categories, outputs=outputs))


def without_model(state: LearnedState, model: str) -> LearnedState:
    """Return a state without everything that belongs to one model."""
    return LearnedState(
        state.estimator_kind,
        tuple(row for row in state.categories if not is_of(row.category, {model})),
        state.features,
        tuple(row for row in state.models if row.model != model),
        tuple(row for row in state.outputs if row.category.model != model),
    )


def only(tables: Tables, generations: dict[str, int]) -> Tables:
    """Return tables without the models whose generation is not the given one, and without their categories."""
    index, held = tables.models.sums.index, tables.models.generations
    others = {name for name, row in index.items() if generations.get(name, held[row]) != held[row]}
    if not others:
        return tables
    kept = [name for name in index if name not in others]
    rows = [index[name] for name in kept]
    models = tables.models
    return Tables(
        tables.kind,
        tables.features,
        Models(models.sums.aligned(kept), models.bounds.of_rows(rows), held[rows], models.counters[rows]),
        _without(tables.categories, others),
        tables.outputs,
    )


def _without(table: Table[CategoryKey], models: Collection[str]) -> Table[CategoryKey]:
    return table.aligned([key for key in table.index if not is_of(key, models)])


def _at_most(table: Table[K], memory: float) -> Table[K]:
    return scaled(table, kept_within(memory, table.weights))


def _heaviest_generations(tables: Sequence[Tables]) -> dict[str, int]:
    weights: dict[str, dict[int, list[float]]] = {}
    for each in tables:
        for name, row in each.models.sums.index.items():
            of_model = weights.setdefault(name, {})
            of_model.setdefault(int(each.models.generations[row]), []).append(float(each.models.sums.weights[row]))
    # The exact sum, so that the order of merging does not matter.
    return {name: max(parts, key=lambda g: (fsum(parts[g]), g)) for name, parts in weights.items()}


def _added_models(models: Sequence[Models]) -> Models:
    sums = added([each.sums for each in models])
    n = len(sums.index)
    weighted, weight = np.zeros(n), np.zeros(n)
    generations, counters = np.zeros(n, np.int64), np.zeros((n, 3), np.int64)
    for each in models:
        rows = np.fromiter((sums.index[name] for name in each.sums.index), np.intp, len(each.sums.index))
        share = np.maximum(each.sums.weights, 1e-300)
        weighted[rows] += share * each.bounds.q
        weight[rows] += share
        generations[rows] = each.generations
        counters[rows] += each.counters
    return Models(sums, Bounds.at(weighted / np.maximum(weight, 1e-300)), generations, counters)
