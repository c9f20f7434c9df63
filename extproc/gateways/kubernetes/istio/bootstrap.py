"""Translation of Istio's manifests into the Envoy configuration that Istio generates, as far as the traps need it.

Routes come from VirtualServices and HTTPRoutes, with Istio's default retries for each that does not configure any;
clusters come from DestinationRules, with Istio's defaults. The patches of EnvoyFilters are then merged in by
protobuf's merge rules. Source: Istio's `networking/core/route` and `networking/core/cluster`, and its EnvoyFilter
reference. The result is a bootstrap, which is then read like any other; that step reports misspelled fields in
patches.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_components_pb2 import Route, VirtualHost
from envoy.config.route.v3.route_pb2 import RouteConfiguration

from extproc.gateways.kubernetes.istio.clusters import Destinations
from extproc.gateways.kubernetes.istio.http_filters import http_filters
from extproc.gateways.kubernetes.istio.merging import message_merged, settings_merged
from extproc.gateways.kubernetes.istio.routes import hosts_of
from extproc.gateways.kubernetes.istio.scope import MANAGER_FILTER, is_of_manager, patches_of, settings_of
from extproc.gateways.kubernetes.istio.switches import passes_expect
from extproc.gateways.kubernetes.manifests import Manifests, inner, made, text_of
from extproc.gateways.kubernetes.type_names import MANAGER
from extproc.gateways.parsing.sources import LocatedMap

__all__ = ["bootstrap_of"]


def bootstrap_of(manifests: Manifests) -> LocatedMap:
    """Return the bootstrap of a gateway that has these EnvoyFilters."""
    place, patches = next(manifests.of("EnvoyFilter")).place, patches_of(manifests)
    hosts = [_patched_host(host, patches) for host in hosts_of(manifests)]
    table = made(place, name="routes", virtual_hosts=hosts)
    for patch in _of(patches, "ROUTE_CONFIGURATION"):
        table = message_merged(table, inner(patch, "patch", "value"), RouteConfiguration.DESCRIPTOR)
    manager = made(
        place,
        **{"@type": MANAGER},
        stat_prefix="istio",
        stream_idle_timeout="0s",
        upgrade_configs=[{"upgrade_type": "websocket"}],
        proxy_100_continue=passes_expect(manifests),
        route_config=table,
        http_filters=http_filters(manifests, patches, place),
    )
    for patch in _of(patches, "NETWORK_FILTER"):
        if is_of_manager(patch):
            manager = settings_merged(manager, settings_of(patch))
    network = made(place, name=MANAGER_FILTER, typed_config=manager)
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


def _patched_host(host: LocatedMap, patches: list[LocatedMap]) -> LocatedMap:
    routes = host["routes"]
    patches = [patch for patch in patches if _is_for(patch, host)]
    for patch in _of(patches, "HTTP_ROUTE"):
        value = inner(patch, "patch", "value")
        routes = [
            message_merged(each, value, Route.DESCRIPTOR) if _is_for_route(patch, each) else each
            for each in routes
        ]
    host = made(host.place, **{**host, "routes": routes})
    for patch in _of(patches, "VIRTUAL_HOST"):
        host = message_merged(host, inner(patch, "patch", "value"), VirtualHost.DESCRIPTOR)
    return host


def _is_for(patch: LocatedMap, host: LocatedMap) -> bool:
    """Return whether a patch applies to a host, or names none; Istio's name of one is its domain with the port."""
    match = inner(patch, "match", "routeConfiguration", "vhost")
    name, domain = text_of(match, "name"), text_of(match, "domainName")
    own, *with_port = host["domains"]
    is_named = name in with_port if with_port else name.rpartition(":")[0] == own
    return (not name or is_named) and domain in ("", own)


def _is_for_route(patch: LocatedMap, route: LocatedMap) -> bool:
    match = inner(patch, "match", "routeConfiguration", "vhost", "route")
    name, action = text_of(match, "name"), text_of(match, "action", "ANY")
    return name in ("", route.get("name")) and (action == "ANY" or (action == "ROUTE") == ("route" in route))


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
