"""YAML as the configuration is written in it: only true and false are booleans, and no key may be given twice.

YAML 1.1, which PyYAML reads, takes off, no, on and yes for booleans too, and `off` is one of our modes.
"""

import re
from collections.abc import Hashable
from typing import Any

import yaml

from extproc.core.errors import ConfigurationError

__all__ = ["read_document"]

BOOLEAN = "tag:yaml.org,2002:bool"


def read_document(text: str) -> object:
    """Return what a document says, None for an empty one. Raises ConfigurationError."""
    try:
        # It is a SafeLoader: it makes plain values only.
        return yaml.load(text, _Loader)  # noqa: S506
    except ConfigurationError:
        raise
    except Exception as error:  # PyYAML lets out what int(), date() and a deep nesting raise
        raise ConfigurationError(f"not YAML: {' '.join(str(error).split())}") from error


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002  (the base class's signature)
        seen: set[str] = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in seen:
                line = key.start_mark.line + 1
                raise ConfigurationError(f"{name}: given twice, again in line {line}; once is allowed")
            seen.add(name)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != BOOLEAN]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(BOOLEAN, re.compile(r"(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
