"""`dualpool check envoy` on EnvoyFilters with the other spelling of Envoy's fields, or with a TypedStruct."""

import re
from typing import Final

import pytest

from extproc.gateways.findings import find_traps
from extproc.gateways.inputs import read_gateways
from extproc.gateways.parsing.sources import read
from extproc.gateways.router import Router
from tests.unit.test_check_envoy_manifests import ROOT, names_of
from tests.unit.test_check_envoy_scopes import CUT, EGRESS, MANAGER, PATCH

FIELD: Final = re.compile(r"\b([a-z]+)((?:_[a-z0-9]+)+)(?=:)")
TYPED: Final = re.compile(r'^( +)("@type": )(\S+ExternalProcessor)\n((?:\1.*\n)+)', re.MULTILINE)
WITH_TIMEOUT: Final = """
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: more, namespace: istio-system}
spec:
  priority: 10
  configPatches:
    - applyTo: HTTP_ROUTE
      match: {context: GATEWAY, routeConfiguration: {vhost: {route: {name: long}}}}
      patch: {operation: MERGE, value: {route: {%s: 600s}}}
"""


def camel(text: str) -> str:
    """Return a text with its fields in lowerCamelCase."""
    return FIELD.sub(lambda found: found[1] + "".join(word.capitalize() for word in found[2].split("_")), text)


def packed(text: str) -> str:
    """Return a text with the settings of the router's filter in a TypedStruct."""

    def pack(found: re.Match[str]) -> str:
        margin, key, url, fields = found.groups()
        struct = (
            f"{margin}{key}type.googleapis.com/udpa.type.v1.TypedStruct\n{margin}type_url: {url}\n{margin}value:\n"
        )
        return struct + "".join(f"  {line}\n" for line in fields.splitlines())

    return TYPED.sub(pack, text)


@pytest.mark.parametrize("gateway", ["istio", "istio in sidecars", "istio with the Gateway API"])
def test_both_spellings_of_fields_mean_the_same(gateway: str) -> None:
    """Istio reads patches as protobuf's JSON, which has lowerCamelCase as well: none of them is lost."""
    assert set() == names_of(gateway, change=camel)


@pytest.mark.parametrize("name", ["idle_timeout", "idleTimeout"])
def test_a_field_that_two_patches_spell_differently(name: str) -> None:
    """The later patch replaces what the earlier one says, instead of naming the same field twice."""
    assert set() == names_of("istio", WITH_TIMEOUT % name)
    assert set() == names_of("istio", WITH_TIMEOUT % name, change=camel)


@pytest.mark.parametrize("change", [packed, lambda text: camel(packed(text))])
def test_the_router_s_filter_in_a_typed_struct(change: object) -> None:
    """It is known as the router's, so that patches of other workloads do not count."""
    assert callable(change)
    text = change((ROOT / "deploy/istio/envoyfilter.yaml").read_text("utf-8"))
    assert "TypedStruct" in text
    other = PATCH.format(
        metadata="namespace: egress", spec=EGRESS, match="context: GATEWAY", manager=MANAGER, cut=CUT
    )
    routes = (ROOT / "deploy/istio/routes.yaml").read_text("utf-8")
    documents = [each for part in (text, routes, other) for each in read(part, "file.yaml")]
    found = read_gateways(documents, Router())
    assert () == found.unchecked
    assert set() == {each.trap.name for each in find_traps(found.gateways, Router()).found}
