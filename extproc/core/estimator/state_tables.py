"""Conversion between states (dataclasses with packed doubles) and tables, with checks of each row's sums.

A state stores means, and a model's residual in the model's row; tables store only sums (tables.py).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from extproc.core.errors import ConfigurationError
from extproc.core.estimator.bound import KEPT_SCORES
from extproc.core.estimator.change import residual_key
from extproc.core.estimator.length_counts import BINS
from extproc.core.estimator.packing import DOUBLE_BYTES, Numbers, packed, unpacked
from extproc.core.estimator.protocol import CategoryKey, CategoryState, LearnedState, ModelState, OutputState
from extproc.core.estimator.residual import FIRST_SPREAD, LIMIT, loaded
from extproc.core.estimator.tables import (
    CATEGORY_COLUMNS,
    NO_WEIGHT,
    Bounds,
    K,
    Models,
    Table,
    Tables,
    checked,
    checked_bounds,
    model_columns,
)
from extproc.core.estimator.terms import Terms

__all__ = ["state_of", "tables_of"]

RESIDUAL, VARIANCE = 2, 3  # columns of a category
# Of a model's residual without weight. A weight of 0 would be taken for the one that follows from its observations
# (CategoryState), and what has faded away would come back in full, with means that rounding has left.
LEAST_WEIGHT = 1e-100
FIRST = np.array([0.0, 0.0, 0.0, FIRST_SPREAD**2])


def tables_of(state: LearnedState, terms: Terms) -> Tables:
    """Return a state as tables.

    Raises ConfigurationError if sums do not have the size that the state's features require, or a number is too
    large or not finite.
    """
    try:
        return Tables(
            state.estimator_kind,
            tuple(state.features),
            _models_of(state),
            _categories_of(state, terms),
            _outputs_of(state),
        )
    except OverflowError as error:
        raise ConfigurationError(f"learned state holds a number that is too large: {error}") from error


def state_of(tables: Tables) -> LearnedState:
    """Return tables as a state; the heaviest rows come last, because a full estimator keeps the last ones.

    Residuals are at most as large as those that are read: one replica's, beyond that, would keep the others from
    folding it.
    """
    weights, values = tables.categories.weights[:, None], tables.categories.values
    # An empty table may have no columns.
    means = np.where(
        weights > NO_WEIGHT, values.reshape(-1, CATEGORY_COLUMNS) / np.maximum(weights, NO_WEIGHT), FIRST
    )
    means[:, RESIDUAL] = means[:, RESIDUAL].clip(-LIMIT, LIMIT)
    means[:, VARIANCE] = means[:, VARIANCE].clip(0.0, LIMIT**2)
    return LearnedState(
        tables.kind,
        tuple(_category_rows(tables, means)),
        tables.features,
        tuple(_model_rows(tables, means)),
        tuple(_output_rows(tables.outputs)),
    )


def _model_rows(tables: Tables, means: Numbers) -> list[ModelState]:
    """Return the rows of the models; `means` are those of the categories, which hold the models' residuals."""
    ends = np.cumsum(model_columns(len(tables.features)))
    models, sums = tables.models, tables.models.sums
    means_of = dict(zip(tables.categories.index, means, strict=True))
    rows = []
    for name in _heaviest_last(sums):
        row = sums.index[name]
        values, mean = sums.values[row], means_of.get(residual_key(name), FIRST)
        clipped, refused, truncated = models.counters[row].tolist()
        rows.append(
            ModelState(
                name,
                int(sums.counts[row]),
                packed(values[: ends[0]]),
                packed(values[ends[0] : ends[1]]),
                packed(values[ends[1] : ends[2]]),
                packed(values[ends[2] :]),
                float(models.bounds.q[row]),
                float(mean[RESIDUAL]),
                float(np.sqrt(mean[VARIANCE])),
                float(sums.weights[row]),
                int(models.generations[row]),
                float(models.bounds.began[row]),
                packed(models.bounds.scores[row]),
                int(models.bounds.scored[row]),
                clipped,
                refused,
                truncated,
            )
        )
    return rows


def _output_rows(table: Table[CategoryKey]) -> list[OutputState]:
    half, rows = table.values.shape[1] // 2, []
    for key in _heaviest_last(table):
        row = table.index[key]
        ended, cut = table.values[row, :half], table.values[row, half:]
        rows.append(OutputState(key, packed(ended), packed(cut), int(table.counts[row])))
    return rows


