"""The bootstrap of an Envoy in front of the pools."""

from typing import Any

import betterproto2
from envoy_data_plane.envoy.config.bootstrap.v3 import (
    Admin,
    Bootstrap,
    BootstrapStaticResources,
    LayeredRuntime,
    RuntimeLayer,
    RuntimeLayerAdminLayer,
)
from envoy_data_plane.envoy.config.core.v3 import Address, SocketAddress
from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, Listener
from envoy_data_plane.google.protobuf import Any as Packed
from envoy_data_plane.google.protobuf import Struct

from extproc.gateways.render.chain import connection_manager
from extproc.gateways.render.comments import DEFAULT_ROUTE, ENVOY, top_of
from extproc.gateways.render.numbers import Numbers
from extproc.gateways.render.servers import clusters
from extproc.gateways.render.text import yaml_of

__all__ = ["plain", "render_envoy"]


def render_envoy(numbers: Numbers) -> str:
    """Return a bootstrap as YAML with comments."""
    comments = ENVOY[numbers.mode]
    named = {f"routes.{numbers.default_pool.name}": comments[DEFAULT_ROUTE]}
    return yaml_of(plain(_bootstrap(numbers)), {**comments, **named}, top_of(numbers.mode))


def plain(message: betterproto2.Message) -> dict[str, Any]:
    """Return a message as plain values, with field names in snake case, as in the YAML files."""
    return message.to_dict(casing=betterproto2.Casing.SNAKE)


def _bootstrap(numbers: Numbers) -> Bootstrap:
    defaults = {"dualpool.bypass_percent": numbers.bypass_percent}
    if numbers.has_small_bodies:
        defaults["dualpool.small_bodies_percent"] = 0
    layers = [
        RuntimeLayer(name="defaults", static_layer=Struct.from_dict(defaults)),
        RuntimeLayer(name="admin", admin_layer=RuntimeLayerAdminLayer()),
    ]
    return Bootstrap(
        admin=Admin(address=_at("127.0.0.1", 9901)),
        layered_runtime=LayeredRuntime(layers=layers),
        static_resources=BootstrapStaticResources(listeners=[_listener(numbers)], clusters=clusters(numbers)),
    )


def _listener(numbers: Numbers) -> Listener:
    manager = Filter(
        name="envoy.filters.network.http_connection_manager",
        typed_config=Packed.pack(connection_manager(numbers)),
    )
    return Listener(
        name="ingress",
        address=_at("0.0.0.0", 10_000),  # noqa: S104  (the edge: clients are elsewhere)
        per_connection_buffer_limit_bytes=numbers.buffer_bytes,
        filter_chains=[FilterChain(filters=[manager])],
    )


def _at(host: str, port: int) -> Address:
    return Address(socket_address=SocketAddress(address=host, port_value=port))
