"""Envoy Gateway's translation of our manifests (tests/golden/), as a configuration that an Envoy can start from.

The control plane hands out resources one by one; here they are one file. Only addresses and the sources of routes
and endpoints are changed, nothing that affects how a request is treated.
"""

import json
from typing import Any, Final, cast

from tests.envoy.harness.gateway import Document
from tests.golden.translate import GOLDEN

__all__ = ["bootstrap", "golden"]

# The hosts in the manifests, by cluster name in `envoy/`.
HOSTS: Final = {
    "pool_short": "vllm-short.dualpool.svc.cluster.local",
    "pool_long": "vllm-long.dualpool.svc.cluster.local",
    "dualpool": "192.0.2.1",
}
LISTENER: Final = "dualpool/llm/http"


def golden() -> Document:
    """Return the stored translation."""
    return cast(Document, json.loads(GOLDEN.read_text()))


def bootstrap(addresses: dict[str, str]) -> Document:
    """Return an Envoy configuration with our listener, its routes and clusters; `addresses` as for a `Gateway`."""
    dumps = {each["@type"].rpartition(".")[2]: each for each in golden()["configs"]}
    routes = {
        each["routeConfig"]["name"]: each["routeConfig"]
        for each in dumps["RoutesConfigDump"]["dynamicRouteConfigs"]
    }
    # The other listener is for Envoy Gateway's own readiness probe.
    (listener,) = (
        each["activeState"]["listener"]
        for each in dumps["ListenersConfigDump"]["dynamicListeners"]
        if LISTENER == each["activeState"]["listener"]["name"]
    )
    listener["address"]["socketAddress"] = {"address": "127.0.0.1", "portValue": 0}
    manager = listener["defaultFilterChain"]["filters"][0]["typedConfig"]
    manager["routeConfig"] = _untyped(routes[manager.pop("rds")["routeConfigName"]])
    endpoints = {
        each["endpointConfig"]["clusterName"]: each["endpointConfig"]
        for each in dumps["EndpointsConfigDump"]["dynamicEndpointConfigs"]
    }
    clusters = [each["cluster"] for each in dumps["ClustersConfigDump"]["dynamicActiveClusters"]]
    for cluster in clusters:
        if cluster.get("type") == "EDS":
            cluster["type"] = "STATIC"
            assigned = _untyped(endpoints[cluster.pop("edsClusterConfig")["serviceName"]])
            cluster["loadAssignment"] = assigned | {"clusterName": cluster["name"]}
        _move(cluster, {HOSTS[name]: address for name, address in addresses.items()})
    return {
        "admin": {"address": {"socketAddress": {"address": "127.0.0.1", "portValue": 0}}},
        "staticResources": {
            "listeners": [_untyped(listener)],
            "clusters": [_untyped(cluster) for cluster in clusters],
        },
    }


def _move(cluster: Document, addresses: dict[str, str]) -> None:
    for locality in cluster["loadAssignment"]["endpoints"]:
        for each in locality["lbEndpoints"]:
            socket: dict[str, Any] = each["endpoint"]["address"]["socketAddress"]
            host, _, port = addresses[socket["address"]].rpartition(":")
            socket |= {"address": host, "portValue": int(port)}


def _untyped(resource: Document) -> Document:
    """Return a resource without its own type, which is implied by its place in a file; nested types stay."""
    return {key: value for key, value in resource.items() if key != "@type"}
