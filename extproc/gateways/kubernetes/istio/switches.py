"""Environment variables of istiod, as far as the input says how it is installed."""

from collections.abc import Iterator
from typing import Final

from extproc.gateways.kubernetes.manifests import Manifests, inner, items_of, name_of, text_of
from extproc.gateways.parsing.sources import LocatedMap

__all__ = ["passes_expect"]

# Go's words for false, all that istiod understands besides those for true.
_FALSE: Final = ("0", "f", "false")
_CONTINUE: Final = "ENABLE_100_CONTINUE_HEADERS"
_ISTIOD: Final = "istiod"


def passes_expect(manifests: Manifests) -> bool:
    """Return whether gateways leave it to servers to answer `Expect: 100-continue`, as they do by default."""
    said = (value for name, value in _variables(manifests) if name == _CONTINUE)
    return next(said, "").lower() not in _FALSE


def _variables(manifests: Manifests) -> Iterator[tuple[str, str]]:
    """Yield the variables of a Deployment, and those of the two operators' and of Helm's values."""
    for each in manifests.of("Deployment"):
        if name_of(each).split("-")[0] == _ISTIOD:  # a revision's name follows
            for container in items_of(inner(each, "spec", "template", "spec"), "containers"):
                yield from _listed(container)
    for each in manifests.of("IstioOperator"):
        yield from _listed(inner(each, "spec", "components", "pilot", "k8s"))
    for each in manifests.of("IstioOperator", "Istio", "IstioRevision"):
        named = inner(each, "spec", "values", "pilot", "env")
        yield from ((name, text_of(named, name)) for name in named)


def _listed(given: LocatedMap) -> Iterator[tuple[str, str]]:
    return ((text_of(each, "name"), text_of(each, "value")) for each in items_of(given, "env"))
