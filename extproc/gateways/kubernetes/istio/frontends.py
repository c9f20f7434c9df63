"""Where VirtualServices and HTTPRoutes are served: by a gateway, or by the sidecars of the mesh.

Source: Istio's `model` and `networking/core/route`, and `config/kube/gateway` for the Gateway API.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from extproc.gateways.kubernetes.istio.scope import GATEWAY_LABEL, Workload
from extproc.gateways.kubernetes.manifests import (
    Manifests,
    inner,
    items_of,
    name_of,
    namespace_of,
    text_of,
    texts_of,
)
from extproc.gateways.parsing.sources import LocatedMap

__all__ = ["MESH", "Frontend", "Frontends", "gateway_name"]

# Istio's own name for all sidecars, in the place of a gateway's.
MESH: Final = "mesh"
GATEWAYS: Final = ("Gateway", "ListenerSet", "XListenerSet")


@dataclass(frozen=True, slots=True)
class Frontend:
    """A gateway, or the sidecars of those who call a Service, with what is known of the labels of its workload."""

    name: str
    is_mesh: bool
    labels: frozenset[tuple[str, str]] = frozenset()

    def may_run_on(self, workload: Workload) -> bool:
        """Return whether it may be a workload's; True if that is not known."""
        if workload.is_gateway == self.is_mesh:
            return False
        return not any(workload.labels.get(name, value) != value for name, value in self.labels)


class Frontends:
    """The frontends that objects name; Istio's Gateways say which labels their workloads have."""

    def __init__(self, manifests: Manifests) -> None:
        self._selectors: dict[str, LocatedMap] = {
            f"{namespace_of(each)}/{name_of(each)}": inner(each, "spec", "selector")
            for each in manifests.of("Gateway")
        }

    def of_virtual_service(self, service: LocatedMap) -> Iterator[Frontend]:
        """Yield those of a VirtualService: the sidecars if it names none."""
        names = [gateway_name(each, service) for each in texts_of(inner(service, "spec"), "gateways")]
        for name in dict.fromkeys(names or [MESH]):
            selector: Mapping[str, str] = self._selectors.get(name, {})
            labels = frozenset((key, str(value)) for key, value in selector.items())
            yield Frontend(name, name == MESH, labels)

    def of_http_route(self, route: LocatedMap) -> Iterator[Frontend]:
        """Yield the parents of an HTTPRoute; the workload of a Gateway has a label with its name."""
        parents = items_of(inner(route, "spec"), "parentRefs")
        return iter(
            dict.fromkeys(_parent(each, namespace_of(route)) for each in parents) or [Frontend("", is_mesh=False)]
        )


def _parent(given: LocatedMap, namespace: str) -> Frontend:
    kind, name = text_of(given, "kind", "Gateway"), text_of(given, "name")
    labels = frozenset([(GATEWAY_LABEL, name)] if kind == "Gateway" else [])
    return Frontend(f"{kind}/{text_of(given, 'namespace') or namespace}/{name}", kind not in GATEWAYS, labels)


def gateway_name(name: str, service: LocatedMap) -> str:
    """Return a gateway's name with its namespace, that of the VirtualService that names it if it has none.

    A name with dots is a host name, which begins with those two the other way round.
    """
    namespace, _, rest = name.rpartition("/")
    if name == MESH or namespace not in ("", "."):
        return name
    first, *more = rest.split(".") if not namespace else [rest]
    return f"{more[0] if more else namespace_of(service)}/{first}"
