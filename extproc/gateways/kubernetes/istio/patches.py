"""Patches of EnvoyFilters that are not applied when a gateway is reconstructed from manifests."""

from collections.abc import Iterator
from typing import Final

from extproc.gateways.kubernetes.istio.http_filters import anchor_of
from extproc.gateways.kubernetes.istio.scope import (
    MANAGER_FILTER,
    is_of_manager,
    patches_of,
    patches_of_waypoints,
    settings_of,
)
from extproc.gateways.kubernetes.manifests import Manifests, inner, text_of
from extproc.gateways.parsing.sources import LocatedMap
from extproc.gateways.parsing.typed import STRUCTS

__all__ = ["unapplied"]

# By kind of object, the operations that are applied.
APPLIED: Final = {
    "HTTP_FILTER": ("INSERT_BEFORE", "INSERT_AFTER", "INSERT_FIRST", "ADD", "MERGE", "REPLACE", "REMOVE"),
    "ROUTE_CONFIGURATION": ("MERGE",),
    "NETWORK_FILTER": ("MERGE",),
    "LISTENER": ("MERGE",),
    "HTTP_ROUTE": ("MERGE",),
    "VIRTUAL_HOST": ("MERGE",),
    "CLUSTER": ("MERGE", "ADD"),
}


def unapplied(manifests: Manifests) -> Iterator[str]:
    """Yield a sentence for each patch whose effect is not known."""
    for patch in patches_of_waypoints(manifests):
        said = f"the patch ({text_of(patch, 'applyTo')}) is for waypoints, to which Istio 1.31 applies none"
        yield f"{patch.place}: {said}, and so is not checked"
    for patch in patches_of(manifests):
        kind, operation = text_of(patch, "applyTo"), text_of(inner(patch, "patch"), "operation")
        said = f"{patch.place}: the patch ({operation} {kind})"
        merging = operation == "MERGE"
        packed = merging and settings_of(patch).get("@type") in STRUCTS
        # To all filters of the chain, whatever their types.
        blind = merging and kind == "HTTP_FILTER" and not anchor_of(patch)
        if packed or blind or operation not in APPLIED.get(kind, ()):
            yield f"{said} is not applied, and so is not checked"
        elif _is_lost(patch):
            yield f"{said} is not applied: Istio does so only where the network filter is {MANAGER_FILTER}"


def _is_lost(patch: LocatedMap) -> bool:
    """Return whether a patch is to be of the connection manager, but names another filter or none."""
    named = text_of(inner(patch, "match", "listener", "filterChain", "filter"), "name")
    kind, unknown = text_of(patch, "applyTo"), named in {"", "envoy.http_connection_manager"}
    return (kind == "HTTP_FILTER" or (kind == "NETWORK_FILTER" and unknown)) and not is_of_manager(patch)
