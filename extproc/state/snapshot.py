"""What was learned, as the protobuf message of `protos/` and its JSON form, and back."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from google.protobuf import json_format

from extproc.core.errors import ConfigurationError
from extproc.core.estimator.protocol import CategoryKey, CategoryState, LearnedState, ModelState, OutputState
from extproc.state.pb import state_pb2

__all__ = ["from_json", "to_json"]


def to_json(state: LearnedState) -> str:
    """Return the JSON form of a state, with the field names of the .proto."""
    return json_format.MessageToJson(
        _to_message(state), preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def from_json(text: str | bytes) -> LearnedState:
    """Read a state from its JSON form; fields that this version does not know are ignored.

    Raises ConfigurationError for anything that is no such state.
    """
    try:
        message = json_format.Parse(text, state_pb2.LearnedState(), ignore_unknown_fields=True)
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"learned state: {error}") from error
    return _from_message(message)


def _to_message(state: LearnedState) -> state_pb2.LearnedState:
    return state_pb2.LearnedState(
        estimator_kind=state.estimator_kind,
        categories=[
            state_pb2.CategoryState(model=row.category.model, key=row.category.key, **_same_fields(row, _CATEGORY))
            for row in state.categories
        ],
        features=state.features,
        models=[state_pb2.ModelState(**_same_fields(row, _MODEL)) for row in state.models],
        outputs=[
            state_pb2.OutputState(model=row.category.model, key=row.category.key, ended=row.ended, cut=row.cut)
            for row in state.outputs
        ],
    )


def _from_message(message: state_pb2.LearnedState) -> LearnedState:
    return LearnedState(
        message.estimator_kind,
        tuple(
            CategoryState(CategoryKey(row.model, row.key), **_same_fields(row, _CATEGORY))
            for row in message.categories
        ),
        tuple(message.features),
        tuple(
            ModelState(
                sums_a=tuple(row.sums_a),
                sums_b=tuple(row.sums_b),
                scale_a=tuple(row.scale_a),
                scale_b=tuple(row.scale_b),
                **_same_fields(row, _NUMBERS),
            )
            for row in message.models
        ),
        tuple(
            OutputState(CategoryKey(row.model, row.key), tuple(row.ended), tuple(row.cut))
            for row in message.outputs
        ),
    )


def _same_fields(row: object, names: Sequence[str]) -> dict[str, Any]:
    """Return the fields whose name and value are the same on both sides."""
    return {name: getattr(row, name) for name in names}


_CATEGORY = ("bytes_per_token", "deviation", "observations", "residual", "spread")
_MODEL = tuple(field.name for field in fields(ModelState))
_NUMBERS = tuple(name for name in _MODEL if not name.startswith(("sums", "scale")))
