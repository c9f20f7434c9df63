"""What a replica publishes, as columns: nothing is lost in transit, and invalid messages are rejected."""

from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.errors import ConfigurationError
from extproc.core.estimator import make_estimator
from extproc.core.estimator.packing import packed
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.estimator.state_tables import state_of, tables_of
from extproc.core.estimator.tables import Tables, added
from extproc.core.estimator.terms import Terms
from extproc.core.usage import Usage
from extproc.state.columns import Indexes, columns_of, tables_in
from extproc.state.pb import state_pb2
from tests.unit.byteclass_lessons import WORDS, facts

Columns = state_pb2.Columns


def taught(kind: str, models: int = 2, responses: int = 40) -> Tables:
    """Return what an estimator has learned about some models."""
    settings = EstimatorSettings(kind=kind)  # type: ignore[arg-type]
    estimator = make_estimator(settings)
    rng = np.random.default_rng(1)
    for number in range(responses):
        text = (WORDS * 42)[: int(rng.integers(200, 4_000))]
        request = facts(text, model=f"m{number % models}")
        estimator.observe(estimator.estimate(request, f"tenant {number % 3}"), Usage(len(text) // 4, 7))
    return tables_of(estimator.state(), Terms.of(settings))


def transmitted(tables: Tables, indexes: Indexes | None = None) -> Tables:
    """Return the tables as another replica reads them."""
    return tables_in(Columns.FromString(columns_of(tables).SerializeToString()), indexes or Indexes())


@pytest.mark.parametrize("kind", ["byteclass", "ema"])
@pytest.mark.parametrize("responses", [0, 1, 40])
def test_nothing_is_lost_in_transit(kind: str, responses: int) -> None:
    """Another replica reads each row exactly, including the scores that moved q."""
    tables = taught(kind, responses=responses)
    there = transmitted(tables)
    assert state_of(tables) == state_of(there)
    for name, row in tables.models.sums.index.items():
        arrived = there.models.sums.index[name]
        assert tables.models.bounds.scores[row].tolist() == there.models.bounds.scores[arrived].tolist()
        assert tables.models.counters[row].tolist() == there.models.counters[arrived].tolist()


def test_sums_of_counts_stay_readable() -> None:
    """A replica that has learned from two states with the largest counts is not refused by the others."""
    tables = taught("byteclass")
    for counts in (tables.models.sums.counts, tables.models.counters, tables.categories.counts):
        counts[:] = 2**54
    there = transmitted(tables)
    for counts in (there.models.sums.counts, there.models.counters, there.categories.counts):
        assert {2**53} == set(counts.ravel().tolist())


def test_without_scores_q_starts_at_its_current_value() -> None:
    """A replica that saw no score since its last exchange reports its current q, not the one it started from."""
    message = columns_of(taught("byteclass", models=1))
    message.q, message.q_began = packed([3.0]), packed([5.0])
    assert 5.0 == tables_in(message, Indexes()).models.bounds.began[0]
    message.scores, message.score_counts = b"", bytes(8)
    assert 3.0 == tables_in(message, Indexes()).models.bounds.began[0]


def test_tables_of_the_same_keys_have_the_same_index() -> None:
    """The keys of many replicas are parsed once, and the index is kept as long as they are published."""
    indexes = Indexes()
    one, other = transmitted(taught("byteclass"), indexes), transmitted(taught("byteclass", responses=80), indexes)
    assert one.outputs.index is other.outputs.index
    indexes.next_round()
    again = transmitted(taught("byteclass"), indexes)
    assert one.outputs.index is again.outputs.index
    indexes.next_round()
    indexes.next_round()
    assert one.outputs.index is not transmitted(taught("byteclass"), indexes).outputs.index
    both = added([one.outputs, other.outputs])
    assert one.outputs.values.sum() + other.outputs.values.sum() == pytest.approx(both.values.sum())


def later_version(message: Columns) -> None:
    """Claim a later version."""
    message.version = 2


def other_features(message: Columns) -> None:
    """Have sums over more features than are named."""
    del message.features[0]


def missing_sums(message: Columns) -> None:
    """Declare more sums than there are."""
    message.outputs.values = message.outputs.values[:-8]


def missing_count(message: Columns) -> None:
    """Leave out the count of a category."""
    message.categories.counts = message.categories.counts[:-8]


def truncated_number(message: Columns) -> None:
    """Leave out a byte of a number."""
    message.q = message.q[:-1]


def negative_scores(message: Columns) -> None:
    """Declare a negative number of scores."""
    counts = np.frombuffer(message.score_counts, "<i8").copy()
    counts += [-1 - counts[0], 1 + counts[0]]
    message.score_counts = counts.tobytes()


def negative_count(message: Columns) -> None:
    """Have a category with a negative number of responses."""
    message.categories.counts = (-1).to_bytes(8, "little", signed=True) + message.categories.counts[8:]


def huge_counter(message: Columns) -> None:
    """Count more than can be added up."""
    message.counters = (2**53 + 1).to_bytes(8, "little") + message.counters[8:]


def not_a_number(message: Columns) -> None:
    """Have a weight that is not a number."""
    message.categories.weights = packed([float("nan")]) + message.categories.weights[8:]


def infinite_bound(message: Columns) -> None:
    """Have an infinite bound."""
    message.q = packed([float("inf")]) + message.q[8:]


def twice(message: Columns) -> None:
    """Name a model twice."""
    message.models.keys = state_pb2.Keys(models=["m0", "m0"]).SerializeToString()


def no_keys(message: Columns) -> None:
    """Have keys that are not a protobuf message."""
    message.models.keys = b"\xff"


def without_model(message: Columns) -> None:
    """Have categories without a model."""
    message.categories.keys = state_pb2.Keys(keys=["a"]).SerializeToString()


WRONG: dict[Callable[[Columns], None], str] = {
    later_version: "version 2",
    other_features: "do not have",
    missing_sums: "learned numbers",
    missing_count: "learned numbers",
    truncated_number: "learned numbers",
    negative_scores: "a learned count: -1 given",
    negative_count: "a learned count: -1 given",
    huge_counter: f"a learned count: {2**53 + 1} given",
    not_a_number: "not finite",
    infinite_bound: "not finite",
    twice: "twice",
    no_keys: "not valid protobuf",
    without_model: "differ in number",
}


@pytest.mark.parametrize("spoil", list(WRONG), ids=[spoil.__name__ for spoil in WRONG])
def test_invalid_messages_are_rejected(spoil: Callable[[Columns], None]) -> None:
    """Lengths that do not match, and values that are not finite, are reported and teach nothing."""
    message = columns_of(taught("byteclass"))
    spoil(message)
    with pytest.raises(ConfigurationError, match=WRONG[spoil]):
        tables_in(message, Indexes())


WHOLE = columns_of(taught("byteclass", models=1, responses=3)).SerializeToString()


@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255))
def test_a_changed_byte_is_rejected_or_read(at: int, byte: int) -> None:
    """Whatever byte changes, the only error is that it is not valid state."""
    data = bytearray(WHOLE)
    data[at] = byte
    with suppress(ConfigurationError, DecodeError):
        tables_in(Columns.FromString(bytes(data)), Indexes())
