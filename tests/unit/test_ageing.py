"""How old a replica's own knowledge is while others learn: together they are as one router that saw all."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.core.estimator.ageing import Fading, Others, Own
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.estimator.tables import Table, Terms

KEPT = 0.998
FADING = Fading(lambda _, since: np.power(KEPT, since), (1 / (1 - KEPT),))
TERMS = Terms.of(EstimatorSettings())


class Summing:
    """Replicas that each keep one fading sum, and exchange their own for those of all."""

    def __init__(self, replicas: int) -> None:
        self.views = [Table({"k": 0}, np.array([0]), np.zeros(1), np.zeros((1, 1))) for _ in range(replicas)]
        self.others = [Others.all_of(view) for view in self.views]
        self.published = list(self.views)

    def learn(self, replica: int, value: float) -> None:
        """Take in one response."""
        view = self.views[replica]
        self.views[replica] = Table(
            view.index, view.counts + 1, KEPT * view.weights + 1, KEPT * view.values + value
        )

    def exchange(self, replica: int) -> None:
        """Publish own, and read the others'."""
        part = Table({"k": 0}, np.array([0]), np.zeros(1), np.zeros((1, 1)))
        for number, each in enumerate(self.published):
            if number != replica:
                part.add(each)
        fresh = np.maximum(part.counts - self.others[replica].part.counts, 0)
        own, _ = Own.of(self.views[replica], self.others[replica], FADING).aged(fresh, FADING)
        self.published[replica] = own
        whole = Table(own.index, own.counts + part.counts, own.weights + part.weights, own.values + part.values)
        self.views[replica], self.others[replica] = whole, Others(part, whole, np.ones((1, 1)))


@given(st.integers(1, 6), st.lists(st.integers(1, 60), min_size=1, max_size=12), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_all_replicas_together_weigh_what_one_router_that_saw_all_does(
    replicas: int, intervals: list[int], chance: object
) -> None:
    """From the first responses on, at any number between exchanges; nothing counts twice or is forgotten late."""
    rng = np.random.default_rng(chance.randrange(1 << 30))  # type: ignore[attr-defined]
    fleet, one = Summing(replicas), 0.0
    for responses in intervals:
        for number in rng.permutation(responses):
            fleet.learn(int(number) % replicas, 1.0)
            one = KEPT * one + 1
        for replica in range(replicas):
            fleet.exchange(replica)
    for replica in range(replicas):
        fleet.exchange(replica)
    total = sum(float(each.weights[0]) for each in fleet.published)
    assert sum(int(each.counts[0]) for each in fleet.published) == sum(intervals)
    assert total == pytest.approx(one, rel=0.05)
    for view in fleet.views:
        assert view.weights[0] == pytest.approx(view.values[0, 0])


def test_replicas_that_meet_after_a_long_time_do_not_leave_it_to_each_other() -> None:
    """Each has learned thousands apart; whoever reads first, most of one router's memory is still there."""
    fleet = Summing(2)
    for replica in range(2):
        for _ in range(5_000):
            fleet.learn(replica, 1.0)
    apart = [fleet.views[replica] for replica in range(2)]
    fleet.published = list(apart)
    for replica in (0, 1, 0, 1, 0, 1):
        fleet.exchange(replica)
    assert sum(float(each.weights[0]) for each in fleet.published) > 0.7 / (1 - KEPT)


def test_a_replica_without_traffic_fades_with_the_responses_of_the_others() -> None:
    """What it knew is as old as it would be in one router."""
    fleet = Summing(2)
    for _ in range(50):
        fleet.learn(0, 1.0)
    fleet.exchange(0)
    before = float(fleet.published[0].weights[0])
    for _ in range(40):
        fleet.learn(1, 1.0)
    fleet.exchange(1)
    fleet.exchange(0)
    assert before * KEPT**40 == pytest.approx(float(fleet.published[0].weights[0]))


@pytest.mark.parametrize("kind", ["byteclass", "ema"])
def test_what_is_kept_of_each_kind_of_sum(kind: str) -> None:
    """Categories of byte classes fade only once they are steady; the EMA's from the first response on."""
    terms, at = replace(TERMS, kind=kind), np.array([0, 100])
    kept = terms.kept_of_categories(at, np.array([[10.0], [10.0]]))[:, 0]
    assert kept == pytest.approx([1.0, 0.98**10] if kind == "byteclass" else [0.95**10] * 2)
    assert terms.kept_of_models(at, np.array([[1.0], [2.0]])) == pytest.approx(
        np.array([[0.9995, 0.999], [0.9995**2, 0.999**2]])
    )
