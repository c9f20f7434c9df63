"""Conversion of Envoy's clusters into the model, with aggregates resolved and Envoy's defaults filled in."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from envoy.config.cluster.v3.cluster_pb2 import Cluster as EnvoyCluster
from envoy.config.core.v3.base_pb2 import RoutingPriority
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.extensions.clusters.aggregate.v3.cluster_pb2 import ClusterConfig
from envoy.extensions.clusters.dns.v3.dns_cluster_pb2 import DnsCluster
from envoy.extensions.load_balancing_policies.least_request.v3.least_request_pb2 import LeastRequest
from envoy.extensions.load_balancing_policies.override_host.v3.override_host_pb2 import OverrideHost
from envoy.extensions.transport_sockets.tls.v3.tls_pb2 import UpstreamTlsContext
from envoy.extensions.upstreams.http.v3.http_protocol_options_pb2 import HttpProtocolOptions

from extproc.gateways.envoy.resources import Resources
from extproc.gateways.envoy.retries import retry_of
from extproc.gateways.model import STREAM_WINDOW_BYTES, Cluster
from extproc.gateways.parsing.parts import Part, enum_name, milliseconds

__all__ = ["clusters_of"]

# Defaults of Envoy 1.40.
CONNECT_TIMEOUT_MS: Final = 5_000.0
REQUESTS: Final = 1_024
RETRIES: Final = 3
MERGE_WINDOW_MS: Final = 1_000.0
OUTBOUND_FRAMES: Final = 10_000
LOCAL_FAILURES: Final = 5
_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def clusters_of(resources: Resources) -> dict[str, Cluster]:
    """Return the clusters by name. An aggregate has the priorities of its members, one member after the other."""
    assigned = {each.message.cluster_name: each.message for each in resources.endpoints}
    parts = {part.message.name: part for part in resources.clusters}
    return {name: _cluster(part, _priorities(part, parts, assigned)) for name, part in parts.items()}


def _cluster(part: Part[EnvoyCluster], priorities: tuple[frozenset[str], ...]) -> Cluster:
    message = part.message
    options = _http_options(part)
    http2 = _http2(part, options)
    limits, high = (_thresholds(part, each) for each in (RoutingPriority.DEFAULT, RoutingPriority.HIGH))
    retry = options.field("retry_policy") if options and options.message.HasField("retry_policy") else None
    return Cluster(
        name=message.name,
        place=part.place,
        priorities=priorities,
        members=_members(part),
        discovery=_discovery(part),
        least_request=_least_request(message),
        http2=http2 is not None,
        tls=_tls(part),
        connect_timeout_ms=milliseconds(part, "connect_timeout", CONNECT_TIMEOUT_MS),
        max_requests=limits.number("max_requests", REQUESTS) if limits else REQUESTS,
        max_pending_requests=limits.number("max_pending_requests", REQUESTS) if limits else REQUESTS,
        max_retries=_retries(limits),
        max_high_retries=_retries(high),
        stream_window_bytes=_number(http2, "initial_stream_window_size", STREAM_WINDOW_BYTES),
        max_outbound_frames=_number(http2, "max_outbound_frames", OUTBOUND_FRAMES),
        pinged=http2 is not None and http2.message.connection_keepalive.HasField("interval"),
        panics=not message.common_lb_config.HasField("healthy_panic_threshold")
        or message.common_lb_config.healthy_panic_threshold.value > 0,
        batches_updates=milliseconds(part.field("common_lb_config"), "update_merge_window", MERGE_WINDOW_MS) > 0,
        ejects_on_first_failure=_ejects_on_first_failure(part.field("outlier_detection")),
        takes_given=_takes_given(message),
        max_duration_ms=_max_duration_ms(options),
        retry=retry_of(retry) if retry else None,
    )


def _discovery(part: Part[EnvoyCluster]) -> str:
    """Return the discovery type; that of an extension is its name, unless it does what one of the types does."""
    if not part.message.HasField("cluster_type"):
        return enum_name(EnvoyCluster.DiscoveryType, part.message.type)
    if _members(part):
        return "AGGREGATE"
    if dns := part.field("cluster_type").field("typed_config").unpacked(DnsCluster):
        return "LOGICAL_DNS" if dns.message.all_addresses_in_single_endpoint else "STRICT_DNS"
    return str(part.message.cluster_type.name)


def _retries(limits: Part[Any] | None) -> int:
    """Return how many retries may be active at a time even when there are few requests."""
    if limits is None:
        return RETRIES
    if limits.message.HasField("retry_budget"):  # overrides max_retries
        return limits.field("retry_budget").number("min_retry_concurrency", RETRIES)
    return limits.number("max_retries", RETRIES)


def _max_duration_ms(options: Part[HttpProtocolOptions] | None) -> float:
    common = options.field("common_http_protocol_options") if options else None
    return milliseconds(common, "max_stream_duration", 0.0) if common else 0.0


def _number(part: Part[Any] | None, name: str, otherwise: int) -> int:
    return part.number(name, otherwise) if part else otherwise


def _http_options(part: Part[EnvoyCluster]) -> Part[HttpProtocolOptions] | None:
    found = (value.unpacked(HttpProtocolOptions) for _, value in part.entries("typed_extension_protocol_options"))
    return next((each for each in found if each), None)


def _http2(part: Part[EnvoyCluster], options: Part[HttpProtocolOptions] | None) -> Part[Any] | None:
    """Return the HTTP/2 settings, None if the cluster does not speak HTTP/2."""
    if options is None:
        return part.field("http2_protocol_options") if part.message.HasField("http2_protocol_options") else None
    explicit = options.field("explicit_http_config")
    if explicit.message.HasField("http2_protocol_options"):
        return explicit.field("http2_protocol_options")
    # The protocol is negotiated by ALPN, which requires TLS.
    automatic = options.field("auto_config")
    if options.message.HasField("auto_config") and part.message.HasField("transport_socket"):
        return automatic.field("http2_protocol_options")
    return None


def _tls(part: Part[EnvoyCluster]) -> bool | None:
    message = part.message
    if not message.HasField("transport_socket") and not message.transport_socket_matches:
        return False
    socket = part.field("transport_socket").field("typed_config").unpacked(UpstreamTlsContext)
    # A mesh delivers its certificates to the sidecar, and the router's sidecar may end the TLS.
    if socket is None or socket.message.common_tls_context.tls_certificate_sds_secret_configs:
        return None
    return True


def _ejects_on_first_failure(part: Part[Any]) -> bool:
    split: bool = part.message.split_external_local_origin_errors
    return split and part.number("consecutive_local_origin_failure", LOCAL_FAILURES) <= 1


def _thresholds(part: Part[EnvoyCluster], priority: int) -> Part[Any] | None:
    of_all = part.field("circuit_breakers").items("thresholds")
    return next((each for each in of_all if each.message.priority == priority), None)


def _least_request(message: EnvoyCluster) -> bool:
    if message.HasField("load_balancing_policy"):
        return _balances_by(message, LeastRequest)
    return bool(message.lb_policy == EnvoyCluster.LbPolicy.LEAST_REQUEST)


def _balances_by(message: EnvoyCluster, kind: type[Any]) -> bool:
    configs = [each.typed_extension_config.typed_config for each in message.load_balancing_policy.policies]
    return any(config.Is(kind.DESCRIPTOR) for config in configs)


def _takes_given(message: EnvoyCluster) -> bool:
    given = message.original_dst_lb_config
    return _balances_by(message, OverrideHost) or given.use_http_header or given.HasField("metadata_key")


def _members(part: Part[EnvoyCluster]) -> tuple[str, ...]:
    if not part.message.HasField("cluster_type"):
        return ()
    held = part.field("cluster_type").field("typed_config").unpacked(ClusterConfig)
    return tuple(held.message.clusters) if held else ()


def _priorities(
    part: Part[EnvoyCluster],
    parts: Mapping[str, Part[EnvoyCluster]],
    assigned: Mapping[str, ClusterLoadAssignment],
) -> tuple[frozenset[str], ...]:
    members = _members(part)
    if members:
        inner = (_priorities(parts[name], parts, assigned) if name in parts else () for name in members)
        return tuple(
            each for name, found in zip(members, inner, strict=True) for each in found or (frozenset({name}),)
        )
    message = part.message
    service = message.eds_cluster_config.service_name or message.name
    assignment = message.load_assignment if message.HasField("load_assignment") else assigned.get(service)
    return _by_priority(message.name, assignment.endpoints) if assignment else ()


def _by_priority(name: str, localities: Iterable[Any]) -> tuple[frozenset[str], ...]:
    """Return the servers of each priority; one that is scaled to zero has a name of its own instead."""
    found: dict[int, set[str]] = {}
    for locality in localities:
        found.setdefault(locality.priority, set()).update(map(_address, locality.lb_endpoints))
    return tuple(frozenset(found[each] or {f"(priority {each} of {name})"}) for each in sorted(found))


def _address(endpoint: Any) -> str:  # noqa: ANN401  (an LbEndpoint; the messages have no types)
    address = endpoint.endpoint.address
    if address.HasField("pipe"):
        return f"unix:{address.pipe.path}"
    socket = address.socket_address
    return f"{socket.address}:{socket.port_value or socket.named_port}"
