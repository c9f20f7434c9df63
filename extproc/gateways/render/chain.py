"""Envoy's connection manager and its filters, built from Envoy's own message types."""

import re
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Final

from envoy_data_plane.envoy.config.accesslog.v3 import AccessLog
from envoy_data_plane.envoy.config.common.mutation_rules.v3 import HeaderMutation as Mutation
from envoy_data_plane.envoy.config.common.mutation_rules.v3 import HeaderMutationRules
from envoy_data_plane.envoy.config.core.v3 import (
    GrpcService,
    GrpcServiceEnvoyGrpc,
    Http2ProtocolOptions,
    HttpProtocolOptions,
    SubstitutionFormatString,
    TypedExtensionConfig,
)
from envoy_data_plane.envoy.extensions.access_loggers.stream.v3 import StdoutAccessLog
from envoy_data_plane.envoy.extensions.filters.http.buffer.v3 import Buffer
from envoy_data_plane.envoy.extensions.filters.http.ext_proc.v3 import (
    ExternalProcessor,
    HeaderForwardingRules,
    MetadataOptions,
    MetadataOptionsMetadataNamespaces,
    ProcessingMode,
    ProcessingModeBodySendMode,
    ProcessingModeHeaderSendMode,
)
from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpFilter,
)
from envoy_data_plane.envoy.extensions.http.early_header_mutation.header_mutation.v3 import HeaderMutation
from envoy_data_plane.envoy.type.matcher.v3 import ListStringMatcher, RegexMatcher, StringMatcher
from envoy_data_plane.google.protobuf import Any, Struct

from extproc.gateways.model import STREAM_WINDOW_BYTES
from extproc.gateways.render.numbers import Mode, Numbers
from extproc.gateways.render.tables import BUFFER, EXT_PROC, route_table
from extproc.gateways.router import NAMESPACE

__all__ = [
    "IDLE",
    "LOGGED",
    "connection_manager",
    "connection_window_bytes",
    "head_limits",
    "processor",
    "stripping",
    "window",
]

IDLE: Final = timedelta(minutes=10)
LARGEST_WINDOW_BYTES: Final = (1 << 31) - 1  # RFC 9113, 6.9.1
# The window of a connection in those of a stream, so that an upload that no pool reads does not block the others.
STREAMS: Final = 16
SEND, SKIP = ProcessingModeHeaderSendMode.SEND, ProcessingModeHeaderSendMode.SKIP
_BODIES: Final = {
    Mode.STREAMED: ProcessingModeBodySendMode.STREAMED,
    Mode.BUFFERED: ProcessingModeBodySendMode.BUFFERED,
    Mode.FULL_DUPLEX: ProcessingModeBodySendMode.FULL_DUPLEX_STREAMED,
}
LOGGED: Final = {
    "time": "%START_TIME%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(:PATH)%",
    "status": "%RESPONSE_CODE%",
    "code_details": "%RESPONSE_CODE_DETAILS%",
    "flags": "%RESPONSE_FLAGS%",
    "route": "%ROUTE_NAME%",
    "upstream": "%UPSTREAM_HOST%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    **{
        name: f"%DYNAMIC_METADATA({NAMESPACE}:{name})%"
        for name in ("pool", "estimate", "prompt_tokens", "reason", "source", "mode")
    },
    "ext_proc": f"%FILTER_STATE({EXT_PROC}:PLAIN)%",
    "request_bytes": "%BYTES_RECEIVED%",
    "response_bytes": "%BYTES_SENT%",
    "duration_ms": "%DURATION%",
}


def connection_manager(numbers: Numbers) -> HttpConnectionManager:
    """Return the connection manager with its routes and filters."""
    return HttpConnectionManager(
        stat_prefix="ingress",
        use_remote_address=True,
        stream_idle_timeout=IDLE,
        request_headers_timeout=timedelta(seconds=10),
        max_request_headers_kb=96,
        common_http_protocol_options=HttpProtocolOptions(max_headers_count=200),
        http2_protocol_options=window(numbers),
        early_header_mutation_extensions=[stripping(numbers)],
        route_config=route_table(numbers),
        http_filters=[*_filters(numbers)],
        access_log=[_access_log()],
    )


