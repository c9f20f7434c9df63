"""Edge cases of learning and sharing: rows that have changed in the meantime, invalid numbers."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from extproc.core.apis.image_size import WINDOW, image_pixels
from extproc.core.apis.prompt import Prompt
from extproc.core.errors import ConfigurationError
from extproc.core.estimator import make_estimator
from extproc.core.estimator.byteclass import ByteClassEstimator
from extproc.core.estimator.change import Change, ModelChange, RowChange
from extproc.core.estimator.ema import EmaEstimator
from extproc.core.estimator.features import FEATURE_NAMES
from extproc.core.estimator.output_lengths import OutputLengths
from extproc.core.estimator.packing import packed, unpacked
from extproc.core.estimator.protocol import CategoryKey, LearnedState, OutputState
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.estimator.state_tables import tables_of
from extproc.core.estimator.tables import Table, all_keys, model_columns
from extproc.core.estimator.terms import Terms
from tests.unit.byteclass_lessons import teach

KEY = CategoryKey("m", "latin")
TERMS = Terms.of(EstimatorSettings())


def taught() -> LearnedState:
    """Return the state of a router that has learned from three responses of one model."""
    estimator = make_estimator(EstimatorSettings())
    assert isinstance(estimator, ByteClassEstimator)
    teach(estimator, 3)
    return estimator.state()


@pytest.mark.parametrize("since", [0, 1])
def test_changes_to_a_ratio_with_fewer_responses_are_returned(since: int) -> None:
    """A change to a new row starts it; a change that expects responses which are not there is returned."""
    estimator = EmaEstimator(EstimatorSettings(kind="ema"))
    row = RowChange(KEY, since, 2, np.array([4.0, 0.1, 0.0, 0.0]))
    left = estimator.shift(Change((), (row,), ()))
    assert (() if since == 0 else (row,)) == left.categories
    if since == 0:
        later = replace(row, since=1_000)
        assert (later,) == estimator.shift(Change((), (later,), ())).categories


def test_changes_to_lengths_with_fewer_responses_are_returned() -> None:
    """A category with fewer responses than a change expects does not take it."""
    lengths = OutputLengths(EstimatorSettings())
    row = RowChange(KEY, 0, 2, np.ones(162))
    assert lengths.shift(row)
    assert not lengths.shift(replace(row, since=1_000))
    assert not lengths.shift(replace(row, key=CategoryKey("n", ""), since=1))


def test_an_incomplete_number_is_refused() -> None:
    """Packed numbers are 8-byte doubles."""
    with pytest.raises(ConfigurationError, match="3 bytes, not a multiple of 8"):
        unpacked(b"123")


def test_invalid_states_are_refused() -> None:
    """This covers sums over other features, bounds and weights that are not finite, and other numbers of bins."""
    state = taught()
    (model,) = state.models
    wrong = {
        "are not over": replace(state, models=(replace(model, sums_b=model.sums_b + packed([1.0])),)),
        "bounds are not finite": replace(state, models=(replace(model, q=float("nan")),)),
        "numbers that are not finite": replace(state, models=(replace(model, weight=float("nan")),)),
        "different numbers of bins": replace(
            state, outputs=(OutputState(KEY, packed([1.0]), packed([1.0, 2.0])),)
        ),
    }
    for message, each in wrong.items():
        with pytest.raises(ConfigurationError, match=message):
            tables_of(each, TERMS)


def test_the_generation_of_a_model_is_part_of_its_state() -> None:
    """A router that starts with a saved state does not take its models for those that were replaced."""
    state = taught()
    later = replace(state, models=(replace(state.models[0], generation=3),))
    estimator = make_estimator(EstimatorSettings())
    estimator.load(later)
    assert [3] == [model.generation for model in estimator.state().models]


def test_a_negative_weight_is_refused() -> None:
    """Nothing is loaded: the file that is written afterwards would be refused at the next start."""
    state, estimator = taught(), ByteClassEstimator(EstimatorSettings())
    before, (model,) = estimator.state(), state.models
    wrong = replace(state, models=(replace(model, weight=-1e6),))
    with pytest.raises(ConfigurationError, match=r"have a weight of -1e\+06; allowed: 0 or more"):
        estimator.load(wrong)
    with pytest.raises(ConfigurationError):
        tables_of(wrong, TERMS)
    assert before == estimator.state()


def test_rows_of_a_table_are_copies_whatever_their_order() -> None:
    """Changing the rows returned for some keys, in any order, does not change the table."""
    table = tables_of(taught(), TERMS).categories
    keys = list(table.index)
    assert keys == all_keys([table, table, Table(dict(table.index), table.counts, table.weights, table.values)])
    for order in (keys, keys[::-1]):
        aligned = table.aligned(order)
        assert [table.weights[table.index[key]] for key in order] == aligned.weights.tolist()
        aligned.values[:], aligned.weights[:], aligned.counts[:] = -1, -1, -1
        assert table.weights.min() > 0


def test_an_escape_cut_by_the_window_is_left_out() -> None:
    """Base64 with escaped slashes that continues beyond the window is read up to the last complete escape."""
    encoded = "iVBORw0KGgo" + "\\/" * WINDOW
    raw = msgspec.Raw(b'"data:image/png;base64,%b"' % encoded.encode())
    assert image_pixels(raw) > 0


def test_an_absent_list_adds_nothing() -> None:
    """An absent value adds no text."""
    prompt = Prompt()
    prompt.add_json(msgspec.Raw(b""))
    assert [] == prompt.texts


def test_a_model_that_others_have_forgotten_is_not_begun() -> None:
    """It would come without its residual: all categories of a model whose residual has no spread have none."""
    estimator, columns = ByteClassEstimator(EstimatorSettings()), sum(model_columns(len(FEATURE_NAMES)))
    change = Change(models=(ModelChange("forgotten", 0, 0, 0, 0, 0.0, 0.5, np.zeros(columns)),))
    assert change.models == estimator.shift(change).models
    assert () == estimator.state().models


def test_changes_of_other_replicas_are_added_to_rows() -> None:
    """A known category adds the change; a new one starts with it, if it expects no responses and there is room."""
    estimator = ByteClassEstimator(EstimatorSettings(max_categories=2))
    teach(estimator, 30)
    (own,) = (row for row in estimator.state().categories if row.category == KEY)
    values = np.array([0.5, 0.0, 0.0, 0.0])
    new, third = CategoryKey("m", "tenant"), CategoryKey("m", "another")
    changes = [
        RowChange(KEY, 0, 5, values),
        RowChange(new, 1, 5, values),
        RowChange(new, 0, 5, values),
        RowChange(third, 0, 5, values),
    ]
    left = estimator.shift(Change((), tuple(changes), ()))
    assert (changes[1], changes[3]) == left.categories
    of_key = {row.category: row for row in estimator.state().categories}
    assert (35, 5) == (of_key[KEY].observations, of_key[new].observations)
    assert of_key[KEY].bytes_per_token > own.bytes_per_token
    assert third not in of_key
    assert {0.0} == {row.deviation for row in of_key.values()}


def test_a_full_table_of_ratios_takes_no_more() -> None:
    """A change for a category beyond the maximum is returned."""
    estimator = EmaEstimator(EstimatorSettings(kind="ema", max_categories=1))
    rows = tuple(RowChange(CategoryKey("m", name), 0, 2, np.array([4.0, 0.1, 0.0, 0.0])) for name in "ab")
    assert rows[1:] == estimator.shift(Change((), rows, ())).categories
