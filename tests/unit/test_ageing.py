"""Ageing of a replica's own knowledge while others learn: all replicas together weigh what one router would."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.core.estimator.ageing import MAX_TOLD, Fading, Others, Own
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.estimator.tables import Table
from extproc.core.estimator.terms import Terms

KEPT = 0.998
FADING = Fading(lambda _, since: np.power(KEPT, since), (1 / (1 - KEPT),))
TERMS = Terms.of(EstimatorSettings())


class Summing:
    """Replicas that each keep one fading sum; each publishes its own part and reads the sum of all."""

    def __init__(self, replicas: int) -> None:
        self.views = [Table({"k": 0}, np.array([0]), np.zeros(1), np.zeros((1, 1))) for _ in range(replicas)]
        self.others = [Others.all_of(view) for view in self.views]
        self.published = list(self.views)

    def learn(self, replica: int, value: float) -> None:
        """Learn from one response."""
        view = self.views[replica]
        self.views[replica] = Table(
            view.index, view.counts + 1, KEPT * view.weights + 1, KEPT * view.values + value
        )

    def exchange(self, replica: int) -> None:
        """Publish this replica's own part, and read those of the others."""
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
def test_replicas_together_weigh_as_much_as_one_router_that_saw_all(
    replicas: int, intervals: list[int], chance: object
) -> None:
    """The sums agree from the first response, however often replicas exchange; none counts twice or fades late."""
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


def test_replicas_that_meet_after_a_long_time_do_not_both_discard_their_knowledge() -> None:
    """Two replicas that learned thousands of responses separately keep most of one router's memory."""
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
    """What it knew is as old as it would be in a single router."""
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
def test_each_kind_of_sum_fades_at_its_own_rate(kind: str) -> None:
    """Categories of byte classes fade only once they are steady; those of the EMA fade from the first response."""
    terms, at = replace(TERMS, kind=kind), np.array([0, 100])
    kept = terms.kept_of_categories(at, np.array([[10.0], [10.0]]))[:, 0]
    assert kept == pytest.approx([1.0, 0.98**10] if kind == "byteclass" else [0.95**10] * 2)
    assert terms.kept_of_models(at, np.array([[1.0], [2.0]])) == pytest.approx(
        np.array([[0.9995, 0.999], [0.9995**2, 0.999**2]])
    )


# Two groups of columns: the first two fade by a tenth with each response, the last by half.
GROUPS = Fading(lambda _, since: np.power((0.9, 0.5), since), (10.0, 2.0), widths=lambda columns: (columns - 1, 1))


def rows(**of_key: tuple[int, float, list[float]]) -> Table[str]:
    """Return a table of counts, weights and values by key."""
    counts, weights, values = zip(*of_key.values(), strict=True)
    return Table({key: row for row, key in enumerate(of_key)}, *map(np.array, (counts, weights, values)))


def near(count: int, weight: float, values: list[float]) -> tuple[Any, ...]:
    """Return a row as `as_rows` does, allowing for rounding."""
    return count, pytest.approx(weight), pytest.approx(values)


def as_rows(table: Table[str]) -> dict[str, tuple[int, float, list[float]]]:
    """Return a table in the form that `rows` takes."""
    return {
        key: (int(table.counts[row]), float(table.weights[row]), table.values[row].tolist())
        for key, row in table.index.items()
    }


def test_columns_fade_by_groups_and_weights_as_the_first_group() -> None:
    """Prices and scale forget at different rates; the number of times that a row was seen does not fade."""
    table = rows(a=(5, 8.0, [8.0, 16.0, 32.0]), b=(6, 4.0, [4.0, 4.0, 4.0]))
    faded = GROUPS.times(np.array([[0.5, 0.25], [1.0, 0.0]]), table)
    assert {"a": (5, 4.0, [4.0, 8.0, 8.0]), "b": (6, 4.0, [4.0, 4.0, 0.0])} == as_rows(faded)
    alike = FADING.times(np.array([[0.5], [0.25]]), table)
    assert {"a": (5, 4.0, [4.0, 8.0, 16.0]), "b": (6, 1.0, [1.0, 1.0, 1.0])} == as_rows(alike)


