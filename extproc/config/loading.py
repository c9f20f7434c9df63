"""Loading YAML into a Configuration; all faults are reported at once, with field, value and what is allowed."""

from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec

from extproc.config.checks import check
from extproc.config.schema import Configuration
from extproc.config.typed import Reader
from extproc.core.errors import ConfigurationError, shown
from extproc.documents import MAX_CHARACTERS, read_document, text_of
from extproc.files import read_file

__all__ = ["MAX_CONFIGURATION_BYTES", "as_json", "decode", "fingerprint", "load", "parse", "parse_shown"]

# A character takes at most four bytes in UTF-8.
MAX_CONFIGURATION_BYTES: Final = 4 * MAX_CHARACTERS
_SECRETS = {"private_key_file"}
# The keys that /config shows in addition to the settings.
_NOT_SETTINGS = {"reload", "workers"}


def load(path: Path | None) -> Configuration:
    """Read a configuration file; without one, all settings have their defaults.

    Raises ConfigurationError with the file's name in its message.
    """
    if path is None:
        return Configuration()
    try:
        content = read_file(path, MAX_CONFIGURATION_BYTES)
    except OSError as error:
        raise ConfigurationError(str(error), source=_source(path)) from error
    return decode(content, path)


def decode(content: bytes, path: Path) -> Configuration:
    """Decode the content of a file. Raises ConfigurationError with the file's name in its message."""
    try:
        return parse(text_of(content))
    except ConfigurationError as error:
        raise ConfigurationError(*error.sentences, source=_source(path)) from error


def parse(text: str) -> Configuration:
    """Decode a document; an empty one means all defaults. Raises ConfigurationError that lists all faults."""
    repeated: list[str] = []
    document = read_document(text, repeated)
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise ConfigurationError(f"{shown(document)} given; allowed: a mapping of settings", *repeated)
    reader = Reader()
    configuration: Configuration = reader.read(document, Configuration, "")
    faults = [*repeated, *reader.faults, *check(configuration, reader.faulty)]
    if faults:
        raise ConfigurationError(*faults)
    return configuration


def parse_shown(text: str) -> Configuration:
    """Decode a running router's /config. Raises ConfigurationError as `parse` does."""
    try:
        document = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return parse(text)  # which reports what is wrong with it
    if isinstance(document, dict):
        document = {key: item for key, item in document.items() if key not in _NOT_SETTINGS}
    return parse(msgspec.json.encode(document).decode())


def as_json(configuration: Configuration, **more: object) -> bytes:
    """Return a configuration as JSON for display, followed by `more`; secrets are replaced by ***."""
    shown = msgspec.to_builtins(configuration) | more
    return msgspec.json.format(msgspec.json.encode(_redact(shown)), indent=2)


def fingerprint(configuration: Configuration) -> bytes:
    """Return a digest of all settings except those that differ between the processes of one router."""
    listen = replace(configuration.listen, address="", health_address="")
    state = replace(configuration.state, path="")
    return sha256(as_json(replace(configuration, listen=listen, state=state))).digest()


def _source(path: Path) -> str:
    return f"configuration file {path}"


def _redact(value: object) -> object:
    if isinstance(value, dict):
        return {key: "***" if key in _SECRETS and item else _redact(item) for key, item in value.items()}
    return [_redact(item) for item in value] if isinstance(value, list | tuple) else value
