"""References from routes and policies to servers of other namespaces, which a ReferenceGrant there has to allow.

Source: the Gateway API's ReferenceGrant, and `validateBackendRef` in Envoy Gateway's `internal/gatewayapi`.
"""

from collections.abc import Iterator
from typing import Final

from extproc.gateways.kubernetes.manifests import Manifests, inner, items_of, text_of
from extproc.gateways.parsing.sources import LocatedMap, Place

__all__ = ["ungranted"]

# Group, kind and namespace of what refers to others, or of what is referred to.
Kind = tuple[str, str, str]
_NAMED: Final = 3  # of thousands


def ungranted(manifests: Manifests) -> Iterator[str]:
    """Yield a sentence for each pair of namespaces with references that no grant in the input allows."""
    grants: dict[str, list[LocatedMap]] = {}
    for each in manifests.of("ReferenceGrant"):
        grants.setdefault(_kind_of(each)[2], []).append(each)
    missing: dict[tuple[Kind, Kind], dict[str, Place]] = {}
    for object_ in manifests.of("HTTPRoute", "EnvoyExtensionPolicy", "SecurityPolicy"):
        for reference in _references(object_):
            source, target, name = _kind_of(object_), _referred(reference), text_of(reference, "name")
            apart = source[2] and target[2] and source[2] != target[2]
            near = (each for namespace in ("", target[2]) for each in grants.get(namespace, ()))
            if apart and not any(_allows(each, source, target, name) for each in near):
                missing.setdefault((source, target), {}).setdefault(name, reference.place)
    for ((_, kind, namespace), (_, referred, other)), places in missing.items():
        names = ", ".join([*places][:_NAMED]) + (" and more" if len(places) > _NAMED else "")
        said = f"whether each {kind} of {namespace} may refer to the {referred} {names} of {other} is not checked"
        yield f"{next(iter(places.values()))}: {said}: no ReferenceGrant in the input allows it"


def _references(object_: LocatedMap) -> Iterator[LocatedMap]:
    spec = inner(object_, "spec")
    for each in (*items_of(spec, "rules"), *items_of(spec, "extProc")):
        yield from items_of(each, "backendRefs")
    for protocol in ("grpc", "http"):
        yield from items_of(inner(spec, "extAuth", protocol), "backendRefs")


def _kind_of(object_: LocatedMap) -> Kind:
    group = text_of(object_, "apiVersion").partition("/")[0]
    return group, text_of(object_, "kind"), text_of(inner(object_, "metadata"), "namespace")


def _referred(reference: LocatedMap) -> Kind:
    return text_of(reference, "group"), text_of(reference, "kind", "Service"), text_of(reference, "namespace")


def _allows(grant: LocatedMap, source: Kind, target: Kind, name: str) -> bool:
    spec = inner(grant, "spec")
    return any(
        _same(each, source) and text_of(each, "namespace") == source[2] for each in items_of(spec, "from")
    ) and any(_same(each, target) and text_of(each, "name", name) == name for each in items_of(spec, "to"))


def _same(given: LocatedMap, kind: Kind) -> bool:
    return (text_of(given, "group"), text_of(given, "kind")) == kind[:2]