def test_sums_that_are_all_others_are_not_scaled_yet() -> None:
    """State loaded from a file is not scaled before the first exchange."""
    table = rows(a=(5, 8.0, [8.0, 16.0, 32.0]))
    assert as_rows(table) == as_rows(Others.all_of(table).scaled(table))


def test_a_row_keeps_its_parts_and_factors_by_key() -> None:
    """When rows are forgotten, picked or joined, each key keeps its part, its whole and its factors."""
    part = rows(a=(1, 1.0, [1.0, 1.0]), b=(2, 2.0, [2.0, 2.0]), c=(3, 3.0, [3.0, 3.0]))
    whole = rows(a=(4, 4.0, [4.0, 4.0]), b=(5, 5.0, [5.0, 5.0]), c=(6, 6.0, [6.0, 6.0]))
    others = Others(part, whole, np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]))
    picked, base = others.of({"b"}), rows(c=(9, 10.0, [10.0, 10.0]), b=(9, 20.0, [20.0, 20.0]))
    assert {"c": (9, 5.0, [5.0, 6.0]), "b": (9, 6.0, [6.0, 8.0])} == as_rows(others.scaled(base))
    others.forget(())
    assert ["a", "b", "c"] == list(others.part.index)
    others.forget({"b"})
    assert ["a", "c"] == list(others.part.index) == list(others.whole.index)
    assert [[0.1, 0.2], [0.5, 0.6]] == others.keep.tolist()
    joined = others.joined(picked)
    assert {"a", "b", "c"} == set(joined.part.index) == set(joined.whole.index)
    assert (as_rows(part), as_rows(whole)) == (as_rows(joined.part), as_rows(joined.whole))
    assert {"c": (9, 5.0, [5.0, 6.0]), "b": (9, 6.0, [6.0, 8.0])} == as_rows(joined.scaled(base))
    alone = Others.all_of(rows(d=(7, 7.0, [7.0, 7.0])))
    assert [[0.1, 0.2], [0.5, 0.6], [1.0, 1.0]] == others.joined(alone).keep.tolist()


def test_own_is_the_view_minus_the_faded_part_of_the_others() -> None:
    """Responses since the exchange are new, own ones before it are old, and both fade by group."""
    part, whole = rows(a=(6, 6.0, [6.0, 6.0, 6.0])), rows(a=(8, 8.0, [8.0, 8.0, 8.0]))
    view = rows(a=(9, 8.2, [8.2, 8.2, 5.0]), b=(2, 1.9, [1.9, 1.9, 1.5]))
    own = Own.of(view, Others(part, whole, np.ones((1, 2))), GROUPS)
    assert near(2, 1.8, [1.8, 1.8, 1.0]) == as_rows(own.old)["a"]
    assert near(1, 1.0, [1.0, 1.0, 1.0]) == as_rows(own.new)["a"]
    assert (0, 0.0, [0.0, 0.0, 0.0]) == as_rows(own.old)["b"]
    assert near(2, 1.9, [1.9, 1.9, 1.5]) == as_rows(own.new)["b"]
    assert ([8, 0], [1, 2]) == (own.at.tolist(), own.since.tolist())


def test_a_row_that_was_reset_has_no_old_part() -> None:
    """A view that has seen less than before holds a new row: none of it belongs to others, none is old."""
    part, whole = rows(a=(6, 6.0, [6.0, 6.0, 6.0])), rows(a=(8, 8.0, [8.0, 8.0, 8.0]))
    own = Own.of(rows(a=(7, 3.0, [3.0, 3.0, 3.0])), Others(part, whole, np.ones((1, 2))), GROUPS)
    assert {"a": (0, 0.0, [0.0, 0.0, 0.0])} == as_rows(own.old)
    assert {"a": (7, 3.0, [3.0, 3.0, 3.0])} == as_rows(own.new)
    assert ([0], [7]) == (own.at.tolist(), own.since.tolist())


def test_all_of_a_view_without_others_is_own() -> None:
    """Before the first exchange everything is new."""
    view = rows(a=(1, 1.0, [1.0, 2.0, 3.0]), b=(2, 1.9, [1.9, 3.8, 4.5]))
    own = Own.of(view, Others.all_of(Table.zeros((), 0)), GROUPS)
    assert as_rows(view) == as_rows(own.new)
    assert {key: (0, 0.0, [0.0, 0.0, 0.0]) for key in "ab"} == as_rows(own.old)


