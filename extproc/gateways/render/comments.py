"""The comments of rendered configurations, which say why a setting is as it is; keyed by the end of its path."""

from collections.abc import Mapping
from typing import Final

from extproc.gateways.render.numbers import Mode

__all__ = ["DEFAULT_ROUTE", "ENVOY", "ENVOY_GATEWAY", "ENVOY_GATEWAY_TOPS", "ISTIO", "ISTIO_TOPS", "top_of"]

DEFAULT_ROUTE: Final = "routes.DEFAULT"
"""Key of the comment on the default pool's route, whatever that pool is called."""
_PINGS: Final = (
    "Closes the connection to a router that hangs: the timeout of a message does not cover every piece of a body."
)
_TOPS: Final = {
    Mode.STREAMED: "in STREAMED mode: the default, and the cheapest mode.",
    Mode.BUFFERED: "in BUFFERED mode: Envoy holds the whole body and sends it in one message.",
    Mode.FULL_DUPLEX: "in FULL_DUPLEX_STREAMED mode: for gateways that require it. Envoy hands over every byte of "
    "the body, so it can no longer fail open after the first piece. If you have the choice, use STREAMED.",
}


def top_of(mode: Mode) -> str:
    """Return the comment at the top of a bootstrap."""
    return (
        f"Envoy in front of the pools, with the router {_TOPS[mode]} Written by `dualpool render envoy`.\n"
        "Put your own addresses into the clusters at the end; host names are allowed.\nA request arrives on the "
        "route of the largest pool. The router computes its token budget; if the budget fits a smaller pool, the "
        "router sets the pool header and asks Envoy to select the route again. Whatever goes wrong, no header is "
        "set, and the largest pool serves the request."
    )


