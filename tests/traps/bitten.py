"""A patch for each trap, named after it: the minimal change that puts the trap into a file of `envoy/`.

The unit tests check that the checker finds exactly this trap in the patched file; the tests on the real Envoy run
the same files and check what happens there.
"""

from collections.abc import Callable
from copy import deepcopy

from tests.envoy.harness.gateway import (
    Document,
    cluster,
    connection_manager,
    ext_proc,
    load,
    route,
    virtual_host,
)
from tests.traps.bitten_chain import (
    after_the_end,
    always_on,
    auth_after,
    authorized_by_body,
    body_limit_lowered,
    buffer_after,
    compressor_after,
    decompressor_after,
    decompressor_before,
    duplicate_filter_name,
    endpoint_picker_before,
    file_buffer_after,
    pool_header_changed,
    rate_limit_before,
    waiting_filter_after,
)

__all__ = ["BITTEN", "MODES", "Bite", "believe_clients", "bitten"]

Bite = Callable[[Document], None]


def retries_on_default_route(document: Document) -> None:
    """Use the retry policy that Istio gives to routes without one."""
    route(document, "long")["route"]["retry_policy"] = {"retry_on": "connect-failure,refused-stream,unavailable"}


def believe_clients(document: Document) -> None:
    """Make Envoy treat clients on this machine as internal, as a mesh does with its own."""
    loopback = {"address_prefix": "127.0.0.0", "prefix_len": 8}
    connection_manager(document)["internal_address_config"] = {"cidr_ranges": [loopback]}


def retries_by_clients(document: Document) -> None:
    """Trust clients, including their headers that ask for retries."""
    believe_clients(document)
    del route(document, "long")["request_headers_to_remove"]


def repair_declined(document: Document) -> None:
    """Trust clients, including their header with the number of retries."""
    believe_clients(document)
    del route(document, "short")["request_headers_to_remove"]


def redirects_on_default_route(document: Document) -> None:
    """Make Envoy follow redirects of the long pool."""
    route(document, "long")["route"]["internal_redirect_policy"] = {}


def default_route_not_largest(document: Document) -> None:
    """Make the short pool the default."""
    route(document, "long")["route"]["cluster"] = "pool_short"


def pool_without_route(document: Document) -> None:
    """Put the catch-all route before the short pool's."""
    routes = virtual_host(document)["routes"]
    routes.insert(0, routes.pop())


def repair_missing(document: Document) -> None:
    """Do not retry requests that the short pool refused."""
    del route(document, "short")["route"]["retry_policy"]


def repair_same_pool(document: Document) -> None:
    """Retry without preferring the long pool."""
    # A copy, because another route in the file shares the policy.
    policy = deepcopy(route(document, "short")["route"]["retry_policy"])
    del policy["retry_priority"]
    route(document, "short")["route"]["retry_policy"] = policy


def repair_limit(document: Document) -> None:
    """Use Envoy's default limit of concurrent retries."""
    del cluster(document, "short_then_long")["circuit_breakers"]


def repair_body_limit(document: Document) -> None:
    """Buffer next to nothing of a body for a retry."""
    route(document, "short")["request_body_buffer_limit"] = 64


def response_cut(document: Document) -> None:
    """Limit a complete response to one second."""
    for name in ("short", "long"):
        route(document, name)["route"]["timeout"] = "1s"


def upgrade_hangs(document: Document) -> None:
    """Send upgrade requests to the router, too."""
    connection_manager(document)["upgrade_configs"] = [{"upgrade_type": "websocket"}]
    virtual_host(document)["routes"].remove(route(document, "upgrade"))


def headers_skipped(document: Document) -> None:
    """Send no request headers."""
    ext_proc(document)["processing_mode"]["request_header_mode"] = "SKIP"


def expect_hangs(document: Document) -> None:
    """Leave the answer to `Expect: 100-continue` to the pool."""
    connection_manager(document)["proxy_100_continue"] = True


def body_not_sent(document: Document) -> None:
    """Send no body."""
    ext_proc(document)["processing_mode"]["request_body_mode"] = "NONE"


def streamed_without_flag(document: Document) -> None:
    """Leave out send_body_without_waiting_for_header_response."""
    del ext_proc(document)["send_body_without_waiting_for_header_response"]


