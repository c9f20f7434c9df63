"""The settings of Istio's mesh, in the ConfigMap that istiod reads or in the objects of its operators."""

from collections.abc import Iterator
from typing import Final

from extproc.core.errors import ConfigurationError
from extproc.gateways.kubernetes.manifests import Manifests, inner, name_of
from extproc.gateways.parsing.sources import LocatedMap, read

__all__ = ["meshes_of"]

# The name of the ConfigMap, which a revision's name follows, and the key in it.
MESH: Final = "istio"
MESH_KEY: Final = "mesh"


def meshes_of(manifests: Manifests) -> Iterator[LocatedMap]:
    """Yield the settings of each mesh in the input."""
    for each in manifests.of("ConfigMap"):
        text = inner(each, "data").get(MESH_KEY)
        if name_of(each).split("-")[0] == MESH and isinstance(text, str):
            try:
                yield from read(text, f"{each.place.source}#{MESH_KEY}")
            except ConfigurationError:
                continue  # a template of it
    for each in manifests.of("IstioOperator"):
        yield inner(each, "spec", "meshConfig")
    for each in manifests.of("Istio", "IstioRevision"):
        yield inner(each, "spec", "values", "meshConfig")
