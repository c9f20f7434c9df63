"""How replicas agree on q: the result is what one router's q would be, whoever publishes first."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.estimator.agreeing import agreed_generations, agreed_q, own_bounds
from extproc.core.estimator.bound import KEPT_SCORES, START, AdaptiveBound, followed
from extproc.core.estimator.tables import Bounds, Models, Table, Tables, settled

EPSILON = 0.01
SCORES = st.lists(st.floats(-50, 50), max_size=40)
REPLICAS = st.lists(st.tuples(st.floats(0, 20), SCORES, st.floats(0.1, 2_000)), min_size=1, max_size=5)
OTHERWISE = np.array([4.0])


def published(
    began: float, scores: Sequence[float], weight: float = 1.0, q: float = 0.0, scored: int = 0
) -> Models:
    """Return what a replica publishes about its only model."""
    sums = Table({"m": 0}, np.array([9]), np.array([weight]), np.zeros((1, 1)))
    bounds = Bounds(np.array([q]), np.array([began]), (np.array(scores, float),), np.array([scored]))
    return Models(sums, bounds, np.zeros(1, np.int64), np.zeros((1, 3), np.int64))


def agreed(replicas: Sequence[Models]) -> float:
    """Return the q that replicas agree on for their only model."""
    return float(agreed_q(EPSILON, replicas, ["m"], OTHERWISE)[0])


@given(st.floats(0, 20), SCORES)
def test_one_replica_alone_agrees_on_its_own_q(began: float, scores: list[float]) -> None:
    """Replaying a bound's scores from where they began leads to the bound's own q."""
    bound = AdaptiveBound(EPSILON, began)
    for score in scores:
        bound.observe(score)
    assert pytest.approx(bound.q) == followed(began, scores, EPSILON) == agreed([published(began, scores)])


@given(REPLICAS, st.randoms())
def test_the_order_of_replicas_does_not_matter(
    replicas: list[tuple[float, list[float], float]], chance: Any
) -> None:
    """Agreement is commutative, so all replicas arrive at the same q whatever order they read each other in."""
    parts = [published(*each) for each in replicas]
    assert agreed(parts) == pytest.approx(agreed(chance.sample(parts, len(parts))))


@given(REPLICAS)
def test_q_moves_from_their_mean_by_no_more_than_one_router_would_have(
    replicas: list[tuple[float, list[float], float]],
) -> None:
    """It lies between the lowest and the highest q that so many responses can lead to, and is never negative."""
    began = np.average([each[0] for each in replicas], weights=[each[2] for each in replicas])
    count, highest = sum(len(each[1]) for each in replicas), max(max(each[1], default=0) for each in replicas)
    q = agreed([published(*each) for each in replicas])
    assert max(began - 0.5 * EPSILON * count, 0) - 1e-9 <= q <= max(began, highest + 0.5) + 1e-9


@given(REPLICAS)
def test_scores_that_were_read_before_do_not_move_q_again(
    replicas: list[tuple[float, list[float], float]],
) -> None:
    """Replicas without new scores count by their q alone, so reading twice has the same effect as reading once."""
    parts = [published(began, scores, weight, q=began) for began, scores, weight in replicas]
    nothing: Table[Any] = Table.zeros((), 0)
    again = [settled(Tables("byteclass", (), part, nothing, nothing)).models for part in parts]
    mean = np.average([each[0] for each in replicas], weights=[each[2] for each in replicas])
    assert pytest.approx(mean) == agreed(again)


def test_replicas_without_weight_do_not_count() -> None:
    """A replica that knows nothing of a model does not pull its q; if no replica knows the model, q stays."""
    assert 4.0 == agreed([published(9.0, [50.0], weight=0.0)])
    assert 7.0 == agreed([published(7.0, []), published(0.0, [50.0], weight=0.0)])


def test_a_surprise_that_all_replicas_answered_counts_once() -> None:
    """Four replicas each raised q for the same three misses; together they raise it as far as one router would."""
    surprise = [5.2] * 20
    alone = followed(4.0, surprise, EPSILON)
    assert pytest.approx(alone, abs=0.5) == agreed([published(4.0, surprise)] * 4)


@pytest.mark.parametrize("since", [4, 0, 10])
def test_a_replica_publishes_the_scores_since_the_last_exchange(since: int) -> None:
    """They are the scores after those already counted at the exchange, followed from the q agreed on then."""
    now = published(1.0, list(range(10)), q=2.0, scored=10)
    bounds = own_bounds(now, ["m"], {"m": (3.0, 10 - since)})
    assert (3.0, list(range(10))[10 - since :]) == (bounds.began[0], bounds.scores[0].tolist())
    assert (2.0, 10) == (bounds.q[0], bounds.scored[0])


@pytest.mark.parametrize("agreed_on", [{}, {"m": (3.0, 11)}, {"m": (3.0, 18)}, {"other": (3.0, 0)}])
def test_all_scores_of_a_model_that_was_reset_meanwhile_are_published(
    agreed_on: dict[str, tuple[float, int]],
) -> None:
    """It has seen fewer scores than were agreed on, or none were; a model that is not known begins at START."""
    bounds = own_bounds(published(1.0, list(range(10)), q=2.0, scored=10), ["unknown", "m"], agreed_on)
    assert (1.0, list(range(10))) == (bounds.began[1], bounds.scores[1].tolist())
    assert (START, START, [], 0) == (bounds.q[0], bounds.began[0], bounds.scores[0].tolist(), bounds.scored[0])


def test_scores_are_interleaved_evenly() -> None:
    """One replica's only score is placed in the middle of another's four; one without scores adds nothing."""
    one, four = 5.3, [4.4, 4.6, 6.5, 6.7]
    mixed = [*four[:2], one, *four[2:]]
    expected = followed(4.0, mixed, EPSILON)
    others = {followed(4.0, [*four[:place], one, *four[place:]], EPSILON) for place in (0, 1, 3, 4)}
    assert expected not in others
    assert pytest.approx(expected) == agreed([published(4.0, [one]), published(4.0, four), published(4.0, [])])


def test_the_last_scores_are_kept_with_the_q_before_them() -> None:
    """The scores before the last KEPT_SCORES have moved q already; the rest are followed from there."""
    bound = AdaptiveBound(EPSILON)
    for number in range(KEPT_SCORES + 100):
        bound.observe(float(number % 7))
        if number == 99:
            expected = bound.q
    assert (KEPT_SCORES, expected) == (len(bound.past), bound.past[0][0])
    loaded = AdaptiveBound(EPSILON)
    loaded.load(bound.q, expected, [score for _, score in bound.past], bound.scored)
    assert (bound.q, bound.scored, list(bound.past)) == (loaded.q, loaded.scored, list(loaded.past))


@pytest.mark.parametrize(("responses", "expected"), [(0, 0), (1, 1)])
def test_replicas_without_a_response_have_no_say_about_a_generation(responses: int, expected: int) -> None:
    """A replica moves to a later generation if most have it, of those that have seen the model's responses."""
    nothing: Table[Any] = Table.zeros((), 0)

    def replica(generation: int, responses: int) -> Tables:
        model = published(4.0, [])
        model.sums.counts[0], model.generations[0] = responses, generation
        return Tables("byteclass", (), model, nothing, nothing)

    peers = [replica(1, responses), replica(1, responses)]
    assert {"m": expected} == agreed_generations(replica(0, 9), peers, [])
