"""How instances are picked: Envoy's rules applied to stated loads."""

from collections import Counter
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.planning.simulation.balancing import Balance, Balancing, make_balancer
from extproc.planning.simulation.instance import VllmInstance

PICKS = 20_000


def picked(balancing: Balancing, requests: list[int], tokens: list[int] | None = None) -> list[float]:
    """Return the share of picks per instance, for instances with these requests and unanswered tokens."""
    loads = zip(requests, tokens or [0] * len(requests), strict=True)
    instances = [SimpleNamespace(outstanding=n, unanswered_tokens=t) for n, t in loads]
    balancer = make_balancer(balancing, cast("list[VllmInstance]", instances), seed=1)
    for index in range(len(instances)):
        balancer.touched(index)
    counted = Counter(balancer.pick() for _ in range(PICKS))
    return [counted[index] / PICKS for index in range(len(instances))]


@pytest.mark.parametrize("choices", [1, 2, 3])
def test_least_request_looks_at_as_many_as_choice_count_says(choices: int) -> None:
    """The busiest of five is picked only if every draw hits it, the least busy if any draw does."""
    shares = picked(Balancing(Balance.LEAST_REQUEST, choices), [4, 3, 2, 1, 0])
    assert (1 / 5) ** choices == pytest.approx(shares[0], abs=0.01)
    assert 1 - (4 / 5) ** choices == pytest.approx(shares[4], abs=0.015)


def test_a_full_scan_picks_the_instance_with_the_fewest_requests() -> None:
    """The number of prompt tokens behind the requests does not matter."""
    assert [0, 0, 1] == picked(Balancing(Balance.FULL_SCAN), [5, 4, 3], [0, 10, 9_000])


def test_a_full_scan_draws_among_those_with_the_fewest_requests() -> None:
    """As Envoy does, whichever of them has had its requests for longest: that one may be in a long prefill."""
    assert [0, 1 / 3, 1 / 3, 0, 1 / 3] == pytest.approx(
        picked(Balancing(Balance.FULL_SCAN), [3, 1, 1, 2, 1]), abs=0.015
    )


@given(
    changes=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), max_size=30),
    start=st.lists(st.integers(0, 6)),
)
def test_a_full_scan_follows_every_change_of_the_loads(changes: list[tuple[int, int]], start: list[int]) -> None:
    """Whatever requests come and go, and by how many at once, it picks one of those with the fewest."""
    instances = [SimpleNamespace(outstanding=0) for _ in range(5)]
    balancer = make_balancer(Balancing(Balance.FULL_SCAN), cast("list[VllmInstance]", instances), seed=1)
    for index, load in [*enumerate(start[:5]), *changes]:
        instances[index].outstanding = load
        balancer.touched(index)
        assert min(each.outstanding for each in instances) == instances[balancer.pick()].outstanding


def test_unanswered_prompt_tokens_count_more_than_requests() -> None:
    """An instance with one long prompt awaiting its first token is passed
    over for one with many decoding requests.
    """
    assert [0, 1] == picked(Balancing(Balance.TOKENS), [1, 40], [30_000, 200])


def test_round_robin_takes_turns_whatever_the_loads() -> None:
    """Each of four instances gets a quarter of the requests."""
    assert [0.25] * 4 == picked(Balancing(Balance.ROUND_ROBIN), [9, 0, 0, 0])


def test_rules_are_named_as_envoy_names_them() -> None:
    """The plan prints these names."""
    names = [str(Balancing(rule)) for rule in Balance]
    assert ["LEAST_REQUEST, choice_count 2", "LEAST_REQUEST, FULL_SCAN"] == names[:2]
    assert "LEAST_REQUEST, choice_count 5" == str(Balancing(choices=5))
