"""What Istio makes of our manifests (tests/golden/istio/), as a configuration that an Envoy can start from.

Its control plane hands resources out one by one; here they are one file. Changed are where routes and endpoints
come from, addresses, and the host that the routes are for. Left out is what only Istio's own build of Envoy has,
its filters for metadata and ALPN. Added are the access log of `envoy/`, and the tenant's header that is forwarded.
"""

import json
from typing import Any, Final, cast

from tests.envoy.harness.gateway import Document, connection_manager, load
from tests.envoy.harness.router import TENANT_HEADER
from tests.golden.translate_istio import kept_at

__all__ = ["bootstrap", "golden"]

# The addresses in `around*.yaml`, by the names of clusters in `envoy/` and of pickers.
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
    """Return what is kept of the translator's answer."""
    return cast(Document, json.loads(kept_at(variant).read_text("utf-8")))


def bootstrap(variant: str, addresses: dict[str, str]) -> Document:
    """Return Envoy's configuration with the variant's listener, its routes and clusters; `addresses` by name."""
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
    """Return a route table with the pools' host alone, whatever a client calls it."""
    (table,) = (each for each in tables if each["name"] == name)
    (host,) = (
        each for each in table["virtualHosts"] if any(route.get("name") == "short" for route in each["routes"])
    )
    host["domains"] = ["*"]
    return _untyped(table) | {"virtualHosts": [host]}


def _served(listener: Document) -> Document:
    """Return a listener that listens itself, at a port of its own; a sidecar's is handed connections."""
    given = {
        key: value for key, value in listener.items() if key not in ("@type", "bindToPort", "defaultFilterChain")
    }
    return given | {"address": {"socketAddress": {"address": "127.0.0.1", "portValue": 0}}}


def _settled(cluster: Document, endpoints: dict[str, Document], addresses: dict[str, str]) -> Document:
    """Return a cluster with its endpoints in it, where they are now."""
    cluster = {key: value for key, value in cluster.items() if key not in ("@type", "filters")}
    if cluster.get("type") != "EDS":
        return cluster
    assigned = _untyped(endpoints[cluster.pop("edsClusterConfig")["serviceName"]])
    for locality in assigned.get("endpoints", []):
        for each in locality["lbEndpoints"]:
            socket: dict[str, Any] = each["endpoint"]["address"]["socketAddress"]
            # Pickers that a test does not run are nowhere.
            host, _, port = addresses.get(HOSTS[socket["address"]], "127.0.0.1:1").rpartition(":")
            socket |= {"address": host, "portValue": int(port)}
    return cluster | {"type": "STATIC", "loadAssignment": assigned | {"clusterName": cluster["name"]}}


def _untyped(resource: Document) -> Document:
    """Return a resource without its type, which its place in a file says; the types of what is in it stay."""
    return {key: value for key, value in resource.items() if key != "@type"}
