"""Which requests leave an overloaded pool, where they go, and when they return."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.facts import Api, RequestFacts
from extproc.core.placing.budget import TokenBudget
from extproc.core.placing.fleet import Busy, Fleet, PoolLoad, Serving
from extproc.core.placing.policy import Pool
from extproc.core.placing.spill import Spilling, Spillover, SpillSettings, pressure

SETTINGS = SpillSettings(enabled=True, waiting_per_endpoint=10, kv_usage=0.9, release=0.5, ramp_s=2)
S, L = Pool("s", 100, 125), Pool("l", 10_000)
FREE, FULL = Busy(1, 0, 5, 0.2), Busy(1, 20, 5, 0.2)


def fleet(short: PoolLoad, long: PoolLoad | None) -> Fleet:
    """Return two pools with these loads."""
    return Fleet(Serving((S, L)), {"s": short} if long is None else {"s": short, "l": long})


def facts(question: str) -> RequestFacts:
    """Return a request of the conversation that begins with this question."""
    return RequestFacts(Api.CHAT, "m", b"system" + question.encode(), opening=question)


def budget(tokens: int) -> TokenBudget:
    """Return a budget that is known exactly."""
    return TokenBudget(tokens, tokens, 0, 1, tokens)


def moved(spillover: Spillover, state: Fleet, count: int = 1_000, home: Pool = S, tokens: int = 50) -> set[int]:
    """Return which of these conversations leave their home pool."""
    each = ((n, spillover.move(facts(f"question {n}"), "", budget(tokens), home, state)) for n in range(count))
    return {n for n, pool in each if pool is not home}


@pytest.mark.parametrize(
    ("busy", "expected"),
    [
        (Busy(2, 10, 9, 0.0), 0.5),
        (Busy(2, 20, 9, 0.0), 1.0),
        (Busy(1, 0, 9, 0.45), 0.5),
        (Busy(1, 0, 9, 0.9), 1.0),
        (Busy(1, 0, 9, 0.95), 1.5),
        (Busy(1, 0, 9, 1.0), 2.0),
        (Busy(1, 40, 9, 0.95), 4.0),
    ],
)
def test_the_fuller_of_two_gauges_is_the_pressure(busy: Busy, expected: float) -> None:
    """The gauges are the waiting requests per server, and the KV cache, whose limit is well below full."""
    assert expected == pytest.approx(pressure(PoolLoad(busy), SETTINGS))


def test_requests_placed_since_the_last_measurement_count() -> None:
    """Requests beyond those that a pool recently took without a queue count as waiting,
    and all their tokens will be in the cache.
    """
    load = PoolLoad(Busy(1, 0, 5, 0.45, kv_tokens=1_000), absorbs=5)
    assert [0.5, 0.5, 1.0] == [pressure(load, SETTINGS, requests) for requests in (0, 5, 15)]
    assert 1.0 == pytest.approx(pressure(load, SETTINGS, 1, tokens=450))


def test_after_a_single_measurement_each_new_request_counts_as_waiting() -> None:
    """How many requests a pool takes without a queue is only known from earlier measurements."""
    load = PoolLoad(Busy(1, 0, 5, 0.0))
    assert [0.0, 0.1, 1.0] == [pressure(load, SETTINGS, requests) for requests in (0, 1, 10)]


def shares(waiting: Sequence[int], every_s: float = 1.0) -> list[float]:
    """Return the share after each measurement of a pool with one server."""
    spilling = Spilling(SETTINGS)
    return [round(spilling.observe(Busy(1, each, 5, 0.0), (0, 0), every_s).share, 3) for each in waiting]


def test_the_share_rises_with_overload_and_no_faster_than_the_ramp() -> None:
    """At twice the limit everything leaves, but not before the ramp has passed;
    just above the limit it is a smaller part.
    """
    assert [0.5, 1.0, 1.0] == shares([20, 20, 40])
    assert [0.4, 0.4] == shares([11, 11])
    assert [0.1, 0.2] == shares([40, 40], every_s=0.2)


def test_an_overload_begins_above_the_limit_and_ends_below_the_release() -> None:
    """In between, an overload that has begun continues, with a share that falls with the pressure."""
    assert [0.0, 0.0, 0.4, 0.2, 0.067, 0.0, 0.0] == shares([9, 10, 11, 8, 6, 4, 9])


def shares_by_kv(usages: Sequence[float], waiting: int = 0) -> list[float]:
    """Return the share after each measurement of a pool with one server, in which a queue was just too long."""
    spilling = Spilling(SETTINGS)
    spilling.observe(Busy(1, 40, 5, 0.99), (0, 0), 0.4)  # a fifth leaves
    return [round(spilling.observe(Busy(1, waiting, 5, each), (0, 0), 0.1).share, 3) for each in usages]


def test_a_cache_in_ordinary_use_keeps_no_overload_going() -> None:
    """Without a queue, all return if the cache would be below its limit with those that leave: servers whose cache
    is more than half full are not overloaded for that.
    """
    assert [0.15, 0.1, 0.05, 0.0, 0.0] == shares_by_kv([0.6, 0.7, 0.8, 0.8, 0.8])


def test_an_overload_goes_on_while_those_that_leave_would_not_fit_or_some_wait() -> None:
    """The cache is below its limit only because a fifth of the requests leave, or because others wait."""
    assert 0.2 < shares_by_kv([0.73])[0]
    assert 0.2 == shares_by_kv([0.72], waiting=5)[0]


def test_all_have_returned_when_the_ramp_has_passed() -> None:
    """The share falls from 1 to 0 in two seconds."""
    assert [0.5, 1.0, 0.5, 0.0] == shares([40, 40, 0, 0])


@given(
    st.lists(
        st.tuples(st.integers(0, 10**12), st.floats(0, 1), st.integers(0, 10**6), st.floats(-10, 1e4)), max_size=30
    )
)
def test_for_any_measurements_a_share_is_between_0_and_1(measured: list[tuple[int, float, int, float]]) -> None:
    """Servers may report anything, and clocks may jump."""
    spilling = Spilling(SETTINGS)
    for waiting, kv_usage, requests, elapsed_s in measured:
        load = spilling.observe(Busy(3, waiting, 1, kv_usage), (requests, requests), elapsed_s)
        assert 0 <= load.share <= 1
        assert 0 <= load.absorbs


def test_switched_off_nothing_leaves() -> None:
    """Spillover is off by default; the pressure is still measured."""
    assert 0 == Spilling(SpillSettings()).observe(Busy(1, 10**6, 5, 1.0), (0, 0), 10).share


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_share_of_conversations_that_leaves_is_the_share(share: float) -> None:
    """The conversations' hashes are evenly distributed."""
    leaves = moved(Spillover(SETTINGS, b"salt"), fleet(PoolLoad(FULL, share=share), PoolLoad(FREE, absorbs=9_999)))
    assert share == pytest.approx(len(leaves) / 1_000, abs=0.05)


