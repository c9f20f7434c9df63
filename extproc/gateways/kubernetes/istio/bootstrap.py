"""Translation of Istio's manifests into the Envoy configuration that Istio generates, as far as the traps need it.

Routes come from VirtualServices and HTTPRoutes, with Istio's default retries for each that does not configure any;
clusters come from DestinationRules, with Istio's defaults. The patches of EnvoyFilters are then merged in by
protobuf's merge rules. Source: Istio's `networking/core/route` and `networking/core/cluster`, and its EnvoyFilter
reference. The result is a bootstrap, which is then read like any other; that step reports misspelled fields in
patches.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_components_pb2 import Route, VirtualHost

from extproc.gateways.kubernetes.istio.clusters import Destinations
from extproc.gateways.kubernetes.istio.merging import filter_merged, message_merged, settings_merged
from extproc.gateways.kubernetes.istio.routes import hosts_of
from extproc.gateways.kubernetes.istio.scope import patches_of, settings_of
from extproc.gateways.kubernetes.istio.switches import passes_expect
from extproc.gateways.kubernetes.manifests import (
    Manifests,
    inner,
    items_of,
    made,
    text_of,
)
from extproc.gateways.kubernetes.type_names import EXT_PROC, MANAGER, ROUTER
from extproc.gateways.parsing.sources import LocatedList, LocatedMap, Place

__all__ = ["bootstrap_of"]

PICKER: Final = "envoy.filters.http.ext_proc"
_ROUTER: Final = "envoy.filters.http.router"
_MANAGERS: Final = ("", "envoy.filters.network.http_connection_manager", "envoy.http_connection_manager")


def bootstrap_of(manifests: Manifests) -> LocatedMap:
    """Return the bootstrap of a gateway that has these EnvoyFilters."""
    place, patches = next(manifests.of("EnvoyFilter")).place, patches_of(manifests)
    hosts = [_patched_host(host, patches) for host in hosts_of(manifests)]
    manager = made(
        place,
        **{"@type": MANAGER},
        stat_prefix="istio",
        stream_idle_timeout="0s",
        upgrade_configs=[{"upgrade_type": "websocket"}],
        proxy_100_continue=passes_expect(manifests),
        route_config=made(place, name="routes", virtual_hosts=hosts),
        http_filters=_http_filters(manifests, patches, place),
    )
    for patch in _of(patches, "NETWORK_FILTER"):
        if text_of(inner(patch, "match", "listener", "filterChain", "filter"), "name") not in _MANAGERS:
            continue
        manager = settings_merged(manager, settings_of(patch))
    network = made(place, name="envoy.filters.network.http_connection_manager", typed_config=manager)
    listener = made(place, name="listener", filter_chains=[made(place, filters=[network])])
    for patch in _of(patches, "LISTENER"):
        listener = message_merged(listener, inner(patch, "patch", "value"), Listener.DESCRIPTOR)
    clusters = list(_clusters(manifests, patches, hosts, manager))
    return made(place, static_resources=made(place, listeners=[listener], clusters=clusters))


def _of(patches: Iterable[LocatedMap], kind: str, *operations: str) -> Iterator[LocatedMap]:
    wanted = operations or ("MERGE",)
    for patch in patches:
        if text_of(patch, "applyTo") == kind and text_of(inner(patch, "patch"), "operation") in wanted:
            yield patch


def _http_filters(manifests: Manifests, patches: list[LocatedMap], place: Place) -> LocatedList:
    """Return the filter chain with the patches applied; filters that they refer to are assumed to exist."""
    chain = LocatedList(place, [made(place, name=_ROUTER, typed_config={"@type": ROUTER})])
    picked = any(
        text_of(each, "kind") == "InferencePool" for route in manifests.of("HTTPRoute") for each in _refs(route)
    )
    if picked:
        chain.insert(0, _picker(place))
    for patch in _of(patches, "HTTP_FILTER", "INSERT_BEFORE", "INSERT_AFTER", "INSERT_FIRST", "ADD"):
        anchor = text_of(inner(patch, "match", "listener", "filterChain", "filter", "subFilter"), "name")
        names = [each.get("name") for each in chain]
        if anchor and anchor not in names:
            chain.insert(len(chain) - 1, _picker(place) if anchor == PICKER else made(place, name=anchor))
            names = [each.get("name") for each in chain]
        operation = text_of(inner(patch, "patch"), "operation")
        at = {"INSERT_FIRST": 0, "ADD": len(chain)}.get(operation, names.index(anchor) if anchor else 0)
        chain.insert(at + (operation == "INSERT_AFTER"), inner(patch, "patch", "value"))
    for patch in _of(patches, "HTTP_FILTER", "MERGE"):
        anchor = text_of(inner(patch, "match", "listener", "filterChain", "filter", "subFilter"), "name")
        value = inner(patch, "patch", "value")
        chain[:] = [filter_merged(each, value) if each.get("name") == anchor else each for each in chain]
    return chain


def _picker(place: Place) -> LocatedMap:
    service = {"envoy_grpc": {"cluster_name": "endpoint-picker"}}
    return made(place, name=PICKER, typed_config={"@type": EXT_PROC, "grpc_service": service})


def _refs(route: LocatedMap) -> Iterator[LocatedMap]:
    for rule in items_of(inner(route, "spec"), "rules"):
        yield from items_of(rule, "backendRefs")


def _patched_host(host: LocatedMap, patches: list[LocatedMap]) -> LocatedMap:
    routes = host["routes"]
    patches = [patch for patch in patches if _is_for(patch, host)]
    for patch in _of(patches, "HTTP_ROUTE"):
        wanted = text_of(inner(patch, "match", "routeConfiguration", "vhost", "route"), "name")
        value = inner(patch, "patch", "value")
        routes = [
            message_merged(each, value, Route.DESCRIPTOR) if wanted in ("", each.get("name")) else each
            for each in routes
        ]
    host = made(host.place, **{**host, "routes": routes})
    for patch in _of(patches, "VIRTUAL_HOST"):
        host = message_merged(host, inner(patch, "patch", "value"), VirtualHost.DESCRIPTOR)
    return host


def _is_for(patch: LocatedMap, host: LocatedMap) -> bool:
    """Return whether a patch applies to a host, or names none; Istio's name of one is its domain with the port."""
    name = text_of(inner(patch, "match", "routeConfiguration", "vhost"), "name")
    return not name or name.rpartition(":")[0] in host["domains"]


def _clusters(
    manifests: Manifests, patches: list[LocatedMap], hosts: list[LocatedMap], manager: LocatedMap
) -> Iterator[LocatedMap]:
    added = [inner(patch, "patch", "value") for patch in _of(patches, "CLUSTER", "ADD")]
    names = dict.fromkeys(_outbound([*hosts, manager, *added]))
    destinations = Destinations(manifests)
    for name in names:
        cluster = destinations.cluster_of(name, manager.place)
        _, port, subset, host = (*name.split("|"), "", "", "")[:4]
        its = {"name": name, "portNumber": port, "subset": subset, "service": host}
        for patch in _of(patches, "CLUSTER"):
            match = inner(patch, "match", "cluster")
            if all(text_of(match, key, said) == said for key, said in its.items()):
                cluster = message_merged(cluster, inner(patch, "patch", "value"), Cluster.DESCRIPTOR)
        yield cluster
    yield from added


def _outbound(values: Any) -> Iterator[str]:  # noqa: ANN401
    """Yield the names of Istio's clusters, wherever in these values they are used."""
    if isinstance(values, str) and values.startswith("outbound|"):
        yield values
    for each in values.values() if isinstance(values, dict) else values if isinstance(values, list) else ():
        yield from _outbound(each)
