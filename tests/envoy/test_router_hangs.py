"""A router that hangs after it has answered a part of a response: pings end the wait that no other timer ends.

When the router has answered one of several pieces of a body, Envoy 1.40 runs no `message_timeout` for the
others. If no further piece comes, because they all wait for the router, the response waits as long as the
router hangs. This takes a hang at the right moment, so responses are tried until one is held.

A stream of events needs no such moment: each event that Envoy sends to the router starts `message_timeout` again.
"""

import signal
import time
from collections.abc import Iterator
from socketserver import StreamRequestHandler

import pytest

from tests.envoy.harness.building import Build
from tests.envoy.harness.caller import Caller
from tests.envoy.harness.calls import SHORT_TEXT
from tests.envoy.harness.gateway import Document, cluster, ext_proc, moved_to, waits_briefly
from tests.envoy.harness.pools import MODEL, Pools
from tests.envoy.harness.raw import RawClient, chat_body
from tests.envoy.harness.tcp import requests_of, serving

# Of a race that Envoy loses in one of ten rounds or more often; the first one that is lost is the last.
ROUNDS = 150
FEWER = 5
RESPONSE = b'{"filler": "' + b"x" * (3 << 20) + b'"}'
BODY = chat_body(MODEL, SHORT_TEXT, max_tokens=16)
# How long a response may take; a message_timeout takes 0.5 s, and the pings of these tests 2.5 to 2.8 s.
HELD_S = 6.0
# A message_timeout that no event comes too late for, even if a process is stalled.
PAUSE = "5s"
# Tokens and tokens per second of a stream that takes 8 s.
TOKENS, SPEED = 200, 25.0


class Large(StreamRequestHandler):
    """A pool with a response so large that many pieces of it are at the router at the same time."""

    def handle(self) -> None:
        """Respond to each request."""
        for _ in requests_of(self.rfile):
            head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(RESPONSE)}\r\n\r\n"
            self.wfile.write(head.encode() + RESPONSE)


@pytest.fixture
def large_pool() -> Iterator[str]:
    """Run the pool; yield its address."""
    with serving(Large) as port:
        yield f"127.0.0.1:{port}"


def options(document: Document) -> Document:
    """Return the HTTP/2 settings of the router's cluster."""
    (protocol,) = cluster(document, "dualpool")["typed_extension_protocol_options"].values()
    http2: Document = protocol["explicit_http_config"]["http2_protocol_options"]
    return http2


def arrives(caller: Caller) -> bool:
    """Stop the router when a response has begun; return whether it arrives complete, or is held."""
    router = caller.stack.router
    with RawClient(caller.stack.gateway.port, HELD_S) as client:
        client.head(f"{caller.root}/v1/chat/completions", content_length=str(len(BODY)))
        client.send(BODY)
        response = client.response()
        assert 200 == response.status
        router.signal(signal.SIGSTOP)
        try:
            assert RESPONSE == response.read()
        except TimeoutError:
            return False
        finally:
            router.signal(signal.SIGCONT)
    return True


@pytest.mark.parametrize("mode", ["streamed", "buffered"])
def test_a_response_that_a_hanging_router_has_in_part(build: Build, mode: str, large_pool: str) -> None:
    """At whatever point of a response the router hangs, Envoy notices, and the whole response arrives."""

    def change(document: Document) -> None:
        waits_briefly(document)
        moved_to(document, "pool_short", large_pool)
        assert options(document)["connection_keepalive"] == {"interval": "15s", "timeout": "5s"}
        options(document)["connection_keepalive"] = {"interval": "2s", "timeout": "0.5s"}

    caller = build(mode, change=change)
    assert {True} == {arrives(caller) for _ in range(FEWER)}


def test_a_response_that_a_hanging_router_holds_without_pings(build: Build, large_pool: str) -> None:
    """Without pings, a response waits as long as the router hangs: the fault without the fix."""

    def change(document: Document) -> None:
        waits_briefly(document)
        moved_to(document, "pool_short", large_pool)
        del options(document)["connection_keepalive"]

    caller = build("streamed", change=change)
    assert not all(arrives(caller) for _ in range(ROUNDS))
    assert 0 == caller.stack.gateway.statistic("http.ingress.downstream_rq_idle_timeout")


@pytest.fixture
def streaming_pools() -> Iterator[Pools]:
    """Two pools with an event every 40 ms."""
    pools = Pools(speed=SPEED)
    yield pools
    pools.stop()


def longest_wait_s(caller: Caller) -> float:
    """Stop the router within a stream; return the longest wait for an event, in a stream that arrives complete."""
    stream = caller.openai.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": SHORT_TEXT}],
        max_tokens=TOKENS,
        stream=True,
        stream_options={"include_usage": True},
    )
    first = next(stream)
    assert first.usage is None
    caller.stack.router.signal(signal.SIGSTOP)
    try:
        longest_s, last_s, usage = 0.0, time.monotonic(), first.usage
        for event in stream:
            now_s = time.monotonic()
            longest_s, last_s, usage = max(longest_s, now_s - last_s), now_s, event.usage
    finally:
        caller.stack.router.signal(signal.SIGCONT)
    assert usage is not None
    return longest_s


@pytest.mark.parametrize("mode", ["streamed", "buffered"])
def test_a_stream_of_events_that_a_hanging_router_reads(build: Build, mode: str, streaming_pools: Pools) -> None:
    """When the router hangs within a stream of events, the next ping ends the wait, and the rest arrives."""

    def change(document: Document) -> None:
        ext_proc(document)["message_timeout"] = PAUSE
        options(document)["connection_keepalive"] = {"interval": "2s", "timeout": "0.5s"}

    assert longest_wait_s(build(mode, change=change, pools=streaming_pools)) < HELD_S


@pytest.mark.parametrize("mode", ["streamed", "buffered"])
def test_a_stream_of_events_that_a_hanging_router_reads_without_pings(
    build: Build, mode: str, streaming_pools: Pools
) -> None:
    """Without pings, every stream of events waits until its pool has sent all of it: the fault without the fix."""

    def change(document: Document) -> None:
        ext_proc(document)["message_timeout"] = PAUSE
        del options(document)["connection_keepalive"]

    assert longest_wait_s(build(mode, change=change, pools=streaming_pools)) > HELD_S
