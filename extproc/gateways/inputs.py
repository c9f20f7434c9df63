"""Finding the gateways in bootstraps, config dumps and manifests; all manifests are taken together."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from extproc.core.errors import ConfigurationError
from extproc.gateways.envoy.gateways import gateways_of
from extproc.gateways.envoy.resources import Resources, of_bootstrap, of_config_dump, of_files
from extproc.gateways.kubernetes.envoy_gateway import bootstrap as envoy_gateway
from extproc.gateways.kubernetes.envoy_gateway import patches as envoy_gateway_patches
from extproc.gateways.kubernetes.envoy_gateway.filters import unordered
from extproc.gateways.kubernetes.envoy_gateway.patches import Patches
from extproc.gateways.kubernetes.grants import ungranted
from extproc.gateways.kubernetes.istio import bootstrap as istio
from extproc.gateways.kubernetes.istio import patches as istio_patches
from extproc.gateways.kubernetes.istio.authorization import refusing_policies
from extproc.gateways.kubernetes.manifests import Manifests, inner, items_of, name_of
from extproc.gateways.model import Flavour, Gateway
from extproc.gateways.parsing.sources import LocatedList, LocatedMap, read
from extproc.gateways.parsing.typed import UNKNOWN
from extproc.gateways.router import Router

__all__ = ["Read", "read_gateways"]


# A bootstrap has its resources under one of these keys, in one of protobuf's two spellings.
BOOTSTRAP: Final = ("static_resources", "staticResources", "dynamic_resources", "dynamicResources")
# A file of some of them has this one, with a type for each: a kustomization has it, too, with the names of files.
FILE: Final = "resources"
# Those that insert the router's filter.
ASKING: Final = ("EnvoyFilter", "EnvoyExtensionPolicy", "EnvoyPatchPolicy")
ROUTES: Final = ("HTTPRoute", "VirtualService")
# Envoy AI Gateway makes HTTPRoutes of them.
OTHER_ROUTES: Final = "AIGatewayRoute"
_TYPE: Final = "type.googleapis.com/envoy.config."


@dataclass(frozen=True, slots=True)
class Read:
    """The gateways that ask the router, and what could not be checked."""

    gateways: tuple[Gateway, ...]
    unchecked: tuple[str, ...]


def read_gateways(documents: Iterable[LocatedMap], router: Router) -> Read:
    """Return the gateways in these documents.

    Raises ConfigurationError for documents of other kinds, for fields that Envoy does not have, and if nothing in
    the documents asks the router.
    """
    documents = list(documents)
    manifests = Manifests(tuple(map(_without_nulls, _objects(documents))))
    found: list[Gateway] = []
    unchecked = [*istio_patches.unapplied(manifests), *envoy_gateway_patches.unapplied(manifests)]
    unchecked += [*unordered(manifests), *ungranted(manifests)]
    if any(manifests.of("EnvoyFilter")):
        unchecked += refusing_policies(manifests)
    if any(manifests.of(*ASKING)) and not any(manifests.of(*ROUTES)):
        place = next(manifests.of(*ASKING)).place
        said = "no routes (HTTPRoutes, or VirtualServices of Istio) are in the input, and so are not checked"
        unchecked.append(f"{place}: {said}")
    for each in manifests.of(OTHER_ROUTES):
        said = f'the {OTHER_ROUTES} "{name_of(each)}" is not read, and so its routes are not checked'
        unchecked.append(f"{each.place}: {said}")
    held, unread = _held(manifests)
    unchecked += unread
    for resources, flavour in [*_plain([*documents, *held]), *_translated(manifests)]:
        found += gateways_of(resources, router, flavour)
        unchecked += resources.unchecked
    if not found:
        sources = ", ".join(dict.fromkeys(each.place.source for each in documents))
        lacking = f"no ext_proc filter in {sources}" if sources else "the input is empty"
        raise ConfigurationError(
            f"{lacking}: give all files of one gateway (for Istio its EnvoyFilter, for "
            "Envoy Gateway its EnvoyExtensionPolicy or EnvoyPatchPolicy, each with its routes)",
            *(f"not checked: {said}" for said in _unknown_types_last(unchecked)),
        )
    found = [each for each in found if each.forwards] or found
    cluster_ips = manifests.cluster_ips
    gateways = tuple(replace(each, cluster_ips=cluster_ips) for each in found)
    return Read(gateways, tuple(unchecked))


def _unknown_types_last(unchecked: Iterable[str]) -> list[str]:
    """Sort what may hide the filter first: few are printed, and a mesh has many types of its own."""
    return sorted(dict.fromkeys(unchecked), key=lambda said: said.endswith(UNKNOWN))


def _objects(documents: Iterable[LocatedMap]) -> Iterable[LocatedMap]:
    for each in documents:
        if "apiVersion" in each and "items" in each:
            yield from items_of(each, "items")
        elif "apiVersion" in each:
            yield each


def _without_nulls(value: Any) -> Any:  # noqa: ANN401
    """Return values without fields that are null: to gateways such a field, like `retries:`, is one not given."""
    if isinstance(value, LocatedList):
        return LocatedList(value.place, [_without_nulls(each) for each in value])
    if not isinstance(value, LocatedMap):
        return value
    kept = LocatedMap(value.place, {key: _without_nulls(each) for key, each in value.items() if each is not None})
    kept.places = value.places
    return kept


def _held(manifests: Manifests) -> tuple[list[LocatedMap], list[str]]:
    """Return the bootstraps in ConfigMaps, and what is wrong with those that cannot be read.

    Lines in them count from their own beginning. A text may just mention a bootstrap, or be a template.
    """
    held, unread = [], []
    for each in manifests.of("ConfigMap"):
        for name, text in inner(each, "data").items():
            if isinstance(text, str) and (any(key in text for key in BOOTSTRAP) or _TYPE in text):
                try:
                    documents = read(text, f"{each.place.source}#{name}")
                except ConfigurationError as error:
                    unread.append(str(error))
                else:
                    held += [each for each in documents if _is_bootstrap(each) or _is_file(each)]
    return held, unread


def _plain(documents: Iterable[LocatedMap]) -> Iterable[tuple[Resources, Flavour]]:
    documents = list(documents)
    files = [each for each in documents if _is_file(each)]
    for each in documents:
        if "configs" in each:
            yield of_config_dump(each), Flavour.ENVOY
        elif _is_bootstrap(each):
            yield of_bootstrap(each, *files), Flavour.ENVOY
        elif "apiVersion" not in each and not _is_file(each):
            raise ConfigurationError(
                f"{each.place}: neither an Envoy bootstrap (static_resources), nor one of its files (resources, "
                "each with a @type), nor a config dump (configs), nor a manifest (apiVersion)"
            )
    if files and not any(map(_is_bootstrap, documents)):
        yield of_files(files), Flavour.ENVOY


def _is_bootstrap(document: LocatedMap) -> bool:
    return any(key in document for key in BOOTSTRAP)


def _is_file(document: LocatedMap) -> bool:
    """Return whether these are resources that Envoy reads from a file: the response of a discovery service."""
    held = document.get(FILE)
    return isinstance(held, list) and any(isinstance(each, dict) and "@type" in each for each in held)


def _translated(manifests: Manifests) -> Iterable[tuple[Resources, Flavour]]:
    if any(manifests.of("EnvoyFilter")):
        yield of_bootstrap(istio.bootstrap_of(manifests)), Flavour.ISTIO
    if any(manifests.of("EnvoyExtensionPolicy")) or Patches(manifests).insert_processors:
        yield of_bootstrap(envoy_gateway.bootstrap_of(manifests)), Flavour.ENVOY_GATEWAY
