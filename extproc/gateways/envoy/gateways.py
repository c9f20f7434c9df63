"""Conversion of Envoy's resources into the model: one gateway per connection manager that asks the router."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Final

from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.access_loggers.grpc.v3.als_pb2 import HttpGrpcAccessLogConfig
from envoy.extensions.filters.http.ext_proc.v3.ext_proc_pb2 import ExternalProcessor
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)

from extproc.core.errors import ConfigurationError
from extproc.gateways.envoy.clients import stripped, trusting_place
from extproc.gateways.envoy.clusters import clusters_of
from extproc.gateways.envoy.http_filters import filter_of
from extproc.gateways.envoy.out_of_sight import (
    of_chain,
    of_clusters,
    of_listener,
    of_programs,
    of_routes,
    of_upstreams,
)
from extproc.gateways.envoy.overrides import Surroundings
from extproc.gateways.envoy.processors import processor_of
from extproc.gateways.envoy.resources import Resources
from extproc.gateways.envoy.routes import hosts_of
from extproc.gateways.envoy.upgrades import upgrades_of
from extproc.gateways.model import (
    CONNECTION_WINDOW_BYTES,
    NUMBER_HEADER,
    RETRY_HEADERS,
    STREAM_WINDOW_BYTES,
    UNLIMITED,
    Flavour,
    Gateway,
    Limits,
    Processor,
)
from extproc.gateways.parsing.parts import Part, milliseconds
from extproc.gateways.parsing.sources import Place
from extproc.gateways.router import Router

__all__ = ["gateways_of"]

# Envoy's defaults.
BUFFER_BYTES: Final = 1 << 20
HEADERS: Final = 100
HEAD_KIB: Final = 60
IDLE_MS: Final = 300_000.0
OUR_NAME: Final = "dualpool"
# Before this version a route's limit on bodies applied only once its request had reached the router filter, which
# is after the filters that hold the body.
ROUTES_LIMIT_BODIES: Final = (1, 37)


def gateways_of(resources: Resources, router: Router, flavour: Flavour = Flavour.ENVOY) -> list[Gateway]:
    """Return the gateways that ask the router.

    Raises ConfigurationError if a connection manager has several ext_proc filters and the router's is not among
    them by name.
    """
    clusters = clusters_of(resources)
    tables = {table.message.name: table for table in resources.routes}
    managers = (each for listener in resources.listeners for each in _managers(_chains(listener)))
    asked = (each for held in managers for each in _processors(_with_delivered(held, resources), router))
    by_name = any(map(_names_router, asked))
    found = []
    for listener in resources.listeners:
        chains = _chains(listener)
        resources.unchecked.extend(of_listener(listener, chains))
        for manager in (_with_delivered(each, resources) for each in _managers(chains)):
            processor = _ours(manager, router, by_name=by_name)
            resources.unchecked.extend(of_chain(manager, asks=processor is not None))
            if processor is None:
                continue
            resources.unchecked.extend(of_programs(manager, processor.name))
            if not processor.cluster:
                said = "is not reached through envoy_grpc, and so its cluster is not checked"
                resources.unchecked.append(f'{processor.place}: the server of "{processor.name}" {said}')
            limits = _limits(listener, manager, resources.version)
            filters = tuple(filter_of(each, router.sets) for each in manager.items("http_filters"))
            around = Surroundings(filters, processor, limits, upgrades_of(manager, processor.name))
            routed = list(_tables(manager, tables, resources))
            resources.unchecked.extend(said for table in routed for said in of_routes(table))
            names = (*router.sets, *RETRY_HEADERS, NUMBER_HEADER)
            found.append(
                Gateway(
                    flavour=flavour,
                    place=manager.place,
                    limits=limits,
                    stripped=stripped(manager, routed, names, resources.version),
                    filters=filters,
                    processor=processor,
                    hosts=tuple(host for table in routed for host in hosts_of(table, around)),
                    clusters=clusters,
                    trusting_place=trusting_place(manager, resources.version),
                    passes_expect=manager.message.proxy_100_continue,
                    version=resources.version,
                    # What manifests do not tell: Istio and Envoy Gateway have settings of their own for this.
                    logs_by_grpc=flavour is not Flavour.ENVOY or _logs_by_grpc(manager),
                )
            )
            resources.unchecked.extend(of_clusters(found[-1]))
    if not found:
        resources.unchecked.extend(of_upstreams(resources.clusters))
    return found


def _logs_by_grpc(manager: Part[HttpConnectionManager]) -> bool:
    return any(
        each.field("typed_config").unpacked(HttpGrpcAccessLogConfig) for each in manager.items("access_log")
    )


def _chains(listener: Part[Listener]) -> list[Part[Any]]:
    chains = list(listener.items("filter_chains"))
    if listener.message.HasField("default_filter_chain"):
        chains.append(listener.field("default_filter_chain"))
    return chains


def _managers(chains: Iterable[Part[Any]]) -> Iterator[Part[HttpConnectionManager]]:
    for chain in chains:
        for each in chain.items("filters"):
            if manager := each.field("typed_config").unpacked(HttpConnectionManager):
                yield manager


def _with_delivered(manager: Part[HttpConnectionManager], resources: Resources) -> Part[HttpConnectionManager]:
    """Return a connection manager with the settings of its filters that come by ECDS, as far as they are there."""
    settings = {each.message.name: each.message.typed_config for each in resources.extensions}
    wanted = [each.name for each in manager.message.http_filters if each.HasField("config_discovery")]
    if not settings.keys() & set(wanted):
        return manager
    message = HttpConnectionManager()
    message.CopyFrom(manager.message)
    for each in message.http_filters:
        if each.HasField("config_discovery") and each.name in settings:
            each.typed_config.CopyFrom(settings[each.name])
    return replace(manager, message=message)


def _tables(
    manager: Part[HttpConnectionManager], tables: dict[str, Part[RouteConfiguration]], resources: Resources
) -> Iterator[Part[RouteConfiguration]]:
    if manager.message.HasField("route_config"):
        yield manager.field("route_config")
        return
    # Without RDS the routes are scoped_routes; a table without a name is another manager's.
    name = manager.message.rds.route_config_name
    if name and name in tables:
        yield tables[name]
    elif manager.message.HasField("scoped_routes"):
        said = f"{manager.place}: routes are chosen by scoped_routes, and so are not checked"
        resources.unchecked.append(said)
    else:
        said = f"{manager.place}: the routes are not in the input, and so are not checked"
        resources.unchecked.append(f"{said}: give their file as well, or check a config dump instead")


def _ours(manager: Part[HttpConnectionManager], router: Router, *, by_name: bool) -> Processor | None:
    """Return the filter that asks the router: the first that names it, or else the only ext_proc filter.

    `by_name` if one names it in this connection manager or in another: then those without a name are others'.
    """
    found = _processors(manager, router)
    named = list(filter(_names_router, found))
    if named or by_name:
        return next((each for each in named if not each.only_observes), next(iter(named), None))
    if len(found) > 1:
        names = ", ".join(each.name for each in found)
        raise ConfigurationError(
            f"{manager.place}: {len(found)} ext_proc filters ({names}), and none of them has {OUR_NAME} in its "
            "name, in its cluster's name, or in the metadata namespaces that it receives",
        )
    return next(iter(found), None)


def _processors(manager: Part[HttpConnectionManager], router: Router) -> list[Processor]:
    settings = (
        (each, each.field("typed_config").unpacked(ExternalProcessor)) for each in manager.items("http_filters")
    )
    return [processor_of(each.message.name, held, router.reads, router.sets) for each, held in settings if held]


def _names_router(processor: Processor) -> bool:
    return OUR_NAME in processor.name + processor.cluster or OUR_NAME in processor.namespaces


def _limits(
    listener: Part[Listener], manager: Part[HttpConnectionManager], version: tuple[int, int] | None
) -> Limits:
    options, http2 = manager.field("common_http_protocol_options"), manager.field("http2_protocol_options")
    size, name, place = min(_buffers(listener, manager))
    return Limits(
        buffer_bytes=size,
        buffer_name=name,
        buffer_place=place,
        max_headers=options.number("max_headers_count", HEADERS),
        max_head_kib=manager.number("max_request_headers_kb", HEAD_KIB),
        place=manager.place,
        stream_window_bytes=http2.number("initial_stream_window_size", STREAM_WINDOW_BYTES),
        connection_window_bytes=http2.number("initial_connection_window_size", CONNECTION_WINDOW_BYTES),
        windows_place=http2.place if _speaks_http2(manager) else None,
        duration_ms=milliseconds(options, "max_stream_duration", 0.0),
        idle_ms=milliseconds(manager, "stream_idle_timeout", IDLE_MS),
        routes_have_own=version is None or version >= ROUTES_LIMIT_BODIES,
    )


def _buffers(listener: Part[Listener], manager: Part[HttpConnectionManager]) -> Iterator[tuple[int, str, Place]]:
    """Yield what filters can hold of a body in each version of HTTP, and which field says so.

    For a stream of HTTP/2 or HTTP/3 that is its window (Envoy's FAQ, "How do I configure flow control"). That of
    HTTP/3 is the listener's: the one in the connection manager's http3_protocol_options has no effect.
    """
    window = "initial_stream_window_size"
    if manager.message.codec_type == HttpConnectionManager.HTTP3:
        quic = listener.field("udp_listener_config").field("quic_options").field("quic_protocol_options")
        name = f"quic_options.quic_protocol_options.{window}"
        yield quic.number(window, STREAM_WINDOW_BYTES), name, quic.place_of(window)
        return
    name = "per_connection_buffer_limit_bytes"
    yield listener.number(name, BUFFER_BYTES) or UNLIMITED, name, listener.place_of(name)
    if _speaks_http2(manager):
        options = manager.field("http2_protocol_options")
        yield (
            options.number(window, STREAM_WINDOW_BYTES),
            f"http2_protocol_options.{window}",
            options.place_of(window),
        )


def _speaks_http2(manager: Part[HttpConnectionManager]) -> bool:
    return manager.message.codec_type in {HttpConnectionManager.AUTO, HttpConnectionManager.HTTP2}
