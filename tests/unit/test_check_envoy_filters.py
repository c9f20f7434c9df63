"""`dualpool check envoy` on filters that are switched per route, or written in other ways."""

import json
from typing import Any, Final

import pytest

from extproc.core.errors import ConfigurationError
from extproc.gateways.inputs import read_gateways
from extproc.gateways.parsing.sources import read
from extproc.gateways.router import Router
from tests.envoy.harness.gateway import FILES, Document, connection_manager, ext_proc, load, route, virtual_host
from tests.traps.bitten import bitten
from tests.traps.finding import names_in

STRUCTS = ["udpa.type.v1.TypedStruct", "xds.type.v3.TypedStruct"]


def switched(name: str, *, disabled: bool) -> dict[str, Any]:
    """Return the settings of a route or host that switch a filter."""
    kind = "type.googleapis.com/envoy.config.route.v3.FilterConfig"
    said: dict[str, Any] = {"disabled": True} if disabled else {"config": {}}
    return {name: {"@type": kind, **said}}


def filter_called(document: Document, name: str) -> Document:
    """Return a filter of the chain."""
    found: Document = next(each for each in connection_manager(document)["http_filters"] if each["name"] == name)
    return found


def as_struct(document: Document, name: str, kind: str, field: str) -> None:
    """Write a filter's settings as Envoy accepts them from control planes that do not know their type."""
    chosen = filter_called(document, name)
    settings = chosen["typed_config"]
    url = settings.pop("@type")
    chosen["typed_config"] = {"@type": f"type.googleapis.com/{kind}", field: url, "value": settings}


@pytest.mark.parametrize("trap", ["decompressor-after", "decompressor-before"])
def test_a_filter_that_the_host_enables_is_on(trap: str) -> None:
    """A filter that is off in the chain counts where a route or host enables it."""
    document = bitten(trap)
    filter_called(document, "decompressor")["disabled"] = True
    assert set() == names_in(document)
    virtual_host(document).setdefault("typed_per_filter_config", {}).update(
        switched("decompressor", disabled=False)
    )
    assert {trap} == names_in(document)


def test_a_filter_that_the_host_disables_is_off() -> None:
    """A filter that is on in the chain does not count where it is off, unless a route enables it again."""
    document = bitten("decompressor-after")
    virtual_host(document).setdefault("typed_per_filter_config", {}).update(
        switched("decompressor", disabled=True)
    )
    assert set() == names_in(document)
    route(document, "long").setdefault("typed_per_filter_config", {}).update(
        switched("decompressor", disabled=False)
    )
    assert {"decompressor-after"} == names_in(document)


@pytest.mark.parametrize("kind", STRUCTS)
@pytest.mark.parametrize("field", ["type_url", "typeUrl"])
def test_settings_in_a_struct_are_read(kind: str, field: str) -> None:
    """The router's filter is found, and traps in it and in other filters are, too."""
    document = load("streamed")
    as_struct(document, "envoy.filters.http.ext_proc", kind, field)
    assert set() == names_in(document)
    document = load("streamed")
    ext_proc(document)["failure_mode_allow"] = False
    as_struct(document, "envoy.filters.http.ext_proc", kind, field)
    assert {"fail-closed"} == names_in(document)
    document = bitten("decompressor-after")
    as_struct(document, "decompressor", kind, field)
    assert {"decompressor-after"} == names_in(document)


@pytest.mark.parametrize(
    "rest", [{}, {"type_url": "type.googleapis.com/a.B", "value": {"x": 1}}, {"type_url": "a"}]
)
def test_a_struct_of_unknown_type_is_not_checked(rest: Document) -> None:
    """A control plane's own filter, or one without a type, is reported as one that could not be examined."""
    document = load("streamed")
    settings = {"@type": f"type.googleapis.com/{STRUCTS[0]}", **rest}
    connection_manager(document)["http_filters"].insert(0, {"name": "wasm", "typed_config": settings})
    found = read_gateways(read(json.dumps(document), "file.json"), Router())
    assert any("is not a known Envoy type" in each for each in found.unchecked)


@pytest.mark.parametrize("rest", [{"value": [1]}, {"value": "x"}, {"type_url": 1, "value": {}}])
def test_a_struct_that_is_none_is_a_fault_of_the_file(rest: Document) -> None:
    """What Envoy would refuse is refused with the place, not with a traceback."""
    document = load("streamed")
    settings = {"@type": f"type.googleapis.com/{STRUCTS[1]}", **rest}
    connection_manager(document)["http_filters"].insert(0, {"name": "wasm", "typed_config": settings})
    with pytest.raises(ConfigurationError, match=r"file\.json"):
        read_gateways(read(json.dumps(document), "file.json"), Router())


def test_settings_from_elsewhere_are_not_checked() -> None:
    """A filter that Envoy gets from a discovery service is reported as one that could not be examined."""
    document = load("streamed")
    elsewhere = {"name": "wasm", "config_discovery": {"config_source": {"ads": {}}, "type_urls": ["a/b"]}}
    connection_manager(document)["http_filters"].insert(0, elsewhere)
    resources = read_gateways(read(json.dumps(document), "file.json"), Router())
    assert any('the filter "wasm"' in each for each in resources.unchecked)


def test_a_server_outside_of_envoy_s_clusters_is_not_checked() -> None:
    """Envoy's other gRPC client has no cluster, so the traps of the router's cluster cannot be looked for."""
    document = load("streamed")
    ext_proc(document)["grpc_service"] = {
        "google_grpc": {"target_uri": "dualpool:9002", "stat_prefix": "dualpool"}
    }
    found = read_gateways(read(json.dumps(document), "file.json"), Router())
    assert any("not reached through envoy_grpc" in each for each in found.unchecked)


MANAGER: Final = "name: envoy.filters.network.http_connection_manager"


@pytest.mark.parametrize(
    ("kind", "operation", "reported"),
    [
        ("HTTP_ROUTE", "REMOVE", True),
        ("HTTP_ROUTE", "INSERT_FIRST", True),
        ("VIRTUAL_HOST", "REPLACE", True),
        ("CLUSTER", "REMOVE", True),
        ("NETWORK_FILTER", "REPLACE", True),
        ("HTTP_FILTER", "REMOVE", False),
        ("HTTP_FILTER", "REPLACE", False),
        ("HTTP_FILTER", "MERGE", False),
        ("ROUTE_CONFIGURATION", "MERGE", False),
    ],
)
def test_patches_that_are_not_applied_are_reported(kind: str, operation: str, reported: bool) -> None:  # noqa: FBT001
    """What an EnvoyFilter removes or replaces but for HTTP filters is not known, and said not to be checked."""
    ours = [path.read_text("utf-8") for path in sorted((FILES.parent / "deploy/istio").glob("*.yaml"))]
    other = f"""
        apiVersion: networking.istio.io/v1alpha3
        kind: EnvoyFilter
        metadata: {{name: other, namespace: istio-system}}
        spec:
          configPatches:
            - applyTo: {kind}
              match: {{listener: {{filterChain: {{filter: {{{MANAGER}, subFilter: {{name: other}}}}}}}}}}
              patch: {{operation: {operation}, value: {{name: other}}}}
    """
    found = read_gateways([each for text in (*ours, other) for each in read(text, "file.yaml")], Router())
    assert reported is any(f"({operation} {kind}) is not applied" in each for each in found.unchecked)
    assert len(found.unchecked) == reported