def test_own_rows_are_aligned_and_cleared_by_key() -> None:
    """A key that is missing has nothing, whatever the last row is."""
    own = Own(rows(a=(1, 1.0, [1.0]), b=(2, 2.0, [2.0])), rows(a=(3, 3.0, [3.0]), b=(4, 4.0, [4.0])),
              np.array([5, 6]), np.array([7, 8]))  # fmt: skip
    aligned = own.aligned(["b", "c", "a"], 1)
    assert ([6, 0, 5], [8, 0, 7]) == (aligned.at.tolist(), aligned.since.tolist())
    assert {"b": (2, 2.0, [2.0]), "c": (0, 0.0, [0.0]), "a": (1, 1.0, [1.0])} == as_rows(aligned.old)
    own.clear(["a"])
    assert {"a": (0, 0.0, [0.0]), "b": (2, 2.0, [2.0])} == as_rows(own.old)
    assert {"a": (0, 0.0, [0.0]), "b": (4, 4.0, [4.0])} == as_rows(own.new)


def test_own_ages_with_the_responses_of_others_up_to_the_memory() -> None:
    """The old part fades with each response of the others, but per group by no more than the group remembers."""
    own = Own(rows(a=(4, 8.0, [8.0, 8.0, 8.0])), rows(a=(0, 0.0, [0.0, 0.0, 0.0])), np.array([4]), np.array([0]))
    aged, kept = own.aged(np.array([1]), GROUPS)
    assert near(4, 7.2, [7.2, 7.2, 4.0]) == as_rows(aged)["a"]
    assert [[0.9, 0.5]] == kept.tolist()
    aged, kept = own.aged(np.array([1_000]), GROUPS)
    assert pytest.approx([8 * 0.9**10, 8 * 0.9**10, 8 * 0.5**2]) == aged.values[0]
    assert [pytest.approx([0.9**10, 0.5**2])] == kept.tolist()


@pytest.mark.parametrize(("since", "later"), [(1, 1), (1, 3), (4, 4), (2, 6)])
def test_new_responses_age_as_if_those_of_others_came_evenly_among_them(since: int, later: int) -> None:
    """A sum over n responses with m others' in between weighs what n evenly spaced terms of a sum over all do."""
    each, alone = 0.9, sum(0.9**n for n in range(since))
    own = Own(rows(a=(0, 0.0, [0.0])), rows(a=(since, alone, [alone])), np.array([0]), np.array([since]))
    fading = Fading(lambda _, count: np.power(each, count), (1 / (1 - each),))
    aged, _ = own.aged(np.array([later]), fading)
    step = 1 + later / since
    sum_over_all = sum(each ** (step * n) for n in range(since))
    assert near(since, sum_over_all, [sum_over_all]) == as_rows(aged)["a"]


def test_sums_that_do_not_fade_yet_lose_nothing() -> None:
    """The first responses of a category all count the same, however many the others saw in between."""
    own = Own(rows(a=(1, 1.0, [2.0])), rows(a=(2, 2.0, [6.0])), np.array([1]), np.array([2]))
    aged, kept = own.aged(np.array([5]), Fading(lambda _, since: np.ones_like(since), (50.0,)))
    assert ({"a": (3, 3.0, [8.0])}, [[1.0]]) == (as_rows(aged), kept.tolist())


def test_a_row_that_is_far_behind_does_not_fade_below_zero() -> None:
    """If next to nothing is kept, rounding leaves weights below zero; they are published as 0."""
    own = Own(rows(a=(0, -1.0, [1.0])), rows(a=(0, 0.0, [0.0])), np.array([0]), np.array([0]))
    assert 0.0 == own.aged(np.array([0]), FADING)[0].weights[0]


def test_of_what_was_told_the_store_s_version_and_the_last_few_are_remembered() -> None:
    """The version that the store may hold, and what it may have got since; what it replaced is forgotten."""
    others = Others.all_of(rows(a=(1, 1.0, [2.0])))
    versions = [b"%d" % number for number in range(6)]
    for version in versions:
        others.tell(version)
    assert [b"0", b"3", b"4", b"5"] == list(others.told)
    assert MAX_TOLD == len(others.told)
    others.holds(b"unknown")
    assert MAX_TOLD == len(others.told)
    others.holds(b"4")
    assert [b"4", b"5"] == list(others.told)
