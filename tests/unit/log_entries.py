"""Entries of Envoy's access log, as Envoy 1.40 was observed to send them."""

from envoy.data.accesslog.v3.accesslog_pb2 import AccessLogType, HTTPAccessLogEntry
from envoy.service.accesslog.v3.als_pb2 import StreamAccessLogsMessage

__all__ = ["entry", "log_message", "token_usage"]


def token_usage(prompt_tokens: int, completion_tokens: int, *, cached_tokens: int = 0, status: int = 1) -> bytes:
    """Return Envoy's TokenUsage of a chat response; `status` is its extraction_status."""

    def count(field: int, tokens: int) -> bytes:
        value = b"\x08" + varint(tokens) if tokens else b""
        return bytes([field << 3 | 2, len(value)]) + value

    counts = count(3, prompt_tokens) + count(4, completion_tokens) + count(5, prompt_tokens + completion_tokens)
    details = count(1, cached_tokens)
    return b"\x08\x01\x12\x01m" + counts + bytes([0x32, len(details)]) + details + bytes([0x48, status])


def varint(number: int) -> bytes:
    """Return a number as a protobuf varint."""
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def entry(
    evidence: str = "", usage: bytes = b"", *, status: int = 200, cluster: str = "pool_short", attempts: int = 1
) -> HTTPAccessLogEntry:
    """Return the entry of a finished request."""
    made = HTTPAccessLogEntry()
    common = made.common_properties
    common.upstream_cluster, common.upstream_request_attempt_count = cluster, attempts
    common.access_log_type = AccessLogType.DownstreamEnd
    ours = common.metadata.filter_metadata["dualpool"].fields
    ours["pool"].string_value = "short"
    if evidence:
        ours["evidence"].string_value = evidence
    if usage:
        typed = common.metadata.typed_filter_metadata["envoy.ai.token_usage"]
        typed.type_url, typed.value = "type.googleapis.com/envoy.data.ai.v3.TokenUsage", usage
    made.request.request_id, made.request.path = "an-id", "/v1/chat/completions"
    made.response.response_code.value = status
    return made


def log_message(*entries: HTTPAccessLogEntry) -> bytes:
    """Return one message of a stream, with these entries."""
    message = StreamAccessLogsMessage()
    message.http_logs.log_entry.extend(entries)
    data: bytes = message.SerializeToString()
    return data
