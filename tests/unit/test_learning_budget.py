"""The budget for learning, a token bucket of response messages."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.router.learning_budget import LearningBudget, LearningSettings


def test_learning_stays_within_its_budget_of_messages() -> None:
    """Admission is limited to the burst plus rate x time; young categories may overdraw, and the others wait."""
    budget = LearningBudget(LearningSettings(messages_per_s=10, burst_messages=100))
    assert budget.admit(100, young=False, now_s=0.0)
    assert not budget.admit(1, young=False, now_s=0.0)
    assert budget.admit(3, young=False, now_s=1.0)
    assert budget.admit(50, young=True, now_s=1.0)
    assert not budget.admit(3, young=False, now_s=4.0)
    assert budget.admit(3, young=False, now_s=6.0)


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 2_000), st.booleans()), max_size=60))
def test_the_budget_holds_for_any_arrivals(steps: list[tuple[float, int, bool]]) -> None:
    """For any arrivals messages stay within burst + rate x time, plus one more burst for young categories.

    The last stream admitted comes on top, since admission does not depend on its cost.
    """
    budget, now_s, spent = LearningBudget(LearningSettings(10, 100)), 0.0, 0
    for wait_s, messages, young in steps:
        now_s += wait_s
        spent += min(messages, 100) if budget.admit(messages, young=young, now_s=now_s) else 0
    assert spent <= (300 if any(young for _, _, young in steps) else 200) + 10 * now_s + 1e-6


def test_unused_messages_are_paid_back() -> None:
    """A stream reserves the most it may cost, at most a share of the burst, and is settled by its actual cost."""
    budget = LearningBudget(LearningSettings(messages_per_s=0, burst_messages=100))
    assert budget.admit(6_000, young=False, now_s=0.0)
    assert not budget.admit(3, young=False, now_s=0.0)
    budget.pay_back(6_000, used=40)
    assert budget.admit(60, young=False, now_s=0.0)
    assert not budget.admit(1, young=False, now_s=0.0)
    budget.pay_back(60, used=1_000)
    assert not budget.admit(1, young=False, now_s=0.0)


def test_messages_beyond_the_reserve_are_charged_at_the_end() -> None:
    """After a response with more messages than were reserved, others wait until the debt is paid."""
    budget = LearningBudget(LearningSettings(messages_per_s=10, burst_messages=100))
    assert budget.admit(3, young=False, now_s=0.0)
    budget.pay_back(3, used=150)
    assert not budget.admit(3, young=False, now_s=5.0)
    assert budget.admit(3, young=False, now_s=6.0)


@pytest.mark.parametrize("young", [True, False])
def test_an_empty_budget_admits_nothing(*, young: bool) -> None:
    """Without any budget no stream is kept, young or not."""
    budget = LearningBudget(LearningSettings(messages_per_s=0, burst_messages=0))
    assert not budget.admit(3, young=young, now_s=0.0)


def test_time_without_requests_saves_no_more_than_a_burst() -> None:
    """After a night without traffic at most one burst may be learned from at once."""
    budget = LearningBudget(LearningSettings(messages_per_s=10, burst_messages=100))
    assert budget.admit(50, young=False, now_s=0.0)
    assert budget.admit(100, young=False, now_s=86_400.0)
    assert not budget.admit(1, young=False, now_s=86_400.0)


def test_a_refund_does_not_exceed_a_burst() -> None:
    """The refund of an unused reserve is lost if the bucket has filled up in the meantime."""
    budget = LearningBudget(LearningSettings(messages_per_s=10, burst_messages=100))
    assert budget.admit(100, young=False, now_s=0.0)
    budget.pay_back(100, used=0)
    assert budget.admit(100, young=False, now_s=86_400.0)
    budget.pay_back(100, used=0)
    assert budget.admit(100, young=False, now_s=86_400.0)
    assert not budget.admit(1, young=False, now_s=86_400.0)


def test_the_debt_of_any_response_is_paid_in_the_time_of_a_burst() -> None:
    """No response can stop learning forever: the debt is at most one burst."""
    budget = LearningBudget(LearningSettings(messages_per_s=10, burst_messages=100))
    assert budget.admit(3, young=False, now_s=0.0)
    budget.pay_back(3, used=1_000_000)
    assert not budget.admit(100, young=False, now_s=10.0)
    assert budget.admit(100, young=False, now_s=10.1)


def test_the_young_overdraw_by_at_most_one_burst() -> None:
    """Tenant names come from clients, so learning from ever new ones has to be limited."""
    budget = LearningBudget(LearningSettings(messages_per_s=10, burst_messages=100))
    assert [True, True, False] == [budget.admit(100, key=key, young=True, now_s=0.0) for key in "abc"]
    assert not budget.admit(1, key="d", young=True, now_s=0.0)
    assert budget.admit(10, key="d", young=True, now_s=1.0)


def test_a_response_of_no_messages_is_not_admitted() -> None:
    """There is nothing to learn from it."""
    budget = LearningBudget(LearningSettings(messages_per_s=10, burst_messages=100))
    assert not budget.admit(0, young=False, now_s=0.0)
    assert budget.admit(100, young=False, now_s=0.0)


def test_no_more_streams_are_open_than_allowed() -> None:
    """At the maximum, a stream must end before another one is kept, however much budget is left."""
    budget = LearningBudget(LearningSettings(messages_per_s=1e6, burst_messages=1e6, max_streams=2))
    assert [True, True, False] == [budget.admit(3, key=key, young=True, now_s=0.0) for key in "abc"]
    budget.pay_back(3, 3, key="a")
    assert budget.admit(3, key="c", young=True, now_s=0.0)


@pytest.mark.parametrize("young", [True, False])
@pytest.mark.parametrize("other", [{"key": "b", "stratum": 1}, {"key": "a", "stratum": 2}])
def test_slow_streams_leave_slots_to_other_models_and_strata(other: dict[str, Any], *, young: bool) -> None:
    """Streams of one model and stratum that do not end hold half of the slots; those of another get the rest."""
    budget = LearningBudget(LearningSettings(messages_per_s=1e6, burst_messages=1e6, max_streams=24))
    slow = [budget.admit(60, key="a", stratum=1, young=young, now_s=float(at)) for at in range(200)]
    assert 12 == sum(slow)
    assert not budget.has_slot("a", 1)
    assert 6 == sum(budget.admit(60, **other, young=young, now_s=600.0) for _ in range(24))
    assert budget.admit(60, key="c", stratum=3, young=young, now_s=600.0)


def test_a_single_slot_goes_to_whoever_asks_first() -> None:
    """With one slot, one stream at a time is kept, whatever its model."""
    budget = LearningBudget(LearningSettings(max_streams=1))
    assert [True, False, False] == [budget.admit(3, key=key, young=True, now_s=0.0) for key in "aab"]


def test_no_stream_and_no_key_reserves_the_whole_budget() -> None:
    """A stream reserves at most an eighth of the burst, all open streams of a key half; settling frees it."""
    budget = LearningBudget(LearningSettings(messages_per_s=0, burst_messages=8_000))
    assert [True] * 4 + [False] == [budget.admit(60_000, key="a", young=True, now_s=0.0) for _ in range(5)]
    assert [True] * 4 + [False] == [budget.admit(60_000, key="b", young=False, now_s=0.0) for _ in range(5)]
    assert not budget.admit(1, key="c", young=False, now_s=0.0)  # all eight eighths are reserved
    budget.pay_back(60_000, used=2, key="a")
    assert budget.admit(60_000, key="a", young=True, now_s=0.0)


def test_a_stream_beyond_its_reserve_is_charged_in_full() -> None:
    """A stream that reserved an eighth of the burst and took half of it is charged the half."""
    budget = LearningBudget(LearningSettings(messages_per_s=0, burst_messages=8_000))
    assert budget.admit(4_000, key="a", young=False, now_s=0.0)
    budget.pay_back(4_000, used=4_000, key="a")
    taken = [budget.admit(1_000, key=str(key), young=False, now_s=0.0) for key in range(5)]
    assert [True] * 4 + [False] == taken


def test_invented_models_leave_others_their_share() -> None:
    """A client with a new model name and a huge output in each request gets half of the budget, not all."""
    budget, learned = LearningBudget(LearningSettings(messages_per_s=500, burst_messages=5_000)), 0
    for step in range(500):
        now_s = step / 50
        for _ in range(20):
            budget.admit(100_000, key="", young=True, now_s=now_s)
        if budget.admit(200, key="m", young=False, now_s=now_s):
            learned += 1
            budget.pay_back(200, used=5, key="m")
    assert 500 == learned


@pytest.mark.parametrize("burst", [300, 400])
def test_minimum_reserves_apply_to_a_small_burst(burst: int) -> None:
    """Even with a small burst, a stream may reserve 100 messages and a key 200."""
    budget = LearningBudget(LearningSettings(messages_per_s=0, burst_messages=burst))
    assert [True, True] == [budget.admit(6_000, key="a", young=True, now_s=0.0) for _ in range(2)]
    assert not budget.admit(1, key="a", young=True, now_s=0.0)
    others = [budget.admit(6_000, key=key, young=False, now_s=0.0) for key in ("b", "c")]
    assert [True, burst == 400] == others
    assert not budget.admit(1, key="d", young=False, now_s=0.0)


def test_no_stream_reserves_more_than_the_burst() -> None:
    """A burst below 100 can be reserved by a single stream, and is not too small for any."""
    budget = LearningBudget(LearningSettings(messages_per_s=10, burst_messages=50))
    assert budget.admit(6_000, key="a", young=False, now_s=0.0)
    assert not budget.admit(1, key="b", young=False, now_s=0.0)
    assert budget.admit(1, key="b", young=False, now_s=1.0)


def test_of_a_small_burst_a_stream_reserves_100_and_a_key_200() -> None:
    """The limits are exact."""
    budget = LearningBudget(LearningSettings(messages_per_s=0, burst_messages=300))
    demand = {"a": 6_000, "b": 99, "c": 100, "d": 1, "e": 1}
    taken = [budget.admit(messages, key=key, young=False, now_s=0.0) for key, messages in demand.items()]
    assert [True, True, True, True, False] == taken
    budget = LearningBudget(LearningSettings(messages_per_s=0, burst_messages=300))
    taken = [budget.admit(messages, key="a", young=False, now_s=0.0) for messages in (100, 99, 1, 1)]
    assert [True, True, True, False] == taken


def test_refunded_messages_do_not_count_towards_a_share() -> None:
    """A stratum whose reserves are refunded has taken nothing, and stays below its share."""
    budget = LearningBudget(LearningSettings(messages_per_s=0, burst_messages=1_000))
    assert all(budget.admit(100, key=str(key), stratum="b", young=False, now_s=0.0) for key in range(6))
    for _ in range(10):
        assert budget.admit(100, stratum="a", young=False, now_s=0.0)
        budget.pay_back(100, used=0, stratum="a")


def test_one_message_is_enough_for_a_stream() -> None:
    """A response of one message is admitted, and reserves one message until it is settled."""
    budget = LearningBudget(LearningSettings(messages_per_s=0, burst_messages=300))
    assert budget.admit(100, young=True, now_s=0.0)
    assert budget.admit(1, young=True, now_s=0.0)
    budget.pay_back(100, used=100)
    assert [True, True, False] == [budget.admit(messages, young=True, now_s=0.0) for messages in (100, 99, 1)]


def test_nothing_is_kept_of_a_key_without_streams() -> None:
    """Model names come from clients, so settled streams must not leave any memory in use."""
    budget = LearningBudget(LearningSettings())
    for number in range(100):
        assert budget.admit(3, key=str(number), young=True, now_s=0.0)
        budget.pay_back(3, used=3, key=str(number))
    budget.pay_back(0.5, used=0, key="never admitted")
    assert ({}, {}) == (budget._reserved, budget._open)


def test_each_stream_that_ends_makes_room_for_one() -> None:
    """When one of two open streams ends, exactly one more may begin."""
    budget = LearningBudget(LearningSettings(messages_per_s=1e6, burst_messages=1e6, max_streams=4))
    assert [True, True] == [budget.admit(3, young=True, now_s=0.0) for _ in range(2)]
    budget.pay_back(3, used=3)
    assert [True, False] == [budget.admit(3, young=True, now_s=0.0) for _ in range(2)]


def test_whether_a_response_is_learned_from_does_not_depend_on_its_length() -> None:
    """While one message is left a stream of 100 is admitted, and the excess is a debt."""
    budget = LearningBudget(LearningSettings(messages_per_s=0, burst_messages=1_000))
    assert all(budget.admit(100, key=str(key), young=False, now_s=0.0) for key in range(9))
    assert budget.admit(99, key="a", young=False, now_s=0.0)
    assert budget.admit(100, key="b", young=False, now_s=0.0)
    assert not budget.admit(1, key="c", young=False, now_s=0.0)
    budget.pay_back(100, used=1, key="b")
    assert not budget.admit(1, key="c", young=False, now_s=0.0)
    budget.pay_back(99, used=97, key="a")
    assert budget.admit(1, key="c", young=False, now_s=0.0)


def test_a_key_is_admitted_while_half_is_not_reserved() -> None:
    """The last stream of a key may take it above its half, however long it is; then no more are admitted."""
    budget = LearningBudget(LearningSettings(messages_per_s=0, burst_messages=8_000))
    taken = [
        budget.admit(messages, key="a", young=True, now_s=0.0) for messages in (1_000, 1_000, 1_000, 999, 9, 1)
    ]
    assert [True] * 5 + [False] == taken


def admitted(
    budget: LearningBudget, costs: dict[str, float], rounds: int, *, seconds: float, start_s: float = 0.0
) -> dict[str, int]:
    """Request one admission per stratum and round, settled at once; return how often each was admitted."""
    counts = dict.fromkeys(costs, 0)
    for number in range(rounds):
        for stratum, messages in costs.items():
            now_s = start_s + number * seconds / rounds
            if budget.admit(messages, stratum=stratum, young=False, now_s=now_s):
                counts[stratum] += 1
                budget.pay_back(messages, used=messages, stratum=stratum)
    return counts


def test_expensive_and_cheap_strata_get_equal_shares() -> None:
    """If two strata both demand more than there is, each gets half of the messages, whatever a response costs."""
    budget = LearningBudget(LearningSettings(messages_per_s=500, burst_messages=5_000))
    counts = admitted(budget, {"cheap": 50, "expensive": 500}, 4_000, seconds=200)
    spent = {"cheap": 50 * counts["cheap"], "expensive": 500 * counts["expensive"]}
    assert 0.4 * sum(spent.values()) < spent["expensive"] < 0.6 * sum(spent.values())
    assert 0.9 * 500 * 200 < sum(spent.values()) < 1.1 * (500 * 200 + 5_000)


def test_a_stratum_with_little_demand_gets_all_of_it() -> None:
    """A stratum below its share is always admitted, and the others get the rest."""
    budget = LearningBudget(LearningSettings(messages_per_s=500, burst_messages=5_000))
    counts = admitted(budget, {"json": 3, "stream": 300}, 2_000, seconds=100)
    assert 2_000 == counts["json"]
    assert 300 * counts["stream"] > 0.85 * 500 * 100 - 6_000


def test_a_stratum_without_demand_takes_no_share() -> None:
    """A single stratum may use the whole burst."""
    budget = LearningBudget(LearningSettings(messages_per_s=0, burst_messages=1_000))
    assert {"a": 10} == admitted(budget, {"a": 100}, 20, seconds=1)


def test_the_young_of_a_stratum_leave_others_half_of_the_overdraft() -> None:
    """A stratum above its share stops at half a burst of debt; another one may use the rest."""
    budget = LearningBudget(LearningSettings(messages_per_s=0, burst_messages=1_000))
    assert budget.admit(1, stratum="b", young=False, now_s=0.0)
    taken = [budget.admit(100, key=str(key), stratum="a", young=True, now_s=0.0) for key in range(20)]
    assert [True] * 15 + [False] * 5 == taken
    taken = [budget.admit(100, key=str(key), stratum="b", young=True, now_s=0.0) for key in range(20, 40)]
    assert [True] * 5 + [False] * 15 == taken


def test_a_stratum_with_a_miss_takes_precedence() -> None:
    """Such a stratum may use the rest of the bucket once, as if it had taken nothing."""
    budget = LearningBudget(LearningSettings(messages_per_s=0, burst_messages=1_000))
    assert budget.admit(1, stratum="b", young=False, now_s=0.0)
    assert {"a": 5} == admitted(budget, {"a": 100}, 20, seconds=1)
    budget.missed("a")
    assert {"a": 1} == admitted(budget, {"a": 100}, 20, seconds=1, start_s=1.0)
    budget.missed("never heard of")


def test_a_stratum_above_its_share_leaves_half_of_the_burst() -> None:
    """The other half is left for a stratum that comes later."""
    budget = LearningBudget(LearningSettings(messages_per_s=0, burst_messages=1_000))
    assert budget.admit(1, stratum="b", young=False, now_s=0.0)
    assert {"a": 5} == admitted(budget, {"a": 100}, 20, seconds=1)
    assert {"b": 5} == admitted(budget, {"b": 100}, 20, seconds=1, start_s=1.0)
