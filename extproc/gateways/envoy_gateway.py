"""Translation of Envoy Gateway's manifests into the Envoy configuration it generates, as far as the traps need it.

Each HTTPRoute becomes one or more routes, in the Gateway API's order of precedence. Policies for it are applied to
the route, its cluster and the connection manager, with Envoy Gateway's defaults. Source: Envoy Gateway's API
reference and its `xds/translator`; `egctl experimental translate` prints the same. The result is a bootstrap that
is then read like any other.
"""

from collections.abc import Iterator
from typing import Final

from extproc.core.errors import ConfigurationError
from extproc.gateways.envoy_gateway_clusters import pool_cluster, router_cluster, targets_route, traffic_of
from extproc.gateways.envoy_gateway_patches import patched
from extproc.gateways.gateway_api import matches_of, weight_of
from extproc.gateways.manifests import (
    Manifests,
    bytes_of,
    inner,
    items_of,
    made,
    name_of,
    number_of,
    optional_seconds,
    seconds_of,
    text_of,
    texts_of,
)
from extproc.gateways.sources import LocatedMap, Place
from extproc.gateways.type_names import (
    EXT_PROC,
    EXT_PROC_PER_ROUTE,
    HEADER_MUTATION,
    MANAGER,
    PREVIOUS_PRIORITIES,
    ROUTER,
)

__all__ = ["bootstrap_of"]

# Defaults of Envoy Gateway 1.9.
BUFFER_BYTES: Final = 32 << 10
WINDOW_BYTES: Final = 64 << 10
CONNECTION_BYTES: Final = 1 << 20
ANY_HOST: Final = "*"
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
    filters = [_filter(name, given) for name, _, given in processors]
    router = made(place, name="envoy.filters.http.router", typed_config={"@type": ROUTER})
    client = _client(manifests) or LocatedMap(place)
    http2 = inner(client, "spec", "http2")
    windows = {
        "initial_stream_window_size": text_of(http2, "initialStreamWindowSize", str(WINDOW_BYTES)),
        "initial_connection_window_size": text_of(http2, "initialConnectionWindowSize", str(CONNECTION_BYTES)),
    }
    manager = made(
        client.place,
        **{"@type": MANAGER},
        stream_idle_timeout=optional_seconds(inner(client, "spec", "timeout", "http"), "streamIdleTimeout"),
        http2_protocol_options=made(
            http2.place, **{name: bytes_of(text, http2.place) for name, text in windows.items()}
        ),
        stat_prefix="http",
        route_config=made(place, name="gateway", virtual_hosts=_virtual_hosts(place, manifests, processors)),
        http_filters=[*filters, router],
        early_header_mutation_extensions=[_stripping(client)],
    )
    manager = patched(manager, manifests)
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
        *(router_cluster(name, given) for name, _, given in processors),
        *(pool_cluster(each, rule, at, manifests) for each, at, rule in _rules(manifests)),
    ]
    return made(place, static_resources=made(place, listeners=[listener], clusters=clusters))


def _client(manifests: Manifests) -> LocatedMap | None:
    """Return the ClientTrafficPolicy of the Gateway that the routes belong to."""
    policies = list(manifests.of("ClientTrafficPolicy"))
    routes = list(manifests.of("HTTPRoute"))
    of_ours = (each for each in policies if any(targets_route(each, route) for route in routes))
    return next(of_ours, None)


def _filter(name: str, given: LocatedMap) -> LocatedMap:
    mode = inner(given, "processingMode")
    settings = made(
        given.place,
        **{"@type": EXT_PROC},
        grpc_service={"envoy_grpc": {"cluster_name": f"dualpool/{name}"}},
        failure_mode_allow=text_of(given, "failOpen").lower() in ("true", "yes", "on"),
        message_timeout=seconds_of(text_of(given, "messageTimeout", "200ms"), given.place),
        processing_mode=made(mode.place, **_direction(mode, "request"), **_direction(mode, "response")),
        metadata_options={
            "receiving_namespaces": {"untyped": texts_of(inner(given, "metadata"), "writableNamespaces")}
        },
    )
    return made(given.place, name=f"dualpool/{name}", disabled=True, typed_config=settings)


def _direction(mode: LocatedMap, name: str) -> dict[str, str]:
    """Return the modes of one direction: no entry sends nothing, an entry without a body sends headers only."""
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


def _rules(manifests: Manifests) -> Iterator[tuple[LocatedMap, int, LocatedMap]]:
    for each in manifests.of("HTTPRoute"):
        for at, rule in enumerate(items_of(inner(each, "spec"), "rules")):
            yield each, at, rule


def _virtual_hosts(
    place: Place, manifests: Manifests, processors: list[tuple[str, LocatedMap, LocatedMap]]
) -> list[LocatedMap]:
    """Return a host for each name, with the routes that name it: the routes of one host serve a request."""
    routes: dict[str, list[LocatedMap]] = {}
    for each in manifests.of("HTTPRoute"):
        for name in _hostnames(each):
            routes.setdefault(name, []).extend(_routes(each, manifests, processors))
    for of_host in routes.values():
        of_host.sort(key=lambda route: weight_of(route["match"]))
    return [
        made(place, name="gateway" if name == ANY_HOST else name, domains=[name], routes=of_host)
        for name, of_host in routes.items()
    ]


def _hostnames(object_: LocatedMap) -> list[str]:
    return [*texts_of(inner(object_, "spec"), "hostnames")] or [ANY_HOST]


def _routes(
    object_: LocatedMap, manifests: Manifests, processors: list[tuple[str, LocatedMap, LocatedMap]]
) -> Iterator[LocatedMap]:
    enabled = {
        f"dualpool/{name}": {"@type": EXT_PROC_PER_ROUTE, "overrides": {}}
        for name, policy, _ in processors
        if targets_route(policy, object_)
    }
    for at, rule in enumerate(items_of(inner(object_, "spec"), "rules")):
        traffic = traffic_of(object_, manifests)
        timeout = text_of(inner(rule, "timeouts"), "request")
        timeout = timeout or text_of(inner(traffic, "timeout", "http"), "requestTimeout")
        longest = optional_seconds(inner(traffic, "timeout", "http"), "maxStreamDuration")
        action = made(
            rule.place,
            cluster=f"{name_of(object_)}/{at}",
            timeout=seconds_of(timeout, rule.place) if timeout else None,
            max_stream_duration={"max_stream_duration": longest} if longest else None,
            retry_policy=_retry(traffic),
        )
        for match in matches_of(rule):
            yield made(
                rule.place, name=name_of(object_), match=match, route=action, typed_per_filter_config=enabled
            )


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
        per_try_timeout=optional_seconds(inner(retry, "perRetry"), "timeout"),
    )
