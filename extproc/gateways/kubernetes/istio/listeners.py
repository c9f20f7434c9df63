"""The listeners of the Gateway API's Gateways in Istio: which hosts of an HTTPRoute they have, at which port.

Source: the Gateway API's rules of attachment, and Istio's `config/kube/gateway`.
"""

from typing import Final

from extproc.gateways.kubernetes.host_names import ANY_HOST, narrower
from extproc.gateways.kubernetes.manifests import inner, items_of, text_of
from extproc.gateways.parsing.sources import LocatedMap

__all__ = ["OF_ROUTES", "attached"]

# The protocols of servers and listeners that have routes begin like that.
OF_ROUTES: Final = ("HTTP", "GRPC")
_SAME: Final = "Same"


def attached(
    gateway: LocatedMap | None, reference: LocatedMap, route: LocatedMap, hosts: list[str]
) -> dict[str, list[str]]:
    """Return the hosts, of these, that an HTTPRoute has at each port of a Gateway by one of its references.

    All of them, at the port "", if the Gateway is not in the input.
    """
    listeners = items_of(inner(gateway, "spec"), "listeners") if gateway is not None else []
    if gateway is None or not listeners:
        return {"": hosts}
    found: dict[str, list[str]] = {}
    for each in listeners:
        if _takes(each, gateway, reference, route):
            own = text_of(each, "hostname", ANY_HOST)
            shared = (narrower(own.lower(), host.lower()) for host in hosts)
            found.setdefault(text_of(each, "port"), []).extend(filter(None, shared))
    return found


def _takes(listener: LocatedMap, gateway: LocatedMap, reference: LocatedMap, route: LocatedMap) -> bool:
    """Return whether a listener may take an HTTPRoute that refers to its Gateway; True if that is not known."""
    spaces = {text_of(inner(each, "metadata"), "namespace") for each in (gateway, route)} - {""}
    source = text_of(inner(listener, "allowedRoutes", "namespaces"), "from", _SAME)
    return (
        text_of(listener, "protocol", OF_ROUTES[0]).startswith(OF_ROUTES)
        and text_of(reference, "sectionName") in ("", text_of(listener, "name"))
        and text_of(reference, "port") in ("", text_of(listener, "port"))
        and (source != _SAME or len(spaces) < len((gateway, route)))
    )
