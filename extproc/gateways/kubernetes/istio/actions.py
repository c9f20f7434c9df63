"""What the routes that Istio generates do with requests: the clusters that get them, and the changes of headers.

Source: Istio's `networking/core/route`.
"""

from typing import Final

from extproc.gateways.kubernetes.istio.clusters import full_name
from extproc.gateways.kubernetes.manifests import made, merged
from extproc.gateways.parsing.sources import LocatedMap, Place

__all__ = ["NEVER", "Target", "action_of", "changing", "cluster_name"]

NEVER: Final = "0s"
Target = tuple[str, LocatedMap]
"""A cluster, and the changes of headers for the requests that it gets."""


def cluster_name(port: str, subset: str, host: str, namespace: str) -> str:
    """Return the name that Istio gives to the cluster of a host, which may be short."""
    return f"outbound|{port}|{subset}|{full_name(host, namespace)}"


def action_of(place: Place, targets: list[Target], retry: LocatedMap | None, timeout: str) -> LocatedMap | None:
    """Return the action of a route to these targets, None if there are none."""
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


def changing(route: LocatedMap, changes: LocatedMap, targets: list[Target]) -> LocatedMap:
    """Return a route with these changes of headers, and those of its destination if it has only one."""
    route = merged(route, changes)
    return merged(route, targets[0][1]) if len(targets) == 1 else route
