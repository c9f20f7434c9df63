"""Conversion of plain values to the types of the schema, and a description of what each type allows.

One pass finds all faults: a faulty setting is replaced by its default, and the rest is still checked. msgspec,
which converts each single setting, would stop at the first fault of a document.
"""

import dataclasses
from collections.abc import Sequence
from enum import Enum
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import UNSET, Meta

from extproc.core.errors import shown

__all__ = ["RENAMED", "Reader", "allowed", "dataclass_in", "kind_and_range", "settings_of"]

MAX_NUMBER = 2**53  # up to here a float represents every integer exactly
MAX_KEY_CHARS = 60
# Settings of released versions that have another name now: whoever upgrades is told which.
RENAMED = {"exchange.max_answer_bytes": "exchange.max_response_bytes"}


class Reader:
    """Converts values to types; `faults` has a sentence for each fault, `faulty` the paths of faulty settings."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.faulty: set[str] = set()

    def read(self, value: object, wanted: Any, path: str) -> Any:  # noqa: ANN401  (any type form, and a value of it)
        """Return the value as the wanted type; UNSET if it, or a required part of it, does not have that type."""
        if value is None and type(None) in get_args(wanted):
            return None
        if dataclass := dataclass_in(wanted):
            return self._read_settings(value, dataclass, path)
        if get_origin(wanted) is tuple and isinstance(value, list):
            items = [self.read(item, get_args(wanted)[0], f"{path}[{index}]") for index, item in enumerate(value)]
            return UNSET if any(item is UNSET for item in items) else tuple(items)
        if get_origin(wanted) is dict and isinstance(value, dict):
            return self._read_mapping(value, get_args(wanted), path)
        if isinstance(value, int | float) and not abs(value) <= MAX_NUMBER:  # `not <=` also catches NaN
            return self._refuse(path, f"{shown(value)} given; allowed: a finite number, at most 2**53")
        if isinstance(value, str) and "\0" in value:  # invalid in file names, and C code would stop there
            return self._refuse(path, f"{shown(value)} given; allowed: text without a null character")
        try:
            return msgspec.convert(value, wanted)
        except msgspec.ValidationError:
            return self._refuse(path, f"{shown(value)} given; allowed: {allowed(wanted)}")

    def _read_settings(self, value: object, wanted: type, path: str) -> Any:  # noqa: ANN401
        if not isinstance(value, dict):
            return self._refuse(path, f"{shown(value)} given; allowed: {allowed(wanted)}")
        types = settings_of(wanted)
        read: dict[str, object] = {}
        for key, item in value.items():
            inner = f"{path}.{_name(key)}" if path else _name(key)
            if key in types:
                read[key] = self.read(item, types[key], inner)
            else:
                now = RENAMED.get(inner)
                instead = f"it is named {now} now" if now else f"allowed here: {', '.join(types)}"
                self._refuse(inner, f"no such setting; {instead}")
        given = {key: item for key, item in read.items() if item is not UNSET}
        needed = [field.name for field in dataclasses.fields(wanted) if _is_needed(field)]
        for name in needed:
            if name not in read:
                self._refuse(f"{path}.{name}", f"missing; allowed: {allowed(types[name])}")
        return wanted(**given) if all(name in given for name in needed) else UNSET

    def _read_mapping(self, value: dict[object, object], types: Sequence[Any], path: str) -> Any:  # noqa: ANN401
        key_type, item_type = types
        pairs = [
            (self.read(key, key_type, path), self.read(item, item_type, f"{path}.{_name(key)}"))
            for key, item in value.items()
        ]
        return UNSET if any(UNSET in pair for pair in pairs) else dict(pairs)

    def _refuse(self, path: str, why: str) -> Any:  # noqa: ANN401
        self.faulty.add(path)
        self.faults.append(f"{path}: {why}" if path else why)
        return UNSET


def settings_of(dataclass: type) -> dict[str, Any]:
    """Return the names and types of a dataclass's settings, in declaration order."""
    hints = get_type_hints(dataclass, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(dataclass)}


def dataclass_in(wanted: Any) -> type | None:  # noqa: ANN401
    """Return the type itself, or the alternative of a union, that is a dataclass; None if there is none."""
    arms = get_args(wanted) if get_origin(wanted) in (Union, UnionType) else (wanted,)
    return next((arm for arm in arms if isinstance(arm, type) and dataclasses.is_dataclass(arm)), None)


def allowed(wanted: Any) -> str:  # noqa: ANN401
    """Describe the values that a type allows."""
    if dataclass := dataclass_in(wanted):
        return f"a mapping of {', '.join(settings_of(dataclass))}"
    if get_origin(wanted) is tuple:
        return f"a list, each {allowed(get_args(wanted)[0])}"
    if get_origin(wanted) is dict:
        return f"a {' '.join(kind_and_range(wanted))}"
    kind, limits = kind_and_range(wanted)
    if kind in (WORD, TEXT, BOOLEAN):
        return limits or kind
    return f"a {kind} {limits}".rstrip()


def kind_and_range(wanted: Any) -> tuple[str, str]:  # noqa: ANN401
    """Return the kind of a single setting and the limits on its values, both in words ("" for no limits)."""
    if get_origin(wanted) in (Union, UnionType):  # optional: describe the type of a given value
        wanted = next(arm for arm in get_args(wanted) if arm is not type(None))
    if get_origin(wanted) is Literal:
        return WORD, ", ".join(get_args(wanted))
    if get_origin(wanted) is tuple:
        kind, limits = kind_and_range(get_args(wanted)[0])
        return f"list of {kind}", limits
    if get_origin(wanted) is dict:
        return "mapping", f"of {' to '.join(map(allowed, get_args(wanted)))}"
    metas = [meta for meta in get_args(wanted) if isinstance(meta, Meta)]
    base = get_args(wanted)[0] if get_origin(wanted) is Annotated else wanted
    if issubclass(base, Enum):
        return WORD, ", ".join(base)
    said = [meta.extra["allowed"] for meta in metas if meta.extra and "allowed" in meta.extra]
    return _KINDS[base], said[0] if said else _range(metas)


WORD, TEXT, BOOLEAN = "word", "text", "true or false"
_KINDS = {int: "whole number", float: "number", bool: BOOLEAN, str: TEXT}
_LIMITS = {"ge": "of at least", "gt": "above", "le": "of at most", "lt": "below"}


def _range(metas: list[Meta]) -> str:
    limits = {name: limit for meta in metas for name in _LIMITS if (limit := getattr(meta, name)) is not None}
    if limits.keys() == {"ge", "le"}:
        return f"from {limits['ge']:,} to {limits['le']:,}"
    return " and ".join(f"{words} {limits[name]:,}" for name, words in _LIMITS.items() if name in limits)


def _is_needed(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _name(key: object) -> str:
    return key if isinstance(key, str) and len(key) <= MAX_KEY_CHARS else shown(key)
