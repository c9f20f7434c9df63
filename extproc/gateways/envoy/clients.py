"""What a connection manager takes from its clients: which are internal, and which headers are removed."""

from collections.abc import Iterable
from typing import Any, Final

from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)
from envoy.extensions.http.early_header_mutation.header_mutation.v3.header_mutation_pb2 import HeaderMutation

from extproc.gateways.envoy.changed_headers import removes
from extproc.gateways.parsing.parts import Part
from extproc.gateways.parsing.sources import Place

__all__ = ["stripped", "trusting_place"]

# From this version on no client is internal by itself; before, those with private addresses are.
TRUSTS_NOBODY: Final = (1, 33)
Version = tuple[int, int] | None


def trusting_place(manager: Part[HttpConnectionManager], version: Version) -> Place | None:
    """Return where clients are said to be internal; None if none is."""
    name = "internal_address_config"
    trusts = manager.message.HasField(name) or (version is not None and version < TRUSTS_NOBODY)
    return manager.place_of(name) if trusts else None


def stripped(
    manager: Part[HttpConnectionManager],
    tables: list[Part[RouteConfiguration]],
    names: Iterable[str],
    version: Version,
) -> frozenset[str]:
    """Return which of these headers are removed from client requests before a route is selected."""
    removed: list[Any] = []
    for each in manager.items("early_header_mutation_extensions"):
        if held := each.field("typed_config").unpacked(HeaderMutation):
            removed += held.message.mutations
    internal = _internal_only(manager, tables, version)
    return frozenset(
        name for name in names if name in internal or any(removes(mutation, name) for mutation in removed)
    )


def _internal_only(
    manager: Part[HttpConnectionManager], tables: list[Part[RouteConfiguration]], version: Version
) -> frozenset[str]:
    """Return the headers that only internal clients may send, if this is the edge and no client is internal."""
    if not manager.message.use_remote_address.value or trusting_place(manager, version) or not tables:
        return frozenset()
    said = [{name.lower() for name in table.message.internal_only_headers} for table in tables]
    return frozenset(set.intersection(*said))
