"""Responses that are small on the wire and take long to read: each costs what a real one of that size would."""

import gzip

import pytest

from extproc.core.apis.response import reader_for
from extproc.core.errors import ResponseFault, ResponseNotUnderstood
from extproc.core.facts import Api, ResponseHead
from extproc.core.reading.sse import MAX_LINES, SseParser
from extproc.core.reading.usages import MAX_OBJECTS
from extproc.core.usage import Usage

MAX_BYTES = 4 << 20
JSON, EVENTS = "application/json", "text/event-stream"
USAGE = b'"usage":{"prompt_tokens":5,"completion_tokens":1}'
PING = b'data: {"type":"ping"}\n\n'


def repeated(piece: bytes) -> bytes:
    """Return a piece repeated to just below the bound on a response's size."""
    return piece * ((MAX_BYTES - 100) // len(piece))


def fault_of(api: Api, content_type: str, plain: bytes) -> ResponseFault:
    """Return why a gzipped response is not read, which must show while its first message is processed."""
    reader = reader_for(api, ResponseHead(200, content_type, "gzip"), MAX_BYTES)
    try:
        reader.feed(gzip.compress(plain, 6))
        usage = reader.finish()
    except ResponseNotUnderstood as error:
        return error.fault
    pytest.fail(f"it was read: {usage}")


@pytest.mark.parametrize(
    "piece", [b"\n", b"\r", b"\r\n", b":\n\n", b"data:\n\n", b"data:\n", PING, b"data:{}\n\n"]
)
@pytest.mark.parametrize("api", [Api.CHAT, Api.RESPONSES, Api.MESSAGES])
def test_events_that_are_mostly_line_ends_are_not_read(api: Api, piece: bytes) -> None:
    """A few kilobytes of gzip hold millions of lines, each of which would take a microsecond."""
    assert ResponseFault.TOO_LARGE is fault_of(api, EVENTS, repeated(piece))


@pytest.mark.parametrize("piece", [b'"choices":[{}],', b'"usage":{},', b'"usage":{"prompt_tokens_details":{}},'])
def test_documents_of_many_objects_are_not_read(piece: bytes) -> None:
    """Neither are lists of empty objects, nor a key that is repeated a hundred thousand times."""
    assert ResponseFault.TOO_LARGE is fault_of(Api.CHAT, JSON, b"{" + repeated(piece) + USAGE + b"}")


def test_a_message_of_several_large_events_is_not_read() -> None:
    """Events are bounded one by one and all together: each may have to be decoded."""
    event = b'data: {"a":"length","choices":[' + b",".join([b"{}"] * (MAX_OBJECTS // 4)) + b"]}\n\n"
    assert ResponseFault.TOO_LARGE is fault_of(Api.CHAT, EVENTS, repeated(event))


def test_more_turns_than_any_server_counts_are_wrong_usage() -> None:
    """Millions of small numbers would all become objects."""
    turns = (
        b'{"usage":{"input_tokens":5,"input_tokens_details":{"input_tokens_per_turn":[1'
        + repeated(b",1")
        + b"]}}}"
    )
    assert ResponseFault.WRONG_USAGE is fault_of(Api.RESPONSES, JSON, turns)


def test_an_event_of_many_lines_is_not_read_however_it_arrives() -> None:
    """Its chunks have few lines each; the whole event has too many."""
    parser, chunk = SseParser(1 << 20), b"data:\n" * 1_000
    for _ in range(MAX_LINES // 1_000 + 1):
        assert parser.feed(chunk) == []
    with pytest.raises(ResponseNotUnderstood):
        parser.feed(b"\n")
    assert 1 == len(SseParser(1 << 20).feed(b"data:\n" * (MAX_LINES - 1) + b"\n"))


def test_a_real_response_of_the_largest_size_is_read() -> None:
    """Log probabilities of 20 candidates for each token are the most objects that a server sends."""
    candidate = b'{"token":"ing","logprob":-0.123456,"bytes":[105,110,103]},'
    plain = b'{"choices":[{"logprobs":{"content":[' + repeated(candidate)[:-1] + b"]}}]," + USAGE + b"}"
    assert len(plain) > MAX_BYTES - 200
    reader = reader_for(Api.CHAT, ResponseHead(200, JSON, "gzip"), MAX_BYTES)
    reader.feed(gzip.compress(plain, 1))
    assert Usage(5, 1, 0, cut_by_length=False) == reader.finish()


def test_a_megabyte_of_real_events_in_one_message_is_read() -> None:
    """A gateway that was slow may send many events at once."""
    token = (
        b'data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}]}\n\n'
    )
    last = b'data: {"choices":[],' + USAGE + b"}\n\ndata: [DONE]\n\n"
    reader = reader_for(Api.CHAT, ResponseHead(200, EVENTS, ""), MAX_BYTES)
    reader.feed(token * ((750 << 10) // len(token)) + last)
    assert Usage(5, 1, 0, cut_by_length=False) == reader.finish()


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_the_lines_of_a_chunk_are_counted_whatever_they_hold(end: bytes) -> None:
    """Empty lines end events that have no data, but take as long as others."""
    per_line = len(end)
    assert [] == SseParser(1 << 20).feed(end * (MAX_LINES // per_line))
    with pytest.raises(ResponseNotUnderstood):
        SseParser(1 << 20).feed(end * (MAX_LINES // per_line + 1))
