"""Manifests for Istio: the router's filter in an ingress gateway, the routes, and the limits of their clusters.

The patches are built from the same messages as our own bootstrap, so the settings merged in are the tested ones.
"""

from typing import Any, Final

from envoy_data_plane.envoy.config.cluster.v3 import Cluster
from envoy_data_plane.envoy.config.listener.v3 import Listener
from envoy_data_plane.envoy.config.route.v3 import RetryPolicy, Route, RouteAction
from envoy_data_plane.envoy.extensions.filters.http.ext_proc.v3 import ExtProcOverrides, ExtProcPerRoute
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpFilter,
)
from envoy_data_plane.google.protobuf import Any as Packed

from extproc.core.placing.pool import Pool
from extproc.gateways.model import NUMBER_HEADER, RETRY_HEADERS
from extproc.gateways.render.chain import IDLE, head_limits, processor, stripping, window
from extproc.gateways.render.comments import ISTIO, ISTIO_TOPS
from extproc.gateways.render.envoy import plain
from extproc.gateways.render.numbers import Numbers
from extproc.gateways.render.servers import aggregate, router_protocol
from extproc.gateways.render.tables import NO_LIMIT, repair
from extproc.gateways.render.text import documents_of

__all__ = ["render_istio"]

NAMESPACE: Final = "dualpool"
POOL_PORT: Final = 8000
# Envoy's default, which Istio keeps.
ISTIO_HOLDS_BYTES: Final = 1 << 20
_NAME: Final = "dualpool"
_MANAGER: Final = "envoy.filters.network.http_connection_manager"
_API: Final = "networking.istio.io/v1"


def render_istio(numbers: Numbers) -> str:
    """Return an EnvoyFilter, a VirtualService and DestinationRules as YAML with comments."""
    numbers.need_other_names("upgrade")
    rules = [_router_rule(numbers), *map(_pool_rule, numbers.smaller_pools)]
    documents = [_envoy_filter(numbers), _virtual_service(numbers), *rules]
    return documents_of([(each, ISTIO_TOPS[each["kind"]]) for each in documents], ISTIO)


def host_of(pool: Pool) -> str:
    """Return the name of the Service of a pool's servers."""
    return f"vllm-{pool.name}.{NAMESPACE}.svc.cluster.local"


def _envoy_filter(numbers: Numbers) -> dict[str, Any]:
    patches = [
        *_listener_patches(numbers),
        _manager_patch(numbers),
        _filter_patch(numbers),
        _router_patch(numbers),
    ]
    patches += [_cluster_patch(numbers, pool) for pool in numbers.smaller_pools if numbers.is_repaired(pool)]
    patches += [_route_patch(pool.name, _pool_route(numbers, pool)) for pool in numbers.smaller_pools]
    unlimited = RouteAction(timeout=NO_LIMIT, idle_timeout=IDLE)
    arrived_on = Route(request_headers_to_remove=[*RETRY_HEADERS], route=unlimited)
    patches.append(_route_patch(numbers.default_pool.name, arrived_on))
    patches.append(_patch("VIRTUAL_HOST", {}, "MERGE", {"include_attempt_count_in_response": True}))
    return {
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {"name": _NAME, "namespace": "istio-system"},
        "spec": {"workloadSelector": {"labels": {"istio": "ingressgateway"}}, "configPatches": patches},
    }


def _patch(kind: str, match: dict[str, Any], operation: str, value: dict[str, Any]) -> dict[str, Any]:
    return {
        "applyTo": kind,
        "match": {"context": "GATEWAY", **match},
        "patch": {"operation": operation, "value": value},
    }


def _listener_patches(numbers: Numbers) -> list[dict[str, Any]]:
    """Return a patch that raises the buffer limit, if the router waits for more than Istio's gateways hold."""
    if numbers.buffer_bytes <= ISTIO_HOLDS_BYTES:
        return []
    listener = Listener(per_connection_buffer_limit_bytes=numbers.buffer_bytes)
    return [_patch("LISTENER", {}, "MERGE", plain(listener))]


def _manager_patch(numbers: Numbers) -> dict[str, Any]:
    limits = head_limits()
    manager = HttpConnectionManager(
        max_request_headers_kb=limits.max_request_headers_kb,
        common_http_protocol_options=limits.common_http_protocol_options,
        http2_protocol_options=window(numbers),
        early_header_mutation_extensions=[stripping(numbers)],
    )
    match = {"listener": {"filterChain": {"filter": {"name": _MANAGER}}}}
    return _patch("NETWORK_FILTER", match, "MERGE", {"typed_config": plain(Packed.pack(manager))})


