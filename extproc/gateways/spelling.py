"""Rewriting of spellings that Envoy accepts in its configuration and protobuf's Python parser does not.

Enum values in lower case (`lb_policy: round_robin`, as many examples have it), booleans as strings (`yes`,
`"true"`, as templates write them), durations and wrapped values as mappings (`{seconds: 1}`, `{value: 96}`).
Whatever is wrong stays as it is, for the parser to report.
"""

from typing import Any, Final

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.descriptor_pool import Default

__all__ = ["respelled"]

_BOOLEANS: Final = {
    **dict.fromkeys(("true", "t", "yes", "y", "on", "1"), True),
    **dict.fromkeys(("false", "f", "no", "n", "off", "0"), False),
}
_WELL_KNOWN: Final = "google.protobuf."
_ANY: Final = "google.protobuf.Any"
_DURATION: Final = "google.protobuf.Duration"
_NANOS_PER_S: Final = 1_000_000_000


def respelled(values: Any, kind: Descriptor) -> Any:  # noqa: ANN401  (whatever was written for the message)
    """Return the values of a message of this kind as protobuf's parser accepts them; all types are imported."""
    if not isinstance(values, dict):
        return values
    if kind.full_name == _ANY:
        return _any(values)
    if kind.full_name == _DURATION:
        return _duration(values)
    if kind.full_name.startswith(_WELL_KNOWN):
        # Wrappers have this single field; Struct, Value and ListValue hold what nobody types.
        return values["value"] if values.keys() == {"value"} and kind.full_name.endswith("Value") else values
    fields = kind.fields_by_name, kind.fields_by_camelcase_name
    return {
        name: _field(value, next((found[name] for found in fields if name in found), None))
        for name, value in values.items()
    }


def _any(values: dict[str, Any]) -> dict[str, Any]:
    url = values.get("@type", "")
    name = url.rpartition("/")[2] if isinstance(url, str) else ""
    if not name or name.startswith(_WELL_KNOWN):
        return values
    try:
        kind = Default().FindMessageTypeByName(name)
    except KeyError:
        return values
    fields = respelled({key: value for key, value in values.items() if key != "@type"}, kind)
    return {"@type": url, **fields}


def _field(value: Any, field: FieldDescriptor | None) -> Any:  # noqa: ANN401
    if field is None:
        return value
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        held = kind.fields_by_name["value"]
        return {key: _one(item, held) for key, item in value.items()} if isinstance(value, dict) else value
    if isinstance(value, list):
        return [_one(item, field) for item in value]
    return _one(value, field)


def _one(value: Any, field: FieldDescriptor) -> Any:  # noqa: ANN401
    if field.message_type is not None:
        inner = respelled(value, field.message_type)
        wraps_boolean = field.message_type.full_name == "google.protobuf.BoolValue"
        return _boolean(inner) if wraps_boolean else inner
    if field.enum_type is not None:
        return _enum(value, field.enum_type)
    return _boolean(value) if field.type == FieldDescriptor.TYPE_BOOL else value


def _enum(value: Any, kind: EnumDescriptor) -> Any:  # noqa: ANN401
    return value.upper() if isinstance(value, str) and value.upper() in kind.values_by_name else value


def _boolean(value: Any) -> Any:  # noqa: ANN401
    return _BOOLEANS.get(value.lower(), value) if isinstance(value, str) else value


def _duration(values: dict[str, Any]) -> Any:  # noqa: ANN401
    seconds, nanos = values.get("seconds", 0), values.get("nanos", 0)
    whole = all(isinstance(each, int) and not isinstance(each, bool) for each in (seconds, nanos))
    if not whole or not values.keys() <= {"seconds", "nanos"} or not 0 <= nanos < _NANOS_PER_S:
        return values
    return f"{seconds}.{nanos:09d}s"