def test_routers_with_the_same_salt_move_the_same_conversations() -> None:
    """Two processes agree, and a larger share adds conversations to those of a smaller one."""
    free = PoolLoad(FREE, absorbs=9_999)
    states = [fleet(PoolLoad(FULL, share=share), free) for share in (0.3, 0.6)]
    few, many = (moved(Spillover(SETTINGS, b"salt"), state) for state in states)
    assert few == moved(Spillover(SETTINGS, b"salt"), states[0])
    assert few < many
    assert few != moved(Spillover(SETTINGS, b"other"), states[0])


def test_a_conversation_stays_where_it_has_gone_until_the_overload_has_ended() -> None:
    """A falling share brings no conversation back; the next overload starts from scratch."""
    spillover, free = Spillover(SETTINGS, b"salt"), PoolLoad(FREE, absorbs=99_999)
    left = moved(spillover, fleet(PoolLoad(FULL, share=0.6, episode=1), free))
    assert left == moved(spillover, fleet(PoolLoad(FULL, share=0.1, episode=1), free))
    assert set() == moved(spillover, fleet(PoolLoad(FREE, share=0.0, episode=1), free))
    again = moved(spillover, fleet(PoolLoad(FULL, share=0.1, episode=2), free))
    assert again < left
    assert len(again) < 200


def test_no_conversation_stays_in_a_pool_that_is_full_itself() -> None:
    """There is no longer an advantage for it there."""
    spillover = Spillover(SETTINGS, b"salt")
    home = PoolLoad(FULL, share=1.0, episode=1)
    assert 1_000 == len(moved(spillover, fleet(home, PoolLoad(FREE, absorbs=99_999))))
    assert set() == moved(spillover, fleet(home, PoolLoad(Busy(1, 11, 5, 0.2))))


@pytest.mark.parametrize(
    "long",
    [None, PoolLoad(Busy(1, 10, 5, 0.2)), PoolLoad(Busy(1, 500, 5, 0.2)), PoolLoad(Busy(1, 0, 5, 0.9))],
    ids=["unknown", "at its limit", "worse off", "cache full"],
)
def test_nothing_goes_to_a_pool_that_is_worse_off_or_unknown(long: PoolLoad | None) -> None:
    """The other pool's load must be known, below its limit, and lower."""
    assert set() == moved(Spillover(SETTINGS, b"salt"), fleet(PoolLoad(FULL, share=1.0), long))