def buffered_partial(document: Document) -> None:
    """Buffer the body up to the limit, and send only that part."""
    ext_proc(document)["processing_mode"]["request_body_mode"] = "BUFFERED_PARTIAL"
    cluster(document, "dualpool")["circuit_breakers"] = cluster(load("buffered"), "dualpool")["circuit_breakers"]


def full_duplex_without_trailers(document: Document) -> None:
    """Send the router all bytes of the body, but not the trailers."""
    ext_proc(document)["processing_mode"]["request_trailer_mode"] = "SKIP"


def response_buffered(document: Document) -> None:
    """Buffer the response until it has ended."""
    ext_proc(document)["processing_mode"]["response_body_mode"] = "BUFFERED"


def response_headers_skipped(document: Document) -> None:
    """Send the response's body without its headers."""
    ext_proc(document)["processing_mode"]["response_header_mode"] = "SKIP"


def route_cache_kept(document: Document) -> None:
    """Do not choose the route again after the router's reply."""
    ext_proc(document)["route_cache_action"] = "RETAIN"


def only_observed(document: Document) -> None:
    """Send the router everything, and ignore its replies."""
    ext_proc(document)["observability_mode"] = True


def headers_refused(document: Document) -> None:
    """Do not accept any header mutation from the router."""
    ext_proc(document)["mutation_rules"] = {"disallow_all": True}


def stranger_trusted(document: Document) -> None:
    """Use Envoy's defaults: whatever answers on the router's address is trusted."""
    for name in ("mutation_rules", "disable_immediate_response"):
        del ext_proc(document)[name]


def fail_closed(document: Document) -> None:
    """Use Envoy's default for a router that is down: fail the request."""
    del ext_proc(document)["failure_mode_allow"]


def namespace_dropped(document: Document) -> None:
    """Do not accept the router's dynamic metadata."""
    del ext_proc(document)["metadata_options"]


def headers_not_forwarded(document: Document) -> None:
    """Do not forward the path to the router."""
    rules = ext_proc(document)["forward_rules"]["allowed_headers"]
    rules["patterns"] = [each for each in rules["patterns"] if each != {"exact": ":path"}]


def message_timeout(document: Document) -> None:
    """Give the router less time than its own deadline for a body."""
    ext_proc(document)["message_timeout"] = "0.1s"


def message_timeout_long(document: Document) -> None:
    """Wait for the router for minutes, as configurations of processors do that call models."""
    ext_proc(document)["message_timeout"] = "300s"


def buffer_below_early_decision(document: Document) -> None:
    """Buffer less of a body than the router's early decision requires."""
    document["static_resources"]["listeners"][0]["per_connection_buffer_limit_bytes"] = 65_536


def buffer_below_body_cap(document: Document) -> None:
    """Buffer as much of a body as Envoy Gateway does by default."""
    document["static_resources"]["listeners"][0]["per_connection_buffer_limit_bytes"] = 32_768
    del virtual_host(document)["request_body_buffer_limit"]


def message_limit(document: Document) -> None:
    """Buffer more of a body than the router accepts in one message."""
    virtual_host(document)["request_body_buffer_limit"] = 256 << 20
    length = route(document, "very_large_body")["match"]["headers"][0]
    length["range_match"]["start"] = (256 << 20) + 1


def head_limits(document: Document) -> None:
    """Use Envoy's default limits for request headers."""
    manager = connection_manager(document)
    del manager["max_request_headers_kb"], manager["common_http_protocol_options"]


def spoofable_header(document: Document) -> None:
    """Keep the pool header if a client sends it."""
    del connection_manager(document)["early_header_mutation_extensions"]


def router_without_http2(document: Document) -> None:
    """Connect to the router over HTTP/1.1."""
    del cluster(document, "dualpool")["typed_extension_protocol_options"]


def router_tls(document: Document) -> None:
    """Speak TLS with a router that does not."""
    cluster(document, "dualpool")["transport_socket"] = {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
        },
    }


def router_not_pinged(document: Document) -> None:
    """Do without pings to the router, as by default."""
    (protocol,) = cluster(document, "dualpool")["typed_extension_protocol_options"].values()
    del protocol["explicit_http_config"]["http2_protocol_options"]["connection_keepalive"]


