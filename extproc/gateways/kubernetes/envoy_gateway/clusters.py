"""The clusters that Envoy Gateway generates, one per HTTPRoute rule, with policies applied.

Source: Envoy Gateway's API reference and its `xds/translator`.
"""

from collections.abc import Mapping
from typing import Final

from extproc.gateways.kubernetes.envoy_gateway.selectors import agree, namespace_said
from extproc.gateways.kubernetes.manifests import (
    Manifests,
    inner,
    is_true,
    items_of,
    made,
    merged,
    name_of,
    number_of,
    seconds_of,
    text_of,
    used,
)
from extproc.gateways.parsing.sources import LocatedMap, Place

__all__ = ["backends_of", "cluster_with", "pool_cluster"]

# Defaults of Envoy Gateway 1.9.
CONNECT_TIMEOUT: Final = "10s"
LIMIT: Final = 1024


Backends = Mapping[str, list[LocatedMap]]
"""Backends by name, of all namespaces."""


def backends_of(manifests: Manifests) -> Backends:
    """Return all Backends."""
    found: dict[str, list[LocatedMap]] = {}
    for each in manifests.of("Backend"):
        found.setdefault(name_of(each), []).append(each)
    return found


def pool_cluster(
    name: str, rule: LocatedMap, namespace: str, traffic: LocatedMap, backends: Backends
) -> LocatedMap:
    """Return the cluster of an HTTPRoute rule, with the addresses and priorities of its Backends.

    `namespace` is the route's, and `traffic` the BackendTrafficPolicy in force on the rule.
    """
    localities = []
    by_name = True
    for reference in used(items_of(rule, "backendRefs")):
        server = text_of(reference, "name")
        spec = _backend(reference, namespace, backends) if text_of(reference, "kind") == "Backend" else None
        by_name = by_name and spec is not None
        addresses = [_address(each) for each in items_of(spec, "endpoints")] if spec else [(server, 0)]
        endpoints = [
            {"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}}
            for host, port in addresses
        ]
        priority = 1 if spec is not None and is_true(spec, "fallback") else 0
        localities.append({"priority": priority, "lb_endpoints": endpoints})
    said = made(
        rule.place,
        type="STRICT_DNS" if by_name else "EDS",
        load_assignment={"cluster_name": name, "endpoints": localities},
    )
    return merged(cluster_with(traffic, name, rule.place), said)


def _backend(reference: LocatedMap, namespace: str, backends: Backends) -> LocatedMap | None:
    """Return the spec of a Backend that a rule refers to, which is in the route's namespace if none is said."""
    namespace = text_of(reference, "namespace") or namespace
    named = backends.get(text_of(reference, "name"), ())
    return next((inner(each, "spec") for each in named if agree(namespace_said(each), namespace)), None)


def _address(given: LocatedMap) -> tuple[str, int]:
    for kind, key in (("fqdn", "hostname"), ("ip", "address")):
        if kind in given:
            return text_of(inner(given, kind), key), number_of(inner(given, kind), "port", 0)
    return "", 0


def cluster_with(policy: LocatedMap, name: str, place: Place) -> LocatedMap:
    """Return a cluster with a policy's settings, a BackendTrafficPolicy's or a processor's, and the defaults."""
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
