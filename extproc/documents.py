"""Loading of YAML 1.2 documents as plain values with ruamel.yaml, with bounds that hold for any input.

Before values are constructed, a document is measured with its aliases expanded: an alias costs nothing to read,
but aliases of aliases multiply for code that walks through the values ("billion laughs"), and some never end.
"""

import re
from collections.abc import Iterator
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.resolver import VersionedResolver

from extproc.core.errors import ConfigurationError, shown

__all__ = ["MAX_CHARACTERS", "read_document", "text_of"]

MAX_CHARACTERS = 128 * 1024
MAX_VALUES = 20_000
MAX_DEPTH = 32
MAX_SHOWN = 100

# Numbers of YAML 1.1 that 1.2 does not have but ruamel.yaml reads: octal with a leading 0, binary, with
# underscores.
_OLD_NUMBER = re.compile(r"[-+]?0[0-9b]|.*_")
_SURROGATE = re.compile("[\ud800-\udfff]")
_KINDS = {f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "merge")}


def text_of(content: bytes) -> str:
    """Return the text of a file. Raises ConfigurationError, without the file's name, if it is not UTF-8."""
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(
            f"not UTF-8, which is needed: byte {content[error.start]:#04x} in line {line}"
        ) from error


def read_document(text: str, repeated: list[str] | None = None) -> object:
    """Return the value of a document, None for an empty one.

    Raises ConfigurationError for a text that is not YAML or too large, and for duplicate keys. If `repeated` is a
    list, one sentence per duplicate key is added to it instead, and the document is read nevertheless.
    """
    if len(text) > MAX_CHARACTERS:
        raise ConfigurationError(f"{len(text):,} characters given; at most {MAX_CHARACTERS:,} are allowed")
    try:
        document, found = _read(text)
    except ConfigurationError:
        raise
    except RecursionError as error:
        raise ConfigurationError(_TOO_DEEP) from error
    except MarkedYAMLError as error:
        raise ConfigurationError(f"not YAML: {_explain(error)}") from error
    except Exception as error:  # the library does not catch what int() raises
        raise ConfigurationError(f"not YAML: {' '.join(str(error).split())}") from error
    if repeated is None and found:
        raise ConfigurationError(*found)
    if repeated is not None:
        repeated += found
    return document


def _read(text: str) -> tuple[object, list[str]]:
    yaml = YAML(typ="safe", pure=True)
    yaml.Resolver = _Resolver
    yaml.allow_duplicate_keys = True  # _Survey reports all of them
    yaml.composer.warn_double_anchors = False
    node = yaml.compose(text)
    if node is None:
        return None, []
    survey = _Survey(node)
    return yaml.constructor.construct_document(node), survey.repeated


_TOO_DEEP = f"nested too deeply; at most {MAX_DEPTH} levels are allowed, and no alias of itself"


class _Resolver(VersionedResolver):
    """Resolves plain scalars by YAML 1.2's core schema, all others to strings.

    It does so even if the document declares another version.
    """

    processing_version = (1, 2)

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:  # noqa: ANN401  (the base class's signature)
        tag = super().resolve(kind, value, implicit)
        if kind is not ScalarNode or not implicit[0] or (str(tag) in _KINDS and not _OLD_NUMBER.match(value)):
            return tag
        return self.DEFAULT_SCALAR_TAG


class _Survey:
    """A walk over a document's nodes; each is visited once, however many aliases it has.

    Raises ConfigurationError if the document is too large or too deep, or if a key is not a scalar.
    """

    def __init__(self, root: Node) -> None:
        self.repeated: list[str] = []
        self._measured: dict[Node, tuple[int, int]] = {}
        values, depth = self._measure(root, "")
        if depth > MAX_DEPTH:
            raise ConfigurationError(_TOO_DEEP)
        if values > MAX_VALUES:
            raise ConfigurationError(f"more than {MAX_VALUES:,} values, with aliases written out")

    def _measure(self, node: Node, path: str) -> tuple[int, int]:
        """Return the number of values in a node, including the node itself, and their depth."""
        if node not in self._measured:
            if isinstance(node, ScalarNode) and _SURROGATE.search(node.value):
                line = node.start_mark.line + 1
                raise ConfigurationError(f"half of a surrogate pair in line {line}, which is not a character")
            self._measured[node] = MAX_VALUES + 1, MAX_DEPTH + 1  # the result for a node within itself
            inner = [self._measure(child, place) for child, place in self._children(node, path)]
            values = 1 + sum(values for values, _ in inner)
            self._measured[node] = min(values, MAX_VALUES + 1), 1 + max((depth for _, depth in inner), default=0)
        return self._measured[node]

    def _children(self, node: Node, path: str) -> Iterator[tuple[Node, str]]:
        if isinstance(node, SequenceNode):
            for index, item in enumerate(node.value):
                yield item, f"{path}[{index}]"
        elif isinstance(node, MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                line = key.start_mark.line + 1
                if not isinstance(key, ScalarNode):
                    raise ConfigurationError(f"a list or mapping given as a key in line {line}; a word is needed")
                self._measure(key, path)
                place = f"{path}.{key.value}" if path else key.value
                if key.value in seen:
                    name = place if len(place) <= MAX_SHOWN else shown(place)
                    self.repeated.append(f"{name}: given twice, again in line {line}; once is allowed")
                seen.add(key.value)
                yield value, place


def _explain(error: MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    said = " ".join(f"{error.context or ''} {error.problem or ''}".split())
    return said if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: {said}"
