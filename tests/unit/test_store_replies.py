"""A store whose replies are not those of the commands: it counts as one that has failed, and nothing else ends."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import BinaryIO

import pytest

from extproc.state.changing import NotDone
from extproc.state.in_store import InStore
from tests.unit.redis_server import RedisServer
from tests.unit.sharing_replica import SETTINGS, Replica

ODD = {
    "a number": b":7\r\n",
    "a number of 401 digits": b":1%s\r\n" % (b"0" * 400),
    "nothing": b"$-1\r\n",
    "a list of numbers": b"*2\r\n:1\r\n:2\r\n",
    "a list of lists": b"*1\r\n*1\r\n:1\r\n",
    "a refusal": b"-NOPERM this user has no permissions to run the command\r\n",
}


class Between:
    """A proxy before a store that replaces the replies to one command."""

    def __init__(self, server: RedisServer) -> None:
        self.command, self.reply, self.replaced = b"", b"", 0
        self._server = server
        self._listening = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """The proxy's address."""
        return f"redis://127.0.0.1:{self._listening.getsockname()[1]}/0"

    def close(self) -> None:
        """Accept no more connections."""
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                threading.Thread(target=self._pass, args=(connection,), daemon=True).start()

    def _pass(self, client: socket.socket) -> None:
        store = socket.create_connection(("127.0.0.1", self._server.port))
        with client, store, client.makefile("rb") as asked, store.makefile("rb") as said, suppress(OSError):
            while command := _item(asked):
                store.sendall(command)
                reply = _item(said)
                if command.split(b"\r\n")[2].upper() == self.command:
                    self.replaced += 1
                    reply = self.reply
                client.sendall(reply)


def _item(stream: BinaryIO) -> bytes:
    """Return one reply or command as it is on the wire; nothing at the end."""
    line = stream.readline()
    length = int(line[1:]) if line[:1] in (b"$", b"*") else -1
    if line.startswith(b"*"):
        return line + b"".join(_item(stream) for _ in range(length))
    return line if length < 0 else line + stream.read(length + 2)


@pytest.fixture
def between(server: RedisServer) -> Iterator[Between]:
    """Return a proxy before the store."""
    proxy = Between(server)
    yield proxy
    proxy.close()


def changes(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[[], object]]:
    """Return all that is done with a store."""

    def fold() -> None:
        with monkeypatch.context() as patched:
            patched.setattr("extproc.state.sharer.DEAD_AFTER", 0)
            replica.exchange(2)

    taught = Replica("redis://127.0.0.1:1")
    taught.learn(3)
    store, state = InStore(replica.settings, SETTINGS), taught.estimator.state()
    return {
        "begin": replica.exchange,
        "fold": fold,
        "leave": lambda: asyncio.run(replica.sharer.leave()),
        "import": lambda: store.add(state),
        "reset": lambda: store.forget(""),
        "show": store.read,
    }


@pytest.mark.parametrize("command", [b"SMEMBERS", b"GETRANGE", b"PTTL", b"GET", b"EXEC", b"SET"])
@pytest.mark.parametrize("odd", ODD)
def test_a_reply_of_another_kind_is_a_failure_of_the_store(
    command: bytes, odd: str, between: Between, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No exception ends a router's start, its job of sharing, its end or a command: what the store does not do, or
    an ACL does not allow, is reported, and what the router has learned stays.
    """
    other, replica = Replica(between.url, 1), Replica(between.url, 2, timeout_s=0.2)
    other.learn(10)
    other.exchange()
    replica.learn(5)
    between.command, between.reply = command, ODD[odd]
    for change in changes(replica, monkeypatch).values():
        with suppress(NotDone):
            change()
    assert between.replaced
    assert 4 == len(replica.done)
    assert replica.responses >= 5
