"""Exchanges that overlap with folding, or fail halfway: what was not published stays a replica's own."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import TimeoutError as NoReply

from tests.unit.redis_server import RedisServer
from tests.unit.sharing_replica import Replica

SEND, READ = AbstractConnection.send_packed_command, AbstractConnection.read_response


@contextmanager
def before(command: bytes, act: Callable[[], None], after: int = 0) -> Iterator[None]:
    """Call `act`, which may use the store, once before this thread sends such a command, not the first `after`."""
    with pytest.MonkeyPatch.context() as patch:
        mine, times = threading.get_ident(), [0]

        async def send(self: AbstractConnection, packed: Any, *args: Any, **options: Any) -> None:
            if threading.get_ident() == mine and command in _joined(packed):
                times[0] += 1
                if times[0] == after + 1:
                    thread = threading.Thread(target=act)
                    thread.start()
                    thread.join()
            await SEND(self, packed, *args, **options)

        patch.setattr(AbstractConnection, "send_packed_command", send)
        yield
        assert times[0] > after, "the command was not sent"


@contextmanager
def failing(how: str) -> Iterator[None]:
    """Let a publication time out: `unsent`, it does not reach the store; `lost`, its reply does not come back."""
    with pytest.MonkeyPatch.context() as patch:
        losing: list[AbstractConnection] = []

        async def send(self: AbstractConnection, packed: Any, *args: Any, **options: Any) -> None:
            if b"\r\nSET\r\n" in _joined(packed):
                if how == "unsent":
                    raise NoReply
                losing.append(self)
            await SEND(self, packed, *args, **options)

        async def read(self: AbstractConnection, *args: Any, **options: Any) -> Any:
            reply = await READ(self, *args, **options)
            if self in losing:
                raise NoReply
            return reply

        patch.setattr(AbstractConnection, "send_packed_command", send)
        patch.setattr(AbstractConnection, "read_response", read)
        yield


def folding(replica: Replica) -> None:
    """Exchange, and fold every other replica."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("extproc.state.sharer.DEAD_AFTER", -1)
        replica.exchange()


def test_a_replica_that_is_folded_during_its_exchange_loses_nothing(server: RedisServer) -> None:
    """A slow store makes living replicas look dead: only what was in the store is in the base."""
    one, other = Replica(server.url, 1), Replica(server.url, 2)
    one.learn(30)
    one.exchange()
    one.learn(7)
    with before(b"\r\nSET\r\n", lambda: folding(other)):
        one.exchange()
    one.learn(5)
    settle(server, [one, other], 42)


@pytest.mark.parametrize(
    "faults", [["unsent"], ["lost"], ["unsent", "lost"], ["lost", "unsent"], ["lost"] + ["unsent"] * 7]
)
@pytest.mark.parametrize("published", ["before", "never"])
def test_a_replica_that_is_folded_after_failed_publications_loses_nothing(
    server: RedisServer, faults: list[str], published: str
) -> None:
    """Whichever of them the store got, what came later is still its own, and what came before counts once."""
    one, other = Replica(server.url, 1), Replica(server.url, 2)
    one.learn(30)
    if published == "before":
        one.exchange()
    for how in faults:
        one.learn(7)
        with failing(how):
            one.exchange()
    one.learn(5)
    folding(other)
    settle(server, [one, other], 35 + 7 * len(faults))
    assert [False] * len(faults) == [done for done in one.done if not done]


@pytest.mark.parametrize("after", [0, 1])
def test_a_replica_that_is_folded_while_it_ends_loses_nothing(server: RedisServer, after: int) -> None:
    """Its last words are published under another name, since those under a name in the base are not read."""
    one, other = Replica(server.url, 1), Replica(server.url, 2)
    one.learn(30)
    one.exchange()
    one.learn(7)
    with before(b"\r\nGET\r\n" if after == 0 else b"\r\nSET\r\n", lambda: folding(other)):
        asyncio.run(one.sharer.leave())
    settle(server, [other], 37)


def test_a_key_that_is_folded_while_it_is_read_is_not_reported(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """It has gone into the base between the two steps of a look: nothing is wrong with it, and nothing is lost."""
    one, other, new = (Replica(server.url, seed) for seed in range(3))
    one.learn(30)
    one.exchange()
    with before(b"GETRANGE", lambda: folding(other), after=1):
        new.exchange()
    settle(server, [other, new], 30)
    assert "cannot be read" not in caplog.text


def settle(server: RedisServer, replicas: list[Replica], responses: int) -> None:
    """Exchange until all replicas have read each other, and compare what they and a new one know."""
    new = Replica(server.url)
    for _ in range(3):
        for replica in (*replicas, new):
            replica.exchange()
    assert [responses] * (len(replicas) + 1) == [replica.responses for replica in (*replicas, new)]


def _joined(packed: bytes | list[bytes]) -> bytes:
    return packed if isinstance(packed, bytes) else b"".join(packed)
