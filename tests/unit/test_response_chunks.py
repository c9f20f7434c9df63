import gzip
import json
import zlib

import brotli
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.core.apis.response import MAX_EVENT_BYTES, usage_reader
from extproc.core.errors import ResponseFault, ResponseNotUnderstood
from extproc.core.facts import Api
from extproc.core.reading.reader import UsageReader
from extproc.core.reading.refusal import read_overflow
from extproc.core.usage import Overflow, Usage

CAP = 1 << 20
TEXT = 'Grüße 🌍 "usage": {"prompt_tokens": 1}\r\n\r\n'
COUNTS = '"usage":{"prompt_tokens":11,"completion_tokens":5}'
CHUNK = f'{{"choices":[{{"delta":{{"content":{json.dumps(TEXT, ensure_ascii=False)}}},"finish_reason":null}}]}}'
LAST_RESPONSE = '{"type":"response.completed","response":{"usage":{"input_tokens":11,"output_tokens":5}}}'
MESSAGE_START = (
    'event: message_start\ndata: {"type":"message_start",\ndata: "message":{"usage":{"input_tokens":11}}}\n\n'
)
MESSAGE_END = (
    'event: message_delta\ndata: {"type":"message_delta","usage":{"output_tokens":5}}\n\n'
    'event: message_stop\ndata: {"type":"message_stop"}\n\n'
)
RESPONSES = {
    "chat json": (Api.CHAT, "application/json", f'{{"choices":[],"x":{json.dumps(TEXT)},{COUNTS}}}'),
    "chat sse": (
        Api.CHAT,
        "text/event-stream",
        f': hello\r\ndata: {CHUNK}\r\n\r\ndata: {{"choices":[],{COUNTS}}}\n\ndata: [DONE]\r\r',
    ),
    "responses sse": (
        Api.RESPONSES,
        "text/event-stream",
        f"event: response.delta\ndata: {CHUNK}\n\nevent: response.completed\ndata: {LAST_RESPONSE}\n\n",
    ),
    "messages sse": (
        Api.MESSAGES,
        "text/event-stream",
        f"{MESSAGE_START}event: content_block_delta\ndata: {CHUNK}\n\n{MESSAGE_END}",
    ),
}
ENCODE = {"": bytes, "gzip": gzip.compress, "deflate": zlib.compress, "br": brotli.compress}


def read(reader: UsageReader, *pieces: bytes) -> Usage | Overflow:
    """Read a response that arrives in pieces."""
    for piece in pieces:
        reader.feed(piece)
    return reader.finish()


@pytest.mark.parametrize("encoding", list(ENCODE))
@pytest.mark.parametrize(("api", "content_type", "body"), list(RESPONSES.values()), ids=list(RESPONSES))
@settings(max_examples=25)
@given(data=st.data())
def test_any_chunking_gives_the_same_usage(
    api: Api, content_type: str, body: str, encoding: str, data: st.DataObject
) -> None:
    """A response's usage is the same wherever it is cut, even inside a
    character or a line end, and if compressed.
    """
    sent = ENCODE[encoding](body.encode())
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=12)))
    pieces = [sent[a:b] for a, b in zip([0, *cuts], [*cuts, len(sent)], strict=True)]
    assert read(usage_reader(api, content_type, encoding, CAP), *pieces) == Usage(11, 5)


@pytest.mark.parametrize(("api", "content_type", "body"), list(RESPONSES.values()), ids=list(RESPONSES))
@pytest.mark.parametrize("encoding", list(ENCODE))
def test_responses_cut_short_have_no_usage(api: Api, content_type: str, body: str, encoding: str) -> None:
    """A truncated response has no usage, unless it is a stream that lacks only the end of its last event."""
    sent = ENCODE[encoding](body.encode())
    for end in range(len(sent)):
        reader = usage_reader(api, content_type, encoding, CAP)
        try:
            usage = read(reader, sent[:end])
        except ResponseNotUnderstood:
            continue
        assert (Usage(11, 5), True, "text/event-stream") == (usage, reader.complete, content_type)
        assert encoding or not sent[end:].strip(), "only line ends or a compressor's trailer are missing"


@settings(max_examples=60)
@given(
    api=st.sampled_from(Api),
    content_type=st.sampled_from(["application/json", "text/event-stream"]),
    encoding=st.sampled_from(["", "gzip", "br"]),
    pieces=st.lists(
        st.binary(max_size=30)
        | st.sampled_from([b"data: ", b"\n\n", b'{"usage":', b'"length"', b"event: error\n"]),
        max_size=8,
    ),
)
def test_any_bytes_give_usage_or_our_own_error(
    api: Api, content_type: str, encoding: str, pieces: list[bytes]
) -> None:
    """Reading any bytes ends in usage or in ResponseNotUnderstood."""
    try:
        usage = read(usage_reader(api, content_type, encoding, CAP), *pieces)
    except ResponseNotUnderstood:
        return
    assert isinstance(usage, Usage)


@settings(max_examples=100)
@given(
    body=st.binary(max_size=60)
    | st.text(max_size=60).map(lambda text: json.dumps({"error": {"message": f"context length {text}"}}).encode())
)
def test_any_bytes_are_an_overflow_or_not(body: bytes) -> None:
    """Looking for a refusal in any bytes never fails."""
    assert read_overflow(body) is None or isinstance(read_overflow(body), Overflow)


def test_an_event_over_the_cap_is_too_large() -> None:
    """An event of a stream has its own limit besides that of the response."""
    reader = usage_reader(Api.CHAT, "text/event-stream", "", 2 * MAX_EVENT_BYTES)
    reader.feed(b"data: " + b"x" * (MAX_EVENT_BYTES - 6))
    with pytest.raises(ResponseNotUnderstood) as caught:
        reader.feed(b"x")
    assert caught.value.fault == ResponseFault.TOO_LARGE


@pytest.mark.parametrize("encoding", [name for name in ENCODE if name])
def test_a_stream_whose_encoding_has_no_end_was_cut(encoding: str) -> None:
    """This holds even if everything but [DONE] was decoded."""
    stream = f'data: {{"choices":[{{"finish_reason":"stop"}}]}}\n\ndata: {{"choices":[],{COUNTS}}}\n\n'.encode()
    whole = ENCODE[encoding](stream)
    assert Usage(11, 5) == read(usage_reader(Api.CHAT, "text/event-stream", encoding, CAP), whole)
    encoder = {"gzip": zlib.compressobj(wbits=31), "deflate": zlib.compressobj()}.get(encoding)
    if encoder is None:
        brotli_encoder = brotli.Compressor()
        cut = brotli_encoder.process(stream) + brotli_encoder.flush()
    else:
        cut = encoder.compress(stream) + encoder.flush(zlib.Z_SYNC_FLUSH)
    with pytest.raises(ResponseNotUnderstood) as error:
        read(usage_reader(Api.CHAT, "text/event-stream", encoding, CAP), cut)
    assert error.value.fault is ResponseFault.CUT_SHORT
