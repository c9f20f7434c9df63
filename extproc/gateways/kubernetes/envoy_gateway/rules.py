"""The rules of HTTPRoutes at Gateways and their listeners, with the policies that are in force there."""

from collections.abc import Iterator
from dataclasses import dataclass

from extproc.gateways.kubernetes.envoy_gateway.policies import Name, Parent, Policies
from extproc.gateways.kubernetes.envoy_gateway.processors import ExtProc, asked_of, by_entry
from extproc.gateways.kubernetes.envoy_gateway.selectors import namespace_said, oldest_first
from extproc.gateways.kubernetes.manifests import Manifests, inner, items_of, name_of
from extproc.gateways.parsing.sources import LocatedMap

__all__ = ["Rule", "Rules"]


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """A rule of an HTTPRoute at a Gateway, with the policies in force there, and the processors of one of them."""

    route: LocatedMap
    gateway: Name
    cluster: str
    given: LocatedMap
    parents: list[Parent]
    traffic: LocatedMap
    security: LocatedMap
    extensions: LocatedMap
    asked: list[ExtProc]


class Rules:
    """The rules of all HTTPRoutes, at each Gateway that they are attached to."""

    def __init__(self, manifests: Manifests, processors: list[ExtProc]) -> None:
        self._policies = Policies(manifests, "BackendTrafficPolicy", "SecurityPolicy", "EnvoyExtensionPolicy")
        self._entries = by_entry(processors)
        self.all = [each for route in oldest_first(manifests.of("HTTPRoute")) for each in self._of_route(route)]

    def at(self, rule: Rule, parents: list[Parent]) -> Rule:
        """Return a rule as it is at some of its parents: a listener's policy is not in force at another one."""
        if parents == rule.parents:
            return rule
        return self._made(rule.route, rule.gateway, rule.cluster, rule.given, parents)

    def _of_route(self, route: LocatedMap) -> Iterator[Rule]:
        gateways = self._policies.gateways_of(route)
        for gateway, parents in gateways.items():
            for at, rule in enumerate(items_of(inner(route, "spec"), "rules")):
                cluster = _cluster(route, at, gateway if len(gateways) > 1 else ("", ""))
                yield self._made(route, gateway, cluster, rule, parents)

    def _made(
        self, route: LocatedMap, gateway: Name, cluster: str, given: LocatedMap, parents: list[Parent]
    ) -> Rule:
        traffic, security, extensions = (
            self._policies.in_force(kind, route, given, parents)
            for kind in ("BackendTrafficPolicy", "SecurityPolicy", "EnvoyExtensionPolicy")
        )
        asked = asked_of(extensions, self._entries)
        return Rule(route, gateway, cluster, given, parents, traffic, security, extensions, asked)


def _cluster(route: LocatedMap, at: int, gateway: Name) -> str:
    return "/".join(filter(None, (*gateway[::-1], namespace_said(route), name_of(route), str(at))))
