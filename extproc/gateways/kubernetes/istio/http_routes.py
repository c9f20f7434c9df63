"""The routes that Istio generates for the Gateway API's HTTPRoutes.

Source: Istio's `config/kube/gateway`, which makes VirtualServices of them.
"""

from collections.abc import Iterator
from typing import Final

from extproc.gateways.kubernetes.gateway_api import EXACT, PREFIX, REGEX, matches_of, path_of
from extproc.gateways.kubernetes.header_changes import changes_of_filters
from extproc.gateways.kubernetes.istio.actions import NEVER, action_of, changing, cluster_name
from extproc.gateways.kubernetes.istio.retries import retry_of_http_route
from extproc.gateways.kubernetes.manifests import (
    inner,
    items_of,
    made,
    name_of,
    namespace_of,
    seconds_of,
    text_of,
    used,
)
from extproc.gateways.parsing.sources import LocatedMap

__all__ = ["precedence", "routes_of_http_route"]

# The order in which Istio tries the Gateway API's kinds of paths.
PATHS: Final = (EXACT, PREFIX, REGEX)


def routes_of_http_route(route: LocatedMap, of_mesh: LocatedMap | None) -> list[LocatedMap]:
    """Return Envoy's routes for an HTTPRoute; `of_mesh` are the retries of a rule that mentions none."""
    rules = enumerate(items_of(inner(route, "spec"), "rules"))
    return [each for at, rule in rules for each in _routes(route, at, rule, of_mesh)]


def precedence(route: LocatedMap) -> tuple[int, int, bool, int, int]:
    """Return the sort key of an HTTPRoute's match: kind and length of the path, method, headers, parameters."""
    match = route["match"]
    names = [each["name"] for each in match["headers"]]
    method = ":method" in names
    kind, path = path_of(match)
    return PATHS.index(kind), -len(path), not method, -len(names), -len(match["query_parameters"])


def _routes(object_: LocatedMap, at: int, rule: LocatedMap, of_mesh: LocatedMap | None) -> Iterator[LocatedMap]:
    space = namespace_of(object_)
    targets = [
        (
            cluster_name(text_of(each, "port"), "", text_of(each, "name"), text_of(each, "namespace") or space),
            changes_of_filters(each),
        )
        for each in used(items_of(rule, "backendRefs"))
    ]
    action = action_of(rule.place, targets, retry_of_http_route(rule, of_mesh), _timeout(rule))
    name = text_of(rule, "name") or f"{space}.{name_of(object_)}.{at}"
    for _, match in matches_of(rule):
        route = made(rule.place, name=name, match=match, route=action)
        yield changing(route, changes_of_filters(rule), targets)


def _timeout(rule: LocatedMap) -> str:
    """Return the timeout of a whole response; with `retry` that of the backend is one of each try instead."""
    timeouts = inner(rule, "timeouts")
    of_backend = "" if "retry" in rule else text_of(timeouts, "backendRequest")
    said = [seconds_of(each, timeouts.place) for each in (of_backend, text_of(timeouts, "request")) if each]
    return next((each for each in said if each != NEVER), NEVER)
