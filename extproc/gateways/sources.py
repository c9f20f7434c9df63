"""Text to plain values that know where they were written: each mapping and list has its place.

YAML is composed to nodes, which know their lines, and the values are made of those; a file may hold several
documents. JSON, which is what admin ports serve and may be megabytes long, has paths but no lines. Both are
bounded: in characters, in values (an alias counts each time it is used) and in depth.
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
# Far more than such a text has without aliases; with them, seconds.
MAX_VALUES: Final = 500_000
MAX_DEPTH: Final = 100


@dataclass(frozen=True, slots=True)
class Place:
    """Where something was written: a file or an address, the path in it, and the line where there is one."""

    source: str = ""
    path: str = ""
    line: int | None = None

    def __str__(self) -> str:
        if self.line is not None:
            return f"{self.source}:{self.line}"
        return f"{self.source}: {self.path}" if self.path else self.source


class LocatedMap(dict[str, Any]):
    """A mapping that knows its place, and those of its values that are no mapping or list."""

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
    """Return the documents in a text, empty ones left out.

    Raises ConfigurationError for what is neither YAML nor JSON, too large, or no mapping.
    """
    try:
        documents = list(_json(text, source) if text.lstrip().startswith("{") else _yaml(text, source))
    except ConfigurationError as error:
        raise ConfigurationError(*error.sentences, source=source) from error
    except RecursionError as error:
        raise ConfigurationError("nested too deeply", source=source) from error
    wrong = [each for each in documents if not isinstance(each, LocatedMap)]
    if wrong:
        raise ConfigurationError("a document that is no mapping", source=source)
    return documents


def located(value: object, place: Place) -> Any:  # noqa: ANN401  (whatever JSON can hold)
    """Return plain values as values that know their place, each below the last."""
    if isinstance(value, dict):
        made = LocatedMap(place)
        for key, item in value.items():
            made[str(key)] = located(item, _below(place, str(key)))
        return made
    if isinstance(value, list):
        return LocatedList(place, [located(item, _below(place, at)) for at, item in enumerate(value)])
    return value


def _json(text: str, source: str) -> Iterator[Any]:
    if len(text) > MAX_JSON_CHARACTERS:
        raise ConfigurationError(f"{len(text):,} characters given; at most {MAX_JSON_CHARACTERS:,} are allowed")
    try:
        value = json.loads(text)
    except ValueError as error:
        # A flow mapping is YAML, too; who wrote one by hand is told of the line.
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
            value = _Values(yaml).of(node, Place(source, line=node.start_mark.line + 1))
            if value is not None:
                yield value
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark else ""
        raise ConfigurationError(f"not YAML: {where}{error.problem or error.context}") from error
    except (ConfigurationError, RecursionError):
        raise
    except Exception as error:  # the library lets out what int() raises, and has no mark for wrong characters
        raise ConfigurationError(f"not YAML: {' '.join(str(error).split())}") from error


class _Values:
    """Makes the values of nodes, and counts them."""

    def __init__(self, yaml: YAML) -> None:
        self._yaml = yaml
        self._made = 0

    def of(self, node: Node, place: Place, depth: int = 0) -> Any:  # noqa: ANN401
        self._made += 1
        if self._made > MAX_VALUES:
            raise ConfigurationError(f"more than {MAX_VALUES:,} values, with aliases written out")
        if depth > MAX_DEPTH:
            raise ConfigurationError(f"nested too deeply; at most {MAX_DEPTH} levels are allowed")
        if isinstance(node, MappingNode):
            return self._mapping(node, place, depth)
        if isinstance(node, SequenceNode):
            items = [self.of(item, _at(place, at, item), depth + 1) for at, item in enumerate(node.value)]
            return LocatedList(place, items)
        assert isinstance(node, ScalarNode)
        return self._scalar(node)

    def _mapping(self, node: MappingNode, place: Place, depth: int) -> LocatedMap:
        made = LocatedMap(place)
        for key, value in node.value:
            name = str(self._scalar(key)) if isinstance(key, ScalarNode) else ""
            line = key.start_mark.line + 1
            if not name or name in made:
                said = f"{name} is given twice" if name else "a key that is no word"
                raise ConfigurationError(f"line {line}: {said}")
            where = replace(_below(place, name), line=line)
            made[name] = self.of(value, where, depth + 1)
            made.places[name] = where
        return made

    def _scalar(self, node: ScalarNode) -> object:
        value: object = self._yaml.constructor.construct_object(node)
        # Dates are strings to those who read these files.
        return value if isinstance(value, str | int | float | bool | None) else node.value


def _at(place: Place, index: int, node: Node) -> Place:
    return replace(_below(place, index), line=node.start_mark.line + 1)


def _below(place: Place, key: str | int) -> Place:
    step = f"[{key}]" if isinstance(key, int) else f".{key}" if place.path else key
    return replace(place, path=place.path + step)
