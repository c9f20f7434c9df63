"""The EnvoyProxy of a Gateway: that of the Gateway itself, or else that of its GatewayClass.

One of a Gateway with a `mergeType` is merged into its class's. Source: Envoy Gateway's `internal/gatewayapi`.
"""

from collections.abc import Iterator
from itertools import islice

from extproc.gateways.kubernetes.envoy_gateway.selectors import agree, namespace_said
from extproc.gateways.kubernetes.manifests import Manifests, inner, laid_over, name_of, text_of
from extproc.gateways.parsing.sources import LocatedMap

__all__ = ["Proxies"]

ByName = dict[str, list[LocatedMap]]


class Proxies:
    """The EnvoyProxies, and the Gateways and GatewayClasses that refer to them, by name."""

    def __init__(self, manifests: Manifests) -> None:
        self._proxies = _by_name(manifests, "EnvoyProxy")
        self._gateways = _by_name(manifests, "Gateway")
        self._classes = _by_name(manifests, "GatewayClass")

    def of_gateway(self, name: str, namespace: str) -> LocatedMap | None:
        """Return the spec of a Gateway's EnvoyProxy, None if it has none.

        The only one if the input does not tell whose it is.
        """
        found = [self._named(*each) for each in self._references(name, namespace)]
        if not found:
            proxies = [each for named in self._proxies.values() for each in named]
            return inner(proxies[0], "spec") if len(proxies) == 1 else None
        first, last = found[0], found[-1]
        return laid_over(last, first) if first and last and "mergeType" in first else first

    def _references(self, name: str, namespace: str) -> Iterator[tuple[str, str]]:
        """Yield the name in a Gateway, whose namespace is its own, and then name and namespace in its class."""
        said = (each for each in self._gateways.get(name, ()) if agree(namespace_said(each), namespace))
        for gateway in islice(said, 1):
            if own := inner(gateway, "spec", "infrastructure", "parametersRef"):
                yield text_of(own, "name"), namespace_said(gateway) or namespace
            for each in self._classes.get(text_of(inner(gateway, "spec"), "gatewayClassName"), ()):
                if of_class := inner(each, "spec", "parametersRef"):
                    yield text_of(of_class, "name"), text_of(of_class, "namespace")

    def _named(self, name: str, namespace: str) -> LocatedMap | None:
        found = (each for each in self._proxies.get(name, ()) if agree(namespace_said(each), namespace))
        return next((inner(each, "spec") for each in found), None)


def _by_name(manifests: Manifests, kind: str) -> ByName:
    found: ByName = {}
    for each in manifests.of(kind):
        found.setdefault(name_of(each), []).append(each)
    return found
