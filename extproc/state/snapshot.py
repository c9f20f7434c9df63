"""What was learned, as the protobuf message of `protos/` and its JSON form, and back."""

from google.protobuf import json_format

from extproc.core.errors import ConfigurationError
from extproc.core.estimator.protocol import CategoryKey, CategoryState, LearnedState
from extproc.state.pb import state_pb2

__all__ = ["from_json", "to_json"]


def to_json(state: LearnedState) -> str:
    """Return the JSON form of a state, with the field names of the .proto."""
    return json_format.MessageToJson(_to_message(state), preserving_proto_field_name=True)


def from_json(text: str | bytes) -> LearnedState:
    """Read a state from its JSON form; fields that this version does not know are ignored.

    Raises ConfigurationError for anything that is no such state.
    """
    try:
        message = json_format.Parse(text, state_pb2.LearnedState(), ignore_unknown_fields=True)
    except json_format.ParseError as error:
        raise ConfigurationError(f"learned state: {error}") from error
    return _from_message(message)


def _to_message(state: LearnedState) -> state_pb2.LearnedState:
    return state_pb2.LearnedState(
        estimator_kind=state.estimator_kind,
        categories=[
            state_pb2.CategoryState(
                model=row.category.model,
                key=row.category.key,
                bytes_per_token=row.bytes_per_token,
                deviation=row.deviation,
                observations=row.observations,
            )
            for row in state.categories
        ],
    )


def _from_message(message: state_pb2.LearnedState) -> LearnedState:
    rows = (
        CategoryState(CategoryKey(row.model, row.key), row.bytes_per_token, row.deviation, row.observations)
        for row in message.categories
    )
    return LearnedState(message.estimator_kind, tuple(rows))
