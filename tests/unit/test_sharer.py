"""Sharing through a real store: what replicas learn from each other, and the effects of a store that fails."""

import asyncio
import dataclasses
import logging
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import trustme
from redis.asyncio.connection import AbstractConnection

from extproc.core.estimator.byteclass import ByteClassEstimator
from extproc.core.estimator.features import FEATURE_NAMES
from extproc.core.estimator.protocol import Estimate, LearnedState
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.estimator.terms import Terms
from extproc.core.usage import Usage
from extproc.state.in_store import InStore
from extproc.state.settings import StoreSettings
from extproc.state.sharer import Sharer
from extproc.state.store import Store
from extproc.state.values import Base
from tests.unit.byteclass_lessons import WORDS, facts
from tests.unit.redis_server import RedisServer, redis_server

SETTINGS = EstimatorSettings()
TERMS = Terms.of(SETTINGS)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """Run an empty store."""
    with redis_server(tmp_path) as serving:
        yield serving


class Replica:
    """An estimator that shares, and performs the steps of a router's background task one at a time."""

    def __init__(self, url: str, seed: int = 0, **settings: object) -> None:
        self.done: list[bool] = []
        self.replicas = 0
        self.estimator = ByteClassEstimator(SETTINGS)
        # Each exchange runs in a new event loop, so it makes a new connection.
        self.settings = StoreSettings(url, **{"timeout_s": 30.0, "every_s": 60.0, **settings})  # type: ignore[arg-type]
        self.sharer = Sharer(self.settings, TERMS, self.estimator, self._ask, self)
        self._rng = np.random.default_rng(seed)

    async def _ask(self, function: Callable[[], object]) -> object:
        return function()

    def state_saved(self, *, done: bool) -> None:
        """Ignore: nothing is saved here."""

    def state_exchanged(self, *, done: bool, replicas: int) -> None:
        """Record the outcome of an exchange."""
        self.done.append(done)
        self.replicas = replicas

    def learn(self, count: int, model: str = "m") -> None:
        """Learn from this many responses."""
        for _ in range(count):
            text = (WORDS * 42)[self._rng.integers(0, 50) :][: int(self._rng.integers(200, 4_000))]
            usage = Usage(max(1, round(len(text) / 4 * self._rng.normal(1, 0.03))), 50)
            self.estimator.observe(self.estimator.estimate(facts(text, model=model), "tenant"), usage)

    def exchange(self, times: int = 1) -> None:
        """Exchange this many times."""
        for _ in range(times):
            self.sharer.first()

    @property
    def responses(self) -> int:
        """The number of responses of model m that it has learned from, directly or through others."""
        return sum(row.observations for row in self.estimator.state().models if row.model == "m")

    def guess(self) -> Estimate:
        """Return the estimate of a fixed request."""
        return self.estimator.estimate(facts((WORDS * 42)[:1_500]), "tenant")


def test_a_new_replica_begins_with_what_the_others_know(server: RedisServer) -> None:
    """After one exchange it estimates as they do, and they do not count its copy again."""
    one, other = Replica(server.url, 1), Replica(server.url, 2)
    one.learn(100)
    one.exchange()
    other.learn(50)
    other.exchange()
    one.exchange()
    new = Replica(server.url)
    new.exchange()
    for replica in (one, other, new):
        replica.exchange(3)
        assert replica.responses == 150
    assert new.replicas == 2
    assert new.guess().prompt_bound == pytest.approx(one.guess().prompt_bound, rel=0.02)


