"""The virtual hosts and routes that Istio generates, of VirtualServices and of the Gateway API's HTTPRoutes.

What is for one host of one gateway comes into one virtual host. Source: Istio's `networking/core/route`, its
`networking/core/gateway.go`, and `config/kube/gateway` for the Gateway API.
"""

from collections.abc import Iterator
from typing import Any, Final

from extproc.gateways.kubernetes.gateway_api import EXACT, PREFIX, REGEX, matches_of, path_weight
from extproc.gateways.kubernetes.header_changes import changes_of_filters, changes_of_headers
from extproc.gateways.kubernetes.istio.clusters import full_name
from extproc.gateways.kubernetes.istio.retries import mesh_retries, retry_of_http_route, retry_of_virtual_service
from extproc.gateways.kubernetes.manifests import (
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
from extproc.gateways.parsing.sources import LocatedMap, Place

__all__ = ["hosts_of"]

NEVER: Final = "0s"
ANY_HOST: Final = "*"
# Fields of a VirtualService's match: those that are pseudo-headers, and conditions on the client or the gateway.
PSEUDO: Final = ("method", "authority", "scheme")
WHENCE: Final = ("sourceLabels", "sourceNamespace", "gateways", "port")
# The order in which Istio tries the Gateway API's kinds of paths.
PATHS: Final = (EXACT, PREFIX, REGEX)
Of = tuple[str, frozenset[str]]
"""A host, and the gateways, or Services, that it belongs to."""
Target = tuple[str, LocatedMap]
"""A cluster, and the changes of headers for the requests that it gets."""


def hosts_of(manifests: Manifests) -> Iterator[LocatedMap]:
    """Yield the virtual hosts, with Istio's defaults in their routes."""
    of_mesh = mesh_retries(manifests)
    services: dict[Of, list[tuple[LocatedMap, list[LocatedMap]]]] = {}
    for each in manifests.of("VirtualService"):
        spec = inner(each, "spec")
        rules = items_of(spec, "http")
        routes = _until_all([route for rule in rules for route in _virtual_routes(each, rule, of_mesh)])
        for host in texts_of(spec, "hosts") or [ANY_HOST]:
            services.setdefault((host, frozenset(texts_of(spec, "gateways"))), []).append((each, routes))
    for (host, _), found in services.items():
        yield _host(host, found, _all_last([route for _, routes in found for route in routes]))
    given: dict[Of, list[tuple[LocatedMap, list[LocatedMap]]]] = {}
    for each in manifests.of("HTTPRoute"):
        spec = inner(each, "spec")
        numbered = enumerate(items_of(spec, "rules"))
        routes = [route for at, rule in numbered for route in _api_routes(each, at, rule, of_mesh)]
        parents = frozenset(
            f"{text_of(parent, 'kind', 'Gateway')}/{text_of(parent, 'name')}"
            for parent in items_of(spec, "parentRefs")
        )
        for host in texts_of(spec, "hostnames") or [ANY_HOST]:
            given.setdefault((host, parents), []).append((each, routes))
    for (host, _), found in given.items():
        yield _host(host, found, sorted((route for _, routes in found for route in routes), key=_precedence))


def _host(host: str, found: list[tuple[LocatedMap, list[LocatedMap]]], routes: list[LocatedMap]) -> LocatedMap:
    first = found[0][0]
    return made(first.place, name=name_of(first), domains=[host], routes=routes)


def _until_all(routes: list[LocatedMap]) -> list[LocatedMap]:
    """Return the routes of a VirtualService up to one that takes everything: Istio leaves out the others."""
    end = next((at for at, route in enumerate(routes) if _takes_all(route)), len(routes))
    return routes[: end + 1]


def _all_last(routes: list[LocatedMap]) -> list[LocatedMap]:
    return sorted(routes, key=_takes_all)


def _takes_all(route: LocatedMap) -> bool:
    match = route["match"]
    conditions = any(match.get(name) for name in ("headers", "query_parameters", "dynamic_metadata"))
    return (match.get("prefix") == "/" or inner(match, "safe_regex").get("regex") == ".*") and not conditions


def _precedence(route: LocatedMap) -> tuple[int, int, bool, int, int]:
    """Return the sort key of an HTTPRoute's match: kind and length of the path, method, headers, parameters."""
    match = route["match"]
    names = [each["name"] for each in match["headers"]] if "headers" in match else []
    method = ":method" in names
    rank, length = path_weight(match, PATHS)
    return rank, length, not method, method - len(names), -len(match.get("query_parameters", ()))


def _virtual_routes(service: LocatedMap, rule: LocatedMap, of_mesh: LocatedMap | None) -> Iterator[LocatedMap]:
    matches = items_of(rule, "match") or [LocatedMap(rule.place)]
    targets = [
        (_destination(inner(each, "destination"), service), changes_of_headers(each))
        for each in used(items_of(rule, "route"))
    ]
    timeout = seconds_of(text_of(rule, "timeout", NEVER), rule.place)
    action = _action(rule.place, targets, retry_of_virtual_service(rule, of_mesh), timeout)
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
        params = inner(match, "queryParams")
        asked = [_header(name, inner(params, name), match.place) for name in params]
        # Who asks cannot be known here; that there is such a condition matters.
        whence = [{"filter": "istio", "path": [{"key": name}]} for name in WHENCE if name in match]
        conditions = made(match.place, **said, headers=headers, query_parameters=asked, dynamic_metadata=whence)
        name = ".".join(filter(None, (text_of(rule, "name"), text_of(match, "name"))))
        route = made(rule.place, name=name, match=conditions, route=action)
        yield _changing(route, changes_of_headers(rule), targets)


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


def _api_routes(
    object_: LocatedMap, at: int, rule: LocatedMap, of_mesh: LocatedMap | None
) -> Iterator[LocatedMap]:
    space = namespace_of(object_)
    targets = [
        (
            _cluster(text_of(each, "port"), "", text_of(each, "name"), text_of(each, "namespace") or space),
            changes_of_filters(each),
        )
        for each in used(items_of(rule, "backendRefs"))
    ]
    action = _action(rule.place, targets, retry_of_http_route(rule, of_mesh), _api_timeout(rule))
    name = text_of(rule, "name") or f"{space}.{name_of(object_)}.{at}"
    for match in matches_of(rule):
        route = made(rule.place, name=name, match=match, route=action)
        yield _changing(route, changes_of_filters(rule), targets)


def _api_timeout(rule: LocatedMap) -> str:
    """Return the timeout of a whole response; with `retry` that of the backend is one of each try instead."""
    timeouts = inner(rule, "timeouts")
    of_backend = "" if "retry" in rule else text_of(timeouts, "backendRequest")
    said = [seconds_of(each, timeouts.place) for each in (of_backend, text_of(timeouts, "request")) if each]
    return next((each for each in said if each != NEVER), NEVER)


def _changing(route: LocatedMap, changes: LocatedMap, targets: list[Target]) -> LocatedMap:
    """Return a route with these changes of headers, and those of its destination if it has only one."""
    route = merged(route, changes)
    return merged(route, targets[0][1]) if len(targets) == 1 else route


def _action(place: Place, targets: list[Target], retry: LocatedMap | None, timeout: str) -> LocatedMap | None:
    if not targets:
        return None
    weighted = {"clusters": [merged(made(place, name=name, weight=1), changes) for name, changes in targets]}
    return made(
        place,
        cluster=targets[0][0] if len(targets) == 1 else None,
        weighted_clusters=weighted if len(targets) > 1 else None,
        timeout=timeout,
        retry_policy=retry,
    )


def _destination(given: LocatedMap, service: LocatedMap) -> str:
    port, subset = text_of(inner(given, "port"), "number"), text_of(given, "subset")
    return _cluster(port, subset, text_of(given, "host"), namespace_of(service))


def _cluster(port: str, subset: str, host: str, namespace: str) -> str:
    return f"outbound|{port}|{subset}|{full_name(host, namespace)}"
