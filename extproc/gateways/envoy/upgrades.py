"""Which upgrades, such as WebSocket, a route allows through the router's filter."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from envoy.config.route.v3.route_components_pb2 import RouteAction
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)

from extproc.gateways.parsing.parts import Part

__all__ = ["Upgrades", "upgrades_of"]

# Tunnels, which no ordinary request asks for.
_TUNNELS: Final = ("connect", "connect-udp")


@dataclass(frozen=True, slots=True)
class Upgrades:
    """The upgrades of a connection manager, by their types in lower case."""

    allowed: frozenset[str]
    """Allowed on routes that do not say otherwise."""
    elsewhere: frozenset[str]
    """These have a filter chain of their own, without the router's filter."""

    def through_filter(self, action: Part[RouteAction]) -> frozenset[str]:
        """Return the upgrades that pass the router's filter on a route: the route's own choice wins."""
        said = dict(_said(action.message.upgrade_configs))
        allowed = {name for name in self.allowed | said.keys() if said.get(name, True)}
        return frozenset(allowed - self.elsewhere)


def upgrades_of(manager: Part[HttpConnectionManager], ours: str) -> Upgrades:
    """Return the upgrades of a connection manager; `ours` is the name of the router's filter."""
    configs = manager.message.upgrade_configs
    return Upgrades(
        allowed=frozenset(name for name, enabled in _said(configs) if enabled),
        elsewhere=frozenset(
            each.upgrade_type.lower()
            for each in configs
            if each.filters and all(filter_.name != ours for filter_ in each.filters)
        ),
    )


def _said(configs: Any) -> Iterator[tuple[str, bool]]:  # noqa: ANN401  (the messages have no types)
    for each in configs:
        name = each.upgrade_type.lower()
        if name not in _TUNNELS:
            yield name, not each.HasField("enabled") or each.enabled.value
