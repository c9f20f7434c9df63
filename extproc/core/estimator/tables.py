"""What was learned as tables of fading sums, in which merging is addition.

Nearly all that an estimator learns is a sum over responses whose older terms fade, or a mean that is such a sum
over its weight. A table holds one kind of them: for each key the number of responses, their faded number (the
weight) and a row of sums. Rows of one key of several replicas add up, whatever their number and order; a mean of
the sums is then the mean of the replicas' means by their weights.

    table       key            row of sums                                             fades by
    models      model          A (upper triangle), b; the scale's A, b                 forgetting; the scale's
    categories  model, key     weight x (bytes per token, deviation, residual, spread^2)   the slowest step
    outputs     model, key     ended, cut                                              FADING

The residual of a model is the category with an empty key; that of all models has an empty model, too. q, the
bound's multiple, is no sum but a controller's position: merged, it is the mean by weight; replicas follow it
through the scores of all (sharing.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from extproc.core.errors import ConfigurationError
from extproc.core.estimator.bound import KEPT_SCORES
from extproc.core.estimator.output_lengths import FADING
from extproc.core.estimator.packing import DOUBLE_BYTES, Numbers, all_finite, packed, unpacked
from extproc.core.estimator.protocol import CategoryKey, CategoryState, LearnedState, ModelState, OutputState
from extproc.core.estimator.residual import faded, natural_weight
from extproc.core.estimator.scale import FORGETTING, SCALE_FACTORS
from extproc.core.estimator.settings import EstimatorSettings

__all__ = [
    "CATEGORY_COLUMNS",
    "Bounds",
    "K",
    "Models",
    "Table",
    "Tables",
    "Terms",
    "added",
    "all_keys",
    "checked",
    "checked_bounds",
    "kept_within",
    "model_columns",
    "settled",
    "state_of",
    "tables_of",
]

K = TypeVar("K", str, CategoryKey)

CATEGORY_COLUMNS = 4
NO_SCORES: Numbers = np.zeros(0)
BPT, DEVIATION, RESIDUAL, VARIANCE = range(CATEGORY_COLUMNS)


@dataclass(frozen=True, slots=True)
class Table(Generic[K]):
    """Rows by key: `counts` of responses and their faded `weights`, shape (n,); `values`, shape (n, columns)."""

    index: dict[K, int]
    counts: npt.NDArray[np.int64]
    weights: Numbers
    values: Numbers

    @classmethod
    def zeros(cls, keys: Sequence[K], columns: int) -> "Table[K]":
        """Return a table of nothing."""
        n = len(keys)
        return cls(
            {key: i for i, key in enumerate(keys)}, np.zeros(n, np.int64), np.zeros(n), np.zeros((n, columns))
        )

    def add(self, other: "Table[K]", keep: Numbers | None = None) -> None:
        """Add the rows of another table, whose keys are all here, each times `keep`."""
        if list(self.index) == list(other.index):
            rows: Any = slice(None)
        else:
            rows = np.fromiter(map(self.index.__getitem__, other.index), np.intp, len(other.index))
        self.counts[rows] += other.counts
        self.weights[rows] += other.weights if keep is None else keep * other.weights
        self.values[rows] += other.values if keep is None else keep[:, None] * other.values

    def aligned(self, keys: Sequence[K], columns: int = 0) -> "Table[K]":
        """Return the rows of these keys, zeros for those that are not here; without rows, of so many columns."""
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
    """q by the rows of a table of models, shape (n,), the scores that moved it last, and q before them.

    `heard` is how many have moved it in all.
    """

    q: Numbers
    began: Numbers
    scores: tuple[Numbers, ...]
    heard: npt.NDArray[np.int64]

    @classmethod
    def at(cls, q: Numbers) -> "Bounds":
        """Return bounds that nothing is known to have moved."""
        return cls(q, q, (NO_SCORES,) * len(q), np.zeros(len(q), np.int64))

    def of_rows(self, rows: Sequence[int]) -> "Bounds":
        """Return those of some rows."""
        return Bounds(self.q[rows], self.began[rows], tuple(self.scores[row] for row in rows), self.heard[rows])


@dataclass(frozen=True, slots=True)
class Models:
    """The table of models, and by its rows: bounds, generations, counters.

    Counters, shape (n, 3), are of responses clipped, refused, and truncated by the pool.
    """

    sums: Table[str]
    bounds: Bounds
    generations: npt.NDArray[np.int64]
    counters: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Tables:
    """All that one state holds; the estimator's kind and what sums are over come with it."""

    kind: str
    features: tuple[str, ...]
    models: Models
    categories: Table[CategoryKey]
    outputs: Table[CategoryKey]


