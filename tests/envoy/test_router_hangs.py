"""A router that hangs after it has answered a part of a response: pings end the wait that no other timer ends.

When the router has answered one of several pieces of a body, Envoy 1.40 runs no `message_timeout` for the
others. If no further piece comes, because they all wait for the router, the response waits as long as the
router hangs. This takes a hang at the right moment, so responses are tried until one is held.
"""

import signal
import threading
from collections.abc import Iterator
from socketserver import StreamRequestHandler, ThreadingTCPServer

import pytest

from tests.envoy.harness.building import Build
from tests.envoy.harness.caller import Caller
from tests.envoy.harness.calls import SHORT_TEXT
from tests.envoy.harness.gateway import Document, cluster, moved_to
from tests.envoy.harness.pools import MODEL
from tests.envoy.harness.raw import RawClient, chat_body

ROUNDS = 40  # of a race that Envoy loses in at least one of ten rounds
FEWER = 5
RESPONSE = b'{"filler": "' + b"x" * (3 << 20) + b'"}'
BODY = chat_body(MODEL, SHORT_TEXT, max_tokens=16)
# How long a response may take; a message_timeout takes 0.5 s, and the pings of these tests 2.5 to 2.8 s.
HELD_S = 6.0


class Large(StreamRequestHandler):
    """A pool with a response so large that many pieces of it are at the router at the same time."""

    def handle(self) -> None:
        """Serve requests with chunked bodies or content-lengths until the connection ends."""
        while line := self.rfile.readline():
            length = 0
            while line.strip():
                if line.lower().startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
                line = self.rfile.readline()
            if length:
                self.rfile.read(length)
            else:
                while size := int(self.rfile.readline(), 16):
                    self.rfile.read(size + 2)
                self.rfile.readline()
            head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(RESPONSE)}\r\n\r\n"
            self.wfile.write(head.encode() + RESPONSE)


@pytest.fixture
def large_pool() -> Iterator[str]:
    """Run the pool; yield its address."""
    with ThreadingTCPServer(("127.0.0.1", 0), Large) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


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
        moved_to(document, "pool_short", large_pool)
        assert options(document)["connection_keepalive"] == {"interval": "15s", "timeout": "5s"}
        options(document)["connection_keepalive"] = {"interval": "2s", "timeout": "0.5s"}

    caller = build(mode, change=change)
    assert {True} == {arrives(caller) for _ in range(FEWER)}


def test_a_response_that_a_hanging_router_holds_without_pings(build: Build, large_pool: str) -> None:
    """Without pings, a response waits as long as the router hangs: the fault without the fix."""

    def change(document: Document) -> None:
        moved_to(document, "pool_short", large_pool)
        del options(document)["connection_keepalive"]

    caller = build("streamed", change=change)
    if all(arrives(caller) for _ in range(ROUNDS)):
        pytest.skip(f"no response was held in {ROUNDS} rounds: the router was not stopped at the right moment")
    assert 0 == caller.stack.gateway.statistic("http.ingress.downstream_rq_idle_timeout")
