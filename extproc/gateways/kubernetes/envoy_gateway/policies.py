"""Which of Envoy Gateway's policies is in force on a rule of an HTTPRoute: the most specific one as a whole.

From the most specific on, policies target a rule, a route, a listener, a Gateway. One with a `mergeType` is merged
into the listener's or Gateway's. Source: `Process*Policies` in Envoy Gateway's `internal/gatewayapi`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from extproc.gateways.kubernetes.manifests import Manifests, inner, items_of, name_of, text_of, texts_of
from extproc.gateways.parsing.sources import LocatedMap

__all__ = ["Parent", "Policies", "client_policies"]

RULE: Final = 0
ROUTE: Final = 1
LISTENER: Final = 2
GATEWAY: Final = 3
_OTHER_SECTION: Final = "(of a ListenerSet)"
_BY_LABELS: Final = "(by labels)"


@dataclass(frozen=True, slots=True)
class Parent:
    """What a route is attached to; "" as a section means all listeners, as a namespace one that is not said."""

    kind: str
    name: str
    namespace: str
    section: str


class Policies:
    """The policies of some kinds, by the names of what they target: a rule is not compared with thousands."""

    def __init__(self, manifests: Manifests, *kinds: str) -> None:
        self._sets = {
            name_of(each): inner(each, "spec", "parentRef") for each in manifests.of("ListenerSet", "XListenerSet")
        }
        self._targeting: dict[tuple[str, str], dict[int, LocatedMap]] = {}
        for at, policy in enumerate(manifests.of(*kinds)):
            names = [text_of(each, "name") for each in _references(policy)]
            for name in [*names, *([_BY_LABELS] if items_of(inner(policy, "spec"), "targetSelectors") else [])]:
                self._targeting.setdefault((text_of(policy, "kind"), name), {})[at] = policy

    def parents_of(self, route: LocatedMap) -> list[Parent]:
        """Return the Gateways and ListenerSets that a route is attached to."""
        found = [
            Parent(
                text_of(each, "kind", "Gateway"),
                text_of(each, "name"),
                text_of(each, "namespace") or _namespace(route),
                text_of(each, "sectionName"),
            )
            for each in items_of(inner(route, "spec"), "parentRefs")
        ]
        of_sets = [self._sets[each.name] for each in found if each.kind != "Gateway" and each.name in self._sets]
        through = [
            Parent("Gateway", text_of(each, "name"), text_of(each, "namespace"), _OTHER_SECTION)
            for each in of_sets
        ]
        return [*found, *through]

    def in_force(self, kind: str, route: LocatedMap, rule: LocatedMap) -> LocatedMap:
        """Return the spec of the policy of a kind that is in force on a route's rule, an empty one if none is."""
        parents = self.parents_of(route)
        targeting: dict[int, LocatedMap] = {}
        for name in {name_of(route), _BY_LABELS, *(each.name for each in parents)}:
            targeting |= self._targeting.get((kind, name), {})
        ranked = [
            (_rank(targeting[at], route, rule, parents), inner(targeting[at], "spec")) for at in sorted(targeting)
        ]
        found = sorted(((rank, spec) for rank, spec in ranked if rank is not None), key=lambda each: each[0])
        if not found:
            return LocatedMap(route.place)
        spec = found[0][1]
        above = next((each for of_parent, each in found if of_parent >= LISTENER), None)
        return _laid_over(above, spec) if above is not None and "mergeType" in spec else spec


def client_policies(parents: list[Parent], manifests: Manifests) -> list[LocatedMap]:
    """Return the ClientTrafficPolicies of these parents' listeners: one for each listener that has its own."""
    ranked = [(_rank_of_parents(each, parents), each) for each in manifests.of("ClientTrafficPolicy")]
    of_listeners = [each for rank, each in ranked if rank == LISTENER]
    of_gateways = [each for rank, each in ranked if rank == GATEWAY][:1]
    own = {text_of(each, "sectionName") for policy in of_listeners for each in _references(policy)}
    return [*of_listeners, *(of_gateways if any(each.section not in own for each in parents) else [])]


def _rank(policy: LocatedMap, route: LocatedMap, rule: LocatedMap, parents: list[Parent]) -> int | None:
    """Return how specific a policy's closest target is, None if it does not target the rule."""
    return min(
        (
            rank
            for rank in (_rank_of_route(policy, route, rule), _rank_of_parents(policy, parents))
            if rank is not None
        ),
        default=None,
    )


def _rank_of_route(policy: LocatedMap, route: LocatedMap, rule: LocatedMap) -> int | None:
    if not _agree(_namespace(policy), _namespace(route)):
        return None
    sections = [
        text_of(each, "sectionName")
        for each in _references(policy)
        if (text_of(each, "kind"), text_of(each, "name")) == ("HTTPRoute", name_of(route))
    ]
    if any(sections) and text_of(rule, "name") in sections:
        return RULE
    labels = inner(route, "metadata", "labels")
    if any(_selects(each, labels) for each in _selectors(policy, "HTTPRoute")):
        return ROUTE
    return ROUTE if "" in sections else None


def _rank_of_parents(policy: LocatedMap, parents: list[Parent]) -> int | None:
    found = [
        LISTENER if text_of(each, "sectionName") or parent.kind != "Gateway" else GATEWAY
        for each in _references(policy)
        for parent in parents
        if (text_of(each, "kind"), text_of(each, "name")) == (parent.kind, parent.name)
        and _agree(_namespace(policy), parent.namespace)
        and _agree(text_of(each, "sectionName"), parent.section)
    ]
    # The labels of a Gateway are not known here.
    found += [GATEWAY for _ in _selectors(policy, "Gateway")]
    return min(found, default=None)


def _references(policy: LocatedMap) -> list[LocatedMap]:
    spec = inner(policy, "spec")
    return [*items_of(spec, "targetRefs"), inner(spec, "targetRef")]


def _selectors(policy: LocatedMap, kind: str) -> Iterator[LocatedMap]:
    return (each for each in items_of(inner(policy, "spec"), "targetSelectors") if text_of(each, "kind") == kind)


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


def _namespace(object_: LocatedMap) -> str:
    return text_of(inner(object_, "metadata"), "namespace")


def _agree(one: str, other: str) -> bool:
    return one == other or not one or not other


def _laid_over(below: LocatedMap, above: LocatedMap) -> LocatedMap:
    """Return a policy with another one's settings laid over it: mappings recursively, lists as a whole."""
    result = LocatedMap(above.place, dict(below))
    result.places = below.places | above.places
    for key, value in above.items():
        old = result.get(key)
        nested = isinstance(old, LocatedMap) and isinstance(value, LocatedMap)
        result[key] = _laid_over(result[key], value) if nested else value
    return result
