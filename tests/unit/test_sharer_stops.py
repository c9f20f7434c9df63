"""Sharing through a real store: nothing counts twice, and nothing is lost at a stop."""

import asyncio
import dataclasses
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from extproc.core.estimator.protocol import LearnedState
from extproc.state.in_store import InStore
from extproc.state.settings import StoreSettings
from tests.unit.redis_server import RedisServer
from tests.unit.sharing_fleet import lesson
from tests.unit.sharing_replica import SETTINGS, Replica, cut_off


def test_the_last_changes_are_published_at_shutdown(server: RedisServer) -> None:
    """A replica that shuts down publishes what it learned since its last exchange."""
    one, new = Replica(server.url, 1), Replica(server.url)
    one.learn(10)
    one.exchange()
    one.learn(7)
    asyncio.run(one.sharer.leave())
    new.exchange()
    assert 17 == new.responses


def test_what_a_former_replica_knew_of_another_tokenizer_is_no_obstacle(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base has a tenant of a model whose prices were replaced since; the replicas go on sharing."""
    (_, one), new, rng = cut_off(server, monkeypatch), Replica(server.url, 3), np.random.default_rng(4)
    while not one.estimator.state().models[0].generation:
        lesson(rng, [one.estimator], ratio=1.2)
    for replica in (one, new, one):
        replica.exchange()
    assert ([True] * 4, [True]) == (one.done, new.done)
    lesson(rng, [one.estimator], ratio=1.2)
    for replica in (one, new):
        replica.exchange()
    assert one.responses == new.responses > 0


class _CutShort(Replica):
    """A replica that is stopped in an exchange: after some bites, nothing runs on the deciding thread any more."""

    bites = 1_000_000

    async def _ask(self, function: Callable[[], object]) -> object:
        if function == self.sharer._apply_next:
            if not self.bites:
                self.stopped.set()
                await asyncio.Event().wait()
            self.bites -= 1
        return function()

    def stop_after(self, bites: int) -> None:
        """Run the job until it has applied this many bites of an exchange, then end as a router does."""

        async def scenario() -> None:
            self.stopped, self.bites = asyncio.Event(), bites
            job = asyncio.create_task(self.sharer.job())
            await self.stopped.wait()
            job.cancel()
            await asyncio.gather(job, return_exceptions=True)

        asyncio.run(scenario())
        asyncio.run(self.sharer.leave())


@pytest.mark.parametrize("bites", [0, 1, 2])
def test_a_router_that_stops_during_an_exchange_publishes_nothing_twice(server: RedisServer, bites: int) -> None:
    """Whatever part of an exchange the estimator has, what others had learned is not published as its own."""
    other, stopped = Replica(server.url, 1), _CutShort(server.url, 2, every_s=0.05)
    for model in "mno":
        other.learn(30, model)
        stopped.learn(20, model)
    for replica in (other, stopped, other, stopped):
        replica.exchange()
    for model in "mno":
        other.learn(5, model)
    other.exchange()
    stopped.stop_after(bites)
    new = Replica(server.url)
    new.exchange()
    assert [55, 55, 55] == [row.observations for row in new.estimator.state().models]


def test_a_first_exchange_that_takes_too_long_is_completed_by_the_second(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change that was computed when the time was over is applied, not mistaken for what the router knows."""
    other, new = Replica(server.url, 1), Replica(server.url, 2)
    other.learn(30)
    other.exchange()
    compute, released = new.sharer._compute, threading.Event()

    def late(view: LearnedState) -> object:
        released.wait(10)
        return compute(view)

    monkeypatch.setattr(new.sharer, "_compute", late)
    monkeypatch.setattr("extproc.state.sharer.BEGINS_WITHIN_S", 0.2)
    threading.Timer(0.4, released.set).start()
    new.exchange()
    monkeypatch.undo()
    assert ([False], 0) == (new.done, new.responses)
    for replica in (new, other, new):
        replica.exchange()
    assert [30, 30] == [other.responses, new.responses]


@pytest.mark.parametrize("lost", ["flushed", "folded"])
def test_a_replica_whose_key_has_vanished_is_not_lost_at_shutdown(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """It ends before an exchange could find out, and publishes nevertheless: all, or what is not in the base."""
    one, other = Replica(server.url, 1), Replica(server.url, 2)
    one.learn(30)
    for replica in (one, other):
        replica.exchange()
    if lost == "flushed":
        server.say("FLUSHALL")
    else:
        monkeypatch.setattr("extproc.state.sharer.DEAD_AFTER", 0)
        other.exchange()
        monkeypatch.undo()
    one.learn(7)
    asyncio.run(one.sharer.leave())
    new = Replica(server.url)
    new.exchange()
    other.exchange()
    assert [37, 37] == [new.responses, other.responses]


def test_a_base_that_is_put_back_still_names_the_replicas_in_it(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica that was cut off, and folded, does not count twice if the store lost the base meanwhile."""
    away, other = cut_off(server, monkeypatch)
    other.exchange()
    server.say("FLUSHALL")
    other.exchange(2)
    for _ in range(3):
        away.exchange()
        other.exchange()
    assert [80, 80] == [away.responses, other.responses]


def test_a_store_that_is_set_back_counts_nothing_twice(
    server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It restarts from a snapshot in which a replica still has a key that has been folded since."""
    dead, *others = (Replica(server.url, seed) for seed in range(3))
    dead.learn(80)
    dead.exchange()
    assert server.say("SAVE").startswith(b"+OK")
    monkeypatch.setattr("extproc.state.sharer.DEAD_AFTER", 0)
    for _ in range(2):
        for replica in others:
            replica.exchange()
    monkeypatch.undo()
    server.kill()
    server.start()
    assert (tmp_path / "dump.rdb").exists()
    assert 1 == len(server.keys("*replica:*"))
    for replica in others * 3:
        replica.exchange()
        assert 80 == replica.responses
    monkeypatch.setattr("extproc.state.sharer.DEAD_AFTER", 0)
    others[0].exchange()
    monkeypatch.undo()
    new = Replica(server.url)
    for replica in (*others, new):
        replica.exchange()
    assert [80] * 3 == [replica.responses for replica in (*others, new)]


def test_an_added_state_of_another_generation_displaces_nothing(server: RedisServer) -> None:
    """It is left out, and named, as by a router without a store; other models are added."""
    one, elsewhere = Replica(server.url, 1), Replica(server.url, 2)
    one.learn(30)
    one.exchange()
    in_store = InStore(one.settings, SETTINGS)
    in_store.add(one.estimator.state())  # so that there is a base
    for model in "mn":
        elsewhere.learn(90, model)
    state = elsewhere.estimator.state()
    m, n = state.models
    said = in_store.add(dataclasses.replace(state, models=(dataclasses.replace(m, generation=1), n)))
    assert said.endswith("; left out 'm': a different generation than here, or no room (reset the model first)")
    one.exchange(2)
    assert [("m", 0, 60), ("n", 0, 90)] == sorted(
        (row.model, row.generation, row.observations) for row in one.estimator.state().models
    )


def test_an_import_whose_confirmation_is_lost_counts_once(server: RedisServer) -> None:
    """If the connection breaks after the store has made the change, the next attempt finds that it was made."""
    elsewhere, new = Replica(server.url, 1), Replica(server.url, 2)
    elsewhere.learn(30)
    with losing_a_confirmation(server, b"EXEC\r\n") as url:
        InStore(StoreSettings(url, timeout_s=30.0), SETTINGS).add(elsewhere.estimator.state())
    new.exchange()
    assert 30 == new.responses


def test_a_first_publication_whose_confirmation_is_lost_is_no_obstacle_to_the_last(server: RedisServer) -> None:
    """A replica that ends before its next exchange replaces what it wrote without knowing it."""
    new = Replica(server.url, 2)
    keep_ms = round(1e3 * new.settings.keep_s)
    with losing_a_confirmation(server, b"PX\r\n$9\r\n%d\r\n" % keep_ms) as url:  # the end of a SET
        one = Replica(url, 1)
        one.learn(10)
        one.exchange()
        one.learn(7)
        asyncio.run(one.sharer.leave())
    new.exchange()
    assert ([False, True], 17) == (one.done, new.responses)


@contextmanager
def losing_a_confirmation(server: RedisServer, ending: bytes) -> Iterator[str]:
    """Yield the URL of a proxy that once breaks the connection after a command with this end, before the reply."""

    def pass_on(client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", server.port)) as upstream, suppress(OSError):
            end = b""
            while asked := client.recv(1 << 20):
                end = (end + asked)[-len(ending) :]
                upstream.sendall(asked)
                # The client sends its next request only after the last reply.
                while select.select([client, upstream], [], [])[0] != [client]:
                    if not (answer := upstream.recv(1 << 20)):
                        return
                    if end == ending and not lost:
                        lost.append(answer)
                        return
                    client.sendall(answer)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=pass_on, args=listening.accept()[:1], daemon=True).start()

    lost: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=accept, daemon=True).start()
        yield f"redis://127.0.0.1:{listening.getsockname()[1]}/0"
    assert lost
