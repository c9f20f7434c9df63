"""Envoy Gateway's manifests to what it makes of them for Envoy, as far as the traps look at it.

Each HTTPRoute is a route (or several), in the Gateway API's order; what policies say of it goes into the route,
its cluster and the connection manager, with Envoy Gateway's defaults. Source: Envoy Gateway's API reference and
its `xds/translator`; `egctl experimental translate` shows the same. A bootstrap comes out, read like any other.
"""

from collections.abc import Iterator
from typing import Any, Final

from extproc.core.errors import ConfigurationError
from extproc.gateways.gateway_api import matches_of, weight_of
from extproc.gateways.manifests import (
    Manifests,
    bytes_of,
    inner,
    items_of,
    made,
    merged,
    name_of,
    number_of,
    seconds_of,
    text_of,
    texts_of,
)
from extproc.gateways.sources import LocatedMap, Place
from extproc.gateways.type_names import (
    EXT_PROC,
    EXT_PROC_PER_ROUTE,
    HEADER_MUTATION,
    HTTP_OPTIONS,
    MANAGER,
    PREVIOUS_PRIORITIES,
    ROUTER,
)

__all__ = ["bootstrap_of"]

# Envoy Gateway 1.9's own.
BUFFER_BYTES: Final = 32 << 10
CONNECT_TIMEOUT: Final = "10s"
LIMIT: Final = 1024
RETRY_ON: Final = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"
STATUSES: Final = [503]
_MODES: Final = {
    "Streamed": "STREAMED",
    "Buffered": "BUFFERED",
    "BufferedPartial": "BUFFERED_PARTIAL",
    "FullDuplexStreamed": "FULL_DUPLEX_STREAMED",
}


def bootstrap_of(manifests: Manifests) -> LocatedMap:
    """Return the bootstrap of a Gateway that has these policies."""
    policies = list(manifests.of("EnvoyExtensionPolicy"))
    place = policies[0].place
    processors = [
        (f"{name_of(policy)}/{at}", policy, given)
        for policy in policies
        for at, given in enumerate(items_of(inner(policy, "spec"), "extProc"))
    ]
    routes = [route for each in manifests.of("HTTPRoute") for route in _routes(each, manifests, processors)]
    routes.sort(key=lambda route: weight_of(route["match"]))
    filters = [_filter(name, given) for name, _, given in processors]
    router = made(place, name="envoy.filters.http.router", typed_config={"@type": ROUTER})
    host = made(place, name="gateway", domains=["*"], routes=routes)
    client = next(iter(manifests.of("ClientTrafficPolicy")), LocatedMap(place))
    manager = made(
        client.place,
        **{"@type": MANAGER},
        stat_prefix="http",
        route_config=made(place, name="gateway", virtual_hosts=[host]),
        http_filters=[*filters, router],
        early_header_mutation_extensions=[_stripping(client)],
    )
    manager = _patched(manager, manifests)
    network = made(place, name="envoy.filters.network.http_connection_manager", typed_config=manager)
    connection = inner(client, "spec", "connection")
    limit = bytes_of(text_of(connection, "bufferLimit", str(BUFFER_BYTES)), connection.place)
    listener = made(
        client.place,
        name="gateway",
        per_connection_buffer_limit_bytes=limit,
        filter_chains=[made(place, filters=[network])],
    )
    clusters = [
        *(_router_cluster(name, given) for name, _, given in processors),
        *(_pool_cluster(each, rule, at, manifests) for each, at, rule in _rules(manifests)),
    ]
    return made(place, static_resources=made(place, listeners=[listener], clusters=clusters))


def _filter(name: str, given: LocatedMap) -> LocatedMap:
    mode = inner(given, "processingMode")
    settings = made(
        given.place,
        **{"@type": EXT_PROC},
        grpc_service={"envoy_grpc": {"cluster_name": f"dualpool/{name}"}},
        failure_mode_allow=text_of(given, "failOpen") == "True",
        message_timeout=seconds_of(text_of(given, "messageTimeout", "200ms"), given.place),
        processing_mode=made(mode.place, **_direction(mode, "request"), **_direction(mode, "response")),
        metadata_options={
            "receiving_namespaces": {"untyped": texts_of(inner(given, "metadata"), "writableNamespaces")}
        },
    )
    return made(given.place, name=f"dualpool/{name}", disabled=True, typed_config=settings)


def _direction(mode: LocatedMap, name: str) -> dict[str, str]:
    """Return the modes of one direction: without an entry nothing is sent, without a body the head alone."""
    if name not in mode:
        return {f"{name}_header_mode": "SKIP"}
    body = text_of(inner(mode, name), "body")
    if not body:
        return {f"{name}_header_mode": "SEND"}
    if body not in _MODES:
        raise ConfigurationError(f"{mode.place}: body {body!r} given; allowed: {', '.join(_MODES)}")
    full_duplex = body == "FullDuplexStreamed"
    trailers = {f"{name}_trailer_mode": "SEND"} if full_duplex else {}
    return {f"{name}_header_mode": "SEND", f"{name}_body_mode": _MODES[body], **trailers}


