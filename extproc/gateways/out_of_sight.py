"""What a gateway's configuration refers to, or wraps, in ways that the checker does not follow: each is said."""

from collections.abc import Iterator
from typing import Any, Final

from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.common.matching.v3.extension_matcher_pb2 import ExtensionWithMatcher
from envoy.extensions.filters.http.composite.v3.composite_pb2 import Composite
from envoy.extensions.filters.http.ext_proc.v3.ext_proc_pb2 import ExternalProcessor
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)

from extproc.gateways.parts import Part

__all__ = ["of_chain", "of_listener", "of_routes"]

_NOT_CHECKED: Final = "and so is not checked"
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
        yield f"{listener.place}: filter chains come from elsewhere (fcds_config), and so are not checked"


def of_chain(manager: Part[HttpConnectionManager], *, asks: bool) -> Iterator[str]:
    """Yield a sentence for each HTTP filter whose settings come from elsewhere, or depend on the request.

    Of a connection manager that does not openly ask the router (`asks`), the latter count only if they may.
    """
    for each in manager.items("http_filters"):
        name = each.message.name
        if each.message.HasField("config_discovery"):
            said = "come from elsewhere (config_discovery)"
            yield f'{each.place}: the settings of the filter "{name}" {said}, and so are not checked'
        wrapped = each.message.typed_config
        depends = any(wrapped.Is(kind.DESCRIPTOR) for kind in (ExtensionWithMatcher, Composite))
        if depends and (asks or _EXT_PROC in wrapped.value):
            kind = wrapped.TypeName().rpartition(".")[2]
            yield f'{each.place}: what the filter "{name}" ({kind}) does depends on the request, {_NOT_CHECKED}'


def of_routes(table: Part[RouteConfiguration]) -> Iterator[str]:
    """Yield a sentence for virtual hosts that come from elsewhere, and for those with a tree of matchers."""
    if table.message.HasField("vhds"):
        yield f"{table.place}: virtual hosts come on demand (vhds): those not in the input are not checked"
    for host in table.items("virtual_hosts"):
        if host.message.HasField("matcher"):
            said = f'the routes of the host "{host.message.name}" are in a matcher'
            yield f"{host.place_of('matcher')}: {said}, and so are not checked"
