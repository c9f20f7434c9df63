"""The clusters that Istio generates for Envoy, from DestinationRules and, for what they omit, its defaults."""

from collections.abc import Iterator
from typing import Final

from extproc.gateways.manifests import (
    Manifests,
    inner,
    items_of,
    made,
    name_of,
    namespace_of,
    number_of,
    seconds_of,
    text_of,
)
from extproc.gateways.sources import LocatedMap, Place
from extproc.gateways.type_names import HTTP_OPTIONS

__all__ = ["cluster_of", "full_name"]

# Defaults of Istio 1.31.
CONNECT_TIMEOUT: Final = "10s"
NO_LIMIT: Final = 2**32 - 1


def full_name(name: str, namespace: str) -> str:
    """Return the fully qualified name of a Service, as Istio uses it in cluster names."""
    return name if "." in name else f"{name}.{namespace}.svc.cluster.local"


def cluster_of(name: str, manifests: Manifests, place: Place) -> LocatedMap:
    """Return the cluster that Istio generates under this name, which has the form outbound|PORT|SUBSET|HOST."""
    port, host = name.split("|", 2)[1], name.rpartition("|")[2]
    rule = next(_rules_for(host, manifests), None)
    policy = _of_port(inner(rule, "spec", "trafficPolicy"), port) if rule else LocatedMap(place)
    tcp, http = inner(policy, "connectionPool", "tcp"), inner(policy, "connectionPool", "http")
    limits = {
        "max_connections": number_of(tcp, "maxConnections", NO_LIMIT),
        "max_requests": number_of(http, "http2MaxRequests", NO_LIMIT),
        "max_pending_requests": number_of(http, "http1MaxPendingRequests", NO_LIMIT),
        "max_retries": number_of(http, "maxRetries", NO_LIMIT),
    }
    balancer = text_of(inner(policy, "loadBalancer"), "simple", "LEAST_REQUEST")
    options = {"@type": HTTP_OPTIONS, "explicit_http_config": {"http2_protocol_options": {}}}
    http2 = {HTTP_OPTIONS.rpartition("/")[2]: options} if _speaks_http2(host, port, manifests) else None
    return made(
        rule.place if rule else place,
        name=name,
        type="EDS",
        connect_timeout=seconds_of(text_of(tcp, "connectTimeout", CONNECT_TIMEOUT), tcp.place),
        lb_policy="LEAST_REQUEST" if balancer in ("LEAST_REQUEST", "LEAST_CONN", "UNSPECIFIED") else "ROUND_ROBIN",
        circuit_breakers={"thresholds": [limits]},
        typed_extension_protocol_options=http2,
    )


def _of_port(policy: LocatedMap, port: str) -> LocatedMap:
    """Return the policy of a port: its own settings replace those for all ports."""
    own = [
        each for each in items_of(policy, "portLevelSettings") if text_of(inner(each, "port"), "number") == port
    ]
    return made(policy.place, **{**policy, **own[0]}) if own else policy


def _rules_for(host: str, manifests: Manifests) -> Iterator[LocatedMap]:
    """Yield the DestinationRules of a host, those with its own name before those with a wildcard."""
    of_all = []
    for each in manifests.of("DestinationRule"):
        named = full_name(text_of(inner(each, "spec"), "host"), namespace_of(each))
        if named == host:
            yield each
        elif named.startswith("*") and host.endswith(named[1:]):
            of_all.append(each)
    yield from sorted(of_all, key=lambda each: -len(text_of(inner(each, "spec"), "host")))


def _speaks_http2(host: str, port: str, manifests: Manifests) -> bool:
    """Return whether the Service's port declares HTTP/2 or gRPC; assume so if the Service or port was not read."""
    for each in manifests.of("Service"):
        if host.startswith(f"{name_of(each)}."):
            for given in items_of(inner(each, "spec"), "ports"):
                if text_of(given, "port") == port:
                    protocol = text_of(given, "appProtocol") or text_of(given, "name")
                    return protocol.startswith(("grpc", "http2", "kubernetes.io/h2c"))
    return True