def _stripping(client: LocatedMap) -> LocatedMap:
    early = inner(client, "spec", "headers", "earlyRequestHeaders")
    mutations = [{"remove": name} for name in texts_of(early, "remove")]
    config = {"@type": HEADER_MUTATION, "mutations": mutations}
    return made(early.place, name="early", typed_config=config)


def _patched(manager: LocatedMap, manifests: Manifests) -> LocatedMap:
    """Merge what EnvoyPatchPolicies say of the connection manager."""
    for policy in manifests.of("EnvoyPatchPolicy"):
        for patch in items_of(inner(policy, "spec"), "jsonPatches"):
            operation = inner(patch, "operation")
            path = text_of(operation, "path").partition("/filters/0/typed_config/")[2]
            if path and text_of(operation, "op") in ("add", "replace"):
                value: Any = operation.get("value")
                for step in reversed(path.split("/")):
                    value = made(operation.place, **{step: value})
                manager = merged(manager, value)
    return manager


def _rules(manifests: Manifests) -> Iterator[tuple[LocatedMap, int, LocatedMap]]:
    for each in manifests.of("HTTPRoute"):
        for at, rule in enumerate(items_of(inner(each, "spec"), "rules")):
            yield each, at, rule


def _routes(
    object_: LocatedMap, manifests: Manifests, processors: list[tuple[str, LocatedMap, LocatedMap]]
) -> Iterator[LocatedMap]:
    enabled = {
        f"dualpool/{name}": {"@type": EXT_PROC_PER_ROUTE, "overrides": {}}
        for name, policy, _ in processors
        if _targets(policy, object_)
    }
    for at, rule in enumerate(items_of(inner(object_, "spec"), "rules")):
        traffic = _traffic(object_, manifests)
        timeout = text_of(inner(rule, "timeouts"), "request")
        timeout = timeout or text_of(inner(traffic, "timeout", "http"), "requestTimeout")
        action = made(
            rule.place,
            cluster=f"{name_of(object_)}/{at}",
            timeout=seconds_of(timeout, rule.place) if timeout else None,
            retry_policy=_retry(traffic),
        )
        for match in matches_of(rule):
            yield made(
                rule.place, name=name_of(object_), match=match, route=action, typed_per_filter_config=enabled
            )


def _targets(policy: LocatedMap, route: LocatedMap) -> bool:
    spec = inner(policy, "spec")
    references = [*items_of(spec, "targetRefs"), inner(spec, "targetRef")]
    targets = {(text_of(each, "kind"), text_of(each, "name")) for each in references}
    return ("HTTPRoute", name_of(route)) in targets or any(kind == "Gateway" for kind, _ in targets)


def _traffic(route: LocatedMap, manifests: Manifests) -> LocatedMap:
    """Return the BackendTrafficPolicy of a route: its own, or else the Gateway's."""
    policies = [each for each in manifests.of("BackendTrafficPolicy") if _targets(each, route)]
    policies.sort(key=lambda each: "Gateway" in str(inner(each, "spec").get("targetRefs", "")))
    return inner(policies[0], "spec") if policies else LocatedMap(route.place)


def _retry(traffic: LocatedMap) -> LocatedMap | None:
    if "retry" not in traffic:
        return None
    retry = inner(traffic, "retry")
    on = inner(retry, "retryOn")
    per_priority = number_of(retry, "numAttemptsPerPriority", 0)
    previous = {"@type": PREVIOUS_PRIORITIES, "update_frequency": per_priority}
    priority = {"name": "envoy.retry_priorities.previous_priorities", "typed_config": previous}
    return made(
        retry.place,
        retry_on=",".join(texts_of(on, "triggers")) or RETRY_ON,
        retriable_status_codes=texts_of(on, "httpStatusCodes") or STATUSES,
        num_retries=number_of(retry, "numRetries", 2),
        retry_priority=priority if per_priority else None,
    )


def _router_cluster(name: str, given: LocatedMap) -> LocatedMap:
    settings = inner(given, "backendSettings")
    http2 = inner(settings, "http2")
    window = text_of(http2, "initialStreamWindowSize")
    options = {} if not window else {"initial_stream_window_size": bytes_of(window, http2.place)}
    protocol = {"@type": HTTP_OPTIONS, "explicit_http_config": {"http2_protocol_options": options}}
    said = made(
        given.place, type="EDS", typed_extension_protocol_options={HTTP_OPTIONS.rpartition("/")[2]: protocol}
    )
    return merged(_cluster(f"dualpool/{name}", settings, given.place), said)


def _pool_cluster(route: LocatedMap, rule: LocatedMap, at: int, manifests: Manifests) -> LocatedMap:
    backends = {name_of(each): inner(each, "spec") for each in manifests.of("Backend")}
    localities = []
    by_name = True
    for reference in items_of(rule, "backendRefs"):
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
    return merged(_cluster(name, _traffic(route, manifests), rule.place), said)


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
