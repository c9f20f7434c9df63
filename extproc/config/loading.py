"""From a YAML file to a Configuration; what is wrong is told by field, value and what is allowed, all at once."""

from pathlib import Path

import msgspec

from extproc.config.checks import check
from extproc.config.schema import Configuration
from extproc.config.typed import Reader
from extproc.core.errors import ConfigurationError, shown
from extproc.documents import read_document

__all__ = ["as_json", "load", "parse"]

_SECRETS = {"private_key_file"}


def load(path: Path) -> Configuration:
    """Read a file. Raises ConfigurationError, the file's name in its message."""
    source = f"configuration file {path}"
    try:
        return parse(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(str(error), source=source) from error
    except ConfigurationError as error:
        raise ConfigurationError(*error.sentences, source=source) from error


def parse(text: str) -> Configuration:
    """Decode a document; an empty one is all defaults. Raises ConfigurationError for all that is wrong with it."""
    repeated: list[str] = []
    document = read_document(text, repeated)
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise ConfigurationError(f"{shown(document)} given; a mapping of settings is needed", *repeated)
    reader = Reader()
    configuration: Configuration = reader.read(document, Configuration, "")
    faults = [*repeated, *reader.faults, *check(configuration, reader.faulty)]
    if faults:
        raise ConfigurationError(*faults)
    return configuration


def as_json(configuration: Configuration) -> bytes:
    """Return a configuration as JSON for display; secrets are replaced by ***."""
    return msgspec.json.format(msgspec.json.encode(_redact(msgspec.to_builtins(configuration))), indent=2)


def _redact(value: object) -> object:
    if isinstance(value, dict):
        return {key: "***" if key in _SECRETS and item else _redact(item) for key, item in value.items()}
    return [_redact(item) for item in value] if isinstance(value, list | tuple) else value
