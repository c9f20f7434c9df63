"""AuthorizationPolicies that ask a provider which is to see bodies: larger ones are a 413, on whichever requests.

Which requests these are depends on a policy's rules, which are not followed: it is said that they are not checked.
"""

from collections.abc import Iterator
from typing import Final

from extproc.gateways.kubernetes.istio.mesh import meshes_of
from extproc.gateways.kubernetes.istio.scope import ROOT_NAMESPACE, workload_of
from extproc.gateways.kubernetes.manifests import Manifests, inner, is_true, items_of, name_of, text_of
from extproc.gateways.parsing.sources import LocatedMap

__all__ = ["refusing_policies"]

CUSTOM: Final = "CUSTOM"
_KINDS: Final = ("envoyExtAuthzHttp", "envoyExtAuthzGrpc")


def refusing_policies(manifests: Manifests) -> Iterator[str]:
    """Yield a sentence for each policy by which a provider may refuse large bodies."""
    limits = {text_of(each, "name"): _limit(each) for each in _providers(manifests)}
    for policy in manifests.of("AuthorizationPolicy"):
        spec = inner(policy, "spec")
        provider = text_of(inner(spec, "provider"), "name")
        if text_of(spec, "action") != CUSTOM or not _may_apply(policy, manifests):
            continue
        who = f'{policy.place}: the provider "{provider}" of the AuthorizationPolicy "{name_of(policy)}"'
        if provider not in limits:
            yield f"{who} is not in the input: whether it refuses large bodies is not checked"
        elif limits[provider]:
            yield f"{who} refuses bodies over {limits[provider]} bytes; of which requests is not checked"


def _providers(manifests: Manifests) -> Iterator[LocatedMap]:
    for mesh in meshes_of(manifests):
        yield from items_of(mesh, "extensionProviders")


def _limit(provider: LocatedMap) -> str:
    """Return up to how many bytes whole bodies are sent to a provider, "" if none or their beginnings are."""
    bodies = [inner(provider, kind, "includeRequestBodyInCheck") for kind in _KINDS]
    whole = (text_of(each, "maxRequestBytes") for each in bodies if not is_true(each, "allowPartialMessage"))
    return next(filter(None, whole), "")


def _may_apply(policy: LocatedMap, manifests: Manifests) -> bool:
    """Return whether a policy may be for the workload that has the router's filter."""
    ours, labels = workload_of(manifests), inner(policy, "spec", "selector", "matchLabels")
    space = text_of(inner(policy, "metadata"), "namespace")
    return space in {"", ROOT_NAMESPACE, ours.namespace or space} and not any(
        name in ours.labels and ours.labels[name] != text_of(labels, name) for name in labels
    )
