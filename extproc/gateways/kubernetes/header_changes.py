"""What manifests change in the headers of requests, as Envoy's routes and weighted clusters have it.

Source: Istio's `networking/core/route` and `config/kube/gateway`, and Envoy Gateway's
`internal/gatewayapi/filters.go`.
"""

from typing import Final

from extproc.gateways.kubernetes.manifests import inner, items_of, made, merged, text_of, texts_of
from extproc.gateways.parsing.sources import LocatedMap

__all__ = ["changes_of_filters", "changes_of_headers"]

ACTIONS: Final = ("set", "add")


def changes_of_headers(given: LocatedMap) -> LocatedMap:
    """Return the changes of `headers` in a VirtualService's rule, or in one of its destinations."""
    request = inner(given, "headers", "request")
    added = [
        made(values.places.get(name, values.place), header={"key": name, "value": text_of(values, name)})
        for values in (inner(request, action) for action in ACTIONS)
        for name in values
    ]
    return _changes(request, added)


def changes_of_filters(given: LocatedMap) -> LocatedMap:
    """Return the changes of `filters` in an HTTPRoute's rule, or in one of its backends."""
    found = LocatedMap(given.place)
    for each in items_of(given, "filters"):
        said = inner(each, "requestHeaderModifier")
        added = [
            made(header.place, header={"key": text_of(header, "name"), "value": text_of(header, "value")})
            for action in ACTIONS
            for header in items_of(said, action)
        ]
        found = merged(found, _changes(said, added))
    return found


def _changes(said: LocatedMap, added: list[LocatedMap]) -> LocatedMap:
    return made(said.place, request_headers_to_add=added, request_headers_to_remove=texts_of(said, "remove"))
