"""`dualpool check envoy` on a bootstrap whose listeners, routes, clusters or endpoints are in other files."""

import json
from typing import Any

import pytest

from extproc.core.errors import ConfigurationError
from extproc.gateways.findings import Findings, find_traps
from extproc.gateways.inputs import read_gateways
from extproc.gateways.parsing.sources import read
from extproc.gateways.router import Router
from tests.envoy.harness.gateway import Document, cluster, connection_manager, load
from tests.traps.bitten import bitten
from tests.unit.test_check_envoy_versions import dump_of

ENVOY = "type.googleapis.com/envoy"
WATCHED = {"path_config_source": {"path": "/etc/envoy/x.yaml"}}
SPLITS = ["routes", "clusters", "all"]


def checked(*documents: Document) -> Findings:
    """Return what is found in several documents, each a file of its own."""
    given = [each for at, one in enumerate(documents) for each in read(json.dumps(one), f"{at}.yaml")]
    found = read_gateways(given, Router())
    return find_traps(found.gateways, Router(), found.unchecked)


def held(kind: str, *resources: Any, wrapped: bool = False) -> Document:
    """Return a file of resources, as Envoy reads it."""
    typed = [{"@type": f"{ENVOY}.config.{kind}", **each} for each in resources]
    if wrapped:
        resource = f"{ENVOY}.service.discovery.v3.Resource"
        typed = [{"@type": resource, "name": each.get("name", ""), "resource": each} for each in typed]
    return {"version_info": "1", "resources": typed}


def split(document: Document, how: str) -> list[Document]:
    """Return a bootstrap and its files."""
    static, files = document["static_resources"], []
    if how != "clusters":
        manager = connection_manager(document)
        table = manager.pop("route_config") | {"name": "local"}
        manager["rds"] = {"route_config_name": "local", "config_source": WATCHED}
        files.append(held("route.v3.RouteConfiguration", table))
    if how != "routes":
        pool = cluster(document, "pool_long")
        assigned = pool.pop("load_assignment")
        pool |= {"type": "EDS", "eds_cluster_config": {"eds_config": WATCHED}}
        files.append(held("endpoint.v3.ClusterLoadAssignment", assigned, wrapped=True))
        files.append(held("cluster.v3.Cluster", *static.pop("clusters")))
        document["dynamic_resources"] = {"cds_config": WATCHED}
    if how == "all":
        files.append(held("listener.v3.Listener", *static.pop("listeners")))
        document["dynamic_resources"]["lds_config"] = WATCHED
        del document["static_resources"]
    return [document, *files]


@pytest.mark.parametrize("how", SPLITS)
@pytest.mark.parametrize("trap", [None, "default-route-not-largest", "repair-missing", "fail-closed"])
def test_files_count_as_if_they_were_in_the_bootstrap(how: str, trap: str | None) -> None:
    """Together they are the same gateway, in any order."""
    document = bitten(trap) if trap else load("streamed")
    findings = checked(*reversed(split(document, how)))
    assert (1, ()) == (findings.gateways, findings.unchecked)
    assert ({trap} if trap else set()) == {each.trap.name for each in findings.found}


def test_a_file_that_is_missing_is_asked_for() -> None:
    """Routes that the bootstrap takes from a file are not known without it."""
    bootstrap, *_ = split(load("streamed"), "routes")
    (said,) = checked(bootstrap).unchecked
    assert said.endswith("so are not checked: give their file as well, or check a config dump instead")
    bootstrap, *files = split(load("streamed"), "all")
    with pytest.raises(ConfigurationError) as error:
        checked(bootstrap, *files[:-1])
    assert "listeners are delivered by LDS: give its file as well" in str(error.value)


def test_files_without_their_bootstrap() -> None:
    """A listener and its routes are enough to be checked."""
    _, *files = split(bitten("fail-closed"), "all")
    assert {"fail-closed"} == {each.trap.name for each in checked(*files).found}


def test_files_in_a_config_map() -> None:
    """A ConfigMap often holds the bootstrap and its files, next to others."""
    bootstrap, *files = split(bitten("fail-closed"), "all")
    data = {f"{at}.yaml": json.dumps(each) for at, each in enumerate([bootstrap, *files])}
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "envoy"}, "data": data}
    assert {"fail-closed"} == {each.trap.name for each in checked(config).found}


def test_a_misspelled_field_of_a_file_is_reported() -> None:
    """Its fields are Envoy's, as in a bootstrap."""
    with pytest.raises(ConfigurationError, match="Cluster has no field conect_timeout"):
        checked(load("streamed"), held("cluster.v3.Cluster", {"name": "x", "conect_timeout": "1s"}))


def test_a_kustomization_is_none() -> None:
    """It has resources, too: names of files."""
    with pytest.raises(ConfigurationError, match="neither an Envoy bootstrap"):
        checked({"resources": ["routes.yaml"]})


ECDS = {"config_source": WATCHED, "type_urls": [f"{ENVOY}.extensions.filters.http.ext_proc.v3.ExternalProcessor"]}


def by_ecds(document: Document) -> dict[str, Any]:
    """Take the settings of the router's filter out of a bootstrap; return them as ECDS delivers them."""
    filters = connection_manager(document)["http_filters"]
    ours = next(each for each in filters if each["name"] == "envoy.filters.http.ext_proc")
    ours["config_discovery"] = ECDS
    kind = f"{ENVOY}.config.core.v3.TypedExtensionConfig"
    return {"@type": kind, "name": ours["name"], "typed_config": ours.pop("typed_config")}


@pytest.mark.parametrize("source", ["file", "dump"])
@pytest.mark.parametrize("trap", [None, "fail-closed", "waiting-filter-after"])
def test_settings_of_filters_by_ecds(source: str, trap: str | None) -> None:
    """A file or a config dump has them apart from their filters; they count at the filters' places."""
    document = bitten(trap) if trap else load("streamed")
    settings = by_ecds(document)
    if source == "file":
        findings = checked(document, {"resources": [settings]})
    else:
        dump = dump_of(document, (1, 40))
        dump["configs"].insert(2, {"@type": f"{ENVOY}.admin.v3.EcdsConfigDump", "ecds_filters": [{}]})
        dump["configs"][2]["ecds_filters"][0]["ecds_filter"] = settings
        findings = checked(dump)
    assert (1, ()) == (findings.gateways, findings.unchecked)
    assert ({trap} if trap else set()) == {each.trap.name for each in findings.found}
    assert all("http_filters[" in each.place.path for each in findings.found)
