"""The clusters that Envoy Gateway generates: the router's, and one per HTTPRoute rule, with policies applied.

Source: Envoy Gateway's API reference and its `xds/translator`.
"""

from typing import Final

from extproc.gateways.manifests import (
    Manifests,
    bytes_of,
    inner,
    items_of,
    made,
    merged,
    name_of,
    number_of,
    optional_seconds,
    seconds_of,
    text_of,
    used,
)
from extproc.gateways.sources import LocatedMap, Place
from extproc.gateways.type_names import HTTP_OPTIONS

__all__ = ["pool_cluster", "router_cluster", "targets_route", "traffic_of"]

# Defaults of Envoy Gateway 1.9.
CONNECT_TIMEOUT: Final = "10s"
LIMIT: Final = 1024


def router_cluster(name: str, given: LocatedMap) -> LocatedMap:
    """Return the cluster of the processor in an `extProc` entry of an EnvoyExtensionPolicy."""
    settings = inner(given, "backendSettings")
    http2 = inner(settings, "http2")
    window, pings = text_of(http2, "initialStreamWindowSize"), inner(http2, "connectionKeepalive")
    options = made(
        http2.place,
        initial_stream_window_size=bytes_of(window, http2.place) if window else None,
        connection_keepalive=made(pings.place, interval=optional_seconds(pings, "interval")) if pings else None,
    )
    protocol = {"@type": HTTP_OPTIONS, "explicit_http_config": {"http2_protocol_options": options}}
    said = made(
        given.place, type="EDS", typed_extension_protocol_options={HTTP_OPTIONS.rpartition("/")[2]: protocol}
    )
    return merged(_cluster(f"dualpool/{name}", settings, given.place), said)


def pool_cluster(route: LocatedMap, rule: LocatedMap, at: int, manifests: Manifests) -> LocatedMap:
    """Return the cluster of an HTTPRoute rule, with the addresses and priorities of its Backends."""
    backends = {name_of(each): inner(each, "spec") for each in manifests.of("Backend")}
    localities = []
    by_name = True
    for reference in used(items_of(rule, "backendRefs")):
        name = text_of(reference, "name")
        spec = backends.get(name)
        by_name = by_name and spec is not None
        addresses = [_address(each) for each in items_of(spec, "endpoints")] if spec else [(name, 0)]
        endpoints = [
            {"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}}
            for host, port in addresses
        ]
        priority = 1 if spec is not None and text_of(spec, "fallback") == "True" else 0
        localities.append({"priority": priority, "lb_endpoints": endpoints})
    name = f"{name_of(route)}/{at}"
    said = made(
        rule.place,
        type="STRICT_DNS" if by_name else "EDS",
        load_assignment={"cluster_name": name, "endpoints": localities},
    )
    return merged(_cluster(name, traffic_of(route, manifests), rule.place), said)


def traffic_of(route: LocatedMap, manifests: Manifests) -> LocatedMap:
    """Return the spec of a route's BackendTrafficPolicy: its own, or the Gateway's if it has none."""
    policies = [each for each in manifests.of("BackendTrafficPolicy") if targets_route(each, route)]
    policies.sort(key=lambda each: "Gateway" in str(inner(each, "spec").get("targetRefs", "")))
    return inner(policies[0], "spec") if policies else LocatedMap(route.place)


def targets_route(policy: LocatedMap, route: LocatedMap) -> bool:
    """Return whether a policy targets a route or its Gateway, by name or by the route's labels."""
    spec = inner(policy, "spec")
    gateways = [text_of(each, "name") for each in items_of(inner(route, "spec"), "parentRefs")]
    for each in [*items_of(spec, "targetRefs"), inner(spec, "targetRef")]:
        kind, name = text_of(each, "kind"), text_of(each, "name")
        if (kind, name) == ("HTTPRoute", name_of(route)) or (kind == "Gateway" and name in gateways):
            return True
    labels = inner(route, "metadata", "labels")
    for each in items_of(spec, "targetSelectors"):
        wanted = inner(each, "matchLabels")
        if text_of(each, "kind") == "Gateway":  # its labels are not known here
            return True
        if text_of(each, "kind") == "HTTPRoute" and all(labels.get(key) == wanted[key] for key in wanted):
            return True
    return False


def _address(given: LocatedMap) -> tuple[str, int]:
    for kind, key in (("fqdn", "hostname"), ("ip", "address")):
        if kind in given:
            return text_of(inner(given, kind), key), number_of(inner(given, kind), "port", 0)
    return "", 0


def _cluster(name: str, policy: LocatedMap, place: Place) -> LocatedMap:
    breaker, tcp = inner(policy, "circuitBreaker"), inner(policy, "timeout", "tcp")
    limits = {
        "max_connections": number_of(breaker, "maxConnections", LIMIT),
        "max_requests": number_of(breaker, "maxParallelRequests", LIMIT),
        "max_pending_requests": number_of(breaker, "maxPendingRequests", LIMIT),
        "max_retries": number_of(breaker, "maxParallelRetries", LIMIT),
    }
    balancer = text_of(inner(policy, "loadBalancer"), "type", "LeastRequest")
    return made(
        policy.place if policy else place,
        name=name,
        connect_timeout=seconds_of(text_of(tcp, "connectTimeout", CONNECT_TIMEOUT), tcp.place),
        lb_policy="LEAST_REQUEST" if balancer == "LeastRequest" else "ROUND_ROBIN",
        circuit_breakers={"thresholds": [limits]},
    )
