"""Rewriting of spellings that Envoy accepts in its configuration and protobuf's Python parser does not.

Enum values in lower case (`lb_policy: round_robin`, as many examples have it), booleans as strings (`yes`,
`"true"`, as templates write them), durations and wrapped values as mappings (`{seconds: 1}`, `{value: 96}`).
Whatever is wrong stays as it is, for the parser to report. Fields that are newer than the parser's messages, or
have a newer value, are left out.
"""

import re
from collections.abc import Collection
from functools import lru_cache
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.descriptor_pool import Default

from extproc.gateways.parsing.newer_fields import NEWER

__all__ = ["camel_case", "respelled", "snake_case"]

_BOOLEANS: Final = {
    **dict.fromkeys(("true", "t", "yes", "y", "on", "1"), True),
    **dict.fromkeys(("false", "f", "no", "n", "off", "0"), False),
}
_WELL_KNOWN: Final = "google.protobuf."
_ANY: Final = "google.protobuf.Any"
_DURATION: Final = "google.protobuf.Duration"
_NANOS_PER_S: Final = 1_000_000_000
_MATCH: Final = "envoy.config.route.v3.RouteMatch"
_UPPER: Final = re.compile("[A-Z]")


@lru_cache(maxsize=4096)  # there are not many more fields
def camel_case(name: str) -> str:
    """Return the name of a field as protobuf's JSON spells it."""
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


@lru_cache(maxsize=4096)
def snake_case(name: str) -> str:
    """Return the name of a field as its message spells it."""
    return _UPPER.sub(lambda found: f"_{found[0].lower()}", name)


def respelled(values: Any, kind: Descriptor, newer: set[str]) -> Any:  # noqa: ANN401  (whatever was written)
    """Return the values of a message of this kind as protobuf's parser accepts them; all types are imported.

    The names of the fields that are left out are added to `newer`.
    """
    if not isinstance(values, dict):
        return values
    if kind.full_name == _ANY:
        return _any(values, newer)
    if kind.full_name == _DURATION:
        return _duration(values)
    if kind.full_name.startswith(_WELL_KNOWN):
        # Wrappers have this single field; Struct, Value and ListValue hold what nobody types.
        return values["value"] if values.keys() == {"value"} and kind.full_name.endswith("Value") else values
    fields = kind.fields_by_name, kind.fields_by_camelcase_name
    return {
        name: _field(value, next((found[name] for found in fields if name in found), None), newer)
        for name, value in _known(values, kind.full_name, newer).items()
    }


def _known(values: dict[str, Any], kind: str, newer: set[str]) -> dict[str, Any]:
    """Return the values without the newer fields; a route's condition on cookies remains a condition."""
    later = NEWER.get(kind)
    if later is None:
        return values
    left_out = [name for name, value in values.items() if _is_newer(snake_case(name), value, later)]
    kept = {name: value for name, value in values.items() if name not in left_out}
    if kind == _MATCH and left_out == ["cookies"]:
        cookies = {"filter": "cookies", "path": [{"key": str(values["cookies"])}]}
        others = [name for name in ("dynamic_metadata", "dynamicMetadata") if name in kept] or ["dynamic_metadata"]
        return kept | {others[0]: [*kept.get(others[0], []), cookies]}
    newer.update(f"{kind.rpartition('.')[2]}.{name}" for name in left_out)
    return kept


def _is_newer(name: str, value: Any, later: Collection[str]) -> bool:  # noqa: ANN401
    """Return whether a field is newer, or one of the values that it has."""
    given = value if isinstance(value, list) else [value]
    return name in later or any(f"{name}={each}".lower() in later for each in given)


def _any(values: dict[str, Any], newer: set[str]) -> dict[str, Any]:
    url = values.get("@type", "")
    name = url.rpartition("/")[2] if isinstance(url, str) else ""
    if not name or name.startswith(_WELL_KNOWN):
        return values
    try:
        kind = Default().FindMessageTypeByName(name)
    except KeyError:
        return values
    fields = respelled({key: value for key, value in values.items() if key != "@type"}, kind, newer)
    return {"@type": url, **fields}


def _field(value: Any, field: FieldDescriptor | None, newer: set[str]) -> Any:  # noqa: ANN401
    if field is None:
        return value
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        held = kind.fields_by_name["value"]
        return {key: _one(item, held, newer) for key, item in value.items()} if isinstance(value, dict) else value
    if isinstance(value, list):
        return [_one(item, field, newer) for item in value]
    return _one(value, field, newer)


def _one(value: Any, field: FieldDescriptor, newer: set[str]) -> Any:  # noqa: ANN401
    if field.message_type is not None:
        inner = respelled(value, field.message_type, newer)
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
