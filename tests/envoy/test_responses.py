"""A response that is learned from arrives byte for byte, however the pool sends it and whenever its parts come."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from socketserver import StreamRequestHandler

import pytest

from tests.envoy.harness.building import Build
from tests.envoy.harness.caller import Caller
from tests.envoy.harness.calls import SHORT_TEXT
from tests.envoy.harness.gateway import Document, moved_to, waits_briefly
from tests.envoy.harness.polling import eventually
from tests.envoy.harness.pools import MODEL
from tests.envoy.harness.raw import RawClient, chat_body
from tests.envoy.harness.router import BRIEF
from tests.envoy.harness.tcp import requests_of, serving

BODY = chat_body(MODEL, SHORT_TEXT, max_tokens=16)
USAGE = b'{"choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":90,"completion_tokens":3},"filler":"%b"}'
CHUNKED, SIZED, CLOSED = "transfer-encoding: chunked", "content-length: {}", "connection: close"
CUT = "content-length: 1{}"  # more than is sent
# After which the router has the head of a response: the request's headers, its body and its end were the others.
MESSAGES = 4


@contextmanager
def pool(response: bytes, framing: str, piece_bytes: int) -> Iterator[tuple[str, threading.Event]]:
    """Run a pool that sends the head of its response, and the body, in pieces, once the event is set.

    It does not send the body without that: a head that waits for the body never arrives.
    """
    goes_on = threading.Event()

    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            for _ in requests_of(self.rfile):
                head = ("HTTP/1.1 200 OK", "content-type: application/json", framing.format(len(response)))
                self.wfile.write("\r\n".join((*head, "", "")).encode())
                goes_on.wait()
                for at in range(0, len(response), piece_bytes):
                    piece = response[at : at + piece_bytes]
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if framing is CHUNKED else piece)
                self.wfile.write(b"0\r\n\r\n" if framing is CHUNKED else b"")
                if framing in (CLOSED, CUT):
                    return

    with serving(Handler) as port:
        try:
            yield f"127.0.0.1:{port}", goes_on
        finally:
            goes_on.set()


@contextmanager
def asking(caller: Caller) -> Iterator[RawClient]:
    """Yield a client that has sent a request."""
    with RawClient(caller.stack.gateway.port) as client:
        client.head(f"{caller.root}/v1/chat/completions", content_length=str(len(BODY)), x_tenant=caller.mark)
        client.send(BODY)
        yield client


@pytest.mark.parametrize("mode", ["streamed", "buffered", "full-duplex"])
@pytest.mark.parametrize("framing", [SIZED, CHUNKED, CLOSED])
@pytest.mark.parametrize(
    ("filler_bytes", "piece_bytes", "late"),
    [(0, 1 << 20, False), (0, 7, False), (300_000, 1 << 20, False), (300_000, 9_000, False), (0, 1 << 20, True)],
)
def test_a_response_arrives_byte_for_byte(
    build: Build, mode: str, framing: str, filler_bytes: int, piece_bytes: int, *, late: bool
) -> None:
    """Its head does not wait for a body that comes late, and it is learned from in any case."""
    response = USAGE % (b"x" * filler_bytes)
    with pool(response, framing, piece_bytes) as (address, goes_on):

        def change(document: Document) -> None:
            moved_to(document, "pool_short", address)
            if mode != "full-duplex":
                waits_briefly(document)

        caller = build(mode, change=change, exchange=BRIEF)
        if not late:
            goes_on.set()
        with asking(caller) as client:
            received = client.response()
            goes_on.set()
            assert (200, response) == (received.status, received.read())
        eventually(lambda: caller.observations() == 1, "the lesson")


def test_a_pool_that_dies_between_its_head_and_its_body(build: Build) -> None:
    """In streamed mode the router has the head until then: the client gets a 502 of Envoy instead of a 200."""
    with pool(b"", CUT, 1) as (address, goes_on):
        caller = build("streamed", change=lambda document: moved_to(document, "pool_short", address))
        sent = "http.ingress.ext_proc.stream_msgs_sent"
        with asking(caller) as client:
            eventually(lambda: caller.stack.gateway.statistic(sent) == MESSAGES, "the head")
            goes_on.set()
            assert 502 == client.response().status
