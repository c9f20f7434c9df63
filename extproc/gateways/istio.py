"""Translation of Istio's manifests into the Envoy configuration that Istio generates, as far as the traps need it.

Routes come from VirtualServices and HTTPRoutes, with Istio's default retries for each that does not configure any;
clusters come from DestinationRules, with Istio's defaults. The patches of EnvoyFilters are then merged in by
protobuf's merge rules. Source: Istio's `networking/core/route` and `networking/core/cluster`, and its EnvoyFilter
reference. The result is a bootstrap, which is then read like any other; that step reports misspelled fields in
patches.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from extproc.gateways.gateway_api import matches_of, weight_of
from extproc.gateways.istio_clusters import cluster_of, full_name
from extproc.gateways.istio_retries import mesh_retries, retry_of_http_route, retry_of_virtual_service
from extproc.gateways.istio_scope import patches_of
from extproc.gateways.manifests import (
    Manifests,
    inner,
    items_of,
    made,
    merged,
    name_of,
    namespace_of,
    seconds_of,
    text_of,
    texts_of,
    used,
)
from extproc.gateways.sources import LocatedList, LocatedMap, Place
from extproc.gateways.type_names import EXT_PROC, MANAGER, ROUTER

__all__ = ["bootstrap_of"]

NEVER: Final = "0s"
PICKER: Final = "envoy.filters.http.ext_proc"
_ROUTER: Final = "envoy.filters.http.router"
# Fields of a VirtualService's match: those that are pseudo-headers, and conditions on the client.
PSEUDO: Final = ("method", "authority", "scheme")
WHENCE: Final = ("sourceLabels", "sourceNamespace")
_MANAGERS: Final = ("", "envoy.filters.network.http_connection_manager", "envoy.http_connection_manager")


def bootstrap_of(manifests: Manifests) -> LocatedMap:
    """Return the bootstrap of a gateway that has these EnvoyFilters."""
    place, patches = next(manifests.of("EnvoyFilter")).place, patches_of(manifests)
    hosts = [_patched_host(host, patches) for host in _hosts(manifests)]
    manager = made(
        place,
        **{"@type": MANAGER},
        stat_prefix="istio",
        route_config=made(place, name="routes", virtual_hosts=hosts),
        http_filters=_http_filters(manifests, patches, place),
    )
    for patch in _of(patches, "NETWORK_FILTER"):
        if text_of(inner(patch, "match", "listener", "filterChain", "filter"), "name") not in _MANAGERS:
            continue
        manager = merged(manager, inner(patch, "patch", "value", "typed_config"))
    network = made(place, name="envoy.filters.network.http_connection_manager", typed_config=manager)
    listener = made(place, name="listener", filter_chains=[made(place, filters=[network])])
    for patch in _of(patches, "LISTENER"):
        listener = merged(listener, inner(patch, "patch", "value"))
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
        chain[:] = [merged(each, value) if each.get("name") == anchor else each for each in chain]
    return chain


def _picker(place: Place) -> LocatedMap:
    service = {"envoy_grpc": {"cluster_name": "endpoint-picker"}}
    return made(place, name=PICKER, typed_config={"@type": EXT_PROC, "grpc_service": service})


def _hosts(manifests: Manifests) -> Iterator[LocatedMap]:
    of_mesh = mesh_retries(manifests)
    for each in manifests.of("VirtualService"):
        rules = items_of(inner(each, "spec"), "http")
        routes = [route for rule in rules for route in _virtual_routes(each, rule, of_mesh)]
        yield _host(each, texts_of(inner(each, "spec"), "hosts"), routes)
    for each in manifests.of("HTTPRoute"):
        rules = items_of(inner(each, "spec"), "rules")
        routes = [route for rule in rules for route in _api_routes(each, rule, of_mesh)]
        routes.sort(key=lambda route: weight_of(route["match"]))
        yield _host(each, texts_of(inner(each, "spec"), "hostnames"), routes)


def _host(object_: LocatedMap, names: list[str], routes: list[LocatedMap]) -> LocatedMap:
    return made(object_.place, name=name_of(object_), domains=names or ["*"], routes=routes)


def _virtual_routes(service: LocatedMap, rule: LocatedMap, of_mesh: LocatedMap | None) -> Iterator[LocatedMap]:
    retry, timeout = retry_of_virtual_service(rule, of_mesh), text_of(rule, "timeout", NEVER)
    matches = items_of(rule, "match") or [LocatedMap(rule.place)]
    targets = [_destination(inner(each, "destination"), service) for each in used(items_of(rule, "route"))]
    for match in matches:
        headers = [*_headers(inner(match, "headers"), match.place)]
        headers += [_header(f":{name}", inner(match, name), match.place) for name in PSEUDO if name in match]
        without = {"invert_match": True, "treat_missing_header_as_empty": True}
        headers += _headers(inner(match, "withoutHeaders"), match.place, **without)
        uri = inner(match, "uri")
        path = next(iter(uri), "prefix")
        value = text_of(uri, path, "/")
        said: dict[str, Any] = {{"exact": "path", "regex": "safe_regex"}.get(path, "prefix"): value}
        if path == "regex":
            said = {"safe_regex": {"regex": value}}
        asked = [{"name": name} for name in inner(match, "queryParams")]
        # Who asks cannot be known here; that there is such a condition matters.
        whence = [{"filter": "istio", "path": [{"key": name}]} for name in WHENCE if name in match]
        conditions = made(match.place, **said, headers=headers, query_parameters=asked, dynamic_metadata=whence)
        yield _route(rule, conditions, targets, retry, seconds_of(timeout, rule.place))


def _headers(named: LocatedMap, place: Place, **more: bool) -> Iterator[LocatedMap]:
    for name in named:
        yield made(place, **{**_header(name, inner(named, name), place), **more})


def _header(name: str, value: LocatedMap, place: Place) -> LocatedMap:
    kind = next(iter(value), None)
    text = "" if kind is None else text_of(value, kind)
    if kind is None or (kind, text) == ("regex", "*"):  # Istio's own sign for any value, and no regular expression
        return made(place, name=name, present_match=True)
    said = {"safe_regex": {"regex": text}} if kind == "regex" else {kind: text}
    return made(place, name=name, string_match=said)


def _api_routes(object_: LocatedMap, rule: LocatedMap, of_mesh: LocatedMap | None) -> Iterator[LocatedMap]:
    targets = [
        f"outbound|{text_of(each, 'port')}||{full_name(text_of(each, 'name'), namespace_of(object_))}"
        for each in used(items_of(rule, "backendRefs"))
    ]
    retry = retry_of_http_route(rule, of_mesh)
    for match in matches_of(rule):
        yield _route(rule, match, targets, retry, _api_timeout(rule))


def _api_timeout(rule: LocatedMap) -> str:
    """Return the timeout of a whole response; with `retry` that of the backend is one of each try instead."""
    timeouts = inner(rule, "timeouts")
    of_backend = "" if "retry" in rule else text_of(timeouts, "backendRequest")
    said = [seconds_of(each, timeouts.place) for each in (of_backend, text_of(timeouts, "request")) if each]
    return next((each for each in said if each != NEVER), NEVER)


def _refs(route: LocatedMap) -> Iterator[LocatedMap]:
    for rule in items_of(inner(route, "spec"), "rules"):
        yield from items_of(rule, "backendRefs")


def _route(
    rule: LocatedMap, match: LocatedMap, targets: list[str], retry: LocatedMap | None, timeout: str
) -> LocatedMap:
    weighted = {"clusters": [{"name": name, "weight": 1} for name in targets]}
    action = made(
        rule.place,
        cluster=targets[0] if len(targets) == 1 else None,
        weighted_clusters=weighted if len(targets) > 1 else None,
        timeout=timeout,
        retry_policy=retry,
    )
    return made(rule.place, name=text_of(rule, "name"), match=match, route=action if targets else None)


def _destination(given: LocatedMap, service: LocatedMap) -> str:
    port, subset = text_of(inner(given, "port"), "number"), text_of(given, "subset")
    return f"outbound|{port}|{subset}|{full_name(text_of(given, 'host'), namespace_of(service))}"


def _patched_host(host: LocatedMap, patches: list[LocatedMap]) -> LocatedMap:
    routes = host["routes"]
    patches = [patch for patch in patches if _is_for(patch, host)]
    for patch in _of(patches, "HTTP_ROUTE"):
        wanted = text_of(inner(patch, "match", "routeConfiguration", "vhost", "route"), "name")
        value = inner(patch, "patch", "value")
        routes = [merged(each, value) if wanted in ("", each.get("name")) else each for each in routes]
    host = made(host.place, **{**host, "routes": routes})
    for patch in _of(patches, "VIRTUAL_HOST"):
        host = merged(host, inner(patch, "patch", "value"))
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
    for name in names:
        cluster = cluster_of(name, manifests, manager.place)
        _, port, subset, host = (*name.split("|"), "", "", "")[:4]
        its = {"name": name, "portNumber": port, "subset": subset, "service": host}
        for patch in _of(patches, "CLUSTER"):
            match = inner(patch, "match", "cluster")
            if all(text_of(match, key, said) == said for key, said in its.items()):
                cluster = merged(cluster, inner(patch, "patch", "value"))
        yield cluster
    yield from added


def _outbound(values: Any) -> Iterator[str]:  # noqa: ANN401
    """Yield the names of Istio's clusters, wherever in these values they are used."""
    if isinstance(values, str) and values.startswith("outbound|"):
        yield values
    for each in values.values() if isinstance(values, dict) else values if isinstance(values, list) else ():
        yield from _outbound(each)
