"""The comments of rendered configurations, which say why a setting is as it is; keyed by the end of its path."""

from collections.abc import Mapping
from typing import Final

from extproc.gateways.render.numbers import Mode

__all__ = ["DEFAULT_ROUTE", "ENVOY", "ENVOY_GATEWAY", "ENVOY_GATEWAY_TOPS", "ISTIO", "ISTIO_TOPS", "top_of"]

DEFAULT_ROUTE: Final = "routes.DEFAULT"
"""Key of the comment on the default pool's route, whatever that pool is called."""
_TOPS: Final = {
    Mode.STREAMED: "in mode STREAMED: the default, and the cheapest.",
    Mode.BUFFERED: "in mode BUFFERED: Envoy holds the whole body and sends it in one message.",
    Mode.FULL_DUPLEX: "in mode FULL_DUPLEX_STREAMED: for gateways that need it. Envoy gives every byte of the "
    "body away, so that failing open ends with the first piece of body; where there is a choice, take STREAMED.",
}


def top_of(mode: Mode) -> str:
    """Return the comment at the top of a bootstrap."""
    return (
        f"Envoy in front of the pools, with the router {_TOPS[mode]} Written by `dualpool render envoy`.\n"
        "Put your own addresses into the clusters at the end. They may be names.\nA request arrives on the route "
        "of the largest pool. The router counts its token budget; when a smaller pool holds it, it sets the pool "
        "header and has the route chosen again. Whatever goes wrong, no header is set, and the largest pool "
        "serves the request."
    )