def _filters(numbers: Numbers) -> Iterator[HttpFilter]:
    if numbers.has_small_bodies:
        whole = Any.pack(Buffer(max_request_bytes=numbers.small_body_bytes))
        yield HttpFilter(name=BUFFER, disabled=True, typed_config=whole)
    yield HttpFilter(name=EXT_PROC, disabled=True, typed_config=Any.pack(processor(numbers, "dualpool")))
    yield HttpFilter(name="envoy.filters.http.router", typed_config=Any.pack(Router()))


def head_limits() -> HttpConnectionManager:
    """Return only the limits for request heads, for gateways that merge them into their own connection manager."""
    options = HttpProtocolOptions(max_headers_count=200)
    return HttpConnectionManager(max_request_headers_kb=96, common_http_protocol_options=options)


def window(numbers: Numbers) -> Http2ProtocolOptions | None:
    """Return windows for what Envoy has to hold of an HTTP/2 body, None if the defaults suffice."""
    if numbers.buffer_bytes <= STREAM_WINDOW_BYTES:
        return None
    return Http2ProtocolOptions(
        initial_stream_window_size=numbers.buffer_bytes,
        initial_connection_window_size=connection_window_bytes(numbers.buffer_bytes),
    )


def connection_window_bytes(stream_bytes: int) -> int:
    """Return the window of an HTTP/2 connection whose streams have one of `stream_bytes`."""
    return min(STREAMS * stream_bytes, LARGEST_WINDOW_BYTES)


def stripping(numbers: Numbers) -> TypedExtensionConfig:
    """Return the extension that removes the router's headers from client requests."""
    mutations = [Mutation(remove=name) for name in numbers.set_headers]
    return TypedExtensionConfig(
        name="strip_spoofed_headers", typed_config=Any.pack(HeaderMutation(mutations=mutations))
    )


def processor(numbers: Numbers, cluster: str) -> ExternalProcessor:
    """Return the ext_proc filter that calls the router."""
    patterns = [StringMatcher(exact=name) for name in numbers.read_headers]
    received = MetadataOptionsMetadataNamespaces(untyped=[NAMESPACE])
    return ExternalProcessor(
        grpc_service=GrpcService(envoy_grpc=GrpcServiceEnvoyGrpc(cluster_name=cluster)),
        failure_mode_allow=True,
        message_timeout=numbers.message_timeout,
        processing_mode=ProcessingMode(
            request_header_mode=SEND,
            request_body_mode=_BODIES[numbers.mode],
            request_trailer_mode=SEND if numbers.mode is Mode.FULL_DUPLEX else SKIP,
            response_header_mode=SEND,
            response_body_mode=ProcessingModeBodySendMode.STREAMED,
            response_trailer_mode=SKIP,
        ),
        send_body_without_waiting_for_header_response=numbers.mode is Mode.STREAMED,
        forward_rules=HeaderForwardingRules(allowed_headers=ListStringMatcher(patterns=patterns)),
        metadata_options=MetadataOptions(receiving_namespaces=received),
        mutation_rules=HeaderMutationRules(
            disallow_all=True,
            allow_expression=RegexMatcher(regex=_any_of(numbers.set_headers)),
        ),
        disable_immediate_response=True,
    )


def _any_of(names: Iterable[str]) -> str:
    """Return an expression for one of these names; a hyphen needs no escape, and is in most of them."""
    return "|".join(re.escape(name).replace(r"\-", "-") for name in names)


def _access_log() -> AccessLog:
    form = SubstitutionFormatString(json_format=Struct.from_dict(LOGGED))
    return AccessLog(name="envoy.access_loggers.stdout", typed_config=Any.pack(StdoutAccessLog(log_format=form)))
