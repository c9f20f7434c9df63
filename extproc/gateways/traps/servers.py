"""Traps of clusters: the router's, and those of the pools."""

from collections.abc import Iterator
from typing import Final

from extproc.gateways.model import Cluster, Flavour, Gateway
from extproc.gateways.router import BUFFERING, DECIDING, Router
from extproc.gateways.traps.routes import pool_routes
from extproc.gateways.traps.trap import Hit, Severity, Trap

__all__ = ["TRAPS"]

# In full duplex a request without a place fails.
FULL_DUPLEX: Final = 4_096
# In STREAMED a request without a place costs nothing, so a low limit is best; in other modes any real limit does.
FLOOD: Final = 4_096
MAX_REQUESTS: Final = 65_536
MAX_CONNECT_MS: Final = 2_000


def _router_without_http2(gateway: Gateway, _: Router) -> Iterator[Hit]:
    for cluster in _router_clusters(gateway):
        if not cluster.http2:
            yield Hit(cluster.place, f'cluster "{cluster.name}" does not speak HTTP/2')


def _router_tls(gateway: Gateway, router: Router) -> Iterator[Hit]:
    if gateway.flavour is not Flavour.ENVOY:
        return  # a DestinationRule or a BackendTLSPolicy decides, or the mesh
    wanted = router.configuration.listen.tls is not None
    for cluster in _router_clusters(gateway):
        if cluster.tls is not None and cluster.tls is not wanted:
            spoken, said = ("TLS", "is not set") if cluster.tls else ("plaintext", "is set")
            yield Hit(cluster.place, f'cluster "{cluster.name}" speaks {spoken}; listen.tls {said}')


def _router_breakers_small(gateway: Gateway, router: Router) -> Iterator[Hit]:
    for each in gateway.processors:
        cluster, needed = gateway.clusters.get(each.cluster), _places(each.modes.request_body, router)
        if cluster and min(cluster.max_requests, cluster.max_pending_requests) < needed:
            limits = f"max_requests is {cluster.max_requests}, max_pending_requests {cluster.max_pending_requests}"
            what = f'cluster "{cluster.name}": {limits}; mode {each.modes.request_body} needs {needed:,}'
            yield Hit(cluster.place, what)


def _places(mode: str, router: Router) -> int:
    if mode == "FULL_DUPLEX_STREAMED":
        return FULL_DUPLEX
    return BUFFERING if mode.startswith("BUFFERED") else router.configuration.learning.max_streams + DECIDING


def _router_breakers_large(gateway: Gateway, _: Router) -> Iterator[Hit]:
    for each in gateway.processors:
        cluster = gateway.clusters.get(each.cluster)
        most = FLOOD if each.modes.request_body == "STREAMED" else MAX_REQUESTS
        if cluster and cluster.max_requests > most:
            yield Hit(
                cluster.place, f'cluster "{cluster.name}" allows {cluster.max_requests:,} requests at a time'
            )


def _router_not_pinged(gateway: Gateway, _: Router) -> Iterator[Hit]:
    for each in gateway.processors:
        cluster, modes = gateway.clusters.get(each.cluster), each.modes
        # Not in full duplex, which cannot fall back: a late pong would lose the bodies of a slow router.
        in_pieces = "STREAMED" in (modes.request_body, modes.response_body)
        if modes.request_body == "FULL_DUPLEX_STREAMED" or not in_pieces:
            continue
        if cluster and cluster.http2 and not cluster.pinged:
            yield Hit(cluster.place, f'cluster "{cluster.name}" has no connection_keepalive')


def _one_address_for_many(gateway: Gateway, router: Router) -> Iterator[Hit]:
    for cluster in _router_clusters(gateway):
        addresses = sum(map(len, cluster.priorities))
        if cluster.priorities and cluster.discovery != "EDS" and addresses < router.processes:
            what = f"{addresses} address for {router.processes} processes of the router"
            yield Hit(cluster.place, f'cluster "{cluster.name}" has {what}')


def _cluster_ip(gateway: Gateway, router: Router) -> Iterator[Hit]:
    for cluster in dict.fromkeys([*_router_clusters(gateway), *_pool_clusters(gateway, router)]):
        if not cluster.least_request or cluster.discovery not in ("LOGICAL_DNS", "STRICT_DNS"):
            continue
        hosts = {address.rpartition(":")[0] for group in cluster.priorities for address in group}
        known = sorted(hosts & gateway.cluster_ips)
        if cluster.discovery == "LOGICAL_DNS":
            yield Hit(cluster.place, f'cluster "{cluster.name}" is of type LOGICAL_DNS: one address at a time')
        elif known:
            yield Hit(
                cluster.place, f'cluster "{cluster.name}" goes to {", ".join(known)}, a Service with a ClusterIP'
            )


def _slow_connect(gateway: Gateway, router: Router) -> Iterator[Hit]:
    for route in pool_routes(gateway, router):
        for cluster in (gateway.clusters[name] for name in route.clusters if name in gateway.clusters):
            first = gateway.clusters.get(cluster.members[0]) if cluster.members else cluster
            repaired = gateway.retry(route) and len(gateway.servers(cluster.name)) > 1
            if first and repaired and first.connect_timeout_ms > MAX_CONNECT_MS:
                what = f"waits {first.connect_timeout_ms / 1000:g} s for a connection"
                yield Hit(first.place, f'cluster "{first.name}" of route "{route.name}" {what}')


