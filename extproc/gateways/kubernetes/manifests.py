"""Access to Kubernetes manifests: lookup by kind, and parsing of durations, quantities and Services."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from extproc.core.errors import ConfigurationError
from extproc.gateways.parsing.sources import LocatedList, LocatedMap, Place
from extproc.gateways.parsing.spelling import camel_case, snake_case

__all__ = [
    "Manifests",
    "age_of",
    "bytes_of",
    "field_of",
    "inner",
    "is_true",
    "items_of",
    "laid_over",
    "made",
    "merged",
    "name_of",
    "namespace_of",
    "number_of",
    "optional_seconds",
    "priority_of",
    "seconds_of",
    "text_of",
    "texts_of",
    "used",
]

MAX_DIGITS: Final = 18
# Of all limits and windows in Envoy's messages; their control planes refuse larger ones.
MAX_BYTES: Final = 2**32 - 1
_TRUE: Final = ("true", "yes", "on")
_PRIORITY: Final = re.compile(r"-?[0-9]{1,10}")
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s)")
_UNITS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_QUANTITY: Final = re.compile(r"(\d+(?:\.\d+)?)(Ki|Mi|Gi|k|M|G)?")
_POWERS: Final = {"": 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "k": 10**3, "M": 10**6, "G": 10**9}


@dataclass(frozen=True)
class Manifests:
    """The objects that were read, with Lists unpacked."""

    objects: tuple[LocatedMap, ...]

    def of(self, *kinds: str) -> Iterator[LocatedMap]:
        """Yield the objects of these kinds, one kind after the other."""
        return (each for kind in kinds for each in self._by_kind.get(kind, ()))

    @cached_property
    def _by_kind(self) -> dict[str, list[LocatedMap]]:
        found: dict[str, list[LocatedMap]] = {}
        for each in self.objects:
            found.setdefault(str(each.get("kind")), []).append(each)
        return found

    @property
    def cluster_ips(self) -> frozenset[str]:
        """Names of the Services that have a single address for several servers."""
        found: set[str] = set()
        for each in self.of("Service"):
            spec = inner(each, "spec")
            if text_of(spec, "clusterIP") != "None" and text_of(spec, "type") != "ExternalName":
                name, space = name_of(each), namespace_of(each)
                found |= {name, f"{name}.{space}", f"{name}.{space}.svc", f"{name}.{space}.svc.cluster.local"}
        return frozenset(found)


def name_of(object_: LocatedMap) -> str:
    """Return an object's name."""
    return text_of(inner(object_, "metadata"), "name")


def namespace_of(object_: LocatedMap) -> str:
    """Return an object's namespace, `default` if it has none."""
    return text_of(inner(object_, "metadata"), "namespace", "default")


def age_of(object_: LocatedMap) -> tuple[bool, str]:
    """Return a key by which the oldest comes first.

    Only objects of a cluster have the time of their creation: the others are taken to be created later.
    """
    created = text_of(inner(object_, "metadata"), "creationTimestamp")
    return not created, created


def inner(values: LocatedMap, *path: str) -> LocatedMap:
    """Return the mapping at a path; if there is none, an empty one at the place of its nearest parent."""
    for step in path:
        found = values.get(step)
        if found is None:
            return LocatedMap(values.place)
        if not isinstance(found, LocatedMap):
            raise ConfigurationError(f"{_place(values, step)}: {step} is not a mapping")
        values = found
    return values


def items_of(values: LocatedMap, name: str) -> list[LocatedMap]:
    """Return a list of mappings in a mapping, empty if it is not set."""
    found = values.get(name)
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(each, LocatedMap) for each in found):
        raise ConfigurationError(f"{_place(values, name)}: {name} is not a list of mappings")
    return found


def texts_of(values: LocatedMap, name: str) -> list[str]:
    """Return a list of strings in a mapping, empty if it is not set."""
    found = values.get(name)
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(each, str | int) for each in found):
        raise ConfigurationError(f"{_place(values, name)}: {name} is not a list of strings")
    return [str(each) for each in found]


def text_of(values: LocatedMap, name: str, otherwise: str = "") -> str:
    """Return a scalar in a mapping as a string, or `otherwise` if it is not set."""
    found = values.get(name)
    if isinstance(found, LocatedMap | LocatedList):
        raise ConfigurationError(f"{_place(values, name)}: {name} is not a single value")
    return otherwise if found is None else str(found)


