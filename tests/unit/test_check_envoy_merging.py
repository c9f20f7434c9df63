"""`dualpool check envoy` on EnvoyFilters that merge: Istio does so by the rules of protobuf's messages."""

import json
from typing import Any, Final

import pytest

from extproc.gateways.findings import find_traps
from extproc.gateways.inputs import Read, read_gateways
from extproc.gateways.kubernetes.istio.merging import filter_merged, settings_merged
from extproc.gateways.kubernetes.manifests import made
from extproc.gateways.parsing.sources import Place, read
from extproc.gateways.router import Router
from tests.unit.test_check_envoy_manifests import ROOT, names_of

KINDS: Final = "type.googleapis.com/envoy.extensions."
EXT_PROC: Final = f"{KINDS}filters.http.ext_proc.v3.ExternalProcessor"
PER_ROUTE: Final = f"{KINDS}filters.http.ext_proc.v3.ExtProcPerRoute"
OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
ROUTER: Final = "outbound|9002||dualpool.dualpool.svc.cluster.local"
CHAIN: Final = "envoy.filters.network.http_connection_manager"
OURS: Final = {"listener": {"filterChain": {"filter": {"name": CHAIN, "subFilter": {"name": "dualpool"}}}}}
LONG: Final = {"routeConfiguration": {"vhost": {"route": {"name": "long"}}}}


def patch(kind: str, match: dict[str, Any], value: dict[str, Any]) -> str:
    """Return an EnvoyFilter that merges a value after ours."""
    merge = {"operation": "MERGE", "value": value}
    patches = [{"applyTo": kind, "match": {"context": "GATEWAY", **match}, "patch": merge}]
    metadata = {"name": "later", "namespace": "istio-system"}
    spec = {"priority": 10, "configPatches": patches}
    return json.dumps({"apiVersion": "x/v1", "kind": "EnvoyFilter", "metadata": metadata, "spec": spec})


def found(kind: str, match: dict[str, Any], value: dict[str, Any]) -> set[str]:
    """Return the traps in our manifests with such an EnvoyFilter."""
    return names_of("istio", patch(kind, match, value))


def read_with(later: str) -> Read:
    """Return what is read of our manifests with such an EnvoyFilter."""
    texts = [path.read_text("utf-8") for path in sorted((ROOT / "deploy/istio").glob("*.yaml"))]
    return read_gateways([each for text in [*texts, later] for each in read(text, "file")], Router())


def of_router(**fields: object) -> dict[str, Any]:
    """Return settings for the router's filter."""
    return {"typed_config": {"@type": EXT_PROC, **fields}}


@pytest.mark.parametrize(
    ("fields", "traps"),
    [
        ({"failure_mode_allow": False}, set()),
        ({"disable_immediate_response": "", "failureModeAllow": False}, set()),
        ({"processing_mode": {"request_body_mode": "NONE"}}, set()),
        (
            {"processing_mode": {"request_body_mode": "BUFFERED_PARTIAL"}},
            {"buffered-partial", "router-breakers-small"},
        ),
        ({"message_timeout": "0s"}, {"message-timeout"}),
        ({"mutation_rules": {"disallow_all": False}}, set()),
        ({"allow_mode_override": True}, set()),
    ],
)
def test_a_default_changes_nothing(fields: dict[str, Any], traps: set[str]) -> None:
    """A patch cannot take back what another one has set, but durations are replaced."""
    assert traps == found("HTTP_FILTER", OURS, of_router(**fields)) - {"buffer-below-body-cap", "upgrade-hangs"}


def test_only_the_name_and_the_settings_of_a_filter_are_merged() -> None:
    """Whether a filter is disabled stays as it was."""
    assert set() == found("HTTP_FILTER", OURS, {"disabled": False})
    assert {"pool-without-route"} == found("HTTP_FILTER", OURS, {"name": "other"})  # no route enables that one


def test_a_filter_without_settings_is_left_alone() -> None:
    """Istio skips it."""
    base = made(Place("file.yaml"), name="a")
    assert base == filter_merged(base, made(Place("file.yaml"), name="b", **of_router()))


@pytest.mark.parametrize(
    ("name", "value", "cluster"),
    [
        ("cluster_header", "x-pool", "(by the header x-pool)"),
        ("weightedClusters", {"clusters": [{"name": "a", "weight": 1}]}, "a"),
    ],
)
def test_a_choice_replaces_the_one_before(name: str, value: object, cluster: str) -> None:
    """A route that is sent elsewhere no longer goes to its former cluster: where it goes is not known."""
    held = read_with(patch("HTTP_ROUTE", LONG, {"route": {name: value}}))
    (said,) = held.unchecked
    assert f"clusters are not in the input, and so are not checked: {cluster}" in said
    assert () == find_traps(held.gateways, Router()).found


def test_an_entry_of_a_map_is_replaced() -> None:
    """The settings of a filter on a route are the last patch's, whole."""
    off = {"typed_per_filter_config": {"dualpool": {"@type": PER_ROUTE, "disabled": True}}}
    assert "pool-without-route" in found("HTTP_ROUTE", LONG, off)


def test_protocol_options_are_replaced() -> None:
    """A patch of a cluster's idle timeout alone leaves nothing of HTTP/2."""
    idle = {"@type": f"{KINDS}{OPTIONS.removeprefix('envoy.extensions.')}"}
    value = {"typed_extension_protocol_options": {OPTIONS: {**idle, "common_http_protocol_options": {}}}}
    assert "router-without-http2" in found("CLUSTER", {"cluster": {"name": ROUTER}}, value)


@pytest.mark.parametrize("name", ["a.B", "envoy.extensions.filters.http.buffer.v3.Newer"])
def test_settings_of_an_unknown_type_stay(name: str) -> None:
    """They cannot be merged without their message."""
    base = made(Place("file.yaml"), **{"@type": f"type.googleapis.com/{name}", "c": 1})
    assert base == settings_merged(base, made(Place("file.yaml"), c=2))


def test_settings_in_a_typed_struct_are_not_merged() -> None:
    """Istio would take the struct's own fields for those of the filter; the patch is said not to be checked."""
    struct = {"@type": "type.googleapis.com/xds.type.v3.TypedStruct", "type_url": EXT_PROC, "value": {}}
    held = read_with(patch("HTTP_FILTER", OURS, {"typed_config": struct}))
    (said,) = held.unchecked
    assert "the patch (MERGE HTTP_FILTER) is not applied" in said
    assert () == find_traps(held.gateways, Router()).found
