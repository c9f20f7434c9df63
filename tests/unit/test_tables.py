"""Learned knowledge as tables of sums: rows by key, fading, and the conversion to and from a state."""

from collections.abc import Sequence
from dataclasses import astuple, replace
from typing import Any

import numpy as np
import pytest

from extproc.core.errors import ConfigurationError
from extproc.core.estimator.bound import KEPT_SCORES
from extproc.core.estimator.byteclass import ByteClassEstimator
from extproc.core.estimator.change import residual_key
from extproc.core.estimator.packing import packed
from extproc.core.estimator.protocol import CategoryKey, CategoryState, LearnedState, ModelState, OutputState
from extproc.core.estimator.residual import FIRST_SPREAD
from extproc.core.estimator.scale import SCALE_FACTORS
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.estimator.sharing import Share
from extproc.core.estimator.state_tables import state_of, tables_of
from extproc.core.estimator.tables import Bounds, Table, added, settled
from extproc.core.estimator.terms import Terms, kept_within
from tests.unit.byteclass_lessons import teach

TERMS = Terms.of(EstimatorSettings())
EMA = replace(TERMS, kind="ema")
OF_SCALE = SCALE_FACTORS * (SCALE_FACTORS + 1)
ONE_MORE = np.array([0]), np.array([[1.0]])


def table(**of_key: tuple[int, float, Sequence[float]]) -> Table[str]:
    """Return a table with counts, weights and values by key."""
    counts, weights, values = zip(*of_key.values(), strict=True)
    return Table({key: row for row, key in enumerate(of_key)}, *map(np.array, (counts, weights, values)))


def rows_of(of: Table[str]) -> dict[str, tuple[int, float, list[float]]]:
    """Return the inverse of `table`."""
    return {
        key: (int(of.counts[row]), float(of.weights[row]), of.values[row].tolist())
        for key, row in of.index.items()
    }


def model(name: str, *, weight: float = 3.0, **fields: Any) -> ModelState:
    """Return the learned state of a model over one feature, in which every number is different."""
    scale_a, scale_b = 10 + np.arange(SCALE_FACTORS**2), 500 + np.arange(SCALE_FACTORS)
    state = ModelState(
        name, 4, packed([1.0]), packed([2.0]), packed(scale_a), packed(scale_b), 5.0, 0.2, 0.3, weight,
        generation=6, q_began=4.5, scores=packed([1.0, 7.0]), scored=9, clipped=1, refused=2, truncated_by_pool=3,
    )  # fmt: skip
    return replace(state, **fields)


def learned(*models: ModelState, **fields: Any) -> LearnedState:
    """Return a state over one feature."""
    return replace(LearnedState("byteclass", features=("byte",), models=models), **fields)


def test_rows_add_up_by_key() -> None:
    """The other table may have its rows in any order, and may lack some."""
    total = table(a=(1, 1.0, [1.0, 2.0]), b=(2, 2.0, [3.0, 4.0]), c=(0, 0.0, [0.0, 0.0]))
    total.add(table(c=(5, 5.0, [5.0, 6.0]), a=(4, 4.0, [5.0, 10.0])))
    total.add(table(a=(1, 1.0, [1.0, 1.0]), b=(1, 1.0, [1.0, 1.0]), c=(1, 1.0, [1.0, 1.0])))
    total.add(table(b=(1, 1.0, [0.5, 0.5])))
    assert {"a": (6, 6.0, [7.0, 13.0]), "b": (4, 4.0, [4.5, 5.5]), "c": (6, 6.0, [6.0, 7.0])} == rows_of(total)


def test_rows_are_aligned_to_keys() -> None:
    """A missing key gets zeros; an empty table needs to be given the width."""
    of = table(a=(1, 1.0, [1.0, 2.0]), b=(2, 2.0, [3.0, 4.0]))
    assert {"b": (2, 2.0, [3.0, 4.0]), "x": (0, 0.0, [0.0, 0.0]), "a": (1, 1.0, [1.0, 2.0])} == rows_of(
        of.aligned(["b", "x", "a"], 7)
    )
    nothing: Table[str] = Table.zeros((), 0)
    assert {"x": (0, 0.0, [0.0, 0.0, 0.0])} == rows_of(nothing.aligned(["x"], 3))
    assert (1, 0) == nothing.aligned(["x"]).values.shape


def test_tables_add_up_over_all_or_selected_keys() -> None:
    """Empty tables have no width of their own; tables of different widths cannot be added."""
    one, other, nothing = table(a=(1, 1.0, [1.0])), table(b=(2, 2.0, [2.0]), a=(1, 1.0, [3.0])), Table.zeros((), 9)
    both = {"a": (2, 2.0, [4.0]), "b": (2, 2.0, [2.0])}
    assert both == rows_of(added([nothing, one, other]))
    assert {"c": (0, 0.0, [0.0]), **both} == rows_of(added([one, other], ["c", "b", "a"]))
    assert (0, 9) == added([nothing, nothing]).values.shape
    with pytest.raises(ConfigurationError, match="different lengths"):
        added([one, table(a=(1, 1.0, [1.0, 2.0]))])


