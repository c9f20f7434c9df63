"""The HTTP filters of a gateway or sidecar: those that EnvoyFilters insert, replace, remove and merge.

Filters that patches refer to are assumed to exist, unless a later patch inserts them: then Istio does nothing.
Source: Istio's `listener_patch.go` in `networking/core/envoyfilter`.
"""

from collections.abc import Iterator
from typing import Final

from extproc.gateways.kubernetes.istio.merging import filter_merged
from extproc.gateways.kubernetes.istio.scope import is_of_manager
from extproc.gateways.kubernetes.manifests import Manifests, inner, items_of, made, text_of
from extproc.gateways.kubernetes.type_names import EXT_PROC, ROUTER
from extproc.gateways.parsing.sources import LocatedList, LocatedMap, Place

__all__ = ["PICKER", "anchor_of", "http_filters"]

PICKER: Final = "envoy.filters.http.ext_proc"
_ROUTER: Final = "envoy.filters.http.router"
# The names of filters that Istio itself may have begin like that: they are before those of patches.
_OWN: Final = ("envoy.", "istio")
# At an end of the chain, whichever filter a patch refers to.
_AT_ENDS: Final = ("INSERT_FIRST", "ADD")
# Without the name of a filter in their match these are the same.
_WITHOUT_NAME: Final = {"INSERT_BEFORE": "INSERT_FIRST", "INSERT_AFTER": "ADD"}


def http_filters(manifests: Manifests, patches: list[LocatedMap], place: Place) -> LocatedList:
    """Return the filter chain with the patches applied, merges after all others; `patches` may be of any kind."""
    chain = LocatedList(place, [made(place, name=_ROUTER, typed_config={"@type": ROUTER})])
    picked = any(
        text_of(each, "kind") == "InferencePool" for route in manifests.of("HTTPRoute") for each in _refs(route)
    )
    if picked:
        chain.insert(0, _picker(place))
    mine = [each for each in patches if text_of(each, "applyTo") == "HTTP_FILTER" and is_of_manager(each)]
    inserting = (each for each in mine if _operation(each) in {*_AT_ENDS, *_WITHOUT_NAME})
    inserted = {text_of(inner(each, "patch", "value"), "name") for each in inserting}
    for patch in (each for each in mine if _operation(each) != "MERGE"):
        anchor = anchor_of(patch)
        if anchor and _operation(patch) not in _AT_ENDS and anchor not in (each.get("name") for each in chain):
            own = anchor.startswith(_OWN)
            if anchor in inserted and not own:
                continue
            assumed = _picker(place) if anchor == PICKER else made(place, name=anchor)
            chain.insert(0 if own else len(chain) - 1, assumed)
        _change(chain, patch)
    for patch in (each for each in mine if _operation(each) == "MERGE"):
        anchor, value = anchor_of(patch), inner(patch, "patch", "value")
        chain[:] = [filter_merged(each, value) if each.get("name") == anchor else each for each in chain]
    return chain


def _change(chain: LocatedList, patch: LocatedMap) -> None:
    """Insert, replace or remove a filter: the first of its name, or all of it to be removed."""
    anchor, operation, value = anchor_of(patch), _operation(patch), inner(patch, "patch", "value")
    if not anchor:
        operation = _WITHOUT_NAME.get(operation, operation)
    at = next((at for at, each in enumerate(chain) if each.get("name") == anchor), 0)
    if operation == "INSERT_FIRST":
        chain.insert(0, value)
    elif operation == "ADD":
        chain.append(value)
    elif operation in {"INSERT_BEFORE", "INSERT_AFTER"}:
        chain.insert(at + (operation == "INSERT_AFTER"), value)
    elif operation == "REPLACE" and anchor:
        chain[at] = value
    elif operation == "REMOVE":
        chain[:] = [each for each in chain if not anchor or each.get("name") != anchor]


def _operation(patch: LocatedMap) -> str:
    return text_of(inner(patch, "patch"), "operation")


def anchor_of(patch: LocatedMap) -> str:
    """Return the name of the filter that a patch refers to, "" if it names none."""
    return text_of(inner(patch, "match", "listener", "filterChain", "filter", "subFilter"), "name")


def _picker(place: Place) -> LocatedMap:
    service = {"envoy_grpc": {"cluster_name": "endpoint-picker"}}
    return made(place, name=PICKER, typed_config={"@type": EXT_PROC, "grpc_service": service})


def _refs(route: LocatedMap) -> Iterator[LocatedMap]:
    for rule in items_of(inner(route, "spec"), "rules"):
        yield from items_of(rule, "backendRefs")
