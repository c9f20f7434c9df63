"""Sharing through a real store: who knows how old the base is, and what those do that do not."""

from math import inf

import pytest

from extproc.core.estimator.protocol import LearnedState
from extproc.core.estimator.state_tables import tables_of
from extproc.look_ups import run
from extproc.state.values import bytes_of
from tests.unit.redis_server import RedisServer
from tests.unit.sharing_replica import TERMS, Replica


def begun(server: RedisServer) -> Replica:
    """Return a replica that began the store's base with what it knew, and has looked on since."""
    taught, replica = Replica(server.url), Replica(server.url, 1)
    taught.learn(60)
    replica.estimator.load(taught.estimator.state())
    replica.sharer.begin_with(replica.estimator.state())
    replica.exchange(2)
    return replica


def silent(server: RedisServer, replica: Replica, for_s: int) -> str:
    """Let a replica have published nothing for so long; return its key."""
    key = str(replica.sharer._store()._replica(replica.sharer._name))
    server.say("PEXPIRE", key, str(round(1e3 * (replica.settings.keep_s - for_s))))
    return key


@pytest.mark.parametrize(("silent_s", "left"), [(370, 1), (470, 1), (490, 0)])
def test_a_new_replica_leaves_folding_to_those_who_know_how_far_the_base_has_faded(
    server: RedisServer, silent_s: int, left: int
) -> None:
    """It reads the base as if it were new, and waits for eight intervals instead of six."""
    key = silent(server, begun(server), silent_s)
    new = Replica(server.url, 2)
    new.exchange(2)
    assert left == server.keys("*replica:*").count(key)


def test_a_replica_that_starts_alone_has_nobody_to_leave_folding_to(server: RedisServer) -> None:
    """Nobody was there to see how far the base had faded, so it counts as new."""
    gone = begun(server)
    server.say("DEL", silent(server, gone, 1))
    first, then = Replica(server.url, 2), Replica(server.url, 3)
    first.exchange()
    then.learn(5)
    then.exchange()
    key = silent(server, then, 370)
    first.exchange()
    assert key not in server.keys("*replica:*")


def test_a_new_replica_that_leaves_does_not_make_the_base_young_again(server: RedisServer) -> None:
    """Those that stay know better how far it has faded than one that has just read it."""
    begun(server)
    (key,) = server.keys("*base")
    before = server.say("GET", key)
    new = Replica(server.url, 2)
    new.exchange()
    new.learn(10)
    new.exchange()
    run(new.sharer.leave())
    assert before == server.say("GET", key)


def test_a_replica_that_leaves_without_an_exchange_writes_no_base(server: RedisServer) -> None:
    """What its file holds is what the others have learned: as the base it would count twice."""
    other, late = Replica(server.url), Replica(server.url, 1)
    other.learn(60)
    other.exchange()
    late.estimator.load(other.estimator.state())
    late.sharer.begin_with(late.estimator.state())
    run(late.sharer.leave())
    other.exchange()
    assert [] == server.keys("*base")
    assert other.responses == 60


def test_what_has_faded_of_a_base_that_was_replaced_is_not_folded_into_its_successor(server: RedisServer) -> None:
    """Another replica may have replaced it between the look and the fold; then the stored one counts."""
    replica, gone = begun(server), Replica(server.url, 2)
    gone.learn(20)
    gone.exchange()
    silent(server, gone, 400)

    async def fold() -> None:
        store = replica.sharer._store()
        assert await store.fold([gone.sharer._name], dead_s=360, faded=(b"of another", LearnedState("")))
        await store.close()

    run(fold())
    new = Replica(server.url, 3)
    new.exchange()
    assert new.responses == 80


def test_replicas_that_were_idle_for_long_leave_nothing_behind_that_counts(server: RedisServer) -> None:
    """Their knowledge has faded to rounding errors by the time that they are folded; the others learn on."""
    busy, *idle = (Replica(server.url, seed) for seed in range(4))
    for replica in idle:
        replica.learn(20)
        replica.exchange()
    for _ in range(50):
        busy.learn(50)
        for replica in (busy, *idle):
            replica.exchange()
    before = busy.estimator.state().models[0].residual
    for replica in idle:
        silent(server, replica, 400)
        busy.exchange(2)
    assert 1 == len(server.keys("*replica:*"))
    new = Replica(server.url, 5)
    new.exchange()
    for replica in (busy, new):
        assert before == pytest.approx(replica.estimator.state().models[0].residual, abs=1e-6)
        replica.learn(10)


@pytest.mark.parametrize(("column", "mean"), [(2, 30.0), (2, -1e9), (3, 1e6)])
def test_what_no_responses_make_does_not_keep_a_silent_replica_from_being_folded(
    server: RedisServer, column: int, mean: float
) -> None:
    """A broken replica's residuals are folded as the largest ones that are read, and the base stays readable."""
    broken, busy = Replica(server.url, 1), Replica(server.url, 2)
    broken.learn(20)
    tables = tables_of(broken.estimator.state(), TERMS)
    tables.categories.values[:, column] = mean * tables.categories.weights

    async def publish() -> None:
        store = broken.sharer._store()
        await store.publish(broken.sharer._name, bytes_of(tables), new=True)
        await store.close()

    run(publish())
    silent(server, broken, 400)
    busy.learn(20)
    busy.exchange(2)
    assert busy.done == [True, True]
    assert 1 == len(server.keys("*replica:*"))
    new = Replica(server.url, 3)
    new.exchange()
    assert new.responses == 40
    assert new.guess().prompt_bound < inf
