"""Everything that the gateway sends gets a reply until its end: bodies without an end, large pieces, trailers."""

import json

import pytest

from extproc.core.exchange.events import (
    BodyMode,
    EchoBody,
    Modes,
    Phase,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
)
from extproc.core.exchange.replies import neutral_replies
from extproc.core.facts import RequestHead
from extproc.core.placing.policy import Pool, Reason
from tests.unit.exchanges import (
    BUFFERED,
    CHAT,
    DUPLEX,
    IN_PIECES,
    JSON_RESPONSE,
    ROUTABLE,
    STREAMED,
    Connect,
    chat,
    usage,
    whole,
)


def echoed(data: bytes, *, end_of_stream: bool) -> list[tuple[int, bool]]:
    """Return the size of each echoed piece of a full-duplex body, and whether it is marked as the last."""
    replies = neutral_replies(RequestBody(data, end_of_stream), DUPLEX)
    assert all(isinstance(reply, EchoBody) for reply in replies)
    return [(len(reply.data), reply.end_of_stream) for reply in replies if isinstance(reply, EchoBody)]


def test_only_the_last_piece_of_a_large_body_is_the_end() -> None:
    """A body over 62 KiB is echoed in pieces; Envoy accepts nothing after the one that is marked as the last."""
    full = 62 * 1024
    assert [(full, False), (full, False), (1, True)] == echoed(b"x" * (2 * full + 1), end_of_stream=True)
    assert [(full, False), (full, True)] == echoed(b"x" * (2 * full), end_of_stream=True)
    assert [(full, False), (1, False)] == echoed(b"x" * (full + 1), end_of_stream=False)
    assert [(0, True)] == echoed(b"", end_of_stream=True)
    assert [(0, False)] == echoed(b"", end_of_stream=False)


@pytest.mark.parametrize("size", [62 * 1024, 62 * 1024 + 1, 200_000])
def test_a_large_message_that_ends_a_body_arrives_whole(connect: Connect, size: int) -> None:
    """A gateway may send a body in one large message that is also its end; none of it is lost."""
    gateway = connect(DUPLEX)
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    gateway.send_all(whole(body))
    assert gateway.echoed[Phase.REQUEST] == body
    gateway = connect(DUPLEX)
    gateway.send_all(whole(chat()))
    gateway.send(ResponseHeaders(JSON_RESPONSE))
    gateway.send(ResponseBody(body, end_of_stream=True))
    assert gateway.echoed[Phase.RESPONSE] == body