def connection_window_small(document: Document) -> None:
    """Let one upload take up an HTTP/2 connection."""
    connection_manager(document)["http2_protocol_options"] = {"initial_connection_window_size": 1 << 20}


def router_breakers_small(document: Document) -> None:
    """Allow one concurrent request to the router."""
    thresholds = [{"max_requests": 1, "max_pending_requests": 1}]
    cluster(document, "dualpool")["circuit_breakers"]["thresholds"] = thresholds


def router_breakers_large(document: Document) -> None:
    """Use Istio's default, which is no limit."""
    cluster(document, "dualpool")["circuit_breakers"]["thresholds"][0]["max_requests"] = 2**32 - 1


def full_duplex_windows(document: Document) -> None:
    """Use Envoy's default HTTP/2 windows."""
    (options,) = cluster(document, "dualpool")["typed_extension_protocol_options"].values()
    options["explicit_http_config"]["http2_protocol_options"] = {}


def full_duplex_dead_router(document: Document) -> None:
    """Detect a dead router only by its health check."""
    del cluster(document, "dualpool")["outlier_detection"]


def full_duplex_gathered_news(document: Document) -> None:
    """Batch updates of the router's health to Envoy's threads once a second."""
    del cluster(document, "dualpool")["common_lb_config"]["update_merge_window"]


def full_duplex_stream_cut(document: Document) -> None:
    """End each exchange with the router after 0.2 s."""
    (options,) = cluster(document, "dualpool")["typed_extension_protocol_options"].values()
    options["common_http_protocol_options"] = {"max_stream_duration": "0.2s"}


def cluster_ip(document: Document) -> None:
    """Use a single address of a pool at a time."""
    cluster(document, "pool_short")["type"] = "LOGICAL_DNS"


def slow_connect(document: Document) -> None:
    """Use Envoy's default connect timeout."""
    del cluster(document, "pool_short")["connect_timeout"]


MODES = {
    "buffered-partial": "buffered",
    "expect-hangs": "buffered",
    "upgrade-hangs": "buffered",
    "full-duplex-without-trailers": "full-duplex",
    "buffer-below-body-cap": "buffered",
    "message-limit": "buffered",
    "full-duplex-windows": "full-duplex",
    "full-duplex-dead-router": "full-duplex",
    "full-duplex-gathered-news": "full-duplex",
    "full-duplex-stream-cut": "full-duplex",
    "waiting-filter-after": "full-duplex",
    "body-limit-lowered": "buffered",
}
_BITES: tuple[Bite, ...] = (
    retries_on_default_route,
    retries_by_clients,
    redirects_on_default_route,
    default_route_not_largest,
    pool_without_route,
    repair_missing,
    repair_declined,
    repair_same_pool,
    repair_limit,
    repair_body_limit,
    response_cut,
    upgrade_hangs,
    headers_skipped,
    expect_hangs,
    body_not_sent,
    streamed_without_flag,
    buffered_partial,
    full_duplex_without_trailers,
    response_buffered,
    response_headers_skipped,
    route_cache_kept,
    only_observed,
    headers_refused,
    stranger_trusted,
    fail_closed,
    namespace_dropped,
    headers_not_forwarded,
    message_timeout,
    message_timeout_long,
    buffer_below_early_decision,
    buffer_below_body_cap,
    message_limit,
    connection_window_small,
    head_limits,
    spoofable_header,
    router_without_http2,
    router_tls,
    router_breakers_small,
    router_breakers_large,
    router_not_pinged,
    full_duplex_windows,
    full_duplex_dead_router,
    full_duplex_gathered_news,
    full_duplex_stream_cut,
    cluster_ip,
    slow_connect,
    duplicate_filter_name,
    after_the_end,
    pool_header_changed,
    always_on,
    decompressor_before,
    decompressor_after,
    compressor_after,
    endpoint_picker_before,
    rate_limit_before,
    auth_after,
    waiting_filter_after,
    buffer_after,
    file_buffer_after,
    body_limit_lowered,
    authorized_by_body,
)
BITTEN: dict[str, Bite] = {bite.__name__.replace("_", "-"): bite for bite in _BITES}


def bitten(trap: str) -> Document:
    """Return a file of `envoy/` with one trap in it."""
    document = load(MODES.get(trap, "streamed"))
    BITTEN[trap](document)
    return document
