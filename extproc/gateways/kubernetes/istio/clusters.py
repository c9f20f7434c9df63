"""The clusters that Istio generates for Envoy, from DestinationRules and, for what they omit, its defaults."""

from typing import Final

from extproc.gateways.kubernetes.manifests import (
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
from extproc.gateways.kubernetes.type_names import HTTP_OPTIONS
from extproc.gateways.parsing.sources import LocatedMap, Place

__all__ = ["Destinations", "full_name"]

# Defaults of Istio 1.31.
CONNECT_TIMEOUT: Final = "10s"
NO_LIMIT: Final = 2**32 - 1


def full_name(name: str, namespace: str) -> str:
    """Return the fully qualified name of a Service, as Istio uses it in cluster names; * is for all of them."""
    return name if "." in name or name == "*" else f"{name}.{namespace}.svc.cluster.local"


class Destinations:
    """The DestinationRules and Services, by host: a cluster is not compared with thousands of them."""

    def __init__(self, manifests: Manifests) -> None:
        self._rules: dict[str, LocatedMap] = {}
        self._of_many: list[tuple[str, LocatedMap]] = []
        self._services: dict[str, list[LocatedMap]] = {}
        for each in manifests.of("DestinationRule"):
            named = full_name(text_of(inner(each, "spec"), "host"), namespace_of(each))
            self._rules.setdefault(named, each)
            if named.startswith("*"):
                self._of_many.append((named[1:], each))
        self._of_many.sort(key=lambda ending: -len(ending[0]))
        for each in manifests.of("Service"):
            self._services.setdefault(name_of(each), []).append(each)

    def cluster_of(self, name: str, place: Place) -> LocatedMap:
        """Return the cluster that Istio generates under a name, which has the form outbound|PORT|SUBSET|HOST."""
        port, host = name.split("|", 2)[1], name.rpartition("|")[2]
        rule = self._rule_for(host)
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
        http2 = {HTTP_OPTIONS.rpartition("/")[2]: options} if self._speaks_http2(host, port) else None
        return made(
            rule.place if rule else place,
            name=name,
            type="EDS",
            connect_timeout=seconds_of(text_of(tcp, "connectTimeout", CONNECT_TIMEOUT), tcp.place),
            lb_policy="LEAST_REQUEST"
            if balancer in ("LEAST_REQUEST", "LEAST_CONN", "UNSPECIFIED")
            else "ROUND_ROBIN",
            circuit_breakers={"thresholds": [limits]},
            typed_extension_protocol_options=http2,
        )

    def _rule_for(self, host: str) -> LocatedMap | None:
        """Return the DestinationRule of a host: the one with its own name, or that with the longest wildcard."""
        found = (rule for ending, rule in self._of_many if host.endswith(ending))
        return self._rules.get(host) or next(found, None)

    def _speaks_http2(self, host: str, port: str) -> bool:
        """Return whether the Service's port declares HTTP/2 or gRPC; assume so if it was not read."""
        for each in self._services.get(host.partition(".")[0], ()):
            for given in items_of(inner(each, "spec"), "ports"):
                if text_of(given, "port") == port:
                    protocol = text_of(given, "appProtocol") or text_of(given, "name")
                    return protocol.startswith(("grpc", "http2", "kubernetes.io/h2c"))
        return True


def _of_port(policy: LocatedMap, port: str) -> LocatedMap:
    """Return the policy of a port: its own settings replace those for all ports."""
    own = [
        each for each in items_of(policy, "portLevelSettings") if text_of(inner(each, "port"), "number") == port
    ]
    return made(policy.place, **{**policy, **own[0]}) if own else policy
