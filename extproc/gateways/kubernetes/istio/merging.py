"""How Istio merges the patches of EnvoyFilters: by the rules of protobuf's messages, not as texts.

A scalar that has its type's default, such as `false`, changes nothing; an entry of a map replaces the one of its
name, and a field of a oneof all others of it. A message that is packed (`typed_config`) is replaced, but that of a
filter is merged. Source: Istio's `pkg/proto/merge` and `networking/core/envoyfilter`.
"""

from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from extproc.gateways.kubernetes.manifests import field_of, inner
from extproc.gateways.parsing.sources import LocatedList, LocatedMap
from extproc.gateways.parsing.spelling import snake_case
from extproc.gateways.parsing.typed import STRUCTS, kind_of

__all__ = ["filter_merged", "message_merged", "settings_merged"]

_SETTINGS: Final = "typed_config"
# Of these messages the whole is replaced.
_REPLACED: Final = ("google.protobuf.Any", "google.protobuf.Duration")


def filter_merged(base: LocatedMap, patch: LocatedMap) -> LocatedMap:
    """Return a filter with a patch merged in: only its name and its settings change, if it has any."""
    result = _copied(base)
    if _SETTINGS not in base:
        return result
    for name in ("name", field_of(patch, _SETTINGS)):
        if name in patch:
            key = field_of(result, name)
            settings = key == _SETTINGS
            result[key] = settings_merged(base[key], inner(patch, name)) if settings else patch[name]
    return result


def settings_merged(base: LocatedMap, patch: LocatedMap) -> LocatedMap:
    """Return a filter's settings with a patch merged in; those of a type that is not known here stay.

    Istio cannot merge a TypedStruct.
    """
    kind = None if patch.get("@type") in STRUCTS else kind_of(base)
    return message_merged(base, patch, kind) if kind is not None else base


def message_merged(base: LocatedMap, patch: LocatedMap, kind: Descriptor) -> LocatedMap:
    """Return a message of this kind with a patch merged in."""
    result = _copied(base)
    for name, value in patch.items():
        key, field = field_of(result, name), kind.fields_by_name.get(snake_case(name))
        if key in result and (name == "@type" or _says_nothing(value, field)):
            continue
        for other in field.containing_oneof.fields if field and field.containing_oneof else ():
            if field_of(result, other.name) != key:
                result.pop(field_of(result, other.name), None)
        result[key] = _merged(result.get(key), value, field)
        result.places[key] = patch.places.get(name, patch.place)
    return result


def _copied(values: LocatedMap) -> LocatedMap:
    copy = LocatedMap(values.place, dict(values))
    copy.places = dict(values.places)
    return copy


def _merged(old: Any, value: Any, field: FieldDescriptor | None) -> Any:  # noqa: ANN401
    if isinstance(old, LocatedList) and isinstance(value, LocatedList):
        return LocatedList(old.place, [*old, *value])
    both = isinstance(old, LocatedMap) and isinstance(value, LocatedMap)
    kind = field.message_type if field is not None else None
    if not both or kind is None or kind.full_name in _REPLACED:
        return value
    if kind.GetOptions().map_entry:
        entries = _copied(old)
        entries.update(value)
        entries.places |= value.places
        return entries
    return message_merged(old, value, kind)


def _says_nothing(value: Any, field: FieldDescriptor | None) -> bool:  # noqa: ANN401
    """Return whether this is the default of a scalar field, which is as if it had not been written.

    That holds for wrappers of scalars, too, if the field has been set before.
    """
    if (
        field is None
        or isinstance(value, LocatedMap | LocatedList)
        or (field.has_presence and not field.message_type)
    ):
        return False
    if field.enum_type is not None:
        return value in (0, field.enum_type.values[0].name)
    return value in (False, 0, "")
