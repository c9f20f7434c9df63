"""From a YAML file to a Configuration; what is wrong is told by field, value and what is allowed."""

import dataclasses
import re
import types
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec
import yaml

from extproc.config.schema import Configuration
from extproc.core.errors import ConfigurationError
from extproc.core.policy import Pools

__all__ = ["as_json", "load", "parse"]

# RFC 9110 tokens, lower-case as HTTP/2 has them.
_HEADER_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")
# What goes into a header value and a metric label without quoting.
_POOL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
MAX_PORT = 65_535
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
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"not YAML: {' '.join(str(error).split())}") from error
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise ConfigurationError(f"{document!r} given; a mapping of settings is needed")
    _refuse_unknown(document, Configuration, "")
    try:
        configuration = msgspec.convert(document, Configuration)
    except msgspec.ValidationError as error:
        raise ConfigurationError(_explain(error, document)) from error
    _check_meaning(configuration)
    return configuration


def as_json(configuration: Configuration) -> bytes:
    """Return a configuration as JSON for display; secrets are replaced by ***."""
    return msgspec.json.format(msgspec.json.encode(_redact(msgspec.to_builtins(configuration))), indent=2)


def _check_meaning(configuration: Configuration) -> None:
    """Check what the types do not say."""
    Pools(configuration.pools)
    if not configuration.listen.address.startswith("unix:"):
        _check_address("listen.address", configuration.listen.address)
    _check_address("admin.address", configuration.admin.address)
    for index, pool in enumerate(configuration.pools):
        if not _POOL_NAME.fullmatch(pool.name):
            raise ConfigurationError(
                f"pools[{index}].name: {pool.name!r} given; letters, digits, dots, dashes, at most 63, are allowed"
            )
    names = {f"headers.{key}": value for key, value in dataclasses.asdict(configuration.headers).items()}
    if configuration.tenant_header:
        names["tenant_header"] = configuration.tenant_header
    for field, name in names.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ConfigurationError(f"{field}: {name!r} given; a lower-case header name is needed")
    if len(set(names.values())) < len(names):
        raise ConfigurationError(f"header names must differ from each other: {names} given")


def _check_address(field: str, address: str) -> None:
    """Refuse what is no host and port; gRPC would take a port over 65535 modulo 65536."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > MAX_PORT:
        raise ConfigurationError(f"{field}: {address!r} given; host:port is needed, port from 0 to {MAX_PORT}")


def _refuse_unknown(value: object, wanted: Any, path: str) -> None:  # noqa: ANN401  (a type, of any form)
    """Refuse keys that no field has, with the ones that are allowed; a misspelt setting must not be ignored."""
    if get_origin(wanted) in (Union, types.UnionType):
        wanted = next((arm for arm in get_args(wanted) if dataclasses.is_dataclass(arm)), None)
    if get_origin(wanted) is tuple and isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_unknown(item, get_args(wanted)[0], f"{path}[{index}]")
    if not (dataclasses.is_dataclass(wanted) and isinstance(wanted, type) and isinstance(value, dict)):
        return
    hints = get_type_hints(wanted)
    for key, item in value.items():
        inner = f"{path}.{key}" if path else str(key)
        if key not in hints:
            raise ConfigurationError(f"{inner}: no such setting; allowed here: {', '.join(hints)}")
        _refuse_unknown(item, hints[key], inner)


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