def test_a_pool_that_looks_free_is_not_stampeded() -> None:
    """Requests sent there since then count: no more follow than it took before plus those that may wait."""
    spillover = Spillover(SETTINGS, b"salt")
    state = fleet(PoolLoad(FULL, share=1.0), PoolLoad(FREE, absorbs=5))
    left = 0
    for number in range(1_000):
        pool = spillover.move(facts(f"question {number}"), "", budget(50), S, state)
        spillover.count(pool.name, 50)
        left += pool is L
    assert 5 < left <= 15


def test_long_spills_to_short_only_what_fits_for_certain() -> None:
    """The bound has to fit the smaller pool's context, not only its threshold."""
    state = fleet(PoolLoad(FREE, absorbs=99_999), PoolLoad(FULL, share=1.0))
    spillover = Spillover(SETTINGS, b"salt")
    assert 1_000 == len(moved(spillover, state, home=L, tokens=125))
    assert set() == moved(spillover, state, home=L, tokens=126)


def test_capacity_is_checked_again_in_the_larger_pool() -> None:
    """No request moves to a pool that cannot hold it, even if that pool is nominally larger."""
    narrow = Fleet(
        Serving((S, L), {"s": {"m": 125}, "l": {"m": 60}}),
        {"s": PoolLoad(FULL, share=1.0), "l": PoolLoad(FREE, absorbs=9_999)},
    )
    spillover = Spillover(SETTINGS, b"salt")
    assert 100 == len(moved(spillover, narrow, count=100, tokens=60))
    assert set() == moved(spillover, narrow, count=100, tokens=61)


def test_a_request_leaves_only_for_pools_that_serve_its_model() -> None:
    """Of three pools, the next one is skipped in favour of the last."""
    pools = (S, Pool("m", 1_000, models=("other",)), L)
    free = PoolLoad(FREE, absorbs=9_999)
    state = Fleet(Serving(pools), {"s": PoolLoad(FULL, share=1.0), "m": free, "l": free})
    assert L is Spillover(SETTINGS, b"salt").move(facts("question"), "", budget(50), S, state)


def test_requests_without_text_leave_in_the_share_too() -> None:
    """Token ids do not identify a conversation, so such requests are spread evenly."""
    state = fleet(PoolLoad(FULL, share=0.3), PoolLoad(FREE, absorbs=9_999))
    spillover, ids = Spillover(SETTINGS, b"salt"), RequestFacts(Api.COMPLETIONS, "m", b"")
    left = sum(spillover.move(ids, "", budget(50), S, state) is L for _ in range(1_000))
    assert 300 == pytest.approx(left, abs=10)


@given(
    share=st.floats(0, 1),
    tokens=st.integers(1, 20_000),
    home=st.sampled_from([S, L]),
    waiting=st.tuples(st.integers(0, 50), st.integers(0, 50)),
)
def test_no_request_goes_where_it_does_not_fit(
    share: float, tokens: int, home: Pool, waiting: tuple[int, int]
) -> None:
    """For any loads, the pool that a request moves to holds its bound and has a lower load."""
    loads = [PoolLoad(Busy(1, each, 1, 0.0), share=share, absorbs=9_999) for each in waiting]
    pool = Spillover(SETTINGS, b"salt").move(facts("question"), "", budget(tokens), home, fleet(*loads))
    if pool is not home:
        assert tokens <= pool.context_tokens
        ours, theirs = (loads[0], loads[1]) if home is S else (loads[1], loads[0])
        assert pressure(theirs, SETTINGS) < min(pressure(ours, SETTINGS), 1)


def test_a_pool_that_claims_an_endless_queue_fills_no_other() -> None:
    """Simulated second by second, its neighbour never gets more than it took before plus those that may wait."""
    liar, neighbour = Spilling(SETTINGS), Spilling(SETTINGS)
    spillover = Spillover(SETTINGS, b"salt")
    waiting, serves = 0, 20
    for second in range(30):
        loads = [
            liar.observe(Busy(1, 10**9, 5, 0.2), spillover.placed("s"), 1.0),
            neighbour.observe(Busy(1, waiting, 5, 0.2), spillover.placed("l"), 1.0),
        ]
        before = spillover.placed("l")[0]
        for number in range(200):
            pool = spillover.move(facts(f"{second} {number}"), "", budget(50), S, fleet(*loads))
            spillover.count(pool.name, 50)
        waiting = max(waiting + spillover.placed("l")[0] - before - serves, 0)
        assert waiting <= SETTINGS.waiting_per_endpoint + 2 * serves
    assert spillover.placed("l")[0] > 100


def test_waiting_requests_count_even_if_the_pool_would_take_more() -> None:
    """Waiting requests do wait, however many more the pool would take without a queue by earlier measurements."""
    assert 0.5 == pressure(PoolLoad(Busy(1, 5, 5, 0.0), absorbs=9), SETTINGS)


