"""Knowledge of replicas that are gone, or that came from a file: the base that the others share."""

from dataclasses import replace

import numpy as np
import pytest

from extproc.core.estimator import make_estimator
from extproc.core.estimator.byteclass import ByteClassEstimator
from extproc.core.estimator.change import Change
from extproc.core.estimator.length_counts import FADING
from extproc.core.estimator.merging import bounded, merged
from extproc.core.estimator.packing import unpacked
from extproc.core.estimator.protocol import CategoryState, LearnedState
from extproc.core.estimator.residual import FIRST_SPREAD
from extproc.core.estimator.settings import ByteClassSettings, EstimatorSettings
from extproc.core.estimator.sharing import Share
from extproc.core.estimator.state_tables import state_of, tables_of
from extproc.core.estimator.terms import Terms
from tests.unit.byteclass_lessons import teach
from tests.unit.sharing_fleet import SETTINGS, TERMS, Fleet, lesson
from tests.unit.test_sharing_changes import restart


@pytest.mark.parametrize("replacements", [0, 2])
def test_knowledge_from_a_file_is_not_published_as_own(replacements: int) -> None:
    """Knowledge that a replica started with belongs to others, so the replica does not publish it again; also of a
    model that was replaced before.
    """
    taught, estimator, share = ByteClassEstimator(SETTINGS), ByteClassEstimator(SETTINGS), Share(TERMS)
    for _ in range(replacements):
        restart(taught, "m")
    teach(taught, 60)
    estimator.load(taught.state())
    share.adopt(estimator.state())
    teach(estimator, 5)
    own = state_of(share.exchange(estimator.state(), [], taught.state()).own)
    assert own.models[0].observations == 5
    assert 5 == sum(row.observations for row in own.categories if row.category.key)
    assert estimator.state().models[0].observations == 65


def test_a_router_that_joins_does_not_age_the_base() -> None:
    """All of the base is new to it, but not learned since, so it must not write the base back faded."""
    taught, estimator, share = ByteClassEstimator(SETTINGS), ByteClassEstimator(SETTINGS), Share(TERMS)
    teach(taught, 400)
    before = merged([taught.state()], TERMS)
    base = share.exchange(estimator.state(), [], before).base
    assert base is not None
    assert before.models == base.models
    assert before.categories == base.categories
    teach(estimator, 20)
    base = Share(TERMS).exchange(estimator.state(), [], before).base
    assert base is not None
    assert before.models[0].weight == pytest.approx(base.models[0].weight)


def test_the_base_of_former_routers_fades_as_own_knowledge_does() -> None:
    """A base is used along with everything else, ages with the responses
    that arrive, and belongs to no replica.
    """
    taught, estimator = ByteClassEstimator(SETTINGS), ByteClassEstimator(SETTINGS)
    share, rng = Share(TERMS), np.random.default_rng(11)
    for _ in range(60):
        lesson(rng, [taught])
    bases = [taught.state()]
    for responses in (0, 10):
        for _ in range(responses):
            lesson(rng, [estimator])
        exchanged = share.exchange(estimator.state(), [], bases[-1])
        assert Change() == estimator.shift(exchanged.change)
        assert exchanged.base is not None
        bases.append(exchanged.base)
    _, before, after = (merged([base], TERMS) for base in bases)
    assert pytest.approx(before.models[0].weight * 0.9995**10) == after.models[0].weight
    for name, kept in (("sums_b", 0.9995), ("scale_b", 0.999)):
        old, faded = (unpacked(getattr(each.models[0], name)) for each in (before, after))
        assert old * kept**10 == pytest.approx(faded)
    ended = [
        sum(sum(unpacked(row.ended)) for row in each.outputs if not row.category.key) for each in (before, after)
    ]
    assert ended[0] * FADING**10 == pytest.approx(ended[1])
    assert (10, 70) == (state_of(exchanged.own).models[0].observations, estimator.state().models[0].observations)
    assert share.exchange(estimator.state(), []).base is None


@pytest.mark.parametrize("kind", ["byteclass", "ema"])
def test_a_base_that_has_faded_away_does_not_come_back(kind: str) -> None:
    """However many responses have come since, its means keep a weight, from which nothing more follows."""
    settings = EstimatorSettings(kind=kind)  # type: ignore[arg-type]
    taught, estimator, share = make_estimator(settings), make_estimator(settings), Share(Terms.of(settings))
    rng = np.random.default_rng(12)
    for _ in range(60):
        lesson(rng, [taught, estimator])
    base, view = taught.state(), estimator.state()
    share.exchange(view, [], base)
    for _ in range(3):
        models = tuple(replace(row, observations=row.observations + 40_000) for row in view.models)
        rows = tuple(replace(row, observations=row.observations + 40_000) for row in view.categories)
        view = replace(view, models=models, categories=rows)
        exchanged = share.exchange(view, [], base)
        assert exchanged.base is not None
        base = exchanged.base
        assert tables_of(base, Terms.of(settings)).categories.weights.max(initial=0.0) < 1e-9
        assert all(np.abs(row.values[0]) < 1e-6 for row in exchanged.change.categories)
    make_estimator(settings).load(base)


