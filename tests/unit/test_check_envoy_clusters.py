"""`dualpool check envoy` on clusters whose servers come from extensions, and on those without any."""

import json

import pytest

from extproc.gateways.findings import find_traps
from extproc.gateways.inputs import read_gateways
from extproc.gateways.parsing.sources import read
from extproc.gateways.router import Router
from tests.envoy.harness.gateway import Document, cluster, load, route
from tests.traps.finding import names_in
from tests.traps.own_clusters import by_attempt, dns_by_extension, scaled_to_zero
from tests.unit.test_check_envoy_manifests import names_of


@pytest.mark.parametrize(("one_address", "found"), [(True, {"cluster-ip"}), (False, set())])
def test_dns_by_an_extension(one_address: bool, found: set[str]) -> None:  # noqa: FBT001
    """envoy.cluster.dns is LOGICAL_DNS or STRICT_DNS, by one of its fields."""
    document = load("streamed")
    dns_by_extension(document, one_address=one_address)
    assert found == names_in(document)


def test_an_extension_that_chooses_the_pool() -> None:
    """It may repair what the short pool refuses: that is not known, and is said."""
    document = load("streamed")
    by_attempt(document)
    gateways = read_gateways(read(json.dumps(document), "file.yaml"), Router())
    findings = find_traps(gateways.gateways, Router(), gateways.unchecked)
    assert () == findings.found
    said = "an extension chooses the servers of these clusters, and so are not checked: short_then_long"
    assert any(each.endswith(said) for each in findings.unchecked)


def test_pools_that_are_scaled_to_zero() -> None:
    """Two pools without servers are still two pools."""
    document = load("streamed")
    scaled_to_zero(document)
    assert set() == names_in(document)


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ([], {"repair-limit"}),
        ([{"priority": "HIGH"}], {"repair-limit"}),
        ([{"priority": "HIGH", "max_retries": 1024}], set()),
    ],
)
def test_limits_of_a_priority(more: list[Document], found: set[str]) -> None:
    """A route of priority HIGH has the limits of that priority; what the router is asked has the usual ones."""
    document = load("streamed")
    for name in ("short", "long"):
        route(document, name)["route"]["priority"] = "HIGH"
    cluster(document, "short_then_long")["circuit_breakers"]["thresholds"] += more
    assert found == names_in(document)


def test_of_several_wildcards_the_longest_counts() -> None:
    """As in Istio, whatever their order."""
    other = """
        apiVersion: networking.istio.io/v1
        kind: DestinationRule
        metadata: {name: all, namespace: dualpool}
        spec: {host: "*.local"}
    """
    ours = "host: dualpool.dualpool.svc.cluster.local"
    wildcard = "host: '*.dualpool.svc.cluster.local'"
    assert set() == names_of("istio", other, change=lambda text: text.replace(ours, wildcard), first=True)
    assert "router-breakers-large" in names_of("istio", other, change=lambda text: text.replace(ours, "host: a"))
