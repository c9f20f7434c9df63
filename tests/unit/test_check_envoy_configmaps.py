"""`dualpool check envoy` on the ConfigMaps by which Envoy gets its bootstrap in Kubernetes."""

import json

import pytest

from extproc.core.errors import ConfigurationError
from extproc.gateways.findings import Finding
from extproc.gateways.inputs import read_gateways
from extproc.gateways.parsing.sources import read
from extproc.gateways.router import Router
from tests.envoy.harness.gateway import FILES
from tests.traps.finding import found_in

STREAMED = (FILES / "streamed.yaml").read_text("utf-8")
CLOSED = STREAMED.replace("failure_mode_allow: true", "failure_mode_allow: false")


def configmap(**data: str) -> str:
    """Return a ConfigMap with this data."""
    return json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "envoy"}, "data": data})


def as_list(text: str) -> str:
    """Return what kubectl prints of several objects."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": [json.loads(text)]})


def told(found: tuple[Finding, ...]) -> list[tuple[str, str, int | None]]:
    """Return the name and place of each trap."""
    return [(each.trap.name, each.place.source, each.place.line) for each in found]


def test_a_bootstrap_in_a_configmap_is_checked() -> None:
    """Each bootstrap in the data counts, alone or in a List; other data does not."""
    assert () == found_in(configmap(envoy=STREAMED, script="static: {{ not YAML"))
    [(_, _, line)] = told(found_in(CLOSED))
    for text in (configmap(envoy=CLOSED), as_list(configmap(envoy=CLOSED))):
        assert [("fail-closed", "file.yaml#envoy", line)] == told(found_in(text))


def test_a_configmap_without_a_bootstrap_holds_no_gateway() -> None:
    """It is told that nothing in it asks the router."""
    with pytest.raises(ConfigurationError, match=r"no ext_proc filter in file\.yaml"):
        found_in(configmap(notes="routes: []"))


def test_a_bootstrap_that_is_not_yaml_is_reported_with_its_place() -> None:
    """Where nothing else asks the router, the fault names the ConfigMap's key, and the line in its text."""
    with pytest.raises(ConfigurationError, match=r"file\.yaml#envoy: not YAML: line 3"):
        found_in(configmap(envoy="static_resources:\n{{ .Values.clusters }}: [\n"))


@pytest.mark.parametrize("text", ["static_resources:\n{{ .Values.clusters }}: [\n", "see static_resources"])
def test_a_text_that_is_no_bootstrap_does_not_end_the_check(text: str) -> None:
    """What mentions a bootstrap, or is a template of one, is told as not checked; all else is checked."""
    found = read_gateways(read(configmap(envoy=CLOSED, notes=text), "file.yaml"), Router())
    [unchecked] = found.unchecked
    assert (1, True) == (len(found.gateways), unchecked.startswith("file.yaml#notes: "))
