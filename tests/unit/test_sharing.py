"""Replicas that share what they learn: each keeps its own and the others' knowledge apart, and uses both."""

from dataclasses import replace

import numpy as np
import pytest

from extproc.core.estimator import make_estimator
from extproc.core.estimator.byteclass import ByteClassEstimator
from extproc.core.estimator.change import Change, residual_key
from extproc.core.estimator.merging import merged
from extproc.core.estimator.protocol import LearnedState
from extproc.core.estimator.residual import Residual
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.estimator.sharing import Share
from extproc.core.estimator.state_tables import state_of, tables_of
from extproc.core.estimator.terms import Terms
from extproc.core.usage import Usage
from tests.unit.byteclass_lessons import WORDS, facts, teach
from tests.unit.sharing_fleet import SETTINGS, TERMS, Fleet, guess, lesson

KINDS = ["byteclass", "ema"]


@pytest.mark.parametrize("kind", KINDS)
def test_replicas_estimate_like_one_that_saw_everything(kind: str) -> None:
    """Four replicas that saw a quarter each estimate and bound like one that saw
    everything, and so does a new one at once.
    """
    fleet, one = Fleet(4, kind), make_estimator(EstimatorSettings(kind=kind))  # type: ignore[arg-type]
    rng = np.random.default_rng(1)
    for _ in range(12):
        for response in range(100):
            lesson(rng, [one, fleet.estimators[response % 4]])
        fleet.exchange()
    fleet.join()
    fleet.exchange(4)
    expected = guess(one)
    for estimator in fleet.estimators:
        estimate = guess(estimator)
        assert estimate.prompt_tokens == pytest.approx(expected.prompt_tokens, rel=0.02)
        assert estimate.prompt_bound == pytest.approx(expected.prompt_bound, rel=0.05)
        assert estimate.output_tokens == pytest.approx(
            expected.output_tokens, rel=0.2
        )  # a bin is a quarter octave
        assert estimate.source is expected.source


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_counted_twice(kind: str) -> None:
    """However often replicas exchange, each publishes only the responses that it learned from itself."""
    fleet, rng = Fleet(3, kind), np.random.default_rng(2)
    for round_ in range(10):
        for i, estimator in enumerate(fleet.estimators):
            for _ in range(i * 3):
                lesson(rng, [estimator])
        for _ in range(round_ % 3):
            fleet.exchange()
    fleet.exchange()
    for i, published in fleet.published.items():
        of_model = [row.observations for row in published.outputs if not row.category.key]
        assert sum(of_model) == 10 * 3 * i
        assert sum(row.observations for row in published.models) == (10 * 3 * i if kind == "byteclass" else 0)


def test_the_fleet_remembers_as_much_as_one_router() -> None:
    """The sums of all replicas together weigh no more than one router's
    memory, and those of idle replicas fade.
    """
    fleet, rng = Fleet(3), np.random.default_rng(3)
    short = replace(SETTINGS, byteclass=replace(SETTINGS.byteclass, forgetting=0.99))
    fleet.terms, fleet.estimators = Terms.of(short), [ByteClassEstimator(short) for _ in range(3)]
    fleet.shares = [Share(fleet.terms) for _ in range(3)]
    for _ in range(100):
        lesson(rng, [fleet.estimators[0]])
    fleet.exchange()
    before = fleet.published[0].models[0].weight
    for _ in range(12):
        for _ in range(100):
            lesson(rng, fleet.estimators[1:])
        fleet.exchange()
    weights = [fleet.published[i].models[0].weight for i in range(3)]
    assert sum(weights) == pytest.approx(100, rel=0.2)
    assert weights[0] < before / 3


def test_an_exchange_without_others_changes_nothing() -> None:
    """A lone replica publishes what it has learned, and its estimator stays as it is."""
    estimator, share = ByteClassEstimator(SETTINGS), Share(TERMS)
    teach(estimator, 60)
    exchanged = share.exchange(estimator.state(), [])
    own, change = state_of(exchanged.own), exchanged.change
    assert Change() == change
    (learned,), (published,) = merged([estimator.state()], TERMS).models, merged([own], TERMS).models
    assert learned.spread == pytest.approx(published.spread, rel=1e-12)  # a quotient of sums
    assert learned == replace(published, spread=learned.spread)


def test_responses_that_arrive_while_a_change_is_computed_are_kept() -> None:
    """A change is computed in another thread; what is learned meanwhile is kept, and remains the replica's own."""
    fleet, rng = Fleet(2), np.random.default_rng(4)
    for _ in range(80):
        lesson(rng, [fleet.estimators[0]])
    fleet.exchange(0)
    replica, share = fleet.estimators[1], fleet.shares[1]
    for _ in range(30):
        lesson(rng, [replica])
    exchanged = share.exchange(replica.state(), [fleet.published_tables[0]])
    own, change = state_of(exchanged.own), exchanged.change
    assert own.models[0].observations == 30
    for _ in range(7):
        lesson(rng, [replica])
    assert Change() == replica.shift(change)
    assert replica.state().models[0].observations == 80 + 30 + 7
    own = state_of(share.exchange(replica.state(), [fleet.published_tables[0]]).own)
    assert own.models[0].observations == 37


