"""The number of our function calls per exchange, which is the same on every machine."""

from typing import Any

import pytest

from bench.inside import BARS, Exchanges, calls
from extproc.core.apis import chunks, messages_usage, responses_usage
from extproc.core.apis.response import usage_reader
from extproc.core.errors import ResponseFault
from extproc.core.exchange.events import ContinueBody, Phase, ResponseBody
from extproc.core.facts import Api
from extproc.core.reading.usages import decode_response
from extproc.core.usage import Usage


@pytest.mark.parametrize("part", BARS)
def test_an_exchange_takes_no_more_calls_than_its_bar(part: str) -> None:
    """A released exchange, a learned one, and one event of a stream each take at most so many calls."""
    exchanges = Exchanges("byteclass")
    once = exchanges.counted()[part]
    once()  # the first call creates what is cached
    assert calls(once) <= BARS[part]


CHUNK = b'data: {"choices":[{"index":0,"delta":{"content":"\\"usage\\":{}"}}],"usage":null}\n\n'
DELTA = b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":"usage"}}\n\n'
TEXT = b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"usage"}\n\n'
CHAT_END = (
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":1000}}\n\ndata: [DONE]\n\n'
)
MESSAGE_START = b'event: message_start\ndata: {"type":"message_start","message":{"usage":{"input_tokens":9}}}\n\n'
MESSAGE_END = (
    b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"},'
    b'"usage":{"output_tokens":1000}}\n\nevent: message_stop\ndata: {"type":"message_stop"}\n\n'
)
RESPONSE_END = (
    b'event: response.completed\ndata: {"type":"response.completed","response":'
    b'{"usage":{"input_tokens":9,"output_tokens":1000}}}\n\n'
)


@pytest.mark.parametrize(
    ("api", "start", "piece", "end"),
    [
        (Api.CHAT, b"", CHUNK, CHAT_END),
        (Api.MESSAGES, MESSAGE_START, DELTA, MESSAGE_END),
        (Api.RESPONSES, b"", TEXT, RESPONSE_END),
    ],
)
def test_only_what_may_hold_usage_is_decoded(
    api: Api, start: bytes, piece: bytes, end: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a stream of a thousand tokens, only the first and the last events are decoded as JSON."""
    decoded: list[bytes] = []

    def decode(decoder: Any, body: bytes, not_json: ResponseFault) -> Any:
        decoded.append(body)
        return decode_response(decoder, body, not_json)

    for module in (chunks, messages_usage, responses_usage):
        monkeypatch.setattr(module, "decode_response", decode)
    reader = usage_reader(api, "text/event-stream", "", 1 << 20)
    for data in (start, *[piece] * 1_000, end):
        reader.feed(data)
    assert Usage(9, 1_000) == reader.finish()
    assert len(decoded) <= 3


def test_a_piece_that_only_passes_through_gets_a_constant_reply() -> None:
    """If streams are not closed early, the rest of a response is not read, and every piece gets the same reply."""
    exchanges = Exchanges("byteclass")
    exchanges.router.closes_streams = False
    exchange = exchanges.opened(exchanges.released)
    replies = [exchange.handle(ResponseBody(b"x" * size, end_of_stream=False), 0.0) for size in (1, 1_000)]
    assert [ContinueBody(Phase.RESPONSE)] == list(replies[0])
    assert replies[0] is replies[1]
    assert calls(lambda: exchange.handle(ResponseBody(b"x", end_of_stream=False), 0.0)) <= 3