def test_a_dead_replica_is_folded_once(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it learned is kept, whichever replica folds it and however often the others exchange."""
    dead, *others = (Replica(server.url, seed) for seed in range(3))
    dead.learn(80)
    dead.exchange()
    for replica in others:
        replica.learn(20)
        replica.exchange()
    monkeypatch.setattr("extproc.state.sharer.DEAD_AFTER", 0)
    for _ in range(4):
        for replica in others:
            replica.exchange()
    monkeypatch.undo()
    new = Replica(server.url)
    for replica in (*others, new, *others, new):
        replica.exchange()
    assert [120] * 3 == [replica.responses for replica in (*others, new)]
    assert 0 < new.replicas < 3


@pytest.mark.parametrize(("silent_s", "left"), [(350, 1), (370, 0)])
def test_a_replica_is_dead_after_six_intervals(server: RedisServer, silent_s: int, left: int) -> None:
    """Until then it may only be late."""
    dead, other = Replica(server.url), Replica(server.url, 1)
    dead.learn(20)
    dead.exchange()
    (key,) = server.keys("*replica:*")
    server.say("PEXPIRE", key, str(round(1e3 * (dead.settings.keep_s - silent_s))))
    other.exchange()
    assert left == server.keys("*replica:*").count(key)


def test_what_a_flushed_store_has_lost_is_used_for_six_more_intervals(server: RedisServer) -> None:
    """A replica that is alive publishes again by then; one that is not is forgotten."""
    gone, other = Replica(server.url), Replica(server.url, 1)
    gone.learn(20)
    gone.exchange()
    other.exchange()
    server.say("FLUSHALL")
    used = []
    for _ in range(8):
        other.exchange()
        used.append(other.replicas)
    assert [1] * 6 + [0] * 2 == used


def test_a_base_that_has_faded_is_written_back(server: RedisServer) -> None:
    """Otherwise a replica that starts later would begin with what the others have long replaced."""
    taught, replica = Replica(server.url), Replica(server.url, 1)
    taught.learn(60)
    replica.estimator.load(taught.estimator.state())
    replica.sharer.begin_with(replica.estimator.state())
    replica.exchange(2)
    (base,) = server.keys("*base")
    before = server.say("GET", base)
    replica.exchange()
    assert before == server.say("GET", base)
    replica.learn(1_500)
    replica.exchange(2)
    assert before != server.say("GET", base)


def cut_off(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> tuple[Replica, Replica]:
    """Return a replica that has learned from 80 responses and was taken for dead, and the one that folded it."""
    away, other = Replica(server.url, 1), Replica(server.url, 2)
    away.learn(80)
    away.exchange()
    monkeypatch.setattr("extproc.state.sharer.DEAD_AFTER", 0)
    other.exchange(2)
    monkeypatch.undo()
    return away, other


def test_a_replica_that_was_cut_off_comes_back_under_another_name(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it had published is in the base, what it learned meanwhile is its own, and nothing counts twice."""
    away, other = cut_off(server, monkeypatch)
    away.learn(15)
    away.exchange()
    for _ in range(3):
        other.exchange()
        away.exchange()
    assert [95, 95] == [away.responses, other.responses]


def test_learning_continues_without_the_store_and_is_shared_when_it_is_back(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """After the store is killed and restarted empty, one line reports the failure and one the recovery,
    and both replicas know everything again.
    """
    one, other = Replica(server.url, 1), Replica(server.url, 2)
    one.learn(40)
    for replica in (one, other):
        replica.exchange()
    with caplog.at_level(logging.INFO, "dualpool"):
        server.kill()
        one.learn(10)
        one.exchange(3)
        assert 50 == one.responses
        server.start()
        for _ in range(3):
            one.exchange()
            other.exchange()
    assert [50, 50] == [one.responses, other.responses]
    assert [True, False, False, False, True, True, True] == one.done
    said = [record.getMessage() for record in caplog.records]
    assert ["learned state is not shared: the store failed", "learned state is shared again"] == said


def test_a_flushed_store_is_filled_again(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicas lose nothing when the store does, neither their own state nor that in the base."""
    dead, one, other = (Replica(server.url, seed) for seed in range(3))
    dead.learn(30)
    dead.exchange()
    monkeypatch.setattr("extproc.state.sharer.DEAD_AFTER", 0)
    one.exchange()
    monkeypatch.undo()
    for replica in (one, other):
        replica.learn(20)
        replica.exchange()
    one.exchange()
    other.exchange()
    assert server.say("FLUSHALL").startswith(b"+OK")
    for _ in range(3):
        one.exchange()
        other.exchange()
    new = Replica(server.url)
    new.exchange()
    assert [70, 70, 70] == [replica.responses for replica in (one, other, new)]


def test_a_silent_store_is_given_up_in_time(tmp_path: Path) -> None:
    """A port that accepts and never answers costs the timeout, and nothing learned is lost."""
    with socket.socket() as hole:
        hole.bind(("127.0.0.1", 0))
        hole.listen()
        replica = Replica(f"redis://127.0.0.1:{hole.getsockname()[1]}/0", timeout_s=0.05)
        replica.learn(10)
        replica.exchange()
    assert [False] == replica.done
    assert 10 == replica.responses


def test_a_store_whose_client_loses_the_cancellation_delays_no_start(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In Python 3.11 a client in asyncio.wait_for may not notice that it is cancelled: it is cancelled again."""
    monkeypatch.setattr("extproc.state.sharer.BEGINS_WITHIN_S", 0.01)
    lost: list[int] = []

    async def look(_: Store, excluding: str) -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if lost:
                    raise
                lost.append(len(excluding))

    monkeypatch.setattr(Store, "look", look)
    replica = Replica(server.url, timeout_s=60)
    replica.exchange()
    assert ([False], 1) == (replica.done, len(lost))


def test_a_router_does_not_wait_long_for_a_store_at_startup_or_shutdown(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The wait is short even if timeout_s is long: workers that do not start
    in time are considered broken and killed.
    """
    monkeypatch.setattr("extproc.state.sharer.BEGINS_WITHIN_S", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as hole:
        replica = Replica(f"redis://127.0.0.1:{hole.getsockname()[1]}", timeout_s=60)
        replica.exchange()
        asyncio.run(replica.sharer.leave())
    assert [False, False] == replica.done
    assert "TimeoutError: no answer in 0.01 s" == caplog.records[0].__dict__["fields"]["cause"]


@pytest.mark.parametrize(
    "reply", [b":abc\r\n", b"$-5\r\n", b"*1\r\n" * 500, b"HTTP/1.1 400 Bad Request\r\n\r\n", b"+OK\r\n", b"\r\n"]
)
def test_a_store_that_answers_nonsense_counts_as_unavailable(reply: bytes) -> None:
    """Invalid numbers, negative lengths, endless lists, other protocols: a router starts without the store."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection, suppress(OSError):
                while connection.recv(65_536):
                    connection.sendall(reply)

        threading.Thread(target=answer, daemon=True).start()
        replica = Replica(f"redis://127.0.0.1:{listening.getsockname()[1]}", timeout_s=0.05)
        replica.learn(5)
        replica.exchange()
    assert ([False], 5) == (replica.done, replica.responses)


def test_a_full_store_is_reported_and_still_read(server: RedisServer) -> None:
    """If nothing can be written, what others wrote before is still used."""
    one, other = Replica(server.url, 1), Replica(server.url, 2)
    one.learn(30)
    one.exchange()
    assert server.say("CONFIG", "SET", "maxmemory", "1").startswith(b"+OK")
    other.learn(5)
    other.exchange()
    assert [False] == other.done
    assert 35 == other.responses
    server.say("CONFIG", "SET", "maxmemory", "0")
    other.exchange(2)
    one.exchange()
    assert 35 == one.responses


def test_a_store_that_refuses_all_writes_is_still_read(server: RedisServer) -> None:
    """What others have published is used even if a lost base or an expired replica's name asks for a write."""
    taught, first, other = (Replica(server.url, seed) for seed in range(3))
    taught.learn(60)
    first.estimator.load(taught.estimator.state())
    first.sharer.begin_with(first.estimator.state())
    first.exchange(2)
    other.learn(30)
    other.exchange()
    (base,) = server.keys("*base")
    server.say("SADD", base.replace("base", "replicas"), "expired")
    server.say("DEL", base)
    server.say("CONFIG", "SET", "min-replicas-to-write", "1")
    new = Replica(server.url, 3)
    for replica in (first, new):
        replica.exchange()
    assert ([True, True, False], [False]) == (first.done, new.done)
    assert [90, 30] == [first.responses, new.responses]
    server.say("CONFIG", "SET", "min-replicas-to-write", "0")
    for replica in (first, new):
        replica.exchange()
    assert [90, 90] == [first.responses, new.responses]
    assert b":0" in server.say("SISMEMBER", base.replace("base", "replicas"), "expired")


def test_a_wrong_password_is_reported_and_a_corrected_one_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The file is read for each connection, so a password can be changed without a restart."""
    password = tmp_path / "password"
    password.write_text("wrong\n")
    with redis_server(tmp_path, "--requirepass", "right") as server:
        replica = Replica(server.url, password_file=str(password))
        replica.exchange()
        assert "right" not in caplog.text
        password.write_text("right\n")
        replica.exchange()
    assert [False, True] == replica.done


def test_sending_a_password_logs_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each interval may make a connection; the client library must not log a warning for each."""
    password = tmp_path / "password"
    password.write_text("right")
    with redis_server(tmp_path, "--requirepass", "right") as server:
        replica = Replica(server.url, username="default", password_file=str(password))
        replica.exchange()
    assert [True] == replica.done
    assert [] == [record.getMessage() for record in caplog.records]


def test_a_binary_password_file_is_reported(server: RedisServer, tmp_path: Path) -> None:
    """A file made by `head -c 32 /dev/urandom` does not keep a router from serving."""
    (tmp_path / "password").write_bytes(b"\xff\xfe")
    replica = Replica(server.url, password_file=str(tmp_path / "password"))
    replica.exchange()
    assert [False] == replica.done


def test_a_missing_password_file_is_reported(server: RedisServer, tmp_path: Path) -> None:
    """It counts as a failure of the store like any other."""
    replica = Replica(server.url, password_file=str(tmp_path / "none"))
    replica.exchange()
    assert [False] == replica.done


def test_the_store_is_reached_over_tls(tmp_path: Path) -> None:
    """A certificate of the configured authority is accepted, one of another authority is not."""
    authority, other = trustme.CA(), trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    other.cert_pem.write_to_path(tmp_path / "other.pem")
    files = ["--tls-cert-file", str(tmp_path / "cert.pem"), "--tls-key-file", str(tmp_path / "key.pem")]
    with redis_server(tmp_path, "--tls-port", "PORT", *files, "--tls-auth-clients", "no") as server:
        url = server.url.replace("redis:", "rediss:")
        replicas = [Replica(url, ca_file=str(tmp_path / name)) for name in ("ca.pem", "other.pem")]
        for replica in replicas:
            replica.exchange()
    assert [[True], [False]] == [replica.done for replica in replicas]


@pytest.mark.parametrize("what", [("SET", "what is this"), ("RPUSH", "a", "list"), ("HSET", "a", "hash")])
def test_a_key_that_is_not_a_state_is_reported_and_skipped(
    server: RedisServer, caplog: pytest.LogCaptureFixture, what: tuple[str, ...]
) -> None:
    """A key with foreign content is not read, and does not prevent the others from being read."""
    one, other = Replica(server.url, 1), Replica(server.url, 2)
    one.learn(30)
    one.exchange()
    prefix = Store(one.settings, TERMS, FEATURE_NAMES)._prefix
    server.say("SADD", f"{prefix}replicas", "stranger")
    server.say(what[0], f"{prefix}replica:stranger", *what[1:])
    server.say(what[0], f"{prefix}base", *what[1:])
    other.exchange(2)
    assert ([True, True], 30) == (other.done, other.responses)
    assert 1 == caplog.text.count("some keys in the store cannot be read")


@pytest.mark.parametrize("fault", ["sums", "counts", "spread", "bins", "twice"])
def test_a_base_that_no_exchange_could_use_is_reported_and_skipped(
    server: RedisServer, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    """An undamaged message with impossible numbers does not keep replicas from starting, or from sharing."""
    one, other = Replica(server.url, 1), Replica(server.url, 2)
    one.learn(30)
    one.exchange()
    state = one.estimator.state()
    model, output = state.models[0], state.outputs[0]
    changed = {
        "sums": {"models": (dataclasses.replace(model, sums_a=model.sums_a[:-8]),)},
        "counts": {"models": (dataclasses.replace(model, observations=2**63),)},
        "spread": {"categories": tuple(dataclasses.replace(row, spread=1e200) for row in state.categories)},
        "bins": {"outputs": (dataclasses.replace(output, ended=output.ended[8:], cut=output.cut[8:]),)},
        "twice": {"models": (model, model)},
    }[fault]
    base = Base(dataclasses.replace(state, **changed))  # type: ignore[arg-type]

    async def write() -> None:
        store = Store(one.settings, TERMS, FEATURE_NAMES)
        await store.begin_base(base)
        await store.close()

    asyncio.run(write())
    for replica in (one, other):
        replica.learn(5)
        replica.exchange(2)
    one.exchange()
    assert ([True] * 4, [True] * 2) == (one.done, other.done)
    assert [40, 40] == [one.responses, other.responses]
    assert 2 == caplog.text.count("some keys in the store cannot be read")


def test_a_state_from_a_file_becomes_the_base_of_an_empty_store(server: RedisServer) -> None:
    """One of the replicas that start from files publishes the state for all; it counts once."""
    taught = Replica(server.url)
    taught.learn(60)
    begun = [Replica(server.url, seed) for seed in (1, 2)]
    for replica in begun:
        replica.estimator.load(taught.estimator.state())
        replica.sharer.begin_with(replica.estimator.state())
    for _ in range(3):
        for replica in begun:
            replica.exchange()
    new = Replica(server.url)
    new.exchange()
    assert [60, 60, 60] == [replica.responses for replica in (*begun, new)]


def test_a_file_counts_nothing_twice_that_the_store_has(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed replica that starts again from its file finds what that holds in the store, without a base."""
    killed, other = Replica(server.url, 1), Replica(server.url, 2)
    killed.learn(30)
    other.learn(20)
    for _ in range(2):
        killed.exchange()
        other.exchange()
    again = Replica(server.url, 3)
    again.estimator.load(killed.estimator.state())
    again.sharer.begin_with(again.estimator.state())
    for _ in range(2):
        again.exchange()
        other.exchange()
    assert [50, 50] == [again.responses, other.responses]
    monkeypatch.setattr("extproc.state.sharer.DEAD_AFTER", 0)
    other.exchange()
    monkeypatch.undo()
    again.learn(5)
    for _ in range(3):
        again.exchange()
        other.exchange()
    assert [55, 55] == [again.responses, other.responses]


def test_reading_more_replicas_takes_no_more_round_trips(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a router that starts far from the store would not have read a large fleet's knowledge in time."""
    sent: list[object] = []
    send = AbstractConnection.send_packed_command

    async def counted(self: AbstractConnection, command: object, *more: object, **options: object) -> None:
        sent.append(command)
        await send(self, command, *more, **options)  # type: ignore[arg-type]

    trips = []
    for count in (2, 5):
        for seed in range(count):
            replica = Replica(server.url, seed)
            replica.learn(10)
            replica.exchange()
        new = Replica(server.url)
        with monkeypatch.context() as patched:
            patched.setattr(AbstractConnection, "send_packed_command", counted)
            sent.clear()
            new.exchange()
        trips.append(len(sent))
    assert (70, trips[0]) == (new.responses, trips[1])


def test_the_last_changes_are_published_at_shutdown(server: RedisServer) -> None:
    """A replica that shuts down publishes what it learned since its last exchange."""
    one, new = Replica(server.url, 1), Replica(server.url)
    one.learn(10)
    one.exchange()
    one.learn(7)
    asyncio.run(one.sharer.leave())
    new.exchange()
    assert 17 == new.responses


@pytest.mark.parametrize("jump_s", [-3_600, 3_600])
def test_the_stores_clock_may_jump(server: RedisServer, jump_s: int) -> None:
    """Live replicas that appear an hour older are folded and continue
    under other names; everything counts once.
    """
    replicas = [Replica(server.url, seed) for seed in range(3)]
    for replica in replicas:
        replica.learn(20)
        replica.exchange()
    for key in server.keys("*"):
        server.say("PEXPIRE", key, str(round(1e3 * (replicas[0].settings.keep_s - jump_s))))
    for _ in range(4):
        for replica in replicas:
            replica.learn(1)
            replica.exchange()
    for replica in (*replicas, *replicas):
        replica.exchange()
    assert [72] * 3 == [replica.responses for replica in replicas]


def test_the_local_clock_may_jump(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing depends on the time of day: jumping back and forth by an hour between exchanges changes nothing."""
    one, other = Replica(server.url, 1), Replica(server.url, 2)
    now = time.time()
    for step in range(6):
        monkeypatch.setattr("time.time", lambda step=step: now + 3_600 * (-1) ** step)
        for replica in (one, other):
            replica.learn(10)
            replica.exchange()
    monkeypatch.undo()
    one.exchange()
    assert [120, 120] == [one.responses, other.responses]
    assert all(one.done)


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
                    answer = upstream.recv(1 << 20)
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
