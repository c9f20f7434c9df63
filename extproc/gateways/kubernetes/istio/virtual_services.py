"""The routes that Istio generates for a VirtualService at one of its gateways, or in the sidecars.

Source: Istio's `networking/core/route`.
"""

from collections.abc import Iterator
from typing import Any, Final

from extproc.gateways.kubernetes.header_changes import changes_of_headers
from extproc.gateways.kubernetes.istio.actions import NEVER, action_of, changing, cluster_name
from extproc.gateways.kubernetes.istio.delegates import Delegates
from extproc.gateways.kubernetes.istio.frontends import Frontend, gateway_name
from extproc.gateways.kubernetes.istio.retries import retry_of_virtual_service
from extproc.gateways.kubernetes.istio.scope import Workload
from extproc.gateways.kubernetes.manifests import (
    inner,
    is_true,
    items_of,
    made,
    namespace_of,
    number_of,
    seconds_of,
    text_of,
    texts_of,
)
from extproc.gateways.parsing.sources import LocatedMap, Place

__all__ = ["routes_of_virtual_service", "takes_all"]

# Fields of a match that are pseudo-headers.
PSEUDO: Final = ("method", "authority", "scheme")
KINDS: Final = {"exact": "path", "prefix": "prefix", "regex": "safe_regex"}


def routes_of_virtual_service(
    service: LocatedMap,
    delegates: Delegates,
    frontend: Frontend,
    workload: Workload,
    of_mesh: LocatedMap | None,
) -> list[LocatedMap]:
    """Return Envoy's routes up to one that takes everything: Istio leaves out the others."""
    found: list[LocatedMap] = []
    for owner, rule in delegates.rules_of(service):
        for match in items_of(rule, "match") or [LocatedMap(rule.place)]:
            conditions = _whence(match, owner, frontend, workload)
            if conditions is None:
                continue
            found.append(_route(owner, rule, match, conditions, of_mesh))
            if takes_all(found[-1]):
                return found
    return found


def takes_all(route: LocatedMap) -> bool:
    """Return whether a route takes every request, as far as Istio can tell."""
    match = route["match"]
    conditions = any(match.get(name) for name in ("headers", "query_parameters", "dynamic_metadata"))
    return (match.get("prefix") == "/" or inner(match, "safe_regex").get("regex") == ".*") and not conditions


def _whence(match: LocatedMap, owner: LocatedMap, frontend: Frontend, workload: Workload) -> list[str] | None:
    """Return the conditions on who asks that cannot be decided here, None if one of them does not hold."""
    port = text_of(match, "port")
    if port and frontend.port not in ("", port):
        return None
    conditions = [f"port={port}"] if port and not frontend.port else []
    if gateways := texts_of(match, "gateways"):
        here = any(gateway_name(each, owner) == frontend.name for each in gateways)
        return conditions if here else None
    labels, namespace = inner(match, "sourceLabels"), text_of(match, "sourceNamespace")
    if namespace and workload.namespace and namespace != workload.namespace:
        return None
    if namespace and not workload.namespace:
        conditions.append(f"namespace={namespace}")
    for name in labels:
        value = text_of(labels, name)
        if workload.labels.get(name, value) != value:
            return None
        if name not in workload.labels:
            conditions.append(f"{name}={value}")
    return conditions


def _route(
    owner: LocatedMap, rule: LocatedMap, match: LocatedMap, whence: list[str], of_mesh: LocatedMap | None
) -> LocatedMap:
    targets = [
        (_destination(inner(each, "destination"), owner), changes_of_headers(each))
        for each in _used(items_of(rule, "route"))
    ]
    timeout = seconds_of(text_of(rule, "timeout", NEVER), rule.place)
    action = action_of(rule.place, targets, retry_of_virtual_service(rule, of_mesh), timeout)
    params = inner(match, "queryParams")
    conditions = made(
        match.place,
        **_path(inner(match, "uri")),
        case_sensitive=not is_true(match, "ignoreUriCase"),
        headers=list(_headers_of(match)),
        query_parameters=[_header(name, inner(params, name), match.place) for name in params],
        dynamic_metadata=[{"filter": "istio", "path": [{"key": each}]} for each in whence],
    )
    name = ".".join(filter(None, (text_of(rule, "name"), text_of(match, "name"))))
    route = made(rule.place, name=name, match=conditions, route=action)
    return changing(route, changes_of_headers(rule), targets)


def _used(destinations: list[LocatedMap]) -> list[LocatedMap]:
    """Return the destinations that get requests: of several those with a weight, and one alone in any case."""
    return (
        destinations if len(destinations) == 1 else [each for each in destinations if number_of(each, "weight", 0)]
    )


def _path(uri: LocatedMap) -> dict[str, Any]:
    kind = KINDS.get(next(iter(uri), "prefix"), "prefix")
    value = text_of(uri, next(iter(uri), "prefix"), "/")
    return {kind: {"regex": value} if kind == "safe_regex" else value}


def _headers_of(match: LocatedMap) -> Iterator[LocatedMap]:
    yield from _headers(inner(match, "headers"), match.place)
    yield from (_header(f":{name}", inner(match, name), match.place) for name in PSEUDO if name in match)
    without = {"invert_match": True, "treat_missing_header_as_empty": True}
    yield from _headers(inner(match, "withoutHeaders"), match.place, **without)


def _headers(named: LocatedMap, place: Place, **more: bool) -> Iterator[LocatedMap]:
    for name in named:
        yield made(place, **{**_header(name, inner(named, name), place), **more})


def _header(name: str, value: LocatedMap, place: Place) -> LocatedMap:
    """Return the condition on a header, or on a query parameter."""
    kind = next(iter(value), None)
    text = "" if kind is None else text_of(value, kind)
    if kind is None or (kind, text) == ("regex", "*"):  # Istio's own sign for any value, and no regular expression
        return made(place, name=name, present_match=True)
    said = {"safe_regex": {"regex": text}} if kind == "regex" else {kind: text}
    return made(place, name=name, string_match=said)


def _destination(given: LocatedMap, owner: LocatedMap) -> str:
    port, subset = text_of(inner(given, "port"), "number"), text_of(given, "subset")
    return cluster_name(port, subset, text_of(given, "host"), namespace_of(owner))