def test_weights_above_the_memory_are_scaled_down() -> None:
    """It is scaled to the limit; what weighs less, or nothing, stays."""
    assert [[1.0], [1.0], [0.25], [1.0]] == kept_within(2.0, np.array([1.0, 2.0, 8.0, 0.0])).tolist()


def test_the_memories_of_models_and_the_weights_of_categories() -> None:
    """The EMA's means count the same from the first response; those of byte classes grow up to 50."""
    assert pytest.approx((2_000, 1_000)) == TERMS.model_memories
    assert pytest.approx((50, 20)) == (TERMS.category_memory, EMA.category_memory)
    assert (
        pytest.approx(EMA.output_memory) == TERMS.output_memory == 1 / (1 - TERMS.kept_of_outputs(*ONE_MORE)[0, 0])
    )
    counts = np.array([0, 1, 10, 41, 1_000])
    assert [9, 10, 19, 50, 50] == pytest.approx(TERMS.category_weights(counts).tolist())
    assert [0, 20, 20, 20, 20] == pytest.approx(EMA.category_weights(counts).tolist())


def test_prices_and_scale_are_kept_apart() -> None:
    """Each fades by its own weight and memory; the scale's weight is its sum
    for the constant, the first of its sums.
    """
    columns = 5 + OF_SCALE
    values = np.zeros((2, columns))
    values[0, 5], values[1, 4], values[1, 6] = 4_000.0, 9e9, 9e9
    kept = TERMS.kept_of_own_models(
        Table({"a": 0, "b": 1}, np.zeros(2, int), np.array([1_000.0, 8_000.0]), values)
    )
    assert [[1.0] * 5 + [0.25] * OF_SCALE, [0.25] * 5 + [1.0] * OF_SCALE] == [
        pytest.approx(row) for row in kept.tolist()
    ]
    assert (5, OF_SCALE) == TERMS.prices_and_scale(columns)
    assert (0, 0) == TERMS.prices_and_scale(0)


def test_a_state_round_trips() -> None:
    """Everything stored about models, categories and output lengths is preserved."""
    key, whole = CategoryKey("m", "latin"), CategoryKey("m", "")
    state = learned(
        model("m"),
        categories=(
            CategoryState(whole, 0.0, 0.0, 4, 0.2, 0.3, 13.0),
            CategoryState(key, 4.0, 0.5, 7, 0.1, 0.2, 16.0),
        ),
        outputs=(OutputState(key, packed([1.0, 2.0]), packed([3.0, 0.5]), 8),),
    )
    back = state_of(tables_of(state, TERMS))
    assert (state.models[0], state.outputs, state.features) == (
        replace(back.models[0], residual=0.2, spread=0.3), back.outputs, back.features,
    )  # fmt: skip
    assert pytest.approx((0.2, 0.3)) == (back.models[0].residual, back.models[0].spread)
    for row, expected in zip(back.categories, state.categories, strict=True):
        assert (expected.category, expected.observations) == (row.category, row.observations)
        assert astuple(expected)[1:] == pytest.approx(astuple(row)[1:])


def test_a_models_own_residual_is_used_if_there_is_no_row_for_it() -> None:
    """A state that was not merged yet stores it with the model; it weighs as much as the model's responses."""
    tables = tables_of(learned(model("m"), model("n")), TERMS)
    assert [CategoryKey("m", ""), CategoryKey("n", "")] == list(tables.categories.index)
    assert [4, 4] == tables.categories.counts.tolist()
    assert [13.0, 13.0] == tables.categories.weights.tolist()
    assert pytest.approx([0.0, 0.0, 13 * 0.2, 13 * 0.09]) == tables.categories.values[0]
    row = CategoryState(CategoryKey("m", ""), 0.0, 0.0, 4, 0.9, 0.1, 0.5)
    merged = tables_of(learned(model("m"), model("n"), categories=(row,)), TERMS).categories
    assert ([CategoryKey("m", ""), CategoryKey("n", "")], 0.5) == (list(merged.index), merged.weights[0])
    assert pytest.approx([0.0, 0.0, 0.45, 0.005]) == merged.values[0]


def test_a_model_without_a_residual_has_the_initial_one() -> None:
    """No category has any of its responses left: the mean is 0 and the spread a tenth."""
    tables = tables_of(learned(model("m")), TERMS)
    (alone,) = state_of(replace(tables, categories=Table.zeros((), 4))).models
    assert pytest.approx((0.0, 0.1)) == (alone.residual, alone.spread)


