"""The EnvoyProxy of a Gateway: that of the Gateway itself, or else that of its GatewayClass.

Source: Envoy Gateway's `internal/gatewayapi`.
"""

from extproc.gateways.kubernetes.envoy_gateway.selectors import agree, namespace_said
from extproc.gateways.kubernetes.manifests import Manifests, inner, name_of, text_of
from extproc.gateways.parsing.sources import LocatedMap

__all__ = ["proxy_of"]


def proxy_of(name: str, namespace: str, manifests: Manifests) -> LocatedMap | None:
    """Return the spec of a Gateway's EnvoyProxy, None if it has none.

    The only one if the input does not tell whose it is.
    """
    proxies = list(manifests.of("EnvoyProxy"))
    references = list(_references(name, namespace, manifests))
    if not references:
        return inner(proxies[0], "spec") if len(proxies) == 1 else None
    wanted = text_of(references[0], "name"), text_of(references[0], "namespace")
    found = (each for each in proxies if name_of(each) == wanted[0] and agree(namespace_said(each), wanted[1]))
    return next((inner(each, "spec") for each in found), None)


def _references(name: str, namespace: str, manifests: Manifests) -> list[LocatedMap]:
    """Return what a Gateway says of its parameters, and then what its class says."""
    said = [
        each
        for each in manifests.of("Gateway")
        if name_of(each) == name and agree(namespace_said(each), namespace)
    ]
    classes = {text_of(inner(each, "spec"), "gatewayClassName") for each in said}
    of_class = [each for each in manifests.of("GatewayClass") if name_of(each) in classes]
    own = [inner(each, "spec", "infrastructure", "parametersRef") for each in said]
    return [each for each in [*own, *(inner(each, "spec", "parametersRef") for each in of_class)] if each]