def _filter_patch(numbers: Numbers) -> dict[str, Any]:
    processing = processor(numbers, _router_cluster(numbers))
    inserted = HttpFilter(name=_NAME, disabled=True, typed_config=Packed.pack(processing))
    before = {"name": _MANAGER, "subFilter": {"name": "envoy.filters.http.router"}}
    return _patch(
        "HTTP_FILTER", {"listener": {"filterChain": {"filter": before}}}, "INSERT_BEFORE", plain(inserted)
    )


def _router_cluster(numbers: Numbers) -> str:
    return f"outbound|{numbers.router_addresses[0][1] or 9002}||{_NAME}.{NAMESPACE}.svc.cluster.local"


def _router_patch(numbers: Numbers) -> dict[str, Any]:
    pinged = Cluster(typed_extension_protocol_options=router_protocol(numbers))
    return _patch("CLUSTER", {"cluster": {"name": _router_cluster(numbers)}}, "MERGE", plain(pinged))


def _cluster_patch(numbers: Numbers, pool: Pool) -> dict[str, Any]:
    members = [f"outbound|{POOL_PORT}||{host_of(each)}" for each in numbers.next_pools(pool)]
    return _patch("CLUSTER", {}, "ADD", plain(aggregate(numbers, pool, members)))


def _pool_route(numbers: Numbers, pool: Pool) -> Route:
    removed = [NUMBER_HEADER] if numbers.is_repaired(pool) else []
    return Route(request_headers_to_remove=removed, route=_repaired(numbers, pool))


def _repaired(numbers: Numbers, pool: Pool) -> RouteAction:
    if not numbers.is_repaired(pool):
        # Without a policy Istio's own would stay. Envoy ignores unknown conditions, and so retries nothing.
        return RouteAction(timeout=NO_LIMIT, idle_timeout=IDLE, retry_policy=RetryPolicy(retry_on="none"))
    cluster = numbers.repaired_cluster_of(pool)
    return RouteAction(cluster=cluster, timeout=NO_LIMIT, idle_timeout=IDLE, retry_policy=repair())


def _route_patch(name: str, route: Route) -> dict[str, Any]:
    route.typed_per_filter_config = {_NAME: Packed.pack(ExtProcPerRoute(overrides=ExtProcOverrides()))}
    match = {"routeConfiguration": {"vhost": {"route": {"name": name}}}}
    return _patch("HTTP_ROUTE", match, "MERGE", plain(route))


def _virtual_service(numbers: Numbers) -> dict[str, Any]:
    default = [{"destination": {"host": host_of(numbers.default_pool), "port": {"number": POOL_PORT}}}]
    upgrade = {
        "name": "upgrade",
        "match": [{"headers": {"upgrade": {"regex": ".+"}}}],
        "route": default,
        "retries": {"attempts": 0},
    }
    pools = [
        {
            "name": pool.name,
            "match": [{"headers": {numbers.set_headers[0]: {"exact": pool.name}}}],
            "route": [{"destination": {"host": host_of(pool), "port": {"number": POOL_PORT}}}],
        }
        for pool in numbers.smaller_pools
    ]
    last = {"name": numbers.default_pool.name, "route": default, "retries": {"attempts": 0}}
    return {
        "apiVersion": _API,
        "kind": "VirtualService",
        "metadata": {"name": "llm", "namespace": NAMESPACE},
        "spec": {"hosts": ["llm.example.com"], "gateways": ["llm"], "http": [upgrade, *pools, last]},
    }


def _router_rule(numbers: Numbers) -> dict[str, Any]:
    limits = {"http1MaxPendingRequests": numbers.places, "http2MaxRequests": numbers.places}
    policy = {"loadBalancer": {"simple": "LEAST_REQUEST"}, "connectionPool": {"http": limits}}
    return _rule(_NAME, f"{_NAME}.{NAMESPACE}.svc.cluster.local", policy)


def _pool_rule(pool: Pool) -> dict[str, Any]:
    return _rule(f"vllm-{pool.name}", host_of(pool), {"connectionPool": {"tcp": {"connectTimeout": "1s"}}})


def _rule(name: str, host: str, policy: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": _API,
        "kind": "DestinationRule",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"host": host, "trafficPolicy": policy},
    }
