"""Targets of Envoy Gateway's policies that are selected by their labels, and the namespaces that these are in.

A policy selects in another namespace only what a ReferenceGrant there allows it: it is taken for granted here.
Source: `resolvePolicyTargets` in Envoy Gateway's `internal/gatewayapi`.
"""

from collections.abc import Iterable, Iterator

from extproc.gateways.kubernetes.manifests import Manifests, age_of, inner, items_of, name_of, text_of, texts_of
from extproc.gateways.parsing.sources import LocatedMap

__all__ = ["Selectors", "agree", "namespace_said", "oldest_first"]


class Selectors:
    """What is known of the labels of Gateways and namespaces, with which policies select them."""

    def __init__(self, manifests: Manifests) -> None:
        self._namespaces = {name_of(each): _labels(each) for each in manifests.of("Namespace")}
        self._gateways = {(name_of(each), namespace_said(each)): _labels(each) for each in manifests.of("Gateway")}

    def take_route(self, policy: LocatedMap, route: LocatedMap) -> bool:
        """Return whether a policy selects an HTTPRoute."""
        return any(_selects(each, _labels(route)) for each in self._of(policy, "HTTPRoute", namespace_said(route)))

    def take_gateway(self, policy: LocatedMap, name: str, namespace: str) -> bool:
        """Return whether a policy selects a Gateway, or may: its labels are known only if it is in the input."""
        known = [
            labels for (its, said), labels in self._gateways.items() if its == name and agree(said, namespace)
        ]
        return any(
            not known or any(_selects(each, labels) for labels in known)
            for each in self._of(policy, "Gateway", namespace)
        )

    def _of(self, policy: LocatedMap, kind: str, namespace: str) -> Iterator[LocatedMap]:
        for each in items_of(inner(policy, "spec"), "targetSelectors"):
            if text_of(each, "kind") == kind and self._reaches(inner(each, "namespaces"), policy, namespace):
                yield each

    def _reaches(self, given: LocatedMap, policy: LocatedMap, namespace: str) -> bool:
        whence = text_of(given, "from", "Same")
        if whence == "Selector" and namespace in self._namespaces:
            return _selects(inner(given, "selector"), self._namespaces[namespace])
        return whence != "Same" or agree(namespace_said(policy), namespace)


def namespace_said(object_: LocatedMap) -> str:
    """Return the namespace that an object says it is in, "" if it says none."""
    return text_of(inner(object_, "metadata"), "namespace")


def oldest_first(objects: Iterable[LocatedMap]) -> list[LocatedMap]:
    """Return objects as Envoy Gateway sorts equals: the oldest first, or else by namespace and name.

    Where some do not say their namespace, it is taken to be the same.
    """
    objects = list(objects)
    named = all(map(namespace_said, objects))

    def order(object_: LocatedMap) -> tuple[tuple[bool, str], str, str]:
        return age_of(object_), namespace_said(object_) if named else "", name_of(object_)

    return sorted(objects, key=order)


def _labels(object_: LocatedMap) -> LocatedMap:
    return inner(object_, "metadata", "labels")


def agree(one: str, other: str) -> bool:
    """Return whether two namespaces may be the same: one that is not said may be any."""
    return one == other or not one or not other


def _selects(selector: LocatedMap, labels: LocatedMap) -> bool:
    """Return whether a selector takes an object with these labels: all that it asks for has to hold."""
    wanted = inner(selector, "matchLabels")
    asked = items_of(selector, "matchExpressions")
    return all(labels.get(key) == wanted[key] for key in wanted) and all(_holds(each, labels) for each in asked)


def _holds(expression: LocatedMap, labels: LocatedMap) -> bool:
    key, operator = text_of(expression, "key"), text_of(expression, "operator")
    if operator in {"Exists", "DoesNotExist"}:
        return (key in labels) == (operator == "Exists")
    among = key in labels and text_of(labels, key) in texts_of(expression, "values")
    return among == (operator == "In")