def test_the_bound_keeps_its_promise_across_replicas() -> None:
    """Over the requests of all replicas, the allowed share exceeds the bound, and all have the same q."""
    fleet, rng = Fleet(4), np.random.default_rng(10)
    missed, count = 0, 4_000
    for number in range(count):
        estimator = fleet.estimators[number % 4]
        size = int(rng.integers(200, 4_000))
        request = facts((WORDS * 42)[:size])
        actual = max(1, round(size / 4 * float(np.exp(0.05 * rng.standard_t(3)))))
        estimate = estimator.estimate(request, "tenant")
        missed += actual > estimate.prompt_bound
        estimator.observe(estimate, Usage(actual, 5))
        if number % 80 == 79:
            fleet.exchange()
    assert 0.006 < missed / count < 0.014
    fleet.exchange()
    fleet.exchange()  # now the first one has also read all the others
    q = [estimator.state().models[0].q for estimator in fleet.estimators]
    assert max(q) - min(q) < 0.2


def test_others_rows_are_left_out_if_there_is_no_room() -> None:
    """A full estimator does not give up its own rows for others' rows, and does not subtract the latter later."""
    small = EstimatorSettings(max_models=1, max_categories=1)
    estimator, share = ByteClassEstimator(small), Share(TERMS)
    other = ByteClassEstimator(SETTINGS)
    rng = np.random.default_rng(8)
    for _ in range(30):
        lesson(rng, [estimator], model="mine")
        lesson(rng, [other], model="theirs")
    for _ in range(3):
        exchanged = share.exchange(estimator.state(), [tables_of(other.state(), TERMS)])
        own, change = state_of(exchanged.own), exchanged.change
        share.skipped(estimator.shift(change))
    assert ["mine"] == [row.model for row in own.models if row.observations]
    assert 30 == own.models[[row.model for row in own.models].index("mine")].observations
    assert ["mine"] == [row.model for row in estimator.state().models]


def test_a_change_comes_in_bites(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each bite, and each part of a state, is one model or a limited number of rows, so
    none blocks the deciding thread for long.
    """
    monkeypatch.setattr("extproc.core.estimator.change.BITE_ROWS", 4)
    other = ByteClassEstimator(SETTINGS)
    rng = np.random.default_rng(9)
    for number in range(30):
        lesson(rng, [other], model=f"m{number % 3}")
    change = Share(TERMS).exchange(ByteClassEstimator(SETTINGS).state(), [tables_of(other.state(), TERMS)]).change
    bites = list(change.bites())
    assert change == Change(
        tuple(row for bite in bites for row in bite.models),
        tuple(sorted((row for bite in bites for row in bite.categories), key=change.categories.index)),
        tuple(row for bite in bites for row in bite.outputs),
    )
    # A model comes with the row of its residual.
    of_models = [(bite.models[0].model, [row.key for row in bite.categories]) for bite in bites if bite.models]
    assert of_models == [(f"m{number}", [residual_key(f"m{number}")]) for number in range(3)]
    others = [bite for bite in bites if not bite.models]
    assert max(len(bite.categories) / 4 + len(bite.outputs) / 4 for bite in others) <= 1
    parts = [make() for make in other.parts()]
    assert max(len(part.models) + len(part.categories) / 4 + len(part.outputs) / 4 for part in parts) <= 1
    assert other.state() == LearnedState.joined(parts)


def test_a_model_changes_when_its_sums_do_or_its_bound_does() -> None:
    """A peer's new sums may come with an unchanged q, and a moved q with unchanged sums."""
    peer, estimator, share = ByteClassEstimator(SETTINGS), ByteClassEstimator(SETTINGS), Share(TERMS)
    teach(peer, 20)
    state = peer.state()
    (model,) = state.models
    for q, moved in ((4.0, True), (4.0, False), (6.0, True)):
        published = replace(state, models=(replace(model, q=q, q_began=q, scores=b""),))
        change = share.exchange(estimator.state(), [tables_of(published, TERMS)]).change
        assert moved == bool(change.models)
        assert Change() == estimator.shift(change)
        assert (q, 20) == (estimator.state().models[0].q, estimator.state().models[0].observations)


def test_a_joining_replica_takes_over_the_residuals_as_they_are() -> None:
    """Those of the model and of all models are not added to what a new router starts with: new tenants and new
    models get the same bounds in all replicas.
    """
    fleet, rng = Fleet(1), np.random.default_rng(5)
    for _ in range(200):
        lesson(rng, fleet.estimators)
    fleet.join()
    for _ in range(2):
        fleet.exchange()
    residuals = [
        (each._known.all_models.spread, each._known.all_models.mean, each._known.model("m").residual.spread)
        for each in fleet.estimators
        if isinstance(each, ByteClassEstimator)
    ]
    assert residuals[0] == pytest.approx(residuals[1])


def test_what_is_forgotten_leaves_no_spread() -> None:
    """If all that a replica knows is forgotten right after it joined, it is as new; no rounding error is
    divided by a weight of nothing.
    """
    fleet, rng = Fleet(1), np.random.default_rng(5)
    for _ in range(200):
        lesson(rng, fleet.estimators)
    new, share = fleet.join(), fleet.shares[-1]
    assert isinstance(new, ByteClassEstimator)
    fleet.exchange()
    share.give_up()  # a reset folds what was published into the base, which then holds nothing
    for _ in range(2):
        share.skipped(new.shift(share.exchange(new.state(), []).change))
    first = Residual()
    assert [(0, first.spread)] * 2 == [
        (each.responses, each.spread) for each in (new._known.all_models, new._known.model("m").residual)
    ]