_FILTER: Final = {
    "failure_mode_allow": "Router gone, late or wrong: the request goes on, unmutated, on the default route.",
    "request_header_mode": "SKIP would end the headers' phase before the body is seen: no routing.",
    "response_body_mode": "For learning: the usage at the response's end. BUFFERED would break SSE.",
    "allowed_headers": "What the router reads, and no more: credentials stay here, and each message is smaller.",
    "metadata_options": "For the access log; a namespace that is not listed is dropped silently.",
}
_CHAIN: Final = {
    "layers.admin": "Lets an operator change the above without a restart.",
    "dualpool.bypass_percent": "Percent of the requests with a very large body that bypass the router.",
    "dualpool.small_bodies_percent": "Percent of the small bodies that go short when the router said nothing.",
    "use_remote_address": "This Envoy is the edge: x-forwarded-for and x-envoy-* of strangers are not believed.",
    "stream_idle_timeout": "Time without a byte in either direction. A long prompt is silent until its first "
    "token.",
    "request_headers_timeout": "From the first byte of a request to the end of its headers: slow-loris.",
    "max_request_headers_kb": "Envoy checks these limits again when the router has added to a head, and what is "
    "over them then is a 500: 100 headers + 13, and 60 KiB + 1, have to have room.",
    "early_header_mutation_extensions": "A client that sends the pool header itself would be believed whenever "
    "the router is down or late. It has to go before the first choice of a route.",
    "include_attempt_count_in_response": "2 says that a pool refused and the next one served; the router reads "
    "it.",
    "routes.upgrade": "A request for another protocol has no end of a body: the router does not see it.",
    "routes.small_body": "Small bodies without the router, off by default: they go short by their length alone, "
    "and what does not fit is repaired. A decision of the router always brings the reason header, and counts "
    "more.",
    "routes.small_body.match.safe_regex": "Where state is kept at the server, a length says nothing.",
    "http_filters.whole_small_bodies": "Off but on the route small_body: there the retry needs a body that has "
    "ended.",
    "http_filters.envoy.filters.http.ext_proc": "Authentication before this filter; what acts by the pool (rate "
    "limits) after it. A decompressor of requests is harmless in buffered mode only.",
    "http_filters.envoy.filters.http.ext_proc.disabled": "Off where no virtual host says otherwise: what is "
    "malformed has none, and gets Envoy's own 400. Where the filter is on, it holds that reply until the "
    "connection is closed.",
    "json_format.code_details": "via_upstream, or who answered instead and why.",
    "json_format.pool": "What the router decided (null when it was not there, or had nothing to say).",
    "json_format.ext_proc": "What it cost: latency in us and gRPC status of each message.",
}
_ROUTES: Final = {
    "retry_policy": "What the pool refuses is repaired: the retry goes to the next one. It is safe here because "
    "the body is whole before the router lets a request go to a smaller pool.",
    "retry_on": "reset: the connection broke before a response began. Not 5xx: an error of the pool's own.",
    "retriable_status_codes": "Too long: 400, 413, 422. A model that this pool does not serve: 404. Takes none: "
    "503.",
    "retry_back_off": "The next pool is another one: there is nothing to wait for.",
    "retry_priority": "Without this the retry may go to the same pool again.",
}
_CLUSTERS: Final = {
    "lb_policy": "Responses differ in length by a thousand times: fewest requests in flight, not turns.",
    "dualpool.lb_policy": "Each process of the router is an endpoint of its own (a port or a Unix socket): Envoy "
    "opens one connection for each of its threads and endpoints.",
    "dualpool.circuit_breakers": "One gRPC stream for each request in flight, as long as its response when that "
    "is learned from. Above the limit the filter fails open.",
    "dualpool.health_checks": "A router that drains says NOT_SERVING and serves on; Envoy turns to the others.",
    "no_traffic_interval": "Without traffic the interval would be 60 s.",
    "max_retries": "A retry counts until its response has ended, and 3 (the default) would switch the repair off.",
    "max_connections": "HTTP/1.1 has one connection for each request in flight, running and waiting; 1,024 by "
    "default.",
    "common_lb_config": "When all are unhealthy, ask none: a connection refused after the first piece of body is "
    "the client's error.",
    "outlier_detection": "A router that was killed is left alone at once: the health check takes longer to "
    "notice. It refuses connections, has no requests, and so would be everybody's first choice.",
    "initial_stream_window_size": "All uploads share one connection for each of Envoy's threads: small windows "
    "for memory's sake, and frames enough that large uploads at once are no flood.",
}
_BY_MODE: Final[dict[Mode, dict[str, str]]] = {
    Mode.STREAMED: {
        "per_connection_buffer_limit_bytes": "Above the router's exchange.max_held_bytes: the router waits for a "
        "body's end up to that size, and Envoy stops handing out chunks at this one.",
        "message_timeout": "The clock starts with the headers: the router's own deadline (exchange.deadline_ms) "
        "has to come well before it, so that slow uploads end there, decided.",
        "request_trailer_mode": "Envoy sends trailers after the body's chunks are answered: too late to be of "
        "use.",
        "send_body_without_waiting_for_header_response": "Without this flag STREAMED sends no body before the "
        "headers are answered, that is, gone.",
        "routes.very_large_body": "By-pass for very large bodies, off by default: the router decides them early.",
        DEFAULT_ROUTE: "The default, and last. No retry_policy here, nor on the virtual host, ever: when the "
        "router's stream ends before a body does, Envoy sends a route with retries the part that was held and "
        "then the body again from its first byte, with status 200 (envoy#36119).",
    },
    Mode.BUFFERED: {
        "per_connection_buffer_limit_bytes": "What is held of a response; requests have a limit of their own "
        "below.",
        "request_body_buffer_limit": "The largest body that is held: above it is a 413, unless it says its length"
        " and bypasses. Below the router's listen.max_message_bytes, since it is one message.",
        "message_timeout": "The clock starts when the whole body is there. 200 ms, the default, is little for a "
        "busy router.",
        "routes.very_large_body": "By-pass for what would be a 413 at the limit above, on by default.",
        DEFAULT_ROUTE: "The default, and last: everything unsure ends here.",
    },
    Mode.FULL_DUPLEX: {
        "per_connection_buffer_limit_bytes": "How much of a request or response is held. Also what is kept for a "
        "retry.",
        "message_timeout": "How long the router may take over a piece of a response, which is lost when it is "
        "late: for a router that hangs, not for one that is busy. Messages of the request have no limit.",
        "request_trailer_mode": "The end of a body may be its trailers; Envoy insists.",
        "routes.very_large_body": "By-pass for very large bodies, off by default.",
        DEFAULT_ROUTE: "The default, and last: everything unsure ends here.",
    },
}
_SHARED: Final = _FILTER | _CHAIN | _ROUTES | _CLUSTERS
ENVOY: Final[dict[Mode, Mapping[str, str]]] = {mode: _SHARED | said for mode, said in _BY_MODE.items()}
_PATCHES: Final = {
    "configPatches.NETWORK_FILTER": "Before a route is chosen, strip the pool header of clients; and let a head "
    "have what the router adds to it.",
    "configPatches.HTTP_FILTER": "Last before Envoy's router filter: after authentication, so that nobody's "
    "request is counted who may not send one.",
    "value.disabled": "Off where no route says otherwise.",
    "configPatches.CLUSTER": "The pool, and after its first failure the next one.",
    "configPatches.HTTP_ROUTE": "The filter on a route that requests arrive on or are moved to; long prompts are "
    "silent until their first token (idle_timeout).",
    "configPatches.VIRTUAL_HOST": "The response says how often its request was tried; the router reads repairs "
    "there.",
    "http.upgrade": "Requests that ask for another protocol have no end of a body: no patch names this route.",
    "retries": "Said, because Istio gives a route that says nothing two retries, and with retries on the default "
    "route a body arrives with its head doubled when the router decides before its end (envoy#36119).",
    "http2MaxRequests": "Istio's own limit is 2^32 - 1, which is none.",
    "connectTimeout": "What a pool that swallows connections costs each request; 10 s by default.",
}
ISTIO: Final[Mapping[str, str]] = _FILTER | _ROUTES | _BY_MODE[Mode.STREAMED] | _PATCHES
ISTIO_TOPS: Final = {
    "EnvoyFilter": "The router in Istio's ingress gateway, in mode STREAMED. Written by `dualpool render istio`. "
    "An EnvoyFilter acts on workloads of its own namespace.",
    "VirtualService": "The pools and the way to them. Names of routes are what the patches are merged by; the "
    "Gateway `llm` and the host are yours.",
    "DestinationRule": "Limits and times of what requests go to.",
}
_POLICIES: Final = {
    "failOpen": "Router gone, late or wrong: the request goes on, on the default route.",
    "messageTimeout": "The default of 200 ms leaves a busy router too little room.",
    "response": "For learning. Buffered would break SSE.",
    "writableNamespaces": "For access logs; what is not listed is dropped.",
    "backendSettings.circuitBreaker": "One gRPC stream per request, as long as the response when it is learned "
    "from.",
    "backendSettings.timeout": "10 s by default: what a router whose node is gone would cost each request.",
    "healthCheck": "A router that drains says NOT_SERVING and serves on.",
    "earlyRequestHeaders": "Before a route is chosen: a client's own word would be believed while the router is "
    "down.",
    "bufferLimit": "A body over this is a 413 (32 KiB by default), and longer ones that say so take the bypass. "
    "Below the router's listen.max_message_bytes.",
    "streamIdleTimeout": "Time without a byte: a long prompt is silent until its first token.",
    "numAttemptsPerPriority": "Leave a priority after its first failure: the pool, then the fallback.",
    "httpStatusCodes": "Too long: 400, 413, 422. A model that this pool does not serve: 404. Takes none: 503.",
    "spec.circuitBreaker": "Requests in flight in this pool, running and waiting; 1,024 each by default.",
    "tcp": "What a pool that swallows connections costs each request; 10 s by default.",
    "timeouts": "No limit on the whole response: a generation may take minutes.",
}
ENVOY_GATEWAY: Final[Mapping[str, str]] = _POLICIES
ENVOY_GATEWAY_TOPS: Final = {
    "EnvoyExtensionPolicy": "The router in Envoy Gateway; the Gateway `llm` is yours. Written by `dualpool render "
    "envoy-gateway`. BUFFERED: there is no word for the flag without which Streamed cannot route.",
    "ClientTrafficPolicy": "One Gateway has one ClientTrafficPolicy: where yours has one, merge this into it.",
    "BackendTrafficPolicy": "",
    "Backend": "Only a Backend can be a fallback. Its Service has to be headless (clusterIP: None).",
    "HTTPRoute": "",
}