@pytest.mark.parametrize("size", [62 * 1024, 100_000])
def test_a_decided_request_arrives_whole_in_full_duplex(connect: Connect, size: int) -> None:
    """A body that is decided as a whole is sent back after its headers, to its end."""
    gateway = connect(DUPLEX, pools=(Pool("short", 500_000), Pool("long", 1_000_000)))
    gateway.send_all(whole(chat("word " * (size // 5))))
    assert ["short"] == [decision.pool.name for decision in gateway.decisions]
    assert gateway.echoed[Phase.REQUEST] == gateway.sent[Phase.REQUEST]


def test_a_buffered_body_without_an_end_is_decided(connect: Connect) -> None:
    """BUFFERED delivers the whole body in one message; if trailers follow, it is not marked as the end."""
    gateway = connect(BUFFERED)
    gateway.send(RequestHeaders(CHAT))
    gateway.send(RequestBody(chat(), end_of_stream=False))
    assert ["short"] == [decision.pool.name for decision in gateway.decisions]


@pytest.mark.parametrize("modes", [BUFFERED, STREAMED, DUPLEX])
def test_a_request_that_ends_with_trailers_is_learned_from(connect: Connect, modes: Modes) -> None:
    """The trailers of a decided request pass, and its response is read."""
    gateway = connect(modes)
    gateway.send(RequestHeaders(CHAT))
    gateway.send(RequestBody(chat(), end_of_stream=False))
    gateway.send(RequestTrailers())
    gateway.send(ResponseHeaders(JSON_RESPONSE))
    gateway.send(ResponseBody(usage(), end_of_stream=False))
    gateway.send(ResponseTrailers())
    assert (1, 1) == (len(gateway.decisions), len(gateway.recorder.calls_of("observed")))


@pytest.mark.parametrize("mode", [BodyMode.BUFFERED, BodyMode.BUFFERED_PARTIAL])
def test_trailers_without_a_buffered_body_decide_nothing(connect: Connect, mode: BodyMode) -> None:
    """If the headers have passed and no body came, there is nothing to decide, and nothing is counted."""
    gateway = connect(Modes(mode, BodyMode.STREAMED))
    gateway.send(RequestHeaders(CHAT))
    gateway.send(RequestTrailers())
    assert [] == gateway.recorder.calls_of("decided")
    assert gateway.closed


@pytest.mark.parametrize("modes", IN_PIECES)
def test_trailers_end_an_empty_body(connect: Connect, modes: Modes) -> None:
    """A request of headers and trailers is treated like one with an empty body."""
    gateway = connect(modes)
    gateway.send(RequestHeaders(CHAT))
    gateway.send(RequestTrailers())
    assert [Reason.NOT_UNDERSTOOD] == [decision.reason for decision in gateway.decisions]


@pytest.mark.parametrize("modes", ROUTABLE)
def test_a_decision_is_made_once(connect: Connect, modes: Modes) -> None:
    """Each request is decided once, and counted as decided once."""
    gateway = connect(modes)
    gateway.send_all(whole(chat()))
    assert gateway.decisions == gateway.recorder.calls_of("decided")


def test_a_body_is_early_only_beyond_the_largest_smaller_pool(connect: Connect) -> None:
    """With three pools, a body too large for the smallest is still awaited, as the middle one may hold it."""
    pools = (Pool("small", 100), Pool("middle", 3_000), Pool("large", 10_000))
    gateway = connect(STREAMED, pools=pools)
    gateway.send(RequestHeaders(CHAT))
    gateway.send(RequestBody(chat("word " * 350), end_of_stream=False))
    assert [] == gateway.decisions
    gateway.send(RequestBody(b"", end_of_stream=True))
    assert ["middle"] == [decision.pool.name for decision in gateway.decisions]


@pytest.mark.parametrize("modes", IN_PIECES)
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_a_body_is_held_up_to_the_limit(connect: Connect, modes: Modes, path: str) -> None:
    """A body that has reached `max_held_bytes` is sent on, whatever its end may contain."""
    gateway = connect(modes, pools=(Pool("short", 100_000), Pool("long", 200_000)), max_held_bytes=2_000)
    gateway.send(RequestHeaders(RequestHead("POST", path)))
    gateway.send(RequestBody(b" " * 1_999, end_of_stream=False))
    assert [] == gateway.decisions
    gateway.send(RequestBody(b" ", end_of_stream=False))
    assert [(Reason.EARLY, 2_000)] == [(decision.reason, decision.body_bytes) for decision in gateway.decisions]


@pytest.mark.parametrize("modes", IN_PIECES)
def test_the_end_of_a_list_of_prompts_is_awaited(connect: Connect, modes: Modes) -> None:
    """Many small prompts together exceed the short pool, although each of them fits it."""
    gateway = connect(modes)
    gateway.send(RequestHeaders(RequestHead("POST", "/v1/completions")))
    body = json.dumps({"model": "m", "prompt": ["some words"] * 2_000, "max_tokens": 5}).encode()
    for start in range(0, len(body), 4_096):
        gateway.send(RequestBody(body[start : start + 4_096], end_of_stream=False))
    gateway.send(RequestBody(b"", end_of_stream=True))
    assert [Reason.FITS] == [decision.reason for decision in gateway.decisions]
