"""Decoding of Envoy's access log messages into entries."""

import pytest
from envoy.data.accesslog.v3.accesslog_pb2 import AccessLogType
from hypothesis import given
from hypothesis import strategies as st

from extproc.access_log.entry import LogEntry, LoggedUsage
from extproc.wire.access_log import decode_log
from extproc.wire.decode import UnknownMessage
from tests.unit.log_entries import entry, log_message, token_usage


def decoded(message: bytes) -> list[LogEntry]:
    """Return the entries of a message that has few of them."""
    entries = decode_log(message, 10)
    assert entries is not None
    return entries


def test_messages_of_too_many_entries_are_not_read() -> None:
    """A message of more entries than the limit is not converted, whether they end a request or not."""
    early = entry()
    early.common_properties.access_log_type = AccessLogType.DownstreamStart
    assert [[]] * 2 == [decode_log(log_message(*[early] * count), 10) for count in (0, 10)]
    assert decode_log(log_message(*[early] * 11), 10) is None


def test_an_entry_is_read() -> None:
    """Evidence, status, cluster, attempts and usage are read from where Envoy puts them."""
    usage = token_usage(1_200, 300, cached_tokens=16)
    message = log_message(entry("sealed", usage, cluster="pool_long", attempts=2))
    assert [
        LogEntry("sealed", 200, "pool_long", 2, usage=LoggedUsage(1_200, 300, 16), request_id="an-id")
    ] == decoded(message)


def test_a_request_has_at_least_one_attempt() -> None:
    """An entry that does not say how many attempts there were is of a request that was tried once."""
    assert [1] == [each.attempts for each in decoded(log_message(entry("sealed", attempts=0)))]


@pytest.mark.parametrize("kind", [AccessLogType.NotSet, AccessLogType.DownstreamEnd])
def test_the_end_of_a_request_is_read(kind: AccessLogType) -> None:
    """Envoy's older versions do not say which entry ends a request: it is the only one."""
    made = entry("sealed")
    made.common_properties.access_log_type = kind
    assert ["sealed"] == [each.evidence for each in decoded(log_message(made))]


def test_usage_as_envoy_sent_it() -> None:
    """The bytes that Envoy 1.40 wrote for a chat response are decoded."""
    seen = b'\x08\x01\x12\x0cserved-model\x1a\x02\x08\x1e"\x02\x08\x10*\x02\x08.B\x02\x08.H\x01'
    assert [LoggedUsage(30, 16, None)] == [each.usage for each in decoded(log_message(entry("sealed", seen)))]


@pytest.mark.parametrize(("status", "whole"), [(0, True), (1, True), (2, False), (3, False)])
def test_partial_usage_is_marked_as_incomplete(status: int, *, whole: bool) -> None:
    """Envoy's status says whether it lost part of the response's usage."""
    (read,) = decoded(log_message(entry("sealed", token_usage(5, 6, status=status))))
    assert LoggedUsage(5, 6, 0, whole=whole) == read.usage


def test_broken_usage_is_marked_as_incomplete() -> None:
    """Usage that is not protobuf counts as absent."""
    (read,) = decoded(log_message(entry("sealed", b"\xff\xff")))
    assert LoggedUsage(None, None, None, whole=False) == read.usage


def test_entries_of_others_are_foreign() -> None:
    """In an entry without our evidence, nothing else is read."""
    stranger = entry("", token_usage(5, 6))
    stranger.common_properties.metadata.ClearField("filter_metadata")
    assert [LogEntry("", 0)] * 2 == decoded(log_message(entry("", token_usage(5, 6)), stranger))


def test_only_the_end_of_a_request_counts() -> None:
    """Entries for its start, for its attempts, or in between are skipped."""
    early = [entry("sealed") for _ in range(3)]
    for made, kind in zip(
        early,
        (AccessLogType.DownstreamStart, AccessLogType.DownstreamPeriodic, AccessLogType.UpstreamEnd),
        strict=True,
    ):
        made.common_properties.access_log_type = kind
    assert [] == decoded(log_message(*early))


@pytest.mark.parametrize(
    ("flag", "cut"),
    [
        ("downstream_connection_termination", True),
        ("downstream_protocol_error", True),
        ("downstream_remote_reset", True),
        ("duration_timeout", True),
        ("local_reset", True),
        ("no_route_found", False),
        ("stream_idle_timeout", True),
        ("upstream_connection_termination", True),
        ("upstream_max_stream_duration_reached", True),
        ("upstream_protocol_error", True),
        ("upstream_remote_reset", True),
    ],
)
def test_flags_say_whether_a_response_was_cut(flag: str, *, cut: bool) -> None:
    """A reset or a lost connection, on either side, cut the response."""
    made = entry("sealed")
    setattr(made.common_properties.response_flags, flag, True)
    assert [cut] == [each.cut for each in decoded(log_message(made))]


def test_the_encoding_is_read() -> None:
    """The entry of a compressed response has its encoding, if Envoy is configured to log that header."""
    made = entry("sealed")
    made.response.response_headers["content-encoding"] = "gzip"
    assert ["gzip"] == [each.content_encoding for each in decoded(log_message(made))]


def test_a_message_that_is_none_is_refused() -> None:
    """Bytes that are not protobuf are an UnknownMessage that says how many."""
    with pytest.raises(UnknownMessage, match=r"^3 bytes that are not a StreamAccessLogsMessage: "):
        decoded(b"\xff\xff\xff")


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_empty(data: bytes) -> None:
    """Any bytes are either entries or an UnknownMessage."""
    try:
        entries = decoded(data)
    except UnknownMessage:
        return
    assert all(not each.evidence for each in entries)
