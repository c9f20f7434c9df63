"""Decoding of StreamAccessLogsMessage to entries.

Sources: envoy/service/accesslog/v3/als.proto, and for usage envoy/data/ai/v3/token_usage.proto, which Envoy's AI
Protocol Manager writes.
"""

from collections.abc import Iterable
from typing import Any, Final

from envoy.config.core.v3.base_pb2 import Metadata
from envoy.data.accesslog.v3.accesslog_pb2 import (
    AccessLogCommon,
    AccessLogType,
    HTTPAccessLogEntry,
    ResponseFlags,
)
from envoy.service.accesslog.v3.als_pb2 import StreamAccessLogsMessage
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, wrappers_pb2
from google.protobuf.message import DecodeError

from extproc.access_log.entry import LogEntry, LoggedUsage
from extproc.wire.decode import UnknownMessage
from extproc.wire.encode import EVIDENCE_KEY, METADATA_NAMESPACE

__all__ = ["decode_log"]

USAGE_NAMESPACE: Final = "envoy.ai.token_usage"
# A request may have several entries: at its start, periodically, per attempt. One entry is written at its end.
_ENDS: Final = (AccessLogType.DownstreamEnd, AccessLogType.NotSet)
# Flags of responses that were cut short, on either side.
_CUTS: Final = (
    *("local_reset", "upstream_remote_reset", "upstream_connection_termination", "upstream_protocol_error"),
    *("downstream_connection_termination", "downstream_remote_reset", "downstream_protocol_error"),
    *("stream_idle_timeout", "duration_timeout", "upstream_max_stream_duration_reached"),
)


def decode_log(message: bytes, most_entries: int) -> list[LogEntry] | None:
    """Return the entries of completed HTTP requests in a message; None if it has more entries of any kind.

    An entry without our evidence has `evidence` "", and nothing else of it is read. Raises UnknownMessage.
    """
    try:
        entries = StreamAccessLogsMessage.FromString(message).http_logs.log_entry
    except DecodeError as error:
        raise UnknownMessage(f"{len(message)} bytes that are not a StreamAccessLogsMessage: {error}") from error
    if len(entries) > most_entries:
        return None
    return [
        _entry(entry, common) for entry in entries if (common := entry.common_properties).access_log_type in _ENDS
    ]


def _entry(entry: HTTPAccessLogEntry, common: AccessLogCommon) -> LogEntry:
    metadata = common.metadata
    evidence = _evidence(metadata)
    if not evidence:
        return _FOREIGN
    response = entry.response
    return LogEntry(
        evidence,
        response.response_code.value,
        common.upstream_cluster,
        common.upstream_request_attempt_count or 1,
        response.response_headers.get("content-encoding", ""),
        common.HasField("response_flags") and _is_cut(common.response_flags),
        _usage(metadata),
        entry.request.request_id,
    )


_FOREIGN: Final = LogEntry("", 0)


def _evidence(metadata: Metadata) -> str:
    # Read with `get`, because an index inserts what is missing from a protobuf message map.
    ours = metadata.filter_metadata.get(METADATA_NAMESPACE)
    said = None if ours is None else ours.fields.get(EVIDENCE_KEY)
    return "" if said is None else said.string_value


def _is_cut(flags: ResponseFlags) -> bool:
    return any(getattr(flags, name) for name in _CUTS)


def _usage(metadata: Metadata) -> LoggedUsage | None:
    packed = metadata.typed_filter_metadata.get(USAGE_NAMESPACE)
    if packed is None:
        return None
    try:
        said = _TokenUsage.FromString(packed.value)
    except DecodeError:
        return LoggedUsage(None, None, None, whole=False)
    details = said.input_token_details
    return LoggedUsage(
        said.input_tokens.value if said.HasField("input_tokens") else None,
        said.output_tokens.value if said.HasField("output_tokens") else None,
        details.cached_tokens.value if details.HasField("cached_tokens") else None,
        whole=said.extraction_status <= _COMPLETE,
    )


# TokenUsage.ExtractionStatus: 0 is unspecified, 1 is complete, the others are incomplete.
_COMPLETE: Final = 1


def _message_types() -> Any:  # noqa: ANN401  (made at run time)
    """Return a message class for Envoy's TokenUsage, with the fields that are read.

    No published package of Envoy's messages contains it yet.
    """
    count = f".{wrappers_pb2.UInt64Value.DESCRIPTOR.full_name}"
    file = descriptor_pb2.FileDescriptorProto(
        name="dualpool/token_usage.proto",
        package="dualpool.envoy",
        syntax="proto3",
        dependency=[wrappers_pb2.DESCRIPTOR.name],
    )
    _describe(file, "InputTokenDetails", [("cached_tokens", 1, count)])
    usage = [
        ("input_tokens", 3, count),
        ("output_tokens", 4, count),
        ("input_token_details", 6, ".dualpool.envoy.InputTokenDetails"),
    ]
    described = _describe(file, "TokenUsage", usage)
    described.field.add(
        name="extraction_status",
        number=9,
        label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL,
        type=descriptor_pb2.FieldDescriptorProto.TYPE_INT32,  # an enumeration has the same bytes
    )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("dualpool.envoy.TokenUsage"))


def _describe(
    file: descriptor_pb2.FileDescriptorProto, name: str, fields: Iterable[tuple[str, int, str]]
) -> descriptor_pb2.DescriptorProto:
    message = file.message_type.add(name=name)
    for field, number, kind in fields:
        message.field.add(
            name=field,
            number=number,
            label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL,
            type=descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE,
            type_name=kind,
        )
    return message


_TokenUsage: Final = _message_types()