def _models_of(state: LearnedState) -> Models:
    rows, size = state.models, len(state.features)
    doubles = model_columns(size)
    for row in rows:
        parts = row.sums_a, row.sums_b, row.scale_a, row.scale_b
        if [len(part) for part in parts] != [DOUBLE_BYTES * count for count in doubles]:
            raise ConfigurationError(f"learned sums of model {row.model!r} are not over {size} features")
    values = unpacked(b"".join(row.sums_a + row.sums_b + row.scale_a + row.scale_b for row in rows))
    counts = [row.observations for row in rows]
    sums = _table([row.model for row in rows], counts, [row.weight for row in rows], values, sum(doubles))
    bounds = Bounds(
        np.array([row.q for row in rows], np.float64),
        np.array([row.q_began if row.scores else row.q for row in rows], np.float64),
        tuple(unpacked(row.scores)[-KEPT_SCORES:] for row in rows),
        np.array([row.scored for row in rows], np.int64),
    )
    return Models(
        sums,
        checked_bounds(bounds),
        np.array([row.generation for row in rows], np.int64),
        np.array([(row.clipped, row.refused, row.truncated_by_pool) for row in rows], np.int64).reshape(-1, 3),
    )


def _categories_of(state: LearnedState, terms: Terms) -> Table[CategoryKey]:
    rows = state.categories
    for row in rows:
        loaded(row.category.model, row.residual, row.spread, row.bytes_per_token, row.observations)
    for model in state.models:
        loaded(model.model, model.residual, model.spread, 0.0, model.observations)
    keys = [row.category for row in rows]
    named = set(keys)
    counts = [row.observations for row in rows]
    given = [row.weight for row in rows]
    # Not spread**2, which raises where a product is infinite, and then refused.
    means = [(row.bytes_per_token, row.deviation, row.residual, row.spread * row.spread) for row in rows]
    # A state that was never merged has a model's residual in the model's row; its responses determine its weight.
    for model in state.models:
        if (key := residual_key(model.model)) not in named:
            keys.append(key)
            counts.append(model.observations)
            given.append(0.0)
            means.append((0.0, 0.0, model.residual, model.spread * model.spread))
    weights = np.array(given, np.float64)
    weights = np.where(weights > 0, weights, terms.category_weights(np.array(counts, np.int64)))
    values = weights[:, None] * np.array(means, np.float64).reshape(-1, CATEGORY_COLUMNS)
    return _table(keys, counts, weights, values, CATEGORY_COLUMNS)


def _outputs_of(state: LearnedState) -> Table[CategoryKey]:
    rows = state.outputs
    parts = [part for row in rows for part in (row.ended, row.cut)]
    sizes = {len(part) for part in parts}
    if len(sizes) > 1:
        raise ConfigurationError("learned output lengths have different numbers of bins")
    columns = 2 * (sizes.pop() // DOUBLE_BYTES if sizes else BINS)
    values = unpacked(b"".join(parts)).reshape(len(rows), columns)
    keys = [row.category for row in rows]
    return _table(keys, [row.observations for row in rows], values.sum(axis=1), values, columns)


def _table(
    keys: Sequence[K], counts: Sequence[int], weights: npt.ArrayLike, values: Numbers, columns: int
) -> Table[K]:
    index = {key: row for row, key in enumerate(keys)}
    if len(index) != len(keys):
        raise ConfigurationError("learned state names a model or category twice")
    rows = values.reshape(len(keys), columns)
    return checked(Table(index, np.array(counts, np.int64), np.asarray(weights, np.float64), rows))


def _category_rows(tables: Tables, means: Numbers) -> list[CategoryState]:
    """Return the rows of the categories that have any weight, and of all models' residuals."""
    table, rows = tables.categories, []
    of_models = {residual_key(name) for name in tables.models.sums.index}
    for key in _heaviest_last(table):
        row = table.index[key]
        bpt, deviation, residual, variance = means[row].tolist()
        count, weight = int(table.counts[row]), float(table.weights[row])
        if weight <= NO_WEIGHT:
            if key not in of_models:
                continue
            weight = LEAST_WEIGHT
        rows.append(CategoryState(key, bpt, max(deviation, 0.0), count, residual, variance**0.5, weight))
    return rows


def _heaviest_last(table: Table[K]) -> list[K]:
    """Return the keys by weight, then by name, so that the order of merging does not matter."""
    weights = table.weights.tolist()
    return sorted(table.index, key=lambda key: (weights[table.index[key]], key))
