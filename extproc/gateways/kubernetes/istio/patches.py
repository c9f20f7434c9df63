"""Patches of EnvoyFilters that are not applied when a gateway is reconstructed from manifests."""

from collections.abc import Iterator
from typing import Final

from extproc.gateways.kubernetes.istio.scope import patches_of, patches_of_waypoints, settings_of
from extproc.gateways.kubernetes.manifests import Manifests, inner, text_of
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
        packed = operation == "MERGE" and settings_of(patch).get("@type") in STRUCTS
        if packed or operation not in APPLIED.get(kind, ()):
            yield f"{patch.place}: the patch ({operation} {kind}) is not applied, and so is not checked"