def test_placed_requests_are_counted_from_zero() -> None:
    """Requests and their likeliest tokens are counted per pool, starting at 0."""
    spillover = Spillover(SETTINGS, b"salt")
    assert (0, 0) == spillover.placed("s")
    for tokens in (40, 2):
        spillover.count("s", tokens)
    assert [(2, 42), (0, 0)] == [spillover.placed(pool) for pool in ("s", "l")]


def test_each_overload_is_a_separate_episode() -> None:
    """It lasts until nothing leaves any more; the next one has another number."""
    spilling = Spilling(SETTINGS)
    episodes = [
        spilling.observe(Busy(1, waiting, 5, 0.0), (0, 0), 1.0).episode for waiting in (0, 40, 40, 0, 0, 40)
    ]
    none, first, still, ending, ended, second = episodes
    assert none != first == still == ending == ended != second


def test_an_overload_that_comes_back_before_all_have_returned_is_the_same() -> None:
    """Conversations that have left and not yet returned stay where they are: moving them again loses a cache."""
    spilling = Spilling(SETTINGS)
    loads = [spilling.observe(Busy(1, waiting, 5, 0.0), (0, 0), 1.0) for waiting in (40, 40, 0, 40)]
    assert [0.5, 1.0, 0.5, 1.0] == [load.share for load in loads]
    assert [1] * 4 == [load.episode for load in loads]


def test_a_conversation_is_identified_by_its_first_question_or_its_text() -> None:
    """The text before the question may change from turn to turn; a plain prompt has no question."""
    state = fleet(PoolLoad(FULL, share=0.5), PoolLoad(FREE, absorbs=9_999))

    def left(question: str, text: bytes) -> bool:
        asked = RequestFacts(Api.CHAT, "m", text, opening=question)
        return Spillover(SETTINGS, b"salt").move(asked, "", budget(50), S, state) is not S

    asked = [[left(f"question {n}", system) for n in range(200)] for system in (b"Monday", b"Tuesday, later")]
    assert asked[0] == asked[1]
    plain = [[left("", b"once upon a time %d" % n) for n in range(200)] for _ in range(2)]
    assert plain[0] == plain[1]
    assert [True, True] == [50 < sum(each) < 150 for each in (asked[0], plain[0])]


def test_at_first_a_pool_absorbs_as_many_as_run_if_none_wait() -> None:
    """How many requests it took before is not known yet."""
    assert [5, 0] == [Spilling(SETTINGS).observe(Busy(1, n, 5, 0.0), (7, 9), 1.0).absorbs for n in (0, 3)]


def test_a_pool_of_unknown_load_is_not_overloaded() -> None:
    """When its servers report again, an overload begins above the limit like any other."""
    spilling = Spilling(SETTINGS)
    assert 0.5 == spilling.observe(Busy(1, 40, 5, 0.0), (0, 0), 1.0).share
    spilling.lose()
    assert 0.0 == spilling.observe(Busy(1, 8, 5, 0.0), (0, 0), 1.0).share


@pytest.mark.parametrize(("kv_usage", "part"), [(0.45, 1.0), (0.675, 0.5), (0.855, 0.1)])
def test_a_pool_that_fills_takes_less_of_a_share(kv_usage: float, part: float) -> None:
    """It takes the full share up to half of its limit, and nothing at its limit."""
    state = fleet(PoolLoad(FULL, share=0.8), PoolLoad(Busy(1, 0, 5, kv_usage), absorbs=9_999))
    assert 0.8 * part == pytest.approx(len(moved(Spillover(SETTINGS, b"salt"), state)) / 1_000, abs=0.05)


def test_tokens_count_only_if_the_size_of_the_cache_is_known() -> None:
    """For a cache of unknown size, only its gauge counts."""
    assert 0.5 == pytest.approx(pressure(PoolLoad(Busy(1, 0, 5, 0.45)), SETTINGS, tokens=450))


def test_a_pool_absorbs_what_it_took_without_a_queue() -> None:
    """Of ten requests placed since, those that wait were too many; if none wait, there
    is room for as many more as are running.
    """
    for waiting, absorbs in ((0, 10 + 5), (3, 7), (12, 0)):
        spilling = Spilling(SETTINGS)
        spilling.observe(Busy(1, 0, 5, 0.0), (7, 0), 1.0)
        assert absorbs == spilling.observe(Busy(1, waiting, 5, 0.0), (17, 0), 1.0).absorbs


def test_a_shrinking_queue_does_not_add_to_what_a_pool_absorbs() -> None:
    """Requests that had waited before and started since are not counted among the ten."""
    spilling = Spilling(SETTINGS)
    spilling.observe(Busy(1, 12, 5, 0.0), (7, 0), 1.0)
    assert 10 == spilling.observe(Busy(1, 3, 5, 0.0), (17, 0), 1.0).absorbs
