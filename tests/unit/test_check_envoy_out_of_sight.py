"""`dualpool check envoy` says what it does not follow, instead of passing it, or taking it for a trap."""

import json
from copy import deepcopy
from typing import Any

import pytest

from extproc.core.errors import ConfigurationError
from extproc.gateways.findings import Findings, find_traps
from extproc.gateways.inputs import read_gateways
from extproc.gateways.parsing.sources import read
from extproc.gateways.report import as_json, as_sarif, as_text
from extproc.gateways.router import Router
from tests.envoy.harness.gateway import Document, cluster, connection_manager, load, route, virtual_host
from tests.traps.bitten_chain import EXT_PROC, KINDS, insert
from tests.unit.test_check_envoy_versions import dump_of

ADS: dict[str, Any] = {"config_source": {"ads": {}}}
MATCHER = {"@type": f"{KINDS}.common.matching.v3.ExtensionWithMatcher", "xds_matcher": {}}
COMPOSITE = "composite.v3.Composite"
# Ways to hide a filter's settings from the checker, or when they apply.
HIDDEN = ["config_discovery", "matcher"]


def checked(document: Document) -> Findings:
    """Return what is found, and what is not checked."""
    found = read_gateways(read(json.dumps(document), "file.yaml"), Router())
    return find_traps(found.gateways, Router(), found.unchecked)


def unseen(document: Document) -> str:
    """Return the only thing that is not checked in a document that has no trap."""
    findings = checked(document)
    (said,) = findings.unchecked
    assert () == findings.found
    return said


def hide(document: Document, name: str, how: str) -> None:
    """Hide the settings of an HTTP filter."""
    held = next(each for each in connection_manager(document)["http_filters"] if each["name"] == name)
    settings = held.pop("typed_config")
    if how == "config_discovery":
        held[how] = ADS | {"type_urls": [settings["@type"]]}
    else:
        held["typed_config"] = MATCHER | {"extension_config": {"name": name, "typed_config": settings}}


@pytest.mark.parametrize("how", HIDDEN)
def test_a_router_s_filter_that_is_hidden(how: str) -> None:
    """Nothing can be checked, and the error says why, before the types of a mesh's own that are not known."""
    document = load("streamed")
    for number in range(30):
        insert(document, f"own {number}", "ext_authz.v3.ExtAuthz", before=True)
        connection_manager(document)["http_filters"][number]["typed_config"] = {"@type": "type.googleapis.com/a.B"}
    hide(document, EXT_PROC, how)
    with pytest.raises(ConfigurationError) as error:
        checked(document)
    first, second, *_ = error.value.sentences
    assert first.startswith("no ext_proc filter in file.yaml: ")
    assert f'the filter "{EXT_PROC}"' in second
    assert second in str(error.value)


@pytest.mark.parametrize("how", HIDDEN)
def test_another_filter_that_is_hidden(how: str) -> None:
    """What such a filter after the router's would do is not known."""
    document = load("full-duplex")
    service = {"envoy_grpc": {"cluster_name": "other"}}
    insert(document, "authz", "ext_authz.v3.ExtAuthz", before=False, grpc_service=service)
    hide(document, "authz", how)
    assert 'the filter "authz"' in unseen(document)


def test_a_filter_that_is_chosen_for_each_request() -> None:
    """A composite filter may be any other."""
    document = load("full-duplex")
    insert(document, "any", COMPOSITE, before=False)
    assert 'the filter "any" (Composite) does depends on the request' in unseen(document)


def test_filters_that_depend_on_requests_elsewhere() -> None:
    """Those of a connection manager that does not ask the router, and in them cannot, are of no interest."""
    document = load("streamed")
    other = deepcopy(document["static_resources"]["listeners"][0]) | {"name": "other"}
    kind = f"{KINDS}.filters.http.{COMPOSITE}"
    other["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"] = [
        {"name": "any", "typed_config": {"@type": kind}}
    ]
    document["static_resources"]["listeners"].append(other)
    findings = checked(document)
    assert ((), ()) == (findings.found, findings.unchecked)


def test_listeners_whose_chains_come_from_elsewhere() -> None:
    """Network filters by ECDS and filter chains by FCDS are told; they may ask the router, too."""
    document = load("streamed")
    listeners = document["static_resources"]["listeners"]
    listeners.append({"name": "other", "filter_chains": [{"filters": [{"name": "x", "config_discovery": ADS}]}]})
    assert 'the network filter "x" comes from elsewhere' in unseen(document)
    listeners[1] = {"name": "other", "fcds_config": {}}
    assert "filter chains come from elsewhere" in unseen(document)


