"""`dualpool check envoy` on fields of Envoy 1.40 that the messages with which it is parsed do not have."""

import json
from copy import deepcopy
from typing import Any

import pytest

from extproc.core.errors import ConfigurationError
from extproc.gateways.findings import Findings, find_traps
from extproc.gateways.inputs import read_gateways
from extproc.gateways.parsing.sources import read
from extproc.gateways.router import Router
from tests.envoy.harness.gateway import Document, cluster, ext_proc, load, route, virtual_host
from tests.traps.bitten import bitten
from tests.unit.test_check_envoy_versions import dump_of

COOKIES = [{"name": "beta", "string_match": {"exact": "1"}}]


def checked(document: Document) -> Findings:
    """Return what is found, and what is not checked."""
    found = read_gateways(read(json.dumps(document), "file.yaml"), Router())
    return find_traps(found.gateways, Router(), found.unchecked)


@pytest.mark.parametrize("name", ["detect_degraded_hosts", "detectDegradedHosts"])
def test_a_newer_field_is_no_misspelled_one(name: str) -> None:
    """The rest is checked, and the field is named as not checked; in a dump it goes without saying."""
    document = bitten("fail-closed")
    cluster(document, "pool_long")["outlier_detection"] = {name: True}
    ext_proc(document)["allow_content_length_header"] = True
    findings = checked(document)
    assert ["fail-closed"] == [each.trap.name for each in findings.found]
    names = ["ExternalProcessor.allow_content_length_header", f"OutlierDetection.{name}"]
    said = "is a field newer than those that are known here, or has such a value, and so is not checked"
    assert [f"file.yaml: {each} {said}" for each in names] == list(findings.unchecked)
    assert () == checked(dump_of(document, (1, 40))).unchecked


def with_policy(given: str) -> Document:
    """Return a configuration whose long pool asks for TLS with this policy, too."""
    document = load("streamed")
    kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
    tls = {"@type": kind, "common_tls_context": {"tls_params": {"compliance_policies": ["FIPS_202205", given]}}}
    cluster(document, "pool_long")["transport_socket"] = {"name": "tls", "typed_config": tls}
    return document


@pytest.mark.parametrize("given", ["CNSA1_202603", "cnsa2_202603"])
def test_a_newer_value_is_no_misspelled_one(given: str) -> None:
    """The field that has it is named as not checked."""
    (said,) = checked(with_policy(given)).unchecked
    assert "TlsParameters.compliance_policies is a field newer" in said


def test_a_misspelled_value_is_still_an_error() -> None:
    """Only Envoy's own values are let through."""
    with pytest.raises(ConfigurationError, match="CNSA3"):
        checked(with_policy("CNSA3_202603"))


def test_a_misspelled_field_is_still_an_error() -> None:
    """Only Envoy's own fields are let through."""
    document = load("streamed")
    cluster(document, "pool_long")["outlier_detection"] = {"detect_degradedhosts": True}
    with pytest.raises(ConfigurationError, match="no field detect_degradedhosts"):
        checked(document)


@pytest.mark.parametrize("version", [None, (1, 40)])
@pytest.mark.parametrize("more", [{}, {"dynamic_metadata": [{"filter": "x", "path": [{"key": "y"}]}]}])
@pytest.mark.parametrize(("same", "found"), [(False, []), (True, ["pool-without-route"])])
def test_cookies_are_a_condition(version: Any, more: Document, *, same: bool, found: list[str]) -> None:
    """A route for some cookies leaves the other requests, and hides a pool's route for the same ones."""
    document = load("streamed")
    beta = deepcopy(route(document, "long")) | {"name": "beta"}
    beta["match"] |= {"cookies": COOKIES, **deepcopy(more)}
    virtual_host(document)["routes"].insert(0, beta)
    if same:
        route(document, "short")["match"] |= {"cookies": COOKIES, **deepcopy(more)}
    findings = checked(dump_of(document, version) if version else document)
    assert (found, ()) == ([each.trap.name for each in findings.found], findings.unchecked)
