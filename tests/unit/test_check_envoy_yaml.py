"""`dualpool check envoy` on what readers of YAML make of a file: Envoy's own, and Kubernetes' for manifests."""

from typing import Final

import pytest

from extproc.core.errors import ConfigurationError
from extproc.gateways.findings import find_traps
from extproc.gateways.inputs import read_gateways
from extproc.gateways.parsing.sources import read
from extproc.gateways.router import Router
from tests.unit.test_check_envoy_manifests import ROOT, names_of

BOOTSTRAP: Final = (ROOT / "envoy/streamed.yaml").read_text("utf-8")
ADMIN: Final = "{socket_address: {address: 127.0.0.1, port_value: 9901}}"
TIMEOUT: Final = "            failure_mode_allow: true\n            message_timeout: 0.5s\n"
MANIFEST: Final = "apiVersion: v1\nkind: x\nshared: &shared {a: 1, b: 2}\nmore: &more {b: 3, c: 4}\n"


def test_keys_that_envoy_ignores() -> None:
    """What is under a key with the tag !ignore is no field: it holds what aliases refer to."""
    text = BOOTSTRAP.replace(ADMIN, "{socket_address: *admin}")
    assert text != BOOTSTRAP
    ignored = f"!ignore sockets:\n  - &admin {{address: 127.0.0.1, port_value: 9901}}\n{text}"
    assert () == find_traps(read_gateways(read(ignored, "file.yaml"), Router()).gateways, Router()).found


@pytest.mark.parametrize(
    ("merge", "held"),
    [
        ("<<: *shared", {"a": 1, "b": 2}),
        ("b: 9, <<: *shared", {"a": 1, "b": 9}),
        ("<<: [*more, *shared], c: 5", {"a": 1, "b": 3, "c": 5}),
        ("<<: {d: 1}", {"d": 1}),
    ],
)
def test_merge_keys_of_manifests(merge: str, held: dict[str, int]) -> None:
    """Those of other mappings are added, as by kubectl: the mapping's own come first, then those named first."""
    (document,) = read(f"{MANIFEST}spec: {{{merge}}}\n", "file.yaml")
    assert held == document["spec"]


def test_merge_keys_of_an_envoy_filter() -> None:
    """They are part of the filter's settings."""
    merged = (
        TIMEOUT.replace("failure", "<<: {message_timeout: 0.5s, failure").split("\n")[0].replace("true", "true}")
    )
    assert set() == names_of("istio", change=lambda text: text.replace(TIMEOUT, f"{merged}\n"))


@pytest.mark.parametrize("merge", ["<<: 1", "<<: [1]", "<<: null"])
def test_merge_keys_without_a_mapping(merge: str) -> None:
    """There is nothing to merge."""
    with pytest.raises(ConfigurationError) as error:
        read(f"{MANIFEST}spec: {{{merge}}}\n", "file.yaml")
    assert "line 5: << without a mapping" in str(error.value)


def test_merge_keys_of_a_bootstrap() -> None:
    """Envoy does not know them: it takes them for a field, which no message has."""
    with pytest.raises(ConfigurationError) as error:
        read_gateways(
            read(BOOTSTRAP.replace("static_resources:\n", "static_resources:\n  <<: {}\n"), "file.yaml"), Router()
        )
    assert "StaticResources has no field <<" in str(error.value)
