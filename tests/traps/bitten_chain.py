"""Patches for the traps of the filter chain: other filters before and after the router's, and their names."""

from copy import deepcopy
from typing import Any

from tests.envoy.harness.gateway import Document, cluster, connection_manager, route

KINDS = "type.googleapis.com/envoy.extensions"
EXT_PROC = "envoy.filters.http.ext_proc"


def insert(document: Document, name: str, kind: str, *, before: bool, **settings: Any) -> None:
    """Insert a filter right before or after the router's filter."""
    filters = connection_manager(document)["http_filters"]
    at = [each["name"] for each in filters].index(EXT_PROC)
    config = {"@type": f"{KINDS}.filters.http.{kind}", **settings}
    filters.insert(at if before else at + 1, {"name": name, "typed_config": config})


def duplicate_filter_name(document: Document) -> None:
    """Give an endpoint picker's filter the same name as ours."""
    endpoint_picker(document, EXT_PROC, before=False)


def after_the_end(document: Document) -> None:
    """Add a filter at the end of the list, as an EnvoyFilter with the operation ADD does."""
    filters = connection_manager(document)["http_filters"]
    settings = {"@type": f"{KINDS}.filters.http.cors.v3.Cors"}
    filters.append({"name": "cors", "typed_config": settings})


def pool_header_changed(document: Document) -> None:
    """Remove the pool header before the route is chosen."""
    mutations = {"request_mutations": [{"remove": "x-token-budget-pool"}]}
    insert(document, "tidy", "header_mutation.v3.HeaderMutation", before=False, mutations=mutations)


def always_on(document: Document) -> None:
    """Enable the filter on every route, as a filter is unless it is marked disabled."""
    filters = connection_manager(document)["http_filters"]
    del next(each for each in filters if each["name"] == EXT_PROC)["disabled"]


def decompressor_before(document: Document) -> None:
    """Decompress request bodies before the router sees them."""
    decompressor(document, before=True)


def decompressor_after(document: Document) -> None:
    """Decompress request bodies after the router, for a pool that cannot."""
    decompressor(document, before=False)


def decompressor(document: Document, *, before: bool) -> None:
    """Insert a decompressor right before or after the router's filter."""
    library = {"@type": f"{KINDS}.compression.gzip.decompressor.v3.Gzip"}
    gzip = {"decompressor_library": {"name": "gzip", "typed_config": library}}
    insert(document, "decompressor", "decompressor.v3.Decompressor", before=before, **gzip)


def compressor_after(document: Document) -> None:
    """Compress responses before the router sees them."""
    library = {"@type": f"{KINDS}.compression.gzip.compressor.v3.Gzip"}
    gzip = {"compressor_library": {"name": "gzip", "typed_config": library}}
    insert(document, "compressor", "compressor.v3.Compressor", before=False, **gzip)


def endpoint_picker_before(document: Document) -> None:
    """Call an endpoint picker before the router."""
    endpoint_picker(document, "picker", before=True)
    taking_endpoints(document)


def taking_endpoints(document: Document) -> None:
    """Let filters choose the long pool's servers."""
    robin = {"@type": f"{KINDS}.load_balancing_policies.round_robin.v3.RoundRobin"}
    fallback = {"policies": [{"typed_extension_config": {"name": "round_robin", "typed_config": robin}}]}
    taking = {
        "@type": f"{KINDS}.load_balancing_policies.override_host.v3.OverrideHost",
        "override_host_sources": [{"header": "x-gateway-destination-endpoint"}],
        "fallback_policy": fallback,
    }
    held = cluster(document, "pool_long")
    held.pop("lb_policy", None)
    held["load_balancing_policy"] = {
        "policies": [{"typed_extension_config": {"name": "override_host", "typed_config": taking}}]
    }


def endpoint_picker(document: Document, name: str, *, before: bool) -> None:
    """Add a second ext_proc filter with a cluster of its own."""
    clusters = document["static_resources"]["clusters"]
    clusters.append(deepcopy(cluster(document, "dualpool")) | {"name": "picker"})
    clusters[-1]["load_assignment"]["cluster_name"] = "picker"
    service = {"envoy_grpc": {"cluster_name": "picker"}}
    modes = {"request_body_mode": "FULL_DUPLEX_STREAMED", "request_trailer_mode": "SEND"}
    settings = {"grpc_service": service, "processing_mode": modes}
    insert(document, name, "ext_proc.v3.ExternalProcessor", before=before, **settings)


def rate_limit_before(document: Document) -> None:
    """Limit the request rate before a pool is chosen."""
    bucket = {"max_tokens": 1, "fill_interval": "60s"}
    percent = {"default_value": {"numerator": 100}}
    limit = {"stat_prefix": "limit", "token_bucket": bucket, "filter_enabled": percent, "filter_enforced": percent}
    insert(document, "limit", "local_ratelimit.v3.LocalRateLimit", before=True, stat_prefix="limit")
    own = {"@type": f"{KINDS}.filters.http.local_ratelimit.v3.LocalRateLimit", **limit}
    route(document, "long").setdefault("typed_per_filter_config", {})["limit"] = own


def auth_after(document: Document) -> None:
    """Refuse every request, but only after the router was called."""
    insert(document, "rbac", "rbac.v3.RBAC", before=False, rules={"action": "ALLOW", "policies": {}})


def waiting_filter_after(document: Document) -> None:
    """Hold each request for 1 ms behind the router, as an authorization service does that replies quickly."""
    delay = {"fixed_delay": "0.001s", "percentage": {"numerator": 100}}
    insert(document, "waits", "fault.v3.HTTPFault", before=False, delay=delay)


def buffer_after(document: Document) -> None:
    """Buffer bodies behind the router."""
    insert(document, "buffer", "buffer.v3.Buffer", before=False, max_request_bytes=16 << 20)


def body_limit_lowered(document: Document) -> None:
    """Look for requests of the Model Context Protocol on the same listener."""
    insert(document, "mcp", "mcp.v3.Mcp", before=True)


def authorized_by_body(document: Document) -> None:
    """Ask a service that sees the beginning of each body, or so it is meant."""
    authorization(document, {"max_request_bytes": 8 << 10}, before=True)


def authorization(document: Document, body: Document | None, *, before: bool) -> None:
    """Authorize requests by their bodies right before or after the router's filter; nobody answers, so all may."""
    settings = {"failure_mode_allow": True, "grpc_service": {"envoy_grpc": {"cluster_name": "pool_long"}}}
    insert(document, "authz", "ext_authz.v3.ExtAuthz", before=before, with_request_body=body, **settings)


def file_buffer_after(document: Document) -> None:
    """Buffer bodies in files behind the router."""
    threads = {"thread_pool": {"thread_count": 1}}
    kind = "file_system_buffer.v3.FileSystemBufferFilterConfig"
    insert(document, "files", kind, before=False, manager_config=threads)