def _router_clusters(gateway: Gateway) -> list[Cluster]:
    names = dict.fromkeys(each.cluster for each in gateway.processors)
    return [gateway.clusters[name] for name in names if name in gateway.clusters]


def _pool_clusters(gateway: Gateway, router: Router) -> Iterator[Cluster]:
    """Yield the clusters that the router's routes lead to, members of aggregates included."""
    for host in gateway.hosts:
        for route in host.routes:
            if route.processor is None and route.header(router.sets[0]) is None:
                continue
            for name in route.clusters:
                cluster = gateway.clusters.get(name)
                for inner in (*cluster.members, name) if cluster else ():
                    if inner in gateway.clusters:
                        yield gateway.clusters[inner]


TRAPS: Final = (
    Trap(
        "router-without-http2",
        Severity.ERROR,
        "gRPC needs HTTP/2: over HTTP/1.1 no message reaches the router, and every request fails open.",
        "typed_extension_protocol_options with explicit_http_config: {http2_protocol_options: {}} on the router's "
        "cluster (a Service: appProtocol: grpc).",
        _router_without_http2,
        "test_traps_of_clusters.py::test_router_asked_over_http_1",
    ),
    Trap(
        "router-tls",
        Severity.ERROR,
        "If only one side speaks TLS, no message reaches the router, and every request fails open.",
        "A transport_socket with an UpstreamTlsContext on the router's cluster if listen.tls is set (`dualpool "
        "render envoy` writes one), and none if not; --config names the router's configuration.",
        _router_tls,
        "test_traps_of_clusters.py::test_router_asked_over_tls",
    ),
    Trap(
        "router-breakers-small",
        Severity.WARNING,
        "Each request that the router has not decided, and each response that it reads to learn from, is one "
        "gRPC stream. Above the cluster's max_requests or max_pending_requests the filter fails open, undecided;"
        " in full duplex the request is a 500.",
        "circuit_breakers on the router's cluster: in STREAMED at least the router's learning.max_streams + "
        "40; in BUFFERED, where an upload counts until it has ended, 1,024; in full duplex a number that is "
        "never reached.",
        _router_breakers_small,
        "test_traps_of_clusters.py::test_more_requests_than_the_router_s_breaker_lets_through",
    ),
    Trap(
        "router-breakers-large",
        Severity.WARNING,
        "Requests pile up at a router that is too slow, each held until message_timeout, instead of failing "
        "open at once: under a flood the router works on requests that are already late.",
        "A max_requests on the router's cluster: 64 for each of its processes in STREAMED, where requests "
        "beyond it pass at once (docs/envoy.md), and some limit in the other modes. Istio's default is "
        "4,294,967,295: set it in a DestinationRule.",
        _router_breakers_large,
        "test_traps_of_clusters.py::test_router_that_hangs_without_a_limit",
    ),
    Trap(
        "router-not-pinged",
        Severity.WARNING,
        "A router that hangs, or whose node is lost, holds the bodies that it is reading, up to "
        "stream_idle_timeout: Envoy starts message_timeout again with each piece that it sends, so with each "
        "event of a stream, and runs none for the others once the router has answered one of them.",
        "connection_keepalive: {interval: 15s, timeout: 5s} in the http2_protocol_options of the router's cluster "
        "(Envoy Gateway: backendSettings.http2.connectionKeepalive).",
        _router_not_pinged,
        "test_router_hangs.py::test_a_stream_of_events_that_a_hanging_router_reads_without_pings",
    ),
    Trap(
        "one-address-for-many-workers",
        Severity.WARNING,
        "Envoy opens one HTTP/2 connection for each of its threads and endpoints: behind one address some of "
        "the router's processes get all requests and others none.",
        "One endpoint (port or Unix socket) for each process in the router's cluster.",
        _one_address_for_many,
        "test_traps_of_clusters.py::test_one_connection_for_each_address",
    ),
    Trap(
        "cluster-ip",
        Severity.WARNING,
        "With one address there is nothing to balance: long-lived connections decide which server gets how "
        "much, and of several routers behind it one may get everything.",
        "A headless Service (clusterIP: None) and type STRICT_DNS, or endpoints by EDS.",
        _cluster_ip,
        "test_traps_of_clusters.py::test_one_address_of_several_servers",
    ),
    Trap(
        "slow-connect",
        Severity.WARNING,
        "A smaller pool whose node is down does not respond to connection attempts, and each of its requests "
        "waits for connect_timeout (5 s unless set, 10 s in Istio and Envoy Gateway) before the next pool "
        "gets it.",
        "connect_timeout: 1s on the pool's cluster (Istio: DestinationRule tcp.connectTimeout; Envoy Gateway: "
        "BackendTrafficPolicy timeout.tcp.connectTimeout).",
        _slow_connect,
        "test_repair.py::test_short_pool_that_swallows_connections",
    ),
)