def routes_dump(*tables: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a config dump with these route tables."""
    kind = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
    held = [{"route_config": {"@type": kind, **each}} for each in tables]
    return {"@type": "type.googleapis.com/envoy.admin.v3.RoutesConfigDump", "static_route_configs": held}


def test_routes_by_scope() -> None:
    """They are told as not checked, also if the dump has another manager's table, which has no name."""
    document = load("streamed")
    manager = connection_manager(document)
    del manager["route_config"]
    manager["scoped_routes"] = {"name": "x", "scoped_rds": {"scoped_rds_config_source": {"ads": {}}}}
    assert "scoped_routes" in unseen(document)
    dump = dump_of(document, None)
    dump["configs"].append(routes_dump({"virtual_hosts": []}))
    assert "scoped_routes" in unseen(dump)


def test_virtual_hosts_on_demand() -> None:
    """VHDS delivers hosts when they are asked for."""
    document = load("streamed")
    connection_manager(document)["route_config"]["vhds"] = ADS
    assert "virtual hosts come on demand" in unseen(document)


def test_routes_in_a_matcher() -> None:
    """Such a host has no routes in a list, but is not without them."""
    document = load("streamed")
    host = virtual_host(document)
    host["routes"], host["matcher"] = [], {"matcher_list": {}}
    assert 'the routes of the host "pools" are in a matcher' in unseen(document)


@pytest.mark.parametrize(
    ("choice", "named"),
    [
        ({"cluster_header": "x-model"}, "(by the header x-model)"),
        ({"cluster_specifier_plugin": "models"}, "(by the plugin models)"),
        ({"inline_cluster_specifier_plugin": {"extension": {"name": "m"}}}, "(by the plugin of a route)"),
    ],
)
def test_a_default_route_whose_cluster_each_request_chooses(choice: dict[str, Any], named: str) -> None:
    """It may lead to the largest pool, or not."""
    document = load("streamed")
    route(document, "long")["route"] = choice | {"timeout": "0s"}
    assert f"not in the input, and so are not checked: {named}" in unseen(document)


def test_clusters_by_cds() -> None:
    """Whether a cluster that is not in the input has a second pool for repairs is not known."""
    document = load("streamed")
    document["static_resources"]["clusters"] = [cluster(document, "pool_short")]
    assert unseen(document).endswith("not checked: dualpool, pool_long, short_then_long")


def test_servers_by_eds() -> None:
    """The same if the cluster is there without its servers, as in a dump that was taken without them."""
    document = load("streamed")
    held = cluster(document, "short_then_long")
    held.pop("cluster_type")
    eds = {"type": "EDS", "lb_policy": "LEAST_REQUEST", "eds_cluster_config": {"eds_config": {"ads": {}}}}
    held |= eds
    router = cluster(document, "dualpool") | eds
    del router["load_assignment"]
    document["static_resources"]["clusters"][-1] = router
    assert "(a dump with ?include_eds has them): short_then_long" in unseen(document)


def test_thousands_of_clusters_are_not_all_named() -> None:
    """Three are enough to find them by."""
    document = load("streamed")
    for number in range(1_003):
        other = deepcopy(route(document, "long")) | {"name": f"app {number}", "match": {"path": f"/app{number}"}}
        other["route"]["cluster"] = f"app {number}"
        virtual_host(document)["routes"].insert(number, other)
    assert unseen(document).endswith(": app 0, app 1, app 2, 1,000 more")


def test_every_form_of_the_report_says_it() -> None:
    """A report of nothing found may stand for nothing seen: SARIF says so, too, as a notification of the run."""
    document = load("streamed")
    connection_manager(document)["route_config"]["vhds"] = ADS
    findings = checked(document)
    (said,) = findings.unchecked
    (run,) = json.loads(as_sarif(findings))["runs"]
    (invocation,) = run["invocations"]
    assert [f"not checked: {said}"] == [
        each["message"]["text"] for each in invocation["toolExecutionNotifications"]
    ]
    assert [said] == json.loads(as_json(findings))["unchecked"]
    assert f"not checked: {said}" in as_text(findings).splitlines()


@pytest.mark.parametrize("state", ["warming_state", "draining_state", "error_state"])
def test_a_listener_that_is_not_active(state: str) -> None:
    """A listener that waits for its routes, leaves, or was refused serves nobody; others are checked."""
    dump = dump_of(load("streamed"), None)
    dump["configs"][-1]["dynamic_listeners"] = [{"name": "new", state: {}}]
    assert 'the listener "new" is not active (warming, draining or refused)' in unseen(dump)


def test_a_listener_whose_update_was_refused() -> None:
    """What was there before is in force, and is checked."""
    dump = dump_of(load("streamed"), None)
    listeners = dump["configs"][-1]
    listeners["dynamic_listeners"] = [
        {"name": "old", "active_state": each, "error_state": {"details": "no"}}
        for each in listeners.pop("static_listeners")
    ]
    findings = checked(dump)
    assert (1, (), ()) == (findings.gateways, findings.found, findings.unchecked)


PROGRAMS = {
    "wasm.v3.Wasm": {},
    "dynamic_modules.v3.DynamicModuleFilter": {},
    "lua.v3.Lua": {"default_source_code": {"filename": "/etc/envoy/a.lua"}},
}


@pytest.mark.parametrize("kind", PROGRAMS)
def test_programs_of_filters(kind: str) -> None:
    """After the router's filter they may hold requests or change its header; before it that does not matter."""
    document = load("full-duplex")
    insert(document, "program", kind, before=True, **PROGRAMS[kind])
    assert () == checked(document).unchecked
    insert(document, "other program", kind, before=False, **PROGRAMS[kind])
    assert 'what the program of the filter "other program" does after the router\'s' in unseen(document)


def test_a_router_that_is_asked_by_a_cluster() -> None:
    """A cluster's own filters come after the choice of the route: the error says where such a filter was found."""
    document = load("streamed")
    filters = connection_manager(document)["http_filters"]
    ours = next(each for each in filters if each["name"] == EXT_PROC)
    filters.remove(ours)
    kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    options = {"explicit_http_config": {"http_protocol_options": {}}, "http_filters": [ours]}
    held = cluster(document, "pool_long")
    held["typed_extension_protocol_options"] = {kind: {"@type": f"type.googleapis.com/{kind}", **options}}
    with pytest.raises(ConfigurationError, match='cluster "pool_long" has an ext_proc filter among its own'):
        checked(document)