_FILTER: Final = {
    "failure_mode_allow": "If the router is down, late or fails, the request continues unchanged on the default "
    "route.",
    "request_header_mode": "With SKIP Envoy would send the headers on before the router sees the body, and "
    "nothing could be routed.",
    "response_body_mode": "For learning from the usage at the end of the response. BUFFERED would break SSE.",
    "allowed_headers": "Only the headers that the router reads: credentials stay in Envoy, and messages are "
    "smaller.",
    "metadata_options": "For the access log; Envoy silently drops namespaces that are not listed.",
    "mutation_rules": "Whatever answers on the router's address, it can set and remove these headers, and do "
    "nothing else: it changes no other header and no path, and sends no response of its own.",
}
_CHAIN: Final = {
    "layers.admin": "Lets an operator change the values above without a restart.",
    "dualpool.bypass_percent": "Percentage of requests with a very large body that bypass the router.",
    "dualpool.small_bodies_percent": "Percentage of small bodies that go to the smallest pool without a decision "
    "of the router.",
    "use_remote_address": "This Envoy is the edge: it does not trust x-forwarded-for and x-envoy-* headers from "
    "outside.",
    "stream_idle_timeout": "Longest time without a byte in either direction. A long prompt produces none until "
    "its first token.",
    "request_headers_timeout": "From the first byte of a request to the end of its headers: protects against "
    "slow-loris attacks.",
    "max_request_headers_kb": "Envoy checks these limits again after the router has added headers, and a head "
    "that exceeds them then is a 500. They need room for 100 headers + 13 and for 60 KiB + 1.",
    "early_header_mutation_extensions": "If a client sends the pool header itself, Envoy would obey it whenever "
    "the router is down or late. It has to be removed before the route is first selected.",
    "include_attempt_count_in_response": "An attempt count of 2 means that a pool refused and the next one "
    "served; the router reads it.",
    "routes.upgrade": "The body of a request that switches to another protocol has no end, so the router does not "
    "see it.",
    "routes.small_body": "Routing of small bodies without the router, off by default: they go to the smallest "
    "pool by their length alone, and those that do not fit are repaired. A decision of the router always sets the "
    "reason header, and takes precedence.",
    "routes.small_body.match.safe_regex": "Not the APIs that keep state at the server: there the length says "
    "nothing.",
    "http_filters.whole_small_bodies": "Enabled only on the route small_body: the retry there needs a complete "
    "body.",
    "http_filters.envoy.filters.http.ext_proc": "Put authentication before this filter, and filters that act by "
    "pool (rate limits) after it. A decompressor of requests is harmless in BUFFERED mode only.",
    "http_filters.envoy.filters.http.ext_proc.disabled": "Disabled unless a virtual host enables it: malformed "
    "requests have no virtual host, and get Envoy's own 400. If the filter is enabled for them, it holds that "
    "reply until the connection is closed.",
    "json_format.code_details": "via_upstream, or who replied instead, and why.",
    "json_format.pool": "The router's decision (null if the router did not reply, or had nothing to decide).",
    "json_format.ext_proc": "The cost of ext_proc: latency in us and gRPC status of each message.",
}
_ROUTES: Final = {
    "retry_policy": "Requests that the pool refuses are repaired: the retry goes to the next pool. It is safe "
    "here because the router has seen the whole body before it sends a request to a smaller pool.",
    "retry_on": "reset: the connection broke before a response began. Not 5xx: errors of the pool itself are not "
    "repeated.",
    "retriable_status_codes": "Too long: 400, 413, 422. A model that this pool does not serve: 404. Not accepting "
    "requests: 503.",
    "retry_back_off": "The retry goes to another pool, so there is nothing to wait for.",
    "retry_priority": "Without this the retry may go to the same pool again.",
}
_CLUSTERS: Final = {
    "lb_policy": "Responses differ in length by a factor of a thousand: balance by requests in flight, not in "
    "turns.",
    "dualpool.lb_policy": "Each process of the router is a separate endpoint (a port or a Unix socket), since "
    "Envoy opens one connection per thread and endpoint.",
    "connection_keepalive": _PINGS,
    "dualpool.circuit_breakers": "One gRPC stream per request in flight, open until the response ends if it is "
    "learned from. Above the limit the filter fails open.",
    "dualpool.health_checks": "A router that drains reports NOT_SERVING and keeps serving; Envoy moves to the "
    "other routers.",
    "no_traffic_interval": "Without traffic the interval would be 60 s.",
    "max_retries": "A retry counts until its response has ended, so the default of 3 would disable repairs under "
    "load.",
    "max_connections": "HTTP/1.1 needs one connection per request in flight, running or waiting; the default is "
    "1,024.",
    "common_lb_config": "When all routers are unhealthy, ask none: a connection that is refused after the first "
    "piece of the body fails the request.",
    "outlier_detection": "Ejects a router that was killed at once, before the health check notices. It refuses "
    "connections, has no requests, and so would be chosen first for every request.",
    "initial_stream_window_size": "All uploads share one connection per Envoy thread: small windows save memory, "
    "and the number of frames is high enough that large concurrent uploads are not taken for a flood.",
}
_BY_MODE: Final[dict[Mode, dict[str, str]]] = {
    Mode.STREAMED: {
        "per_connection_buffer_limit_bytes": "Above the router's exchange.max_held_bytes: the router waits for "
        "the end of bodies up to that size, and Envoy stops sending chunks at this one.",
        "message_timeout": "The timer starts with the headers, so the router's own deadline "
        "(exchange.deadline_ms) has to come well before it: slow uploads are then decided at the deadline.",
        "request_trailer_mode": "Envoy sends trailers only after the body's chunks have been answered: too late "
        "to be of use.",
        "send_body_without_waiting_for_header_response": "Without this flag STREAMED sends no body until the "
        "headers are answered, and by then they have been sent on.",
        "routes.very_large_body": "Bypass for very large bodies, off by default: the router decides them early.",
        DEFAULT_ROUTE: "The default and last route. Never set a retry_policy here or on the virtual host: if the "
        "router's stream ends before the body does, Envoy sends a route with retries the part that it held and "
        "then the body again from its first byte, with status 200 (envoy#36119).",
    },
    Mode.BUFFERED: {
        "per_connection_buffer_limit_bytes": "How much of a response Envoy holds; requests have their own limit "
        "below.",
        "request_body_buffer_limit": "The largest body that Envoy holds: a larger one is a 413, unless it "
        "declares its length and bypasses the router. Below the router's listen.max_message_bytes, since the body "
        "is one message. It takes Envoy 1.37 or later: before, set the listener's limit, and HTTP/2's window.",
        "message_timeout": "The timer starts when the whole body has arrived. The default of 200 ms leaves a busy "
        "router too little time.",
        "routes.very_large_body": "Bypass for bodies that would be a 413 at the limit above, on by default.",
        DEFAULT_ROUTE: "The default and last route, for all requests that the router is unsure about.",
    },
    Mode.FULL_DUPLEX: {
        "per_connection_buffer_limit_bytes": "How much of a request or response Envoy holds. It also limits the "
        "bodies that are kept for a retry.",
        "message_timeout": "How long the router may take for a piece of a response. The response is lost if it is "
        "late, so this is meant for a router that hangs, not for a busy one. Messages of the request have no "
        "limit.",
        "request_trailer_mode": "A body may end with trailers; Envoy requires SEND here.",
        "routes.very_large_body": "Bypass for very large bodies, off by default.",
        DEFAULT_ROUTE: "The default and last route, for all requests that the router is unsure about.",
    },
}
_SHARED: Final = _FILTER | _CHAIN | _ROUTES | _CLUSTERS
ENVOY: Final[dict[Mode, Mapping[str, str]]] = {mode: _SHARED | said for mode, said in _BY_MODE.items()}
_PATCHES: Final = {
    "configPatches.NETWORK_FILTER": "Remove clients' pool headers before a route is selected, and leave room in "
    "the limits for the headers that the router adds.",
    "configPatches.HTTP_FILTER": "Directly before Envoy's router filter, so after authentication: requests that "
    "are not allowed are not counted.",
    "value.disabled": "Disabled unless a route enables it.",
    "configPatches.CLUSTER": "The pool and, after its first failure, the next one.",
    "configPatches.HTTP_ROUTE": "Enables the filter on a route on which requests arrive or to which they are "
    "moved. idle_timeout: long prompts produce no byte until their first token.",
    "configPatches.VIRTUAL_HOST": "Adds the attempt count to the response, where the router sees repairs.",
    "http.upgrade": "The body of a request that switches to another protocol has no end, so no patch names this "
    "route.",
    "retries": "Explicit, because Istio gives two retries to a route that does not mention them, and with retries "
    "on the default route a body arrives with its head doubled if the router decides before its end (envoy#36119)."
    "",
    "connection_keepalive": _PINGS,
    "http2MaxRequests": "Istio's default is 2^32 - 1, which is no limit.",
    "connectTimeout": "How long each request waits for a pool that does not respond to connection attempts; the "
    "default is 10 s.",
}
ISTIO: Final[Mapping[str, str]] = _FILTER | _ROUTES | _BY_MODE[Mode.STREAMED] | _PATCHES
ISTIO_TOPS: Final = {
    "EnvoyFilter": "The router in Istio's ingress gateway, in STREAMED mode. Written by `dualpool render istio`. "
    "An EnvoyFilter applies to workloads of its own namespace.",
    "VirtualService": "The pools and their routes. The patches are merged in by the names of the routes. The "
    "Gateway `llm` and the host are yours.",
    "DestinationRule": "Limits and timeouts of a cluster.",
}
_POLICIES: Final = {
    "failOpen": "If the router is down, late or fails, the request continues on the default route.",
    "messageTimeout": "The default of 200 ms leaves a busy router too little time.",
    "response": "For learning. Buffered would break SSE.",
    "writableNamespaces": "For access logs; namespaces that are not listed are dropped.",
    "backendSettings.circuitBreaker": "One gRPC stream per request, open until the response ends if it is learned "
    "from.",
    "connectionKeepalive": _PINGS,
    "backendSettings.timeout": "How long each request waits for a router whose node is down; the default is 10 s.",
    "healthCheck": "A router that drains reports NOT_SERVING and keeps serving.",
    "earlyRequestHeaders": "Before a route is selected: Envoy would obey a client's pool header while the router "
    "is down.",
    "bufferLimit": "A larger body is a 413 (the default is 32 KiB); those that declare their length take the "
    "bypass instead. Below the router's listen.max_message_bytes.",
    "initialStreamWindowSize": "The same limit for HTTP/2, of which 64 KiB is the default.",
    "initialConnectionWindowSize": "For 16 streams, as by default: an upload that no pool reads takes up its "
    "stream's share, and at 1 MiB all requests on the connection would wait for it.",
    "streamIdleTimeout": "Longest time without a byte: a long prompt produces none until its first token.",
    "numAttemptsPerPriority": "Leave a priority after its first failure: the pool, then the fallback.",
    "httpStatusCodes": "Too long: 400, 413, 422. A model that this pool does not serve: 404. Not accepting "
    "requests: 503.",
    "spec.circuitBreaker": "Requests in flight in this pool, running and waiting; each limit is 1,024 by default.",
    "tcp": "How long each request waits for a pool that does not respond to connection attempts; the default is "
    "10 s.",
    "timeouts": "No limit on the whole response: a generation may take minutes.",
}
ENVOY_GATEWAY: Final[Mapping[str, str]] = _POLICIES
ENVOY_GATEWAY_TOPS: Final = {
    "EnvoyExtensionPolicy": "The router in Envoy Gateway; the Gateway `llm` is yours. Written by `dualpool render "
    "envoy-gateway`. BUFFERED, because there is no field for the flag that Streamed needs to route.",
    "ClientTrafficPolicy": "A Gateway has only one ClientTrafficPolicy: if yours already has one, merge this into "
    "it.",
    "BackendTrafficPolicy": "",
    "Backend": "Only a Backend can be a fallback. Its Service has to be headless (clusterIP: None).",
    "HTTPRoute": "",
}
