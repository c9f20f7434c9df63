"""Envoy's clusters, built from Envoy's own message types: the pools, aggregates of pools, and the router."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Final

from envoy_data_plane.envoy.config.cluster.v3 import (
    CircuitBreakers,
    CircuitBreakersThresholds,
    Cluster,
    ClusterCommonLbConfig,
    ClusterCustomClusterType,
    ClusterDiscoveryType,
    ClusterLbPolicy,
    OutlierDetection,
)
from envoy_data_plane.envoy.config.core.v3 import (
    Address,
    DataSource,
    HealthCheck,
    HealthCheckGrpcHealthCheck,
    Http2ProtocolOptions,
    KeepaliveSettings,
    Pipe,
    SocketAddress,
    TransportSocket,
)
from envoy_data_plane.envoy.config.endpoint.v3 import (
    ClusterLoadAssignment,
    Endpoint,
    LbEndpoint,
    LocalityLbEndpoints,
)
from envoy_data_plane.envoy.extensions.clusters.aggregate.v3 import ClusterConfig
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    CertificateValidationContext,
    CommonTlsContext,
    TlsCertificate,
    UpstreamTlsContext,
)
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptions,
    HttpProtocolOptionsExplicitHttpConfig,
)
from envoy_data_plane.envoy.type.v3 import Percent
from envoy_data_plane.google.protobuf import Any

from extproc.core.placing.pool import Pool
from extproc.gateways.render.numbers import Mode, Numbers

__all__ = [
    "HEALTH",
    "IN_FLIGHT",
    "PINGS_EVERY_S",
    "PONG_WITHIN_S",
    "REPAIRS",
    "aggregate",
    "clusters",
    "router_protocol",
]

POOL_PORTS_FROM: Final = 8001
IN_FLIGHT: Final = 8_192
REPAIRS: Final = 1_024
PINGS_EVERY_S: Final = 15
PONG_WITHIN_S: Final = 5
HEALTH: Final = "envoy.service.ext_proc.v3.ExternalProcessor"
_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def clusters(numbers: Numbers) -> list[Cluster]:
    """Return all clusters: the pools, the aggregate of each pool with its next ones, and the router."""
    pools = [_pool(numbers, each, at) for at, each in enumerate(numbers.configuration.pools)]
    repaired = [aggregate(numbers, each) for each in numbers.smaller_pools if numbers.is_repaired(each)]
    return [*pools, *repaired, _router(numbers)]


def aggregate(numbers: Numbers, pool: Pool, names: list[str] | None = None) -> Cluster:
    """Return the aggregate of a pool and its next pools; `names` replaces the default names of its members."""
    members = names or [numbers.cluster_of(each) for each in numbers.next_pools(pool)]
    return Cluster(
        name=numbers.repaired_cluster_of(pool),
        connect_timeout=timedelta(seconds=1),
        lb_policy=ClusterLbPolicy.CLUSTER_PROVIDED,
        cluster_type=ClusterCustomClusterType(
            name="envoy.clusters.aggregate", typed_config=Any.pack(ClusterConfig(clusters=members))
        ),
        circuit_breakers=_breakers(CircuitBreakersThresholds(max_retries=REPAIRS)),
    )


def _pool(numbers: Numbers, pool: Pool, at: int) -> Cluster:
    limits = CircuitBreakersThresholds(
        max_connections=IN_FLIGHT, max_pending_requests=IN_FLIGHT, max_requests=IN_FLIGHT
    )
    name = numbers.cluster_of(pool)
    return Cluster(
        name=name,
        type=ClusterDiscoveryType.STRICT_DNS,
        connect_timeout=timedelta(seconds=1),
        lb_policy=ClusterLbPolicy.LEAST_REQUEST,
        circuit_breakers=_breakers(limits),
        load_assignment=_assigned(name, [("127.0.0.1", POOL_PORTS_FROM + at)]),
    )


def router_protocol(numbers: Numbers) -> dict[str, Any]:
    """Return how Envoy speaks HTTP/2 with the router, as a cluster's extension options."""
    full_duplex = numbers.mode is Mode.FULL_DUPLEX
    pings = KeepaliveSettings(interval=timedelta(seconds=PINGS_EVERY_S), timeout=timedelta(seconds=PONG_WITHIN_S))
    http2 = Http2ProtocolOptions(
        connection_keepalive=None if full_duplex else pings,
        initial_stream_window_size=65_536 if full_duplex else None,
        max_outbound_frames=1_000_000 if full_duplex else None,
    )
    explicit = HttpProtocolOptionsExplicitHttpConfig(http2_protocol_options=http2)
    return {_OPTIONS: Any.pack(HttpProtocolOptions(explicit_http_config=explicit))}


