"""The schema of the learned state: all of it survives a round trip, and so do fields of later versions."""

from dataclasses import replace

import pytest
from google.protobuf.unknown_fields import UnknownFieldSet

from extproc.core.errors import ConfigurationError
from extproc.core.estimator.byteclass import ByteClassEstimator
from extproc.core.estimator.protocol import LearnedState
from extproc.core.estimator.settings import EstimatorSettings
from extproc.state.pb import state_pb2
from extproc.state.snapshot import VERSION, from_bytes, from_json, from_message, to_bytes, to_json, to_message
from tests.unit.byteclass_lessons import teach

# Field 900 with the text "later", as a later version may write it.
LATER = b"\xa2\x38\x05later"


@pytest.fixture(scope="module")
def state() -> LearnedState:
    """Return what an estimator has learned."""
    estimator = ByteClassEstimator(EstimatorSettings())
    teach(estimator, 60)
    return estimator.state()


def test_a_state_round_trips(state: LearnedState) -> None:
    """Protobuf and JSON return all that was learned, bit for bit."""
    assert state == from_bytes(to_bytes(state))
    assert state == from_json(to_json(state))


def test_every_learned_field_is_in_the_schema() -> None:
    """Each message has every field of its dataclass, by the same name."""
    for rows, message in ((state_pb2.ModelState, "ModelState"), (state_pb2.CategoryState, "CategoryState")):
        learned = getattr(__import__("extproc.core.estimator.protocol", fromlist=[message]), message)
        names = set(learned.__dataclass_fields__) - {"category"}
        assert names <= {field.name for field in rows.DESCRIPTOR.fields}


def test_unknown_fields_survive(state: LearnedState) -> None:
    """Fields that a later version added, at any level, are written back by this one."""
    message = to_message(state)
    parts = [message, message.models[0], message.categories[0]]
    for part in parts:
        part.MergeFromString(LATER)
    read = state_pb2.LearnedState.FromString(message.SerializeToString())
    again = to_message(from_message(read), read)
    for part in (again, again.models[0], again.categories[0]):
        unknown = UnknownFieldSet(part)
        assert [900] == [unknown[index].field_number for index in range(len(unknown))]
    assert state == from_message(again)


def test_a_later_version_is_refused(state: LearnedState) -> None:
    """A state of an unknown version is not loaded; the message gives its version."""
    message = to_message(state)
    message.version = VERSION + 1
    with pytest.raises(ConfigurationError, match=f"version {VERSION + 1}"):
        from_bytes(message.SerializeToString())


@pytest.mark.parametrize(
    ("rows", "field"),
    [
        *(("models", field) for field in ("observations", "scored", "clipped", "refused", "truncated_by_pool")),
        *(("models", "generation"), ("categories", "observations"), ("outputs", "observations")),
    ],
)
def test_counts_that_do_not_add_up_are_refused(rows: str, field: str, state: LearnedState) -> None:
    """A count that no router reaches would overflow where two of them are added, in an exchange or a merge."""
    message = to_message(state)
    if rows == "outputs":
        message.outputs.add(model="m", key="k")
    setattr(getattr(message, rows)[0], field, 2**53)
    assert 2**53 == getattr(getattr(to_message(from_message(message)), rows)[0], field)
    setattr(getattr(message, rows)[0], field, 2**53 + 1)
    with pytest.raises(ConfigurationError, match=f"{field}: {2**53 + 1} given; allowed: at most"):
        from_message(message)


def test_sums_of_counts_stay_readable(state: LearnedState) -> None:
    """Two states with the largest counts, merged or learned from once more: what is written can be read again."""
    model = replace(state.models[0], observations=2**53, scored=2**54, refused=2**64)
    category = replace(state.categories[0], observations=2**53 + 1)
    written = to_bytes(replace(state, models=(model,), categories=(category,)))
    read = from_bytes(written)
    assert (2**53, 2**53, 2**53) == (read.models[0].observations, read.models[0].scored, read.models[0].refused)
    assert 2**53 == read.categories[0].observations


def test_bytes_that_are_not_a_state_are_refused() -> None:
    """The error says that the bytes are not a learned state."""
    with pytest.raises(ConfigurationError, match="learned state"):
        from_bytes(b"\xff" * 20)