@dataclass(frozen=True, slots=True)
class Terms:
    """How sums fade and means count, by the settings of an estimator."""

    kind: str
    forgetting: float
    ema_decay: float
    epsilon: float

    @classmethod
    def of(cls, settings: EstimatorSettings) -> "Terms":
        """Return the terms of an estimator with these settings."""
        byteclass = settings.byteclass
        return cls(settings.kind, byteclass.forgetting, settings.ema.decay, byteclass.epsilon)

    @property
    def model_memory(self) -> float:
        """The most that the sums of a model weigh: what one router remembers."""
        return 1 / (1 - self.forgetting)

    def kept_of_own_models(self, everything: Table[str]) -> Numbers:
        """Return what of a replica's own sums of models is kept, by column, where all know so much together.

        Prices and scale forget at different rates. The scale's weight is the first of its sums: of its constant.
        """
        columns = everything.values.shape[1]
        of_scale = SCALE_FACTORS * (SCALE_FACTORS + 1)
        prices = kept_within(self.model_memory, everything.weights)
        scale = kept_within(1 / (1 - FORGETTING), everything.values[:, columns - of_scale])
        return np.concatenate([prices.repeat(columns - of_scale, axis=1), scale.repeat(of_scale, axis=1)], axis=1)

    @property
    def category_memory(self) -> float:
        """The most that the means of a category weigh."""
        return 1 / (1 - self.ema_decay) if self.kind == "ema" else natural_weight(1 << 40)

    @property
    def output_memory(self) -> float:
        """The most that counts of output lengths come to."""
        return 1 / (1 - FADING)

    def category_weights(self, counts: npt.NDArray[np.int64]) -> Numbers:
        """Return what means count that one router made of so many responses."""
        if self.kind == "ema":
            return np.where(counts > 0, self.category_memory, 0.0)
        return np.array([natural_weight(count) for count in counts.tolist()], np.float64)

    def kept_of_categories(self, at: npt.NDArray[np.int64], since: Numbers) -> Numbers:
        """Return what is kept of sums of categories, shape (n, 1), of so many responses after so many more."""
        more = since[:, 0]
        if self.kind == "ema":
            return np.asarray(np.power(self.ema_decay, more))[:, None]
        pairs = zip(at.tolist(), (at + more.astype(np.int64)).tolist(), strict=True)
        return np.array([faded(start, end) for start, end in pairs], np.float64)[:, None]

    def kept_of_outputs(self, _at: npt.NDArray[np.int64], since: Numbers) -> Numbers:
        """Return what is kept of counts of output lengths, shape (n, 1), after so many responses more."""
        return np.asarray(np.power(FADING, since))

    def kept_of_models(self, _at: npt.NDArray[np.int64], since: Numbers) -> Numbers:
        """Return what is kept of the sums of prices and of the scale, shape (n, 2), after so many responses."""
        return np.asarray(np.power((self.forgetting, FORGETTING), since))

    @property
    def model_memories(self) -> tuple[float, float]:
        """How many responses prices and scale remember."""
        return self.model_memory, 1 / (1 - FORGETTING)

    @staticmethod
    def prices_and_scale(columns: int) -> tuple[int, int]:
        """Return how many of so many columns are of the prices and of the scale."""
        of_scale = min(SCALE_FACTORS * (SCALE_FACTORS + 1), columns)
        return columns - of_scale, of_scale


def tables_of(state: LearnedState, terms: Terms) -> Tables:
    """Return a state as tables.

    Raises ConfigurationError for sums of other sizes than the state's features say, and numbers that are none.
    """
    return Tables(
        state.estimator_kind,
        tuple(state.features),
        _models_of(state),
        _categories_of(state, terms),
        _outputs_of(state),
    )


def model_columns(features: int) -> tuple[int, int, int, int]:
    """Return how many sums a model over so many features has: A's upper triangle and b, and those of the scale."""
    return features * (features + 1) // 2, features, SCALE_FACTORS**2, SCALE_FACTORS


def checked(table: Table[K]) -> Table[K]:
    """Return a table that came from elsewhere. Raises ConfigurationError where its numbers are none."""
    if not all_finite(table.weights, table.values) or (table.weights < 0).any():
        raise ConfigurationError("learned state holds numbers that are not finite")
    return table


def checked_bounds(bounds: Bounds) -> Bounds:
    """Return bounds that came from elsewhere. Raises ConfigurationError where they are no numbers."""
    if not all_finite(bounds.q, bounds.began, *bounds.scores):
        raise ConfigurationError("learned bounds are not finite")
    return bounds


