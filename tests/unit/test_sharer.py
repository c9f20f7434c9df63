"""Sharing through a real store: what replicas learn from each other, and the effects of a store that fails."""

import asyncio
import dataclasses
import logging
import time

import pytest
from redis.asyncio.connection import AbstractConnection

from extproc.core.estimator.features import FEATURE_NAMES
from extproc.look_ups import run
from extproc.state.store import Store
from extproc.state.values import Base
from tests.unit.redis_server import RedisServer
from tests.unit.sharing_replica import TERMS, Replica, cut_off


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


def test_a_base_stays_as_old_as_it_is_when_another_replica_is_folded(server: RedisServer) -> None:
    """What replicas that have ended knew goes on fading, also where they end one after the other, as in rollouts:
    all that is known weighs as much as in one router that saw all responses.
    """
    first, second, other = (Replica(server.url, seed) for seed in range(3))

    def ends(replica: Replica) -> None:
        replica.exchange()
        key = f"{replica.sharer._store()._replica(replica.sharer._name)}"
        server.say("PEXPIRE", key, str(round(1e3 * (replica.settings.keep_s - 400))))
        other.exchange(2)

    first.learn(1_000)
    second.learn(20)
    ends(first)
    for _ in range(9):
        other.learn(100)
        other.exchange()
    ends(second)
    alone = Replica(server.url, name="alone")
    alone.learn(1_920)
    weights = [row.weight for each in (other, alone) for row in each.estimator.state().models if row.model == "m"]
    assert 1_920 == other.responses
    assert weights[0] == pytest.approx(weights[1], rel=0.02)


def test_what_is_known_is_as_old_after_a_rollout_as_before(server: RedisServer) -> None:
    """New replicas, which cannot know how far the base has faded, replace the old ones one after the other, and
    fold what these leave behind: all that is known weighs as much as in one router that saw all responses.
    """
    alone, seed = Replica(server.url, name="alone"), 0
    live = [Replica(server.url, 1), Replica(server.url, 2)]
    for _ in range(3):
        for replica in [*live] * 4:
            replica.learn(75)
            replica.exchange()
        live[0].exchange()
        alone.learn(600)
        for old in [*live]:
            new = Replica(server.url, seed := seed + 10)
            new.exchange()
            run(old.sharer.leave())
            live = [new, *(each for each in live if each is not old)]
            key = old.sharer._store()._replica(old.sharer._name)
            server.say("PEXPIRE", key, str(round(1e3 * (old.settings.keep_s - 500))))
            for replica in live * 2:
                replica.exchange()
    weights = [row.weight for each in (*live, alone) for row in each.estimator.state().models if row.model == "m"]
    assert [1_800] * 2 == [replica.responses for replica in live]
    assert [weights[2]] * 2 == pytest.approx(weights[:2], rel=0.02)


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
    server: RedisServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, fault: str
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

    with monkeypatch.context() as patched:
        patched.setattr("extproc.state.snapshot.MOST_COUNTED", 2**64)  # another program's, that writes any count
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