def test_what_an_idle_replica_leaves_behind_has_faded() -> None:
    """A replica that had no traffic for thousands of responses leaves rounding errors of its residuals behind;
    once it is folded, they have no weight: others keep theirs, and who knows nothing else begins anew.
    """
    fleet, rng = Fleet(2), np.random.default_rng(1)
    for _ in range(60):
        lesson(rng, fleet.estimators[:1])
    fleet.exchange(0, 1, 0)
    for _ in range(44):
        for _ in range(50):
            lesson(rng, fleet.estimators[1:])
        fleet.exchange(1, 0)
        base = bounded(merged([LearnedState(""), fleet.published[0]], TERMS), TERMS)
        categories, own = tables_of(base, TERMS).categories, fleet.published_tables[0].categories
        for key, row in categories.index.items():
            assert categories.weights[row] == pytest.approx(own.weights[own.index[key]], abs=1e-9)
            assert np.abs(categories.values[row]).max() <= 10 * categories.weights[row] + 1e-9
        assert not own.values[own.weights <= 1e-9].any()
        assert max(abs(model.residual) for model in base.models) < 1
    before = fleet.estimators[1].state()
    change = fleet.shares[1].exchange(before, [], base).change
    assert all(np.abs(row.values).max() < 1e-6 for row in change.categories if not row.key.key)
    new = fleet.join()
    assert Change() == new.shift(fleet.shares[2].exchange(new.state(), [], base).change)
    assert (0.0, FIRST_SPREAD) == (new.state().models[0].residual, new.state().models[0].spread)


def test_a_base_of_an_earlier_tokenizer_is_no_obstacle() -> None:
    """A base from before a model was replaced may have tenants that nobody has seen since: they stay in it, count
    for nothing, and keep nothing from being shared.
    """
    former, estimator, share = ByteClassEstimator(SETTINGS), ByteClassEstimator(SETTINGS), Share(TERMS)
    rng = np.random.default_rng(13)
    for _ in range(60):
        lesson(rng, [former, estimator])
    restart(estimator, "m")
    base = merged([former.state()], TERMS)

    def unseen(state: LearnedState) -> list[CategoryState]:
        return [row for row in state.categories if row.category.key == "tenant 1"]

    estimator._known.residuals.drop(lambda key: key.key == "tenant 1")
    for responses in (10, 20):
        teach(estimator, 10)
        exchanged = share.exchange(estimator.state(), [], base)
        assert exchanged.base is not None
        assert unseen(base) == unseen(exchanged.base)
        assert responses == state_of(exchanged.own).models[0].observations
        assert Change() == estimator.shift(exchanged.change)
        assert responses == estimator.state().models[0].observations


def test_a_base_of_an_earlier_tokenizer_does_not_outlast_what_was_learned_since() -> None:
    """It fades like everything else; a replica that is folded then leaves the prices of today's tokenizer behind,
    although more responses had made those of the former one.
    """
    settings = EstimatorSettings(byteclass=ByteClassSettings(forgetting=0.95))
    former, estimator, share = (
        ByteClassEstimator(settings),
        ByteClassEstimator(settings),
        Share(Terms.of(settings)),
    )
    rng = np.random.default_rng(14)
    for _ in range(200):
        lesson(rng, [former])
    base = former.state()
    estimator.shift(share.exchange(estimator.state(), [], base).change)
    restart(estimator, "m")
    for responses in (20, 80):
        for _ in range(responses):
            lesson(rng, [estimator], ratio=1.2)
        exchanged = share.exchange(estimator.state(), [], base)
        assert exchanged.base is not None
        base = exchanged.base
    left = merged([base, state_of(exchanged.own)], Terms.of(settings))
    assert [(1, 85)] == [(row.generation, row.observations) for row in left.models]


def test_knowledge_that_was_handed_over_is_no_longer_own() -> None:
    """A replica that handed over its knowledge publishes no response a second time."""
    estimator, share, rng = ByteClassEstimator(SETTINGS), Share(TERMS), np.random.default_rng(12)
    for _ in range(30):
        lesson(rng, [estimator])
    left = state_of(share.exchange(estimator.state(), []).own)
    assert 30 == left.models[0].observations
    share.give_up()
    for _ in range(4):
        lesson(rng, [estimator])
    own = state_of(share.exchange(estimator.state(), [], left).own)
    assert 4 == own.models[0].observations
    assert 4 == sum(row.observations for row in own.outputs if not row.category.key)
    assert 4 == sum(row.observations for row in own.categories if row.category.key)