def test_tables_without_rows_are_a_state_that_knows_nothing() -> None:
    """Tables without any row may have no columns either, as those of a replica that has learned nothing."""
    own = Share(TERMS).exchange(LearnedState("byteclass", features=("a",)), []).own
    assert LearnedState("byteclass", features=("a",)) == state_of(own)


def test_the_heaviest_rows_come_last_and_equal_ones_by_name() -> None:
    """A full estimator keeps the last rows, and the order of merging does not matter."""
    models = [model("b", weight=1.0), model("c", weight=0.5), model("a", weight=1.0)]
    back = state_of(tables_of(learned(*models), TERMS))
    assert ["c", "a", "b"] == [row.model for row in back.models]


def test_only_the_last_scores_are_read_and_without_any_q_began_at_its_value() -> None:
    """Scores before the first kept one are already part of `q_began`."""
    many = packed(np.arange(KEPT_SCORES + 5.0))
    bounds = tables_of(learned(model("m", scores=many), model("n", scores=b"")), TERMS).models.bounds
    assert (KEPT_SCORES, 5.0) == (len(bounds.scores[0]), bounds.scores[0][0])
    assert ([4.5, 5.0], [5.0, 5.0], [9, 9]) == (bounds.began.tolist(), bounds.q.tolist(), bounds.scored.tolist())
    again = settled(tables_of(learned(model("m", scores=many)), TERMS)).models.bounds
    assert ([5.0], [], [0]) == (again.began.tolist(), again.scores[0].tolist(), again.scored.tolist())
    second = bounds.of_rows([1])
    assert ([5.0], [5.0], [], [9]) == (
        second.q.tolist(), second.began.tolist(), second.scores[0].tolist(), second.scored.tolist(),
    )  # fmt: skip
    assert 0 == Bounds.at(np.array([1.0])).scored[0]


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (learned(model("m"), model("m")), "twice"),
        (learned(model("m", weight=-1.0)), "not finite"),
        (learned(model("m", sums_b=packed([np.inf]))), "not finite"),
        (learned(model("m", sums_a=packed([1.0, 2.0]))), "not over 1 features"),
        (learned(model("m", scale_b=packed([1.0]))), "not over 1 features"),
        (learned(model("m", scores=packed([np.nan]))), "bounds are not finite"),
        (learned(outputs=(OutputState(CategoryKey("m", ""), packed([-1.0]), packed([0.5])),)), "not finite"),
        (learned(model("m", observations=2**63)), "too large"),
        (learned(model("m", spread=1e200)), "spread of 1e.200"),
    ],
)
def test_an_impossible_state_is_refused(state: LearnedState, says: str) -> None:
    """Duplicate names, numbers that are too large or not finite, negative weights, sums of the wrong size."""
    with pytest.raises(ConfigurationError, match=says):
        tables_of(state, TERMS)


def test_output_lengths_weigh_what_they_count() -> None:
    """A row's weight covers both halves: responses that ended and responses that were cut."""
    outputs = tables_of(
        learned(outputs=(OutputState(CategoryKey("m", ""), packed([1.0, 2.0]), packed([0.5, 0.0]), 5),)), TERMS
    ).outputs
    assert (3.5, 5, [1.0, 2.0, 0.5, 0.0]) == (outputs.weights[0], outputs.counts[0], outputs.values[0].tolist())


def test_a_spread_is_not_negative() -> None:
    """If almost nothing is kept, rounding may make a sum of squares negative."""
    tables = tables_of(learned(model("m")), TERMS)
    tables.categories.values[0, 3] = -1e-9
    back = state_of(tables)
    assert (0.0, 0.0) == (back.models[0].spread, back.categories[0].spread)


def test_a_deviation_is_not_negative() -> None:
    """Rounding may leave less than nothing of a ratio's deviation; its estimator would refuse the state."""
    key = CategoryKey("m", "tenant")
    state = LearnedState("ema", (CategoryState(key, 4.0, -1e-17, 5),))
    (row,) = state_of(tables_of(state, TERMS)).categories
    assert row.deviation == 0.0
    assert row.bytes_per_token == pytest.approx(4.0)


def test_what_has_faded_to_rounding_errors_has_no_row_and_a_models_residual_no_weight() -> None:
    """Its means would be of any size; a residual without a row would come back in full, with the model's count."""
    estimator = ByteClassEstimator(EstimatorSettings())
    teach(estimator, 20)
    tables = tables_of(estimator.state(), TERMS)
    tables.categories.weights[:], tables.categories.values[:] = 5e-10, 1e-8
    back = state_of(tables)
    (row,) = back.categories
    assert (residual_key("m"), 20) == (row.category, row.observations)
    assert row.weight < 1e-99
    assert (0.0, FIRST_SPREAD) == (row.residual, row.spread) == (back.models[0].residual, back.models[0].spread)
