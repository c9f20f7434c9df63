"""Conversion of located values into Envoy's own messages, extensions included; misspelled fields are reported.

Each `@type` names a message, whose package is imported on demand: a file needs about a dozen of the thousand
generated modules. A type that is not among them (a control plane's own, or newer than the messages) is replaced by
an empty placeholder and reported, since its content cannot be checked.
"""

import re
from functools import lru_cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, Final, TypeVar

from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pool import Default
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import Message

from extproc.core.errors import ConfigurationError
from extproc.gateways.parsing.sources import LocatedList, LocatedMap, Place
from extproc.gateways.parsing.spelling import camel_case, respelled

__all__ = ["STRUCTS", "UNKNOWN", "Places", "kind_of", "typed"]

M = TypeVar("M", bound=Message)
UNKNOWN: Final = "is not a known Envoy type"
_TYPE: Final = re.compile(
    r"type\.googleapis\.com/((?:envoy|xds|udpa|google\.protobuf)(?:\.[a-z0-9_]+)*)\.[A-Z]\w*"
)
# Every other message is made of these.
_LOADED: Final = "google.protobuf"
_UNKNOWN_FIELD: Final = re.compile(r'Message type "([^"]+)" has no field named "([^"]+)" at "([^"]+)"')
_OTHER: Final = re.compile(r".*?(?=\n|\.{3,}$|$)")
_OPAQUE: Final = "type.googleapis.com/google.protobuf.Struct"
# Envoy reads a message of the type `type_url` from the fields in `value`.
STRUCTS: Final = tuple(
    f"type.googleapis.com/{name}" for name in ("udpa.type.v1.TypedStruct", "xds.type.v3.TypedStruct")
)


class Places:
    """The places of the parts of a message, looked up by the path of their fields."""

    def __init__(self, values: LocatedMap) -> None:
        self._values = values

    def of(self, path: tuple[str | int, ...]) -> Place:
        """Return the place of the value at a path, or the place of its nearest parent if it was not written."""
        value: Any = self._values
        place = self._values.place
        for step in path:
            if isinstance(step, int):
                if not isinstance(value, list) or step >= len(value):
                    return place
                value = value[step]
            else:
                key = next(
                    (key for key in (step, camel_case(step)) if isinstance(value, dict) and key in value), None
                )
                if key is None:
                    return place
                place = value.places.get(key, place) if isinstance(value, LocatedMap) else place
                value = value[key]
            if isinstance(value, LocatedMap | LocatedList):
                place = value.place
        return place


def typed(values: LocatedMap, message: M, unknown: list[str], *, lenient: bool = False) -> M:
    """Fill a message; for each unknown type, add a sentence with its place to `unknown`.

    `lenient` ignores fields that the messages do not have: in a running Envoy they are newer, not misspelled.
    Raises ConfigurationError for any other unknown field and for values of the wrong kind.
    """
    known: Any = _known(values, unknown)
    kind: Any = message.DESCRIPTOR
    newer: set[str] = set()
    spelled = respelled(known, kind, newer)
    if not lenient:
        said = "is a field newer than those that are known here, or has such a value, and so is not checked"
        unknown += [f"{values.place.source}: {name} {said}" for name in sorted(newer)]
    try:
        return ParseDict(spelled, message, ignore_unknown_fields=lenient)
    except ParseError as error:
        raise ConfigurationError(_sentence(str(error), values), source=values.place.source) from error
    except (
        AttributeError,
        KeyError,
        OverflowError,
        TypeError,
        ValueError,
    ) as error:  # raised for values that ParseDict does not expect
        raise ConfigurationError(f"not a value that Envoy accepts: {error}", source=values.place.source) from error


def kind_of(values: LocatedMap) -> Descriptor | None:
    """Return the type of a packed message, None if it is not known."""
    return _named(str(values.get("@type", "")))


def _known(value: Any, unknown: list[str]) -> Any:  # noqa: ANN401
    """Import the modules of all types, and return the values with unknown types replaced by a placeholder."""
    if isinstance(value, LocatedMap):
        url = value.get("@type")
        if url is not None and not isinstance(url, str):
            raise ConfigurationError(f"{value.place}: @type is not the name of a message")
        if url in STRUCTS:
            held, name = value.get("value", {}), value.get("type_url", value.get("typeUrl", ""))
            if not isinstance(held, dict):
                raise ConfigurationError(f"{value.place}: the value of {url.rpartition('/')[2]} is not a mapping")
            return _known(LocatedMap(value.place, {**held, "@type": name}), unknown)
        if url is not None and _named(url) is None:
            unknown.append(f"{value.place}: {url.rpartition('/')[2]} {UNKNOWN}")
            return {"@type": _OPAQUE, "value": {}}
        return {key: _known(item, unknown) for key, item in value.items()}
    if isinstance(value, list):
        return [_known(item, unknown) for item in value]
    return value


@lru_cache(maxsize=1024)  # a dump names each of a few types thousands of times
def _named(url: str) -> Descriptor | None:
    """Return the type with this URL, None if it is not known: a known package may lack a newer one."""
    found = _TYPE.fullmatch(url)
    if found is None:
        return None
    try:
        if not found[1].startswith(_LOADED):
            _import(found[1])
        return Default().FindMessageTypeByName(url.rpartition("/")[2])
    except (ImportError, KeyError):
        return None


def _import(name: str) -> None:
    package = import_module(name)
    for module in iter_modules(getattr(package, "__path__", ())):
        if module.name.endswith("_pb2"):
            import_module(f"{name}.{module.name}")


def _sentence(said: str, values: LocatedMap) -> str:
    found = _UNKNOWN_FIELD.search(said)
    if found is None:
        text = said.rpartition(" field: ")[2]
        shortened = _OTHER.match(text)
        return shortened[0] if shortened else text
    kind, field, path = found.groups()
    place = Places(values).of((*_steps(path), field))
    return f"{place.path or path} ({place}): {kind.rpartition('.')[2]} has no field {field}"


def _steps(path: str) -> tuple[str | int, ...]:
    """Return the steps of a path in protobuf's notation, without the message name that it begins with."""
    steps: list[str | int] = []
    for step in re.findall(r"\[\d+\]|\[[^\]]+\]|[^.\[\]]+", path)[1:]:
        inner = step.strip("[]")
        steps.append(int(inner) if inner.isdecimal() and step.startswith("[") else inner)
    return tuple(steps)
