"""Parsing of YAML and JSON into plain values that know where they were written: mappings and lists have a place.

YAML is composed into nodes, which know their lines, and the values are built from those; a file may hold several
documents. JSON is what admin ports serve and may be megabytes long; its values have paths but no lines. The input
is bounded in characters and in depth, YAML also in values (an alias counts each time it is used).
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from extproc.core.errors import ConfigurationError

__all__ = ["MAX_JSON_CHARACTERS", "LocatedList", "LocatedMap", "Place", "located", "read"]

MAX_YAML_CHARACTERS: Final = 4 << 20
MAX_JSON_CHARACTERS: Final = 64 << 20
# Far more than a text of this size has without aliases; with aliases, it bounds the work to seconds.
MAX_VALUES: Final = 500_000
MAX_DEPTH: Final = 100
# Envoy leaves out what is under a key with this tag.
_IGNORED: Final = "!ignore"
_MERGE: Final = "<<"
_MERGE_TAG: Final = "tag:yaml.org,2002:merge"


@dataclass(frozen=True, slots=True)
class Place:
    """Where something was written: a file or an address, the path in it, and the line if it is known."""

    source: str = ""
    path: str = ""
    line: int | None = None

    def __str__(self) -> str:
        if self.line is not None:
            return f"{self.source}:{self.line}"
        return f"{self.source}: {self.path}" if self.path else self.source


class LocatedMap(dict[str, Any]):
    """A mapping that knows its own place and, if it was read from YAML, the places of its values."""

    def __init__(self, place: Place, values: dict[str, Any] | None = None) -> None:
        super().__init__(values or {})
        self.place = place
        self.places: dict[str, Place] = {}


class LocatedList(list[Any]):
    """A list that knows its place."""

    def __init__(self, place: Place, values: list[Any] | None = None) -> None:
        super().__init__(values or [])
        self.place = place


def read(text: str, source: str) -> list[LocatedMap]:
    """Return the documents in a text without the empty ones.

    Raises ConfigurationError if the text is too large or neither YAML nor JSON, or if a document is not a mapping.
    """
    try:
        documents = list(_json(text, source) if text.lstrip().startswith("{") else _yaml(text, source))
    except ConfigurationError as error:
        raise ConfigurationError(*error.sentences, source=source) from error
    except RecursionError as error:
        raise ConfigurationError("nested too deeply", source=source) from error
    wrong = [each for each in documents if not isinstance(each, LocatedMap)]
    if wrong:
        raise ConfigurationError("a document that is not a mapping", source=source)
    return documents


def located(value: object, place: Place, depth: int = 0) -> Any:  # noqa: ANN401  (whatever JSON can hold)
    """Return plain values as located ones; `place` is the place of the outermost value, `depth` how deep that is.

    Raises ConfigurationError if they are nested too deeply.
    """
    _check_depth(depth)
    if isinstance(value, dict):
        made = LocatedMap(place)
        for key, item in value.items():
            made[str(key)] = located(item, _below(place, str(key)), depth + 1)
        return made
    if isinstance(value, list):
        return LocatedList(place, [located(item, _below(place, at), depth + 1) for at, item in enumerate(value)])
    return value


def _check_depth(depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ConfigurationError(f"nested too deeply; at most {MAX_DEPTH} levels are allowed")


def _json(text: str, source: str) -> Iterator[Any]:
    if len(text) > MAX_JSON_CHARACTERS:
        raise ConfigurationError(f"{len(text):,} characters given; at most {MAX_JSON_CHARACTERS:,} are allowed")
    try:
        value = json.loads(text)
    except ValueError as error:
        # It may be a YAML flow mapping; if it is not, the YAML parser's error message has a line number.
        if len(text) > MAX_YAML_CHARACTERS:
            raise ConfigurationError(f"not JSON: {error}") from error
        yield from _yaml(text, source)
    else:
        yield located(value, Place(source))


def _yaml(text: str, source: str) -> Iterator[Any]:
    if len(text) > MAX_YAML_CHARACTERS:
        raise ConfigurationError(f"{len(text):,} characters given; at most {MAX_YAML_CHARACTERS:,} are allowed")
    yaml = YAML(typ="safe", pure=True)
    yaml.composer.warn_double_anchors = False
    try:
        for node in yaml.compose_all(text):
            value = _Values(yaml, merges=_is_manifest(node)).of(node, Place(source, line=node.start_mark.line + 1))
            if value is not None:
                yield value
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark else ""
        raise ConfigurationError(f"not YAML: {where}{error.problem or error.context}") from error
    except (ConfigurationError, RecursionError):
        raise
    except Exception as error:  # int()'s errors come through as they are, those of invalid characters lack a mark
        raise ConfigurationError(f"not YAML: {' '.join(str(error).split())}") from error


class _Values:
    """Converts nodes into values, and counts them.

    `merges`: the key << adds the values of other mappings, as Kubernetes reads it. To Envoy it is a field's name.
    """

    def __init__(self, yaml: YAML, *, merges: bool) -> None:
        self._yaml = yaml
        self._merges = merges
        self._made = 0

    def of(self, node: Node, place: Place, depth: int = 0) -> Any:  # noqa: ANN401
        self._made += 1
        if self._made > MAX_VALUES:
            raise ConfigurationError(f"more than {MAX_VALUES:,} values, with aliases written out")
        _check_depth(depth)
        if isinstance(node, MappingNode):
            return self._mapping(node, place, depth)
        if isinstance(node, SequenceNode):
            items = [self.of(item, _at(place, at, item), depth + 1) for at, item in enumerate(node.value)]
            return LocatedList(place, items)
        assert isinstance(node, ScalarNode)
        return self._scalar(node)

    def _mapping(self, node: MappingNode, place: Place, depth: int) -> LocatedMap:
        made = LocatedMap(place)
        below: list[LocatedMap] = []
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.tag == _IGNORED:
                continue
            if key.tag == _MERGE_TAG and self._merges:
                below += _mappings(self.of(value, place, depth + 1), line)
                continue
            name = self._name(key)
            if not name or name in made:
                said = f"{name} is given twice" if name else "a key that is not a string"
                raise ConfigurationError(f"line {line}: {said}")
            where = replace(_below(place, name), line=line)
            made[name] = self.of(value, where, depth + 1)
            made.places[name] = where
        for each in below:
            for name in each.keys() - made.keys():
                made[name] = each[name]
                made.places[name] = each.places[name]
        return made

    def _name(self, key: Node) -> str:
        if key.tag == _MERGE_TAG:
            return _MERGE
        return str(self._scalar(key)) if isinstance(key, ScalarNode) else ""

    def _scalar(self, node: ScalarNode) -> object:
        value: object = self._yaml.constructor.construct_object(node)
        # Dates stay strings, as the readers of these files expect.
        return value if isinstance(value, str | int | float | bool | None) else node.value


def _is_manifest(node: Node) -> bool:
    return isinstance(node, MappingNode) and any(key.value == "apiVersion" for key, _ in node.value)


def _mappings(merged: Any, line: int) -> list[LocatedMap]:  # noqa: ANN401
    """Return what a key << names, one mapping or several."""
    found = merged if isinstance(merged, list) else [merged]
    if not all(isinstance(each, LocatedMap) for each in found):
        raise ConfigurationError(f"line {line}: {_MERGE} without a mapping")
    return found


def _at(place: Place, index: int, node: Node) -> Place:
    return replace(_below(place, index), line=node.start_mark.line + 1)


def _below(place: Place, key: str | int) -> Place:
    step = f"[{key}]" if isinstance(key, int) else f".{key}" if place.path else key
    return replace(place, path=place.path + step)
