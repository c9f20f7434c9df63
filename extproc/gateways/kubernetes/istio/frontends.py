"""Where VirtualServices and HTTPRoutes are served: by a gateway, or by the sidecars of the mesh.

Source: Istio's `model`, `networking/core/route`, `networking/core/gateway.go`, and, for the Gateway API, its
`config/kube/gateway`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from extproc.gateways.kubernetes.host_names import ANY_HOST, narrower
from extproc.gateways.kubernetes.istio.clusters import full_name
from extproc.gateways.kubernetes.istio.listeners import OF_ROUTES, attached
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
    """A port of a gateway, or the sidecars of those who call a Service, with the known labels of the workload."""

    name: str
    is_mesh: bool
    labels: frozenset[tuple[str, str]] = frozenset()
    port: str = ""
    """"" if it is not known."""

    def may_run_on(self, workload: Workload) -> bool:
        """Return whether it may be a workload's; True if that is not known."""
        if workload.is_gateway == self.is_mesh:
            return False
        return not any(workload.labels.get(name, value) != value for name, value in self.labels)

    def at(self, workload: Workload) -> "Frontend":
        """Return it without its name if it is known to be a workload's: Istio merges the Gateways of each."""
        known = bool(self.labels) and self.labels <= workload.labels.items()
        return replace(self, name="", labels=frozenset()) if known else self


class Frontends:
    """The frontends that objects name; Istio's Gateways say which labels their workloads have, ports and hosts."""

    def __init__(self, manifests: Manifests) -> None:
        self._gateways = {f"{namespace_of(each)}/{name_of(each)}": each for each in manifests.of("Gateway")}

    def of_virtual_service(self, service: LocatedMap) -> Iterator[tuple[Frontend, list[str]]]:
        """Yield those of a VirtualService, each with its hosts there: the sidecars if it names none."""
        own = [full_name(each, namespace_of(service)) for each in texts_of(inner(service, "spec"), "hosts")]
        names = [gateway_name(each, service) for each in texts_of(inner(service, "spec"), "gateways")]
        for name in dict.fromkeys(names or [MESH]):
            gateway = self._gateways.get(name, LocatedMap(service.place))
            labels = frozenset((key, str(value)) for key, value in inner(gateway, "spec", "selector").items())
            for port, hosts in _by_port(gateway, own, service).items():
                yield Frontend(name, name == MESH, labels, port), hosts

    def of_http_route(self, route: LocatedMap) -> dict[Frontend, list[str]]:
        """Return the parents of an HTTPRoute, each with its hosts there."""
        hosts = texts_of(inner(route, "spec"), "hostnames") or [ANY_HOST]
        parents = items_of(inner(route, "spec"), "parentRefs")
        found: dict[Frontend, list[str]] = {}
        for each in parents:
            name, gateway = _parent(each, namespace_of(route))
            for port, shared in attached(self._gateways.get(name), each, route, hosts).items():
                at = found.setdefault(replace(gateway, port=port), [])
                at += [host for host in shared if host not in at]
        return found if parents else {Frontend("", is_mesh=False): hosts}


def _by_port(gateway: LocatedMap, hosts: list[str], service: LocatedMap) -> dict[str, list[str]]:
    """Return the hosts, of these, that a gateway serves at each port for a VirtualService; all if not known."""
    found: dict[str, list[str]] = {}
    for server in items_of(inner(gateway, "spec"), "servers"):
        port = inner(server, "port")
        if text_of(port, "protocol").upper().startswith(OF_ROUTES):
            of_server = _hosts_for(service, texts_of(server, "hosts"), namespace_of(gateway))
            found.setdefault(text_of(port, "number"), []).extend(
                filter(None, (narrower(each.lower(), host.lower()) for each in of_server for host in hosts))
            )
    return {port: list(dict.fromkeys(shared)) for port, shared in found.items()} or {"": hosts}


def _hosts_for(service: LocatedMap, of_server: list[str], namespace: str) -> Iterator[str]:
    """Yield the hosts that a server has for a VirtualService's namespace, as models/*.example.com, or for all."""
    said = text_of(inner(service, "metadata"), "namespace")
    for each in of_server:
        its, _, name = each.rpartition("/")
        if not said or its in ("", "*", said) or (its, namespace) == (".", said):
            yield name


def _parent(given: LocatedMap, namespace: str) -> tuple[str, Frontend]:
    """Return the frontend behind the full name of its Gateway, if it is one, which its workload has as a label."""
    kind, name = text_of(given, "kind", "Gateway"), text_of(given, "name")
    full = f"{text_of(given, 'namespace') or namespace}/{name}"
    labels = frozenset([(GATEWAY_LABEL, name)] if kind == "Gateway" else [])
    return full if labels else "", Frontend(f"{kind}/{full}", kind not in GATEWAYS, labels)


def gateway_name(name: str, service: LocatedMap) -> str:
    """Return a gateway's name with its namespace, that of the VirtualService that names it if it has none.

    A name with dots is a host name, which begins with those two the other way round.
    """
    namespace, _, rest = name.rpartition("/")
    if name == MESH or namespace not in ("", "."):
        return name
    first, *more = rest.split(".") if not namespace else [rest]
    return f"{more[0] if more else namespace_of(service)}/{first}"
