"""Messages that a handler sends together leave together."""

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

import hpack
import pytest

from extproc.server.grpc_core import Call, Core
from tests.grpc.frames import HEAD, PREFACE, frame

DATA, HEADERS, SETTINGS = 0, 1, 4
END_HEADERS, HEAD_BYTES, PREFIX_BYTES = 4, 9, 5
# Each poll waits so long for something to do.
POLL_S, POLLS = 0.02, 500


class Replier:
    """A handler that replies to the first message with several at once, and ends the call if it is told to."""

    def __init__(self, call: Call, replies: list[bytes], *, ends: bool) -> None:
        self._call = call
        self._replies = replies
        self._ends = ends

    def on_message(self, _message: bytes) -> None:
        """Reply."""
        if self._ends:
            self._call.finish(self._replies)
        else:
            self._call.send(self._replies)

    def on_end(self) -> None:
        """Finish."""
        self._call.finish()


@contextmanager
def asking(
    replies: list[bytes], *, ends: bool, handler: type[Replier] = Replier
) -> Iterator[tuple[Core, socket.socket]]:
    """Yield a core that has not been polled, and a client that has sent it one call with one message."""

    def serve(call: Call, _method: str) -> None:
        call.handler = handler(call, replies, ends=ends)
        call.send()

    core = Core()
    port = core.listen("127.0.0.1:0", (), None, serve)
    core.start()
    with closing(socket.create_connection(("127.0.0.1", port))) as client:
        head = frame(HEADERS, END_HEADERS, 1, hpack.Encoder().encode(HEAD))
        empty_message = bytes(PREFIX_BYTES)
        client.sendall(PREFACE + frame(SETTINGS, 0, 0) + head + frame(DATA, 0, 1, empty_message))
        client.settimeout(0)
        yield core, client
    core.stop_accepting()
    core.cancel_calls()
    while not core.done:
        core.poll(POLL_S)
    core.close()


def arrived(client: socket.socket, received: bytearray) -> bytes:
    """Return the contents of all frames of data that have come."""
    with suppress(BlockingIOError):
        received += client.recv(1 << 20)
    rest, data = bytes(received), b""
    while len(rest) >= HEAD_BYTES:
        end = HEAD_BYTES + int.from_bytes(rest[:3], "big")
        data += rest[HEAD_BYTES:end] if rest[3] == DATA else b""
        rest = rest[end:]
    return data


@pytest.mark.parametrize("count", [1, 2, 3, 40])
@pytest.mark.parametrize("ends", [False, True])
def test_messages_that_are_sent_together_arrive_together(count: int, *, ends: bool) -> None:
    """At whatever moment the process stops, a client has all of the replies to its message, or none."""
    replies = [bytes([number]) * 100 for number in range(count)]
    expected = b"".join(b"\0" + len(reply).to_bytes(4, "big") + reply for reply in replies)
    with asking(replies, ends=ends) as (core, client):
        received = bytearray()
        for _ in range(POLLS):
            core.poll(POLL_S)
            if first := arrived(client, received):
                break
    assert first == expected


def test_what_is_sent_before_the_metadata_are_out_keeps_its_order() -> None:
    """A handler may send more, and end the call, while the call's first batch is in progress."""

    class Hasty(Replier):
        def on_message(self, _message: bytes) -> None:
            self._call.send(self._replies[:2])
            self._call.finish(self._replies[2:])

    replies = [bytes([number]) for number in range(4)]
    with asking(replies, ends=True, handler=Hasty) as (core, client):
        received = bytearray()
        for _ in range(POLLS):
            core.poll(POLL_S)
            if first := arrived(client, received):
                break
    assert first == b"".join(b"\0\0\0\0\1" + reply for reply in replies)
