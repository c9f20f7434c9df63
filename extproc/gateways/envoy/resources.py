"""The listeners, clusters and routes of a bootstrap, or of the config dump of a running Envoy."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from envoy.admin.v3.config_dump_pb2 import BootstrapConfigDump, ConfigDump
from envoy.admin.v3.config_dump_shared_pb2 import (
    ClustersConfigDump,
    EcdsConfigDump,
    EndpointsConfigDump,
    ListenersConfigDump,
    RoutesConfigDump,
)
from envoy.config.bootstrap.v3.bootstrap_pb2 import Bootstrap
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.core.v3.extension_pb2 import TypedExtensionConfig
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.service.discovery.v3.discovery_pb2 import DiscoveryResponse, Resource

from extproc.gateways.parsing.parts import Part
from extproc.gateways.parsing.sources import LocatedMap
from extproc.gateways.parsing.typed import Places, typed

__all__ = ["Resources", "of_bootstrap", "of_config_dump", "of_files"]

_ROUTES: Final = ("route_config", RouteConfiguration)
_SERVERS: Final = ("endpoint_config", ClusterLoadAssignment)


@dataclass(slots=True)
class Resources:
    """The resources of an Envoy, and what could not be checked."""

    listeners: list[Part[Listener]] = field(default_factory=list)
    clusters: list[Part[Cluster]] = field(default_factory=list)
    routes: list[Part[RouteConfiguration]] = field(default_factory=list)
    endpoints: list[Part[ClusterLoadAssignment]] = field(default_factory=list)
    extensions: list[Part[TypedExtensionConfig]] = field(default_factory=list)
    """Settings of filters that come by ECDS, by the filters' names."""
    unchecked: list[str] = field(default_factory=list)
    version: tuple[int, int] | None = None
    """Envoy's major and minor version, which only a config dump tells."""


def of_bootstrap(values: LocatedMap, *files: LocatedMap) -> Resources:
    """Read a bootstrap, and the files from which it takes the rest of its resources.

    Raises ConfigurationError for fields that Envoy's messages do not have.
    """
    found = of_files(files)
    message = typed(values, Bootstrap(), found.unchecked)
    static = Part(message, Places(values)).field("static_resources")
    delivered = bool(found.listeners)
    found.listeners += static.items("listeners")
    found.clusters += static.items("clusters")
    if message.dynamic_resources.HasField("lds_config") and not delivered:
        said = "listeners are delivered by LDS: give its file as well, or check a config dump instead"
        found.unchecked.append(f"{values.place}: {said}")
    return found


def of_files(files: Iterable[LocatedMap]) -> Resources:
    """Read files that Envoy watches (`path_config_source`): each is a response of LDS, CDS, RDS, EDS or ECDS.

    Raises ConfigurationError for fields that Envoy's messages do not have.
    """
    found = Resources()
    kinds: dict[type[Any], list[Part[Any]]] = {
        Listener: found.listeners,
        Cluster: found.clusters,
        RouteConfiguration: found.routes,
        ClusterLoadAssignment: found.endpoints,
        TypedExtensionConfig: found.extensions,
    }
    for values in files:
        message = typed(values, DiscoveryResponse(), found.unchecked)
        for each in Part(message, Places(values)).items("resources"):
            wrapped = each.unpacked(Resource)
            held = wrapped.field("resource") if wrapped else each
            for kind, parts in kinds.items():
                if part := held.unpacked(kind):
                    parts.append(part)
    return found


def of_config_dump(values: LocatedMap) -> Resources:
    """Read the response of an admin port's /config_dump, with or without ?include_eds.

    Raises ConfigurationError for values of the wrong type. Unknown fields are ignored.
    """
    found = Resources()
    message = typed(values, ConfigDump(), found.unchecked, lenient=True)
    for each in Part(message, Places(values)).items("configs"):
        if started := each.unpacked(BootstrapConfigDump):
            found.version = _version(started.message.bootstrap)
        elif listeners := each.unpacked(ListenersConfigDump):
            found.listeners += _held(listeners.items("static_listeners"), "listener", Listener)
            dynamic = list(listeners.items("dynamic_listeners"))
            active = (part.field("active_state") for part in dynamic)
            found.listeners += _held(active, "listener", Listener)
            found.unchecked += _not_active(dynamic)
        else:
            _add_plain(each, found)
    return found


def _add_plain(dumped: Part[Any], found: Resources) -> None:
    """Add the resources of a part of a dump that holds all of one kind, under one field or two."""
    lists: tuple[tuple[Any, tuple[str, ...], str, Any, list[Any]], ...] = (
        (ClustersConfigDump, ("static_clusters", "dynamic_active_clusters"), "cluster", Cluster, found.clusters),
        (RoutesConfigDump, ("static_route_configs", "dynamic_route_configs"), *_ROUTES, found.routes),
        (EndpointsConfigDump, ("static_endpoint_configs", "dynamic_endpoint_configs"), *_SERVERS, found.endpoints),
        (EcdsConfigDump, ("ecds_filters",), "ecds_filter", TypedExtensionConfig, found.extensions),
    )
    for kind, names, name, held, parts in lists:
        if part := dumped.unpacked(kind):
            for each in names:
                parts.extend(_held(part.items(each), name, held))


def _not_active(listeners: Iterable[Part[Any]]) -> Iterator[str]:
    """Yield a sentence for each listener that is not in force, as before its routes or certificates have come."""
    for each in listeners:
        if not each.message.HasField("active_state"):
            said = f'the listener "{each.message.name}" is not active'
            yield f"{each.place}: {said} (warming, draining or refused), and so is not checked"


def _version(bootstrap: Bootstrap) -> tuple[int, int] | None:
    """Return the version that an Envoy reports of itself; None if it does not."""
    said = bootstrap.node.user_agent_build_version.version
    return (said.major_number, said.minor_number) if said.major_number else None


def _held(parts: Iterator[Part[Any]], name: str, kind: type[Any]) -> Iterator[Part[Any]]:
    """Yield the message that each dumped entry holds in one field; a listener that is still warming has none."""
    for part in parts:
        if part.message.HasField(name) and (held := part.field(name).unpacked(kind)):
            yield held
