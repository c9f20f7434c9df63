"""Conversion of learned state to and from the protobuf messages in `protos/` and their JSON form."""

from dataclasses import fields
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message

from extproc.core.errors import ConfigurationError
from extproc.core.estimator.protocol import CategoryKey, CategoryState, LearnedState, ModelState, OutputState
from extproc.state.pb import state_pb2

__all__ = [
    "MOST_COUNTED",
    "VERSION",
    "from_bytes",
    "from_json",
    "from_message",
    "to_bytes",
    "to_json",
    "to_message",
]

VERSION: Final = 1
# More than any router counts, and little enough for the counts of all replicas to be added as 64-bit numbers. What
# is written stays there: sums of what was read may be larger, and would be refused.
MOST_COUNTED: Final = 2**53


def to_json(state: LearnedState) -> str:
    """Return the JSON form of a state, with the field names of the .proto; rows of numbers are in base64."""
    return json_format.MessageToJson(
        to_message(state), preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def from_json(text: str | bytes) -> LearnedState:
    """Read a state from its JSON form; fields that this version does not know are ignored.

    Raises ConfigurationError for anything else.
    """
    try:
        message = json_format.Parse(text, state_pb2.LearnedState(), ignore_unknown_fields=True)
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"learned state: {error}") from error
    return from_message(message)


def to_bytes(state: LearnedState) -> bytes:
    """Return a state as protobuf."""
    return to_message(state).SerializeToString()


def from_bytes(data: bytes) -> LearnedState:
    """Read a state from protobuf. Raises ConfigurationError for anything else."""
    try:
        return from_message(state_pb2.LearnedState.FromString(data))
    except DecodeError as error:
        raise ConfigurationError(f"learned state: {error}") from error


def to_message(state: LearnedState, old: state_pb2.LearnedState | None = None) -> state_pb2.LearnedState:
    """Return a state as a message; unknown fields of `old` and its rows are carried over."""
    message = state_pb2.LearnedState()
    if old is not None:
        message.CopyFrom(old)
        for name in ("categories", "features", "models", "outputs"):
            message.ClearField(name)
    message.estimator_kind = state.estimator_kind
    message.version = VERSION
    message.features.extend(state.features)
    _add_rows(message.categories, state.categories, _CATEGORY, () if old is None else old.categories)
    _add_rows(message.models, state.models, _MODEL, () if old is None else old.models)
    _add_rows(message.outputs, state.outputs, _OUTPUT, () if old is None else old.outputs)
    return message


def from_message(message: state_pb2.LearnedState) -> LearnedState:
    """Return the state in a message. Raises ConfigurationError for a later version, and for impossible counts."""
    _check_version(message)
    _check_counts(message.categories, _CATEGORY)
    _check_counts(message.models, _MODEL)
    _check_counts(message.outputs, _OUTPUT)
    return LearnedState(
        message.estimator_kind,
        tuple(
            CategoryState(
                CategoryKey(row.model, row.key),
                row.bytes_per_token,
                row.deviation,
                row.observations,
                row.residual,
                row.spread,
                row.weight,
            )
            for row in message.categories
        ),
        tuple(message.features),
        tuple(ModelState(**{name: getattr(row, name) for name in _MODEL}) for row in message.models),
        tuple(
            OutputState(CategoryKey(row.model, row.key), row.ended, row.cut, row.observations)
            for row in message.outputs
        ),
    )


def _check_version(message: state_pb2.LearnedState) -> None:
    if message.version > VERSION:
        raise ConfigurationError(f"learned state has version {message.version}; this router supports {VERSION}")


def _check_counts(rows: Any, names: tuple[str, ...]) -> None:  # noqa: ANN401  (rows of any kind)
    counts = [name for name in names if name in _COUNTS]
    for row in rows:
        for name in counts:
            if (count := getattr(row, name)) > MOST_COUNTED:
                raise ConfigurationError(f"learned {name}: {count} given; allowed: at most {MOST_COUNTED}")


def _add_rows(rows: Any, states: Any, names: tuple[str, ...], old: Any) -> None:  # noqa: ANN401  (rows of any kind)
    """Add the rows of one kind; unknown fields are copied from the old row of the same name."""
    before: dict[object, Message] = {_name(row): row for row in old}
    for state in states:
        row = rows.add()
        if "model" not in names:
            row.model, row.key = state.category.model, state.category.key
        if before and (old_row := before.get(getattr(state, "category", None) or state.model)):
            row.CopyFrom(old_row)
        for name in names:
            value = getattr(state, name)
            setattr(row, name, min(value, MOST_COUNTED) if name in _COUNTS else value)


def _name(row: Any) -> object:  # noqa: ANN401  (a row of any kind)
    return CategoryKey(row.model, row.key) if hasattr(row, "key") else row.model


def _names_of(dataclass: type) -> tuple[str, ...]:
    return tuple(field.name for field in fields(dataclass) if field.name != "category")


_COUNTS: Final = {"observations", "scored", "generation", "clipped", "refused", "truncated_by_pool"}
_CATEGORY, _MODEL, _OUTPUT = _names_of(CategoryState), _names_of(ModelState), _names_of(OutputState)
