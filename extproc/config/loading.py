"""From a YAML file to a Configuration; what is wrong is told by field, value and what is allowed."""

import dataclasses
import re
import types
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from extproc.config.checks import check
from extproc.config.document import read_document
from extproc.config.schema import Configuration
from extproc.core.errors import ConfigurationError

__all__ = ["as_json", "load", "parse"]

# What a float holds exactly.
MAX_NUMBER = 2**53
_SECRETS = {"private_key_file"}


def load(path: Path) -> Configuration:
    """Read a file. Raises ConfigurationError, the file's name in its message."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"configuration file {path}: {error}") from error
    try:
        return parse(text)
    except ConfigurationError as error:
        raise ConfigurationError(f"configuration file {path}: {error}") from error


def parse(text: str) -> Configuration:
    """Decode a document; an empty one is all defaults. Raises ConfigurationError."""
    document = read_document(text)
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise ConfigurationError(f"{document!r} given; a mapping of settings is needed")
    _refuse(document, Configuration, "")
    try:
        configuration = msgspec.convert(document, Configuration)
    except msgspec.ValidationError as error:
        raise ConfigurationError(_explain(error, document)) from error
    check(configuration)
    return configuration


def as_json(configuration: Configuration) -> bytes:
    """Return a configuration as JSON for display; secrets are replaced by ***."""
    return msgspec.json.format(msgspec.json.encode(_redact(msgspec.to_builtins(configuration))), indent=2)


def _refuse(value: object, wanted: Any, path: str) -> None:  # noqa: ANN401  (a type, of any form)
    """Refuse keys that no field has, words that no choice has, each with what is allowed, and endless numbers."""
    if isinstance(value, int | float) and not abs(value) <= MAX_NUMBER:  # so that it takes nan too
        shown = value if isinstance(value, float) else f"a number of {value.bit_length()} bits"
        raise ConfigurationError(f"{path}: {shown} given; a finite number, at most 2**53, is needed")
    if (words := _words(wanted)) and value not in words:
        raise ConfigurationError(f"{path}: {value!r} given; allowed are {', '.join(words)}")
    if get_origin(wanted) in (Union, types.UnionType):
        wanted = next((arm for arm in get_args(wanted) if dataclasses.is_dataclass(arm)), None)
    if get_origin(wanted) is tuple and isinstance(value, list):
        for index, item in enumerate(value):
            _refuse(item, get_args(wanted)[0], f"{path}[{index}]")
    if not (dataclasses.is_dataclass(wanted) and isinstance(wanted, type) and isinstance(value, dict)):
        return
    hints = get_type_hints(wanted)
    for key, item in value.items():
        inner = f"{path}.{key}" if path else str(key)
        if key not in hints:
            raise ConfigurationError(f"{inner}: no such setting; allowed here: {', '.join(hints)}")
        _refuse(item, hints[key], inner)


def _words(wanted: Any) -> tuple[str, ...]:  # noqa: ANN401
    """Return the words that a setting of this type may be; none for other types."""
    if get_origin(wanted) is Literal:
        return get_args(wanted)
    return tuple(wanted) if isinstance(wanted, type) and issubclass(wanted, Enum) else ()


def _explain(error: msgspec.ValidationError, document: object) -> str:
    """Turn msgspec's message around: field, value, what is allowed."""
    expected, _, path = str(error).partition(" - at `$")
    path = path.rstrip("`")
    value: Any = document
    for name, index in re.findall(r"\.(\w+)|\[(\d+)\]", path):
        value = value.get(name) if name and isinstance(value, dict) else value
        value = value[int(index)] if index and isinstance(value, list) else value
    expected = expected[:1].lower() + expected[1:]
    return f"{path.lstrip('.') or 'the document'}: {value!r} given; {expected}"


def _redact(value: object) -> object:
    if isinstance(value, dict):
        return {key: "***" if key in _SECRETS and item else _redact(item) for key, item in value.items()}
    return [_redact(item) for item in value] if isinstance(value, list | tuple) else value
