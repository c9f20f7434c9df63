"""Istio's translation of our manifests (tests/golden/istio/), as a configuration that an Envoy can start from.

The control plane hands out resources one by one; here they are one file. Addresses, the sources of routes and
endpoints, and the host name of the routes are changed. The filters that only Istio's own build of Envoy has, for
metadata and ALPN, are left out. The access log of `envoy/` and the forwarded tenant header are added.
"""

import json
from typing import Any, Final, cast

from tests.envoy.harness.gateway import Document, connection_manager, load
from tests.envoy.harness.router import TENANT_HEADER
from tests.golden.translate_istio import kept_at

__all__ = ["bootstrap", "golden"]

# For each address in `around*.yaml`, the name of its cluster in `envoy/`, or of its picker.
HOSTS: Final = {
    "192.0.2.11": "dualpool",
    "192.0.2.12": "pool_short",
    "192.0.2.13": "pool_long",
    "192.0.2.21": "picker_short",
    "192.0.2.22": "picker_long",
}
LISTENERS: Final = {"sidecar": "0.0.0.0_8000"}
OUR_FILTER: Final = "dualpool"


def golden(variant: str) -> Document:
    """Return the stored translation of a variant."""
    return cast(Document, json.loads(kept_at(variant).read_text("utf-8")))


def bootstrap(variant: str, addresses: dict[str, str]) -> Document:
    """Return an Envoy configuration with the variant's listener, its routes and clusters.

    `addresses` are host:port by the names in `HOSTS`.
    """
    dumps = {each["@type"].rpartition(".")[2]: each for each in golden(variant)["configs"]}
    (listener,) = (
        each["activeState"]["listener"]
        for each in dumps["ListenersConfigDump"]["dynamicListeners"]
        if LISTENERS.get(variant, "0.0.0.0_80") == each["name"]
    )
    manager = listener["filterChains"][0]["filters"][0]["typedConfig"]
    tables = (each["routeConfig"] for each in dumps["RoutesConfigDump"]["dynamicRouteConfigs"])
    manager["routeConfig"] = _for_any_host(tables, manager.pop("rds")["routeConfigName"])
    manager["httpFilters"] = [each for each in manager["httpFilters"] if not each["name"].startswith("istio.")]
    (ours,) = (each for each in manager["httpFilters"] if each["name"] == OUR_FILTER)
    ours["typedConfig"]["forwardRules"]["allowedHeaders"]["patterns"].append({"exact": TENANT_HEADER})
    log = json.dumps(connection_manager(load("streamed"))["access_log"])
    manager["accessLog"] = json.loads(log.replace("envoy.filters.http.ext_proc:PLAIN", f"{OUR_FILTER}:PLAIN"))
    endpoints = {
        each["endpointConfig"]["clusterName"]: each["endpointConfig"]
        for each in dumps["EndpointsConfigDump"]["dynamicEndpointConfigs"]
    }
    clusters = [each["cluster"] for each in dumps["ClustersConfigDump"]["dynamicActiveClusters"]]
    kept = [each for each in clusters if "|80|" not in each["name"] and "Passthrough" not in each["name"]]
    return {
        "admin": {"address": {"socketAddress": {"address": "127.0.0.1", "portValue": 0}}},
        "staticResources": {
            "listeners": [_served(listener)],
            "clusters": [_settled(each, endpoints, addresses) for each in kept],
        },
    }


def _for_any_host(tables: Any, name: str) -> Document:
    """Return the route table with only the pools' virtual host, made to match any host name."""
    (table,) = (each for each in tables if each["name"] == name)
    (host,) = (
        each for each in table["virtualHosts"] if any(route.get("name") == "short" for route in each["routes"])
    )
    host["domains"] = ["*"]
    return _untyped(table) | {"virtualHosts": [host]}


def _served(listener: Document) -> Document:
    """Return the listener bound to a port of its own; in a sidecar, another listener hands it its connections."""
    given = {
        key: value for key, value in listener.items() if key not in ("@type", "bindToPort", "defaultFilterChain")
    }
    return given | {"address": {"socketAddress": {"address": "127.0.0.1", "portValue": 0}}}


def _settled(cluster: Document, endpoints: dict[str, Document], addresses: dict[str, str]) -> Document:
    """Return the cluster with its endpoints inline, at the given addresses."""
    cluster = {key: value for key, value in cluster.items() if key not in ("@type", "filters")}
    if cluster.get("type") != "EDS":
        return cluster
    assigned = _untyped(endpoints[cluster.pop("edsClusterConfig")["serviceName"]])
    for locality in assigned.get("endpoints", []):
        for each in locality["lbEndpoints"]:
            socket: dict[str, Any] = each["endpoint"]["address"]["socketAddress"]
            # Nothing listens at the address of a picker that a test does not run.
            host, _, port = addresses.get(HOSTS[socket["address"]], "127.0.0.1:1").rpartition(":")
            socket |= {"address": host, "portValue": int(port)}
    return cluster | {"type": "STATIC", "loadAssignment": assigned | {"clusterName": cluster["name"]}}


def _untyped(resource: Document) -> Document:
    """Return a resource without its own type, which is implied by its place in a file; nested types stay."""
    return {key: value for key, value in resource.items() if key != "@type"}