def is_true(values: LocatedMap, name: str) -> bool:
    """Return whether a boolean in a mapping is set and true, in YAML's spellings."""
    return text_of(values, name).lower() in _TRUE


def number_of(values: LocatedMap, name: str, otherwise: int) -> int:
    """Return a non-negative integer in a mapping, or `otherwise` if it is not set."""
    found = text_of(values, name, str(otherwise))
    if not found.isdecimal() or len(found) > MAX_DIGITS:
        raise ConfigurationError(f"{_place(values, name)}: {name} is not a whole number")
    return int(found)


def priority_of(object_: LocatedMap) -> int:
    """Return the priority in an object's spec, which may be negative; 0 if it is not set."""
    spec = inner(object_, "spec")
    found = text_of(spec, "priority", "0")
    if not _PRIORITY.fullmatch(found):
        raise ConfigurationError(f"{_place(spec, 'priority')}: priority is not a whole number")
    return int(found)


def used(references: Iterable[LocatedMap]) -> list[LocatedMap]:
    """Return the backends that get requests: not those of weight 0, as before or after a canary."""
    return [each for each in references if number_of(each, "weight", 1) > 0]


def _place(values: LocatedMap, name: str) -> Place:
    return values.places.get(name, values.place)


def made(place: Place, **values: Any) -> LocatedMap:  # noqa: ANN401
    """Return a mapping that was not written by the user but is derived from what is at a place."""
    return LocatedMap(place, {key: _placed(value, place) for key, value in values.items() if value is not None})


def _placed(value: Any, place: Place) -> Any:  # noqa: ANN401
    if isinstance(value, LocatedMap | LocatedList):
        return value
    if isinstance(value, dict):
        return LocatedMap(place, {key: _placed(item, place) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return LocatedList(place, [_placed(item, place) for item in value])
    return value


def merged(base: LocatedMap, patch: LocatedMap) -> LocatedMap:
    """Return `base` with `patch` merged in by protobuf's rules: mappings recursively, lists concatenated."""
    result = LocatedMap(base.place, dict(base))
    result.places = dict(base.places)
    for key, value in patch.items():
        old = result.get(key)
        if isinstance(old, LocatedMap) and isinstance(value, LocatedMap):
            result[key] = merged(old, value)
        elif isinstance(old, LocatedList) and isinstance(value, LocatedList):
            result[key] = LocatedList(old.place, [*old, *value])
        else:
            result[key] = value
            result.places[key] = patch.places.get(key, patch.place)
    return result


def field_of(values: LocatedMap, name: str) -> str:
    """Return the name of a field of Envoy's as these values spell it; protobuf's JSON accepts two spellings."""
    if name in values:
        return name
    return next((each for each in (snake_case(name), camel_case(name)) if each in values), name)


def laid_over(below: LocatedMap, above: LocatedMap) -> LocatedMap:
    """Return `below` with `above` laid over it by Envoy Gateway's rules: mappings recursively, lists whole."""
    result = LocatedMap(above.place, dict(below))
    result.places = below.places | above.places
    for key, value in above.items():
        old = result.get(key)
        both = isinstance(old, LocatedMap) and isinstance(value, LocatedMap)
        result[key] = laid_over(result[key], value) if both else value
    return result


def seconds_of(text: object, place: Place) -> str:
    """Return a duration in the form of protobuf's JSON. Raises ConfigurationError if it is not a duration."""
    found = _DURATION.findall(str(text))
    if not found or "".join(number + unit for number, unit in found) != str(text):
        raise ConfigurationError(f"{place}: {text!r} is not a duration such as 500ms or 1m30s")
    return f"{sum(float(number) * _UNITS[unit] for number, unit in found):.9f}".rstrip("0").rstrip(".") + "s"


def optional_seconds(values: LocatedMap, name: str) -> str | None:
    """Return a duration in a mapping as `seconds_of` does, None if it is not set or unlimited."""
    text = text_of(values, name)
    return seconds_of(text, values.place) if text and text != "0" else None


def bytes_of(text: object, place: Place) -> int:
    """Return a quantity, such as 16Mi, in bytes. Raises ConfigurationError if it is none, or none for Envoy."""
    found = _QUANTITY.fullmatch(str(text))
    if found is None:
        raise ConfigurationError(f"{place}: {text!r} is not a quantity such as 16Mi")
    size = float(found[1]) * _POWERS[found[2] or ""]
    if size > MAX_BYTES:
        raise ConfigurationError(f"{place}: {text!r} given; allowed: up to {MAX_BYTES:,} bytes")
    return int(size)
