"""What a gateway's configuration refers to, or wraps, in ways that the checker does not follow: each is said."""

from collections.abc import Iterator
from typing import Any, Final

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.common.matching.v3.extension_matcher_pb2 import ExtensionWithMatcher
from envoy.extensions.filters.http.composite.v3.composite_pb2 import Composite
from envoy.extensions.filters.http.dynamic_modules.v3.dynamic_modules_pb2 import DynamicModuleFilter
from envoy.extensions.filters.http.ext_proc.v3.ext_proc_pb2 import ExternalProcessor
from envoy.extensions.filters.http.lua.v3.lua_pb2 import Lua
from envoy.extensions.filters.http.wasm.v3.wasm_pb2 import Wasm
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)

from extproc.gateways.model import Gateway
from extproc.gateways.parsing.parts import Part

__all__ = ["of_chain", "of_clusters", "of_listener", "of_programs", "of_routes", "of_upstreams"]

NAMED: Final = 3  # of a mesh's clusters, which may be thousands
_NOT_CHECKED: Final = "and so is not checked"
_NOT_CHECKED_ALL: Final = "and so are not checked"
# Part of the type's URL, as it stands in the bytes of whatever holds such a filter.
_EXT_PROC: Final = ExternalProcessor.DESCRIPTOR.full_name.encode()


def of_listener(listener: Part[Listener], chains: list[Part[Any]]) -> Iterator[str]:
    """Yield a sentence for each network filter, and each set of filter chains, that comes from elsewhere."""
    for chain in chains:
        for each in chain.items("filters"):
            if each.message.HasField("config_discovery"):
                said = f'the network filter "{each.message.name}" comes from elsewhere (config_discovery)'
                yield f"{each.place}: {said}, {_NOT_CHECKED}"
    if listener.message.HasField("fcds_config"):
        yield f"{listener.place}: filter chains come from elsewhere (fcds_config), {_NOT_CHECKED_ALL}"


def of_chain(manager: Part[HttpConnectionManager], *, asks: bool) -> Iterator[str]:
    """Yield a sentence for each HTTP filter whose settings come from elsewhere, or depend on the request.

    Of a connection manager that does not openly ask the router (`asks`), the latter count only if they may.
    """
    for each in manager.items("http_filters"):
        name = each.message.name
        if each.message.HasField("config_discovery"):
            said = "come from elsewhere (config_discovery)"
            yield f'{each.place}: the settings of the filter "{name}" {said}, {_NOT_CHECKED_ALL}'
        wrapped = each.message.typed_config
        depends = any(wrapped.Is(kind.DESCRIPTOR) for kind in (ExtensionWithMatcher, Composite))
        if depends and (asks or _EXT_PROC in wrapped.value):
            kind = wrapped.TypeName().rpartition(".")[2]
            yield f'{each.place}: what the filter "{name}" ({kind}) does depends on the request, {_NOT_CHECKED}'


def of_programs(manager: Part[HttpConnectionManager], ours: str) -> Iterator[str]:
    """Yield a sentence for each filter after the router's, called `ours`, that runs a program of its own."""
    filters = list(manager.items("http_filters"))
    at = [each.message.name for each in filters].index(ours)
    for each in filters[at + 1 :]:
        settings = each.field("typed_config")
        lua = settings.unpacked(Lua)
        in_file = lua and lua.message.default_source_code.filename
        if in_file or any(settings.message.Is(kind.DESCRIPTOR) for kind in (Wasm, DynamicModuleFilter)):
            said = f'what the program of the filter "{each.message.name}" does after the router\'s'
            yield f"{each.place}: {said} is not in the input, {_NOT_CHECKED}"


def of_upstreams(clusters: list[Part[Cluster]]) -> Iterator[str]:
    """Yield a sentence for each cluster whose own filters ask an external processor, which may be the router."""
    for each in clusters:
        options = (value.message.value for _, value in each.entries("typed_extension_protocol_options"))
        if any(_EXT_PROC in value for value in options):
            said = "has an ext_proc filter among its own filters, which act when the route has been chosen"
            yield f'{each.place}: the cluster "{each.message.name}" {said}, {_NOT_CHECKED}'


def of_routes(table: Part[RouteConfiguration]) -> Iterator[str]:
    """Yield a sentence for virtual hosts that come from elsewhere, and for those with a tree of matchers."""
    if table.message.HasField("vhds"):
        yield f"{table.place}: virtual hosts come on demand (vhds): those not in the input are not checked"
    for host in table.items("virtual_hosts"):
        if host.message.HasField("matcher"):
            said = f'the routes of the host "{host.message.name}" are in a matcher'
            yield f"{host.place_of('matcher')}: {said}, {_NOT_CHECKED_ALL}"


def of_clusters(gateway: Gateway) -> Iterator[str]:
    """Yield a sentence for the router's and routes' clusters that are not in the input, and one for those without
    servers there; the router's may be without.
    """
    of_router = [each.cluster for each in gateway.processors if each.cluster]
    of_pools = [name for host in gateway.hosts for route in host.routes for name in route.clusters]
    unknown = [name for name in dict.fromkeys([*of_router, *of_pools]) if not gateway.knows_servers(name)]
    if missing := [name for name in unknown if name not in gateway.clusters]:
        yield f"{gateway.place}: clusters are not in the input, {_NOT_CHECKED_ALL}: {_some(missing)}"
    there = [gateway.clusters[name] for name in unknown if name in gateway.clusters and name in of_pools]
    if extended := [each.name for each in there if not each.is_followed]:
        said = f"an extension chooses the servers of these clusters, {_NOT_CHECKED_ALL}"
        yield f"{gateway.place}: {said}: {_some(extended)}"
    if bare := [each.name for each in there if each.is_followed]:
        said = f"no servers of these clusters are in the input, {_NOT_CHECKED_ALL}"
        yield f"{gateway.place}: {said} (a dump with ?include_eds has them): {_some(bare)}"


def _some(names: list[str]) -> str:
    more = [f"{len(names) - NAMED:,} more"] if len(names) > NAMED else []
    return ", ".join([*names[:NAMED], *more])
