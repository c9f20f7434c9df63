"""Where the patches of EnvoyFilters apply: what can never meet the router's filter does not change its gateway.

All objects of a cluster may be given at once, but only one gateway is reconstructed from them. Two patches do
not meet if they select different workloads, contexts or ports; where that cannot be told, as for labels under
different keys, they are taken to meet. Source: Istio's EnvoyFilter reference, and its
`networking/core/envoyfilter`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from extproc.gateways.kubernetes.manifests import (
    Manifests,
    age_of,
    field_of,
    inner,
    items_of,
    name_of,
    priority_of,
    text_of,
)
from extproc.gateways.kubernetes.type_names import EXT_PROC
from extproc.gateways.parsing.sources import LocatedMap

__all__ = [
    "GATEWAY_LABEL",
    "MANAGER_FILTER",
    "ROOT_NAMESPACE",
    "Scope",
    "Workload",
    "is_of_manager",
    "patches_of",
    "patches_of_waypoints",
    "settings_of",
    "workload_of",
]

# Objects of this namespace apply to the workloads of all; another one can be configured.
ROOT_NAMESPACE: Final = "istio-system"
OURS: Final = "dualpool"
WAYPOINT: Final = "WAYPOINT"
MANAGER_FILTER: Final = "envoy.filters.network.http_connection_manager"
# The fields that name the type of a filter's settings: the latter two in a TypedStruct.
_TYPES: Final = ("@type", "type_url", "typeUrl")
IS_GATEWAY: Final = {"GATEWAY": True, "SIDECAR_OUTBOUND": False}
# Istio gives this label to the workload of a Gateway.
GATEWAY_LABEL: Final = "gateway.networking.k8s.io/gateway-name"


@dataclass(frozen=True, slots=True)
class Scope:
    """The workloads and listeners that a patch applies to; "" and empty sets mean all of them.

    `labels` are name and value of the workload's labels, `targets` kind and name of the objects whose workloads
    are meant.
    """

    namespace: str
    labels: frozenset[tuple[str, str]]
    targets: frozenset[tuple[str, str]]
    context: str
    port: str

    def may_meet(self, other: "Scope") -> bool:
        """Return whether both may apply to the same listener; True if that is not known."""
        return (
            _agree(self.context, other.context, "", "ANY")
            and _agree(self.port, other.port, "")
            and _agree(self.namespace, other.namespace, "", ROOT_NAMESPACE)
            and not any(name == its and value != said for name, value in self.labels for its, said in other.labels)
            and not _are_apart(self.targets, other.targets)
        )


@dataclass(frozen=True, slots=True)
class Workload:
    """What is known of the workload that has the router's filter: of all of them, if there are several."""

    labels: Mapping[str, str]
    namespace: str
    """"" if it is not known."""
    is_gateway: bool | None
    """False for sidecars, None if it is not known."""


def workload_of(manifests: Manifests) -> Workload:
    """Return what the EnvoyFilters with the router's filter say of their workload."""
    ours = [
        _scope(each, patch) for each in manifests.of("EnvoyFilter") for patch in _patches(each) if _is_ours(patch)
    ]
    labels = frozenset.intersection(*(each.labels for each in ours)) if ours else frozenset()
    spaces, contexts = {each.namespace for each in ours}, {each.context for each in ours}
    namespace = spaces.pop() if len(spaces) == 1 else ""
    return Workload(
        labels=dict(labels),
        namespace="" if namespace == ROOT_NAMESPACE else namespace,
        is_gateway=IS_GATEWAY.get(contexts.pop()) if len(contexts) == 1 else None,
    )


def patches_of(manifests: Manifests) -> list[LocatedMap]:
    """Return the patches that apply to the router's filter, or may, in the order in which Istio applies them.

    All patches if it is not known which filter is the router's.
    """
    filters = sorted(manifests.of("EnvoyFilter"), key=_order)
    found = [(patch, _scope(each, patch)) for each in filters for patch in _patches(each)]
    ours = [scope for patch, scope in found if _is_ours(patch)]
    known = [(patch, scope) for patch, scope in found if scope.context != WAYPOINT]
    return [patch for patch, scope in known if not ours or any(scope.may_meet(each) for each in ours)]


def _order(filter_: LocatedMap) -> tuple[int, bool, tuple[bool, str], str]:
    """Return the key by which Istio sorts EnvoyFilters: of equal priorities those of all workloads come first."""
    namespace = text_of(inner(filter_, "metadata"), "namespace")
    return priority_of(filter_), namespace != ROOT_NAMESPACE, age_of(filter_), f"{name_of(filter_)}.{namespace}"


def patches_of_waypoints(manifests: Manifests) -> list[LocatedMap]:
    """Return the patches whose context is a waypoint: Istio 1.31 accepts them, and applies none."""
    found = [patch for each in manifests.of("EnvoyFilter") for patch in _patches(each)]
    return [patch for patch in found if text_of(inner(patch, "match"), "context") == WAYPOINT]


def is_of_manager(patch: LocatedMap) -> bool:
    """Return whether a patch is of the connection manager or its filters: it names that, or no network filter.

    Istio 1.31 no longer knows envoy.http_connection_manager.
    """
    chain = inner(patch, "match", "listener", "filterChain")
    return "filter" not in chain or text_of(inner(chain, "filter"), "name") == MANAGER_FILTER


def settings_of(patch: LocatedMap) -> LocatedMap:
    """Return the settings that a patch gives a filter."""
    value = inner(patch, "patch", "value")
    return inner(value, field_of(value, "typed_config"))


def _patches(filter_: LocatedMap) -> Iterator[LocatedMap]:
    yield from items_of(inner(filter_, "spec"), "configPatches")


def _is_ours(patch: LocatedMap) -> bool:
    settings = settings_of(patch)
    return EXT_PROC in [text_of(settings, each) for each in _TYPES] and OURS in str(inner(patch, "patch", "value"))


def _scope(filter_: LocatedMap, patch: LocatedMap) -> Scope:
    spec, match = inner(filter_, "spec"), inner(patch, "match")
    selected = inner(spec, "workloadSelector", "labels")
    labels = {(name, text_of(selected, name)) for name in selected}
    targets = frozenset((text_of(each, "kind"), text_of(each, "name")) for each in items_of(spec, "targetRefs"))
    if len(targets) == 1 and _are_gateways(targets):
        labels |= {(GATEWAY_LABEL, name) for _, name in targets}
    ports = [text_of(inner(match, name), "portNumber") for name in ("listener", "routeConfiguration")]
    return Scope(
        namespace=text_of(inner(filter_, "metadata"), "namespace"),
        labels=frozenset(labels),
        targets=targets,
        context=text_of(match, "context"),
        port=next(filter(None, ports), ""),
    )


def _agree(one: str, other: str, *all_: str) -> bool:
    return one == other or one in all_ or other in all_


def _are_gateways(targets: frozenset[tuple[str, str]]) -> bool:
    return {kind for kind, _ in targets} == {"Gateway"}


def _are_apart(targets: frozenset[tuple[str, str]], others: frozenset[tuple[str, str]]) -> bool:
    """Return whether no workload is meant by both; not known of Services, which may have the same workloads."""
    return _are_gateways(targets) and _are_gateways(others) and targets.isdisjoint(others)