def _router(numbers: Numbers) -> Cluster:
    full_duplex = numbers.mode is Mode.FULL_DUPLEX
    limits = CircuitBreakersThresholds(
        max_connections=1_024, max_pending_requests=numbers.places, max_requests=numbers.places
    )
    addresses = numbers.router_addresses
    dead = ClusterCommonLbConfig(healthy_panic_threshold=Percent(value=0.0), update_merge_window=timedelta(0))
    return Cluster(
        name="dualpool",
        type=ClusterDiscoveryType.STRICT_DNS if addresses[0][1] else ClusterDiscoveryType.STATIC,
        connect_timeout=timedelta(milliseconds=250),
        lb_policy=ClusterLbPolicy.LEAST_REQUEST,
        typed_extension_protocol_options=router_protocol(numbers),
        circuit_breakers=_breakers(limits),
        common_lb_config=dead if full_duplex else None,
        outlier_detection=_outliers() if numbers.ejects_dead_routers else None,
        health_checks=[_health(numbers)],
        transport_socket=_tls(numbers),
        load_assignment=_assigned("dualpool", addresses),
    )


def _tls(numbers: Numbers) -> TransportSocket | None:
    """Return how Envoy speaks TLS with the router, with example names of files on Envoy's side."""
    files = numbers.configuration.listen.tls
    if files is None:
        return None
    own = TlsCertificate(certificate_chain=_file("client.pem"), private_key=_file("client-key.pem"))
    context = CommonTlsContext(
        alpn_protocols=["h2"],
        tls_certificates=[own] if files.client_ca_file else [],
        validation_context=CertificateValidationContext(trusted_ca=_file("router-ca.pem")),
    )
    return TransportSocket(
        name="envoy.transport_sockets.tls",
        typed_config=Any.pack(UpstreamTlsContext(common_tls_context=context, sni="dualpool")),
    )


def _file(name: str) -> DataSource:
    return DataSource(filename=f"/etc/envoy/{name}")


def _health(numbers: Numbers) -> HealthCheck:
    return HealthCheck(
        timeout=timedelta(seconds=1),
        interval=numbers.health_interval,
        no_traffic_interval=numbers.health_interval,
        unhealthy_threshold=1,
        healthy_threshold=1,
        grpc_health_check=HealthCheckGrpcHealthCheck(service_name=HEALTH),
    )


def _outliers() -> OutlierDetection:
    return OutlierDetection(
        split_external_local_origin_errors=True,
        consecutive_local_origin_failure=1,
        interval=timedelta(milliseconds=500),
        base_ejection_time=timedelta(seconds=1),
        max_ejection_time=timedelta(seconds=1),
        max_ejection_percent=100,
    )


def _breakers(thresholds: CircuitBreakersThresholds) -> CircuitBreakers:
    return CircuitBreakers(thresholds=[thresholds])


def _assigned(name: str, addresses: Iterable[tuple[str, int]]) -> ClusterLoadAssignment:
    endpoints = [LbEndpoint(endpoint=Endpoint(address=_at(*each))) for each in addresses]
    return ClusterLoadAssignment(cluster_name=name, endpoints=[LocalityLbEndpoints(lb_endpoints=endpoints)])


def _at(host: str, port: int) -> Address:
    if port:
        return Address(socket_address=SocketAddress(address=host, port_value=port))
    return Address(pipe=Pipe(path=host))