def kept_within(memory: float, weights: Numbers) -> Numbers:
    """Return the factor, shape (n, 1), that keeps sums of such weights within what is remembered."""
    return np.minimum(1.0, memory / np.maximum(weights, 1e-300))[:, None]


def settled(tables: Tables) -> Tables:
    """Return what a replica has published, where it was read before: its scores were taken over then."""
    return replace(tables, models=replace(tables.models, bounds=Bounds.at(tables.models.bounds.q)))


def state_of(tables: Tables) -> LearnedState:
    """Return tables as a state; the heaviest rows come last, where a full estimator keeps them."""
    ends = np.cumsum(model_columns(len(tables.features)))
    means = tables.categories.values / np.maximum(tables.categories.weights, 1e-300)[:, None]
    models, sums = tables.models, tables.models.sums
    of_model = {key.model: mean for key, mean in zip(tables.categories.index, means, strict=True) if not key.key}
    rows = []
    for name in _heaviest_last(sums):
        row = sums.index[name]
        values, mean = sums.values[row], of_model.get(name, np.array([0.0, 0.0, 0.0, 0.01]))
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
                float(np.sqrt(max(mean[VARIANCE], 0.0))),
                float(sums.weights[row]),
                int(models.generations[row]),
                float(models.bounds.began[row]),
                packed(models.bounds.scores[row]),
                int(models.bounds.heard[row]),
                clipped,
                refused,
                truncated,
            )
        )
    outputs = tables.outputs
    half = outputs.values.shape[1] // 2
    return LearnedState(
        tables.kind,
        tuple(_category_rows(tables.categories, means)),
        tables.features,
        tuple(rows),
        tuple(
            OutputState(
                key,
                packed(outputs.values[outputs.index[key], :half]),
                packed(outputs.values[outputs.index[key], half:]),
                int(outputs.counts[outputs.index[key]]),
            )
            for key in _heaviest_last(outputs)
        ),
    )


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
    """Return the keys that any of some tables has, in order; tables of one index are looked at once."""
    distinct = {id(table.index): table.index for table in tables}
    return list(dict.fromkeys(chain.from_iterable(distinct.values())))


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
        np.array([row.heard for row in rows], np.int64),
    )
    return Models(
        sums,
        checked_bounds(bounds),
        np.array([row.generation for row in rows], np.int64),
        np.array([(row.clipped, row.refused, row.truncated_by_pool) for row in rows], np.int64).reshape(-1, 3),
    )


def _categories_of(state: LearnedState, terms: Terms) -> Table[CategoryKey]:
    rows = state.categories
    keys = [row.category for row in rows]
    told = set(keys)
    counts = [row.observations for row in rows]
    given = [row.weight for row in rows]
    means = [(row.bytes_per_token, row.deviation, row.residual, row.spread**2) for row in rows]
    # A state that was not merged yet tells a model's residual with the model; it counts what its responses do.
    for model in state.models:
        if (key := CategoryKey(model.model, "")) not in told:
            keys.append(key)
            counts.append(model.observations)
            given.append(0.0)
            means.append((0.0, 0.0, model.residual, model.spread**2))
    weights = np.array(given, np.float64)
    weights = np.where(weights > 0, weights, terms.category_weights(np.array(counts, np.int64)))
    values = weights[:, None] * np.array(means, np.float64).reshape(-1, CATEGORY_COLUMNS)
    return _table(keys, counts, weights, values, CATEGORY_COLUMNS)


def _outputs_of(state: LearnedState) -> Table[CategoryKey]:
    rows = state.outputs
    parts = [part for row in rows for part in (row.ended, row.cut)]
    sizes = {len(part) for part in parts}
    if len(sizes) > 1:
        raise ConfigurationError("learned output lengths differ in their bins")
    columns = 2 * (sizes.pop() // DOUBLE_BYTES) if sizes else 0
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


def _category_rows(table: Table[CategoryKey], means: Numbers) -> list[CategoryState]:
    rows = []
    for key in _heaviest_last(table):
        row = table.index[key]
        bpt, deviation, residual, variance = means[row].tolist()
        count, weight = int(table.counts[row]), float(table.weights[row])
        rows.append(CategoryState(key, bpt, deviation, count, residual, max(variance, 0.0) ** 0.5, weight))
    return rows


def _heaviest_last(table: Table[K]) -> list[K]:
    """Return the keys by their weights, equal ones by name: the order of merging must not matter."""
    weights = table.weights.tolist()
    return sorted(table.index, key=lambda key: (weights[table.index[key]], key))
