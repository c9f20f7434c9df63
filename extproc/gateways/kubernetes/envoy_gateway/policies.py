"""Which of Envoy Gateway's policies is in force on a rule of an HTTPRoute: the most specific one as a whole.

From the most specific on, policies target a rule, a route, a listener, a Gateway. One with a `mergeType` is merged
into the listener's or Gateway's. Of several on the same target the oldest is in force, and no other. Source:
`Process*Policies` in Envoy Gateway's `internal/gatewayapi`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from extproc.gateways.kubernetes.envoy_gateway.selectors import Selectors, agree, namespace_said, oldest_first
from extproc.gateways.kubernetes.manifests import Manifests, inner, items_of, laid_over, name_of, text_of
from extproc.gateways.parsing.sources import LocatedMap

__all__ = ["OTHER_SECTION", "Name", "Parent", "Policies"]

RULE: Final = 0
ROUTE: Final = 1
LISTENER: Final = 2
GATEWAY: Final = 3
OTHER_SECTION: Final = "(of a ListenerSet)"
"""The section of a Gateway that stands for the listeners of its ListenerSets."""
_BY_LABELS: Final = "(by labels)"


Name = tuple[str, str]
"""The name of a Gateway, and its namespace."""


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
        self._selectors = Selectors(manifests)
        self._sets = {
            name_of(each): inner(each, "spec", "parentRef") for each in manifests.of("ListenerSet", "XListenerSet")
        }
        self._targeting: dict[tuple[str, str], dict[int, LocatedMap]] = {}
        self._of_parents: dict[tuple[int, tuple[Parent, ...]], int | None] = {}
        for at, policy in enumerate(oldest_first(manifests.of(*kinds))):
            names = [text_of(each, "name") for each in _references(policy)]
            for name in [*names, *([_BY_LABELS] if items_of(inner(policy, "spec"), "targetSelectors") else [])]:
                self._targeting.setdefault((text_of(policy, "kind"), name), {})[at] = policy

    def gateways_of(self, route: LocatedMap) -> dict[Name, list[Parent]]:
        """Return the Gateways that a route is attached to, each with the parents by which it is.

        One without a name if the input does not tell which it is.
        """
        found: dict[Name, list[Parent]] = {}
        for each in items_of(inner(route, "spec"), "parentRefs"):
            kind, name = text_of(each, "kind", "Gateway"), text_of(each, "name")
            space = text_of(each, "namespace") or namespace_said(route)
            parents = [Parent(kind, name, space, text_of(each, "sectionName"))]
            if kind != "Gateway" and name in self._sets:
                of_set = self._sets[name]
                parents.append(
                    Parent("Gateway", text_of(of_set, "name"), text_of(of_set, "namespace"), OTHER_SECTION)
                )
            last = parents[-1]
            found.setdefault((last.name, last.namespace) if last.kind == "Gateway" else ("", ""), []).extend(
                parents
            )
        return found or {("", ""): []}

    def in_force(self, kind: str, route: LocatedMap, rule: LocatedMap, parents: list[Parent]) -> LocatedMap:
        """Return the spec of the policy of a kind that is in force on a rule, as a route of these parents.

        An empty one if none is.
        """
        policies = self._naming(kind, name_of(route), *(each.name for each in parents))
        ranked = [(self._rank(each, route, rule, parents), inner(each, "spec")) for each in policies]
        found = sorted(((rank, spec) for rank, spec in ranked if rank is not None), key=lambda each: each[0])
        if not found:
            return LocatedMap(route.place)
        spec = found[0][1]
        above = next((each for of_parent, each in found if of_parent >= LISTENER), None)
        return laid_over(above, spec) if above is not None and "mergeType" in spec else spec

    def of_clients(self, parents: list[Parent]) -> list[LocatedMap]:
        """Return the ClientTrafficPolicies of these parents' listeners: one for each listener that has its own."""
        policies = self._naming("ClientTrafficPolicy", *(each.name for each in parents))
        ranked = [(self._rank_of_parents(each, parents), each) for each in policies]
        taken: dict[Parent, LocatedMap] = {}
        for policy in (each for rank, each in ranked if rank == LISTENER):
            for target in _targets(policy, parents):
                taken.setdefault(target, policy)
        of_listeners = {id(each): each for each in taken.values()}.values()
        of_gateways = [each for rank, each in ranked if rank == GATEWAY][:1]
        own = {each.section for each in taken}
        return [*of_listeners, *(of_gateways if any(each.section not in own for each in parents) else [])]

    def _rank(self, policy: LocatedMap, route: LocatedMap, rule: LocatedMap, parents: list[Parent]) -> int | None:
        """Return how specific a policy's closest target is, None if it does not target the rule."""
        found = (_rank_of_route(policy, route, rule, self._selectors), self._rank_of_parents(policy, parents))
        return min((rank for rank in found if rank is not None), default=None)

    def _rank_of_parents(self, policy: LocatedMap, parents: list[Parent]) -> int | None:
        """Return the same for the targets among parents, which thousands of routes have in common."""
        key = id(policy), tuple(parents)
        if key not in self._of_parents:
            self._of_parents[key] = _rank_of_parents(policy, parents, self._selectors)
        return self._of_parents[key]

    def _naming(self, kind: str, *names: str) -> list[LocatedMap]:
        """Return the policies of a kind that may target what has one of these names, the oldest first."""
        targeting: dict[int, LocatedMap] = {}
        for name in {_BY_LABELS, *names}:
            targeting |= self._targeting.get((kind, name), {})
        return [targeting[at] for at in sorted(targeting)]


def _rank_of_route(policy: LocatedMap, route: LocatedMap, rule: LocatedMap, selectors: Selectors) -> int | None:
    sections = [
        text_of(each, "sectionName")
        for each in _references(policy)
        if (text_of(each, "kind"), text_of(each, "name")) == ("HTTPRoute", name_of(route))
        and agree(namespace_said(policy), namespace_said(route))
    ]
    if any(sections) and text_of(rule, "name") in sections:
        return RULE
    return ROUTE if "" in sections or selectors.take_route(policy, route) else None


def _rank_of_parents(policy: LocatedMap, parents: list[Parent], selectors: Selectors) -> int | None:
    targets = _targets(policy, parents)
    found = [LISTENER if each.section or each.kind != "Gateway" else GATEWAY for each in targets]
    if any(
        each.kind == "Gateway" and selectors.take_gateway(policy, each.name, each.namespace) for each in parents
    ):
        found.append(GATEWAY)
    return min(found, default=None)


def _targets(policy: LocatedMap, parents: list[Parent]) -> Iterator[Parent]:
    """Yield what a policy targets by name of these parents, each with the section that the policy says."""
    for each in _references(policy):
        for parent in parents:
            if (
                (text_of(each, "kind"), text_of(each, "name")) == (parent.kind, parent.name)
                and agree(namespace_said(policy), parent.namespace)
                and agree(text_of(each, "sectionName"), parent.section)
            ):
                yield replace(parent, section=text_of(each, "sectionName"))


def _references(policy: LocatedMap) -> list[LocatedMap]:
    spec = inner(policy, "spec")
    return [*items_of(spec, "targetRefs"), inner(spec, "targetRef")]
