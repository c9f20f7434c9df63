"""The listeners of a Gateway: which rules they serve, and by which names EnvoyPatchPolicies mean them.

Source: `xdsListenerName` in Envoy Gateway's `internal/xds/translator`, and the Gateway API's rules of attachment.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from extproc.gateways.kubernetes.envoy_gateway.policies import OTHER_SECTION, Name, Parent
from extproc.gateways.kubernetes.envoy_gateway.rules import Rule
from extproc.gateways.kubernetes.envoy_gateway.selectors import agree, namespace_said
from extproc.gateways.kubernetes.host_names import ANY_HOST, narrower
from extproc.gateways.kubernetes.manifests import Manifests, inner, items_of, name_of, text_of, texts_of
from extproc.gateways.parsing.sources import LocatedMap

__all__ = ["Listener", "listeners_of", "named_listeners"]

# With Envoy Gateway's flag XDSNameSchemeV2.
_BY_PORT: Final = re.compile(r"(?:tcp|udp|https?)-(\d+)")
# Where a listener's filters are in Envoy's, by its protocol; its position follows where that is a list.
_CHAINS: Final = {"HTTP": "default_filter_chain", "HTTPS": "filter_chains"}
_SAME: Final = "Same"


@dataclass(frozen=True, slots=True)
class Listener:
    """A listener of a Gateway; "" is what the input does not tell, and may be any."""

    gateway: str
    namespace: str
    section: str = ""
    first: str = ""
    """The first listener of its port: they are one in Envoy, with the name of that one."""
    port: str = ""
    hostname: str = ""
    others: frozenset[str] = frozenset()
    """The hostnames of the other listeners of its port, which are not its own, whatever a route names."""
    only_own: bool = False
    """It takes routes of the Gateway's namespace only."""
    chain: str = ""
    """Its filter chain in Envoy's listener: `default_filter_chain`, or with TLS `filter_chains/0` and so on."""

    def is_called(self, name: str, *, table: bool = False) -> bool:
        """Return whether Envoy Gateway's name for it may be this: NAMESPACE/GATEWAY/LISTENER, or as tcp-80.

        That of its table of routes has the same form, but with TLS listeners of one port have a table each.
        """
        if by_port := _BY_PORT.fullmatch(name):
            return agree(self.port, by_port[1])
        section = self.section if table and self.chain.startswith(_CHAINS["HTTPS"]) else self.first
        own, named = (self.namespace, self.gateway, section), name.split("/")
        return len(named) == len(own) and all(map(agree, own, named))

    def has(self, chain: str) -> bool:
        """Return whether a filter chain may be its own; "" is none in particular."""
        return agree(chain, self.chain)

    def serves(self, rule: Rule) -> bool:
        """Return whether a rule of its Gateway is attached to it."""
        gateways = [each for each in rule.parents if each.kind == "Gateway"]
        return (
            (not gateways or any(agree(each.section, self.section) for each in gateways))
            and bool(self.hosts_of(rule))
            and (not self.only_own or agree(namespace_said(rule.route), self.namespace))
        )

    def hosts_of(self, rule: Rule) -> list[str]:
        """Return the names of hosts for which it serves a rule: those that both have, its own if that has none."""
        own = self.hostname or ANY_HOST
        said = texts_of(inner(rule.route, "spec"), "hostnames") or [own]
        shared = dict.fromkeys(narrower(each, own) for each in said)
        return [each for each in shared if each and each not in self.others]

    def parents(self, rules: Iterable[Rule]) -> list[Parent]:
        """Return what these rules are attached to at this listener, each once."""
        found = dict.fromkeys(each for rule in rules for each in rule.parents)
        if self.section in {"", OTHER_SECTION}:
            return list(found)
        own = (each for each in found if each.kind == "Gateway" and agree(each.section, self.section))
        return list(dict.fromkeys(replace(each, section=self.section) for each in own))


def named_listeners(manifests: Manifests) -> list[Listener]:
    """Return the HTTP listeners of all Gateways in the input."""
    return [each for gateway in manifests.of("Gateway") for each in _listeners(gateway)]


def _listeners(gateway: LocatedMap) -> Iterator[Listener]:
    of_port: dict[str, list[str]] = {}
    given = items_of(inner(gateway, "spec"), "listeners")
    named = {(text_of(each, "port"), text_of(each, "hostname")) for each in given}
    for each in given:
        chain = _CHAINS.get(text_of(each, "protocol", "HTTP"))
        if chain is not None:
            section, port, hostname = (text_of(each, key) for key in ("name", "port", "hostname"))
            sections = of_port.setdefault(port, [])
            sections.append(section)
            yield Listener(
                name_of(gateway),
                namespace_said(gateway),
                section,
                sections[0],
                port,
                hostname,
                frozenset(name for at, name in named if at == port and name != hostname),
                text_of(inner(each, "allowedRoutes", "namespaces"), "from", _SAME) == _SAME,
                chain if chain == _CHAINS["HTTP"] else f"{chain}/{len(sections) - 1}",
            )


def listeners_of(
    gateway: Name, rules: list[Rule], named: Iterable[Listener], patched: Iterable[str]
) -> list[Listener]:
    """Return the listeners of a Gateway that serve any of its rules.

    If the Gateway is not in the input, those that patches name, or else one for all.
    """
    whole = Listener(*gateway)
    found = [each for each in named if each.gateway == whole.gateway and agree(each.namespace, whole.namespace)]
    if not found:
        parts = (each.rsplit("/", 1) for each in patched if "/" in each and whole.is_called(each))
        sections = dict.fromkeys(section for _, section in parts)
        found = [replace(whole, section=section, first=section) for section in sections] or [whole]
    elif any(each.section == OTHER_SECTION for rule in rules for each in rule.parents):
        found.append(replace(whole, section=OTHER_SECTION, first=OTHER_SECTION))
    return [each for each in found if any(map(each.serves, rules))]
