"""The model to which clients give no name has a residual of its own, next to that of all models."""

from random import Random

import pytest

from extproc.core.estimator.byteclass import ByteClassEstimator
from extproc.core.estimator.change import ALL_MODELS, residual_key
from extproc.core.estimator.merging import merged, only, without_model
from extproc.core.estimator.protocol import CategoryKey, LearnedState, ModelState
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.estimator.state_tables import state_of, tables_of
from extproc.core.estimator.terms import Terms
from extproc.core.usage import Usage
from tests.unit.byteclass_lessons import WORDS, facts
from tests.unit.sharing_fleet import Fleet

SETTINGS = EstimatorSettings()
TERMS = Terms.of(SETTINGS)


def teach_both(estimator: ByteClassEstimator, scattered: str, responses: int = 300, seed: int = 2) -> None:
    """Teach a steady model, and in turn with it one with this name, whose usage scatters."""
    random = Random(seed)
    for turn in range(responses):
        name = scattered if turn % 2 else "steady"
        text = (WORDS * 42)[: random.randrange(800, 1_200)]
        tokens = len(text) * 0.3 * (random.choice([0.6, 1.0, 1.6]) if turn % 2 else 1.0)
        estimate = estimator.estimate(facts(text, model=name), f"t{random.randrange(5)}")
        estimator.observe(estimate, Usage(round(tokens), 5))


def taught(scattered: str) -> LearnedState:
    """Return what an estimator learned of a steady model and one with this name, whose usage scatters."""
    estimator = ByteClassEstimator(SETTINGS)
    teach_both(estimator, scattered)
    return estimator.state()


def row(state: LearnedState, name: str) -> ModelState:
    """Return the row of a model."""
    (found,) = [model for model in state.models if model.model == name]
    return found


def all_models(state: LearnedState) -> tuple[int, float, float]:
    """Return the responses, residual and spread of all models."""
    (found,) = [each for each in state.categories if each.category == ALL_MODELS]
    return found.observations, found.residual, found.spread


@pytest.mark.parametrize("name", ["", "named"])
def test_a_residual_survives_tables(name: str) -> None:
    """The residuals of a model and of all models are the same after a merge and loading as before."""
    state, after = taught(name), ByteClassEstimator(SETTINGS)
    after.load(merged([state], TERMS))
    before = row(state, name)
    assert before.spread > 1.2 * all_models(state)[2]
    assert (before.residual, before.spread) == pytest.approx(
        (row(after.state(), name).residual, row(after.state(), name).spread)
    )
    assert all_models(state) == pytest.approx(all_models(after.state()))
    assert {each.category for each in state.categories} == {each.category for each in after.state().categories}


def test_replicas_share_the_residual_of_the_unnamed_model() -> None:
    """A replica without traffic gets the unnamed model's spread, the same as that of a named one."""
    spreads = []
    for name in ("", "named"):
        fleet = Fleet(2)
        first, second = fleet.estimators
        assert isinstance(first, ByteClassEstimator)
        teach_both(first, name)
        for _ in range(3):
            fleet.exchange()
        assert row(first.state(), name).spread == pytest.approx(row(second.state(), name).spread, rel=0.1)
        assert all_models(first.state()) == pytest.approx(all_models(second.state()), rel=0.1)
        spreads.append(row(second.state(), name).spread)
    assert spreads[0] == pytest.approx(spreads[1])


def test_the_residual_of_all_models_is_not_the_unnamed_models() -> None:
    """It stays if the unnamed model is left out, or is of another generation; all else of that model goes."""
    state = taught("")
    rest = without_model(merged([state], TERMS), "")
    others = {CategoryKey("steady", ""), *(CategoryKey("steady", f"t{number}") for number in range(5))}
    assert {ALL_MODELS, *others} == {each.category for each in rest.categories}
    of_this_generation = only(tables_of(state, TERMS), {"": 1, "steady": 0})
    assert {ALL_MODELS, *others} == set(of_this_generation.categories.index)


def test_a_replica_that_joins_a_new_unnamed_model_keeps_what_it_knows_of_all_models() -> None:
    """If the others have replaced the unnamed model's prices, a replica drops what it has of that model only."""
    fleet = Fleet(3)
    for replica, estimator in enumerate(fleet.estimators):
        assert isinstance(estimator, ByteClassEstimator)
        teach_both(estimator, "", responses=80, seed=replica)
        estimator._known.models.use("").generation = 0 if replica == 2 else 1
    fleet.exchange()
    fleet.exchange(2)
    categories = fleet.published_tables[2].categories
    assert 70 < categories.counts[categories.index[ALL_MODELS]] <= 80
    assert residual_key("") not in categories.index


def test_states_without_the_unnamed_models_key_are_loaded() -> None:
    """Earlier builds wrote no row for its residual: then it is that of the model's own row."""
    state = state_of(tables_of(taught(""), TERMS))
    older = LearnedState(
        state.estimator_kind,
        tuple(each for each in state.categories if each.category != residual_key("")),
        state.features,
        state.models,
        state.outputs,
    )
    estimator = ByteClassEstimator(SETTINGS)
    estimator.load(state_of(tables_of(older, TERMS)))
    assert row(state, "").spread == pytest.approx(row(estimator.state(), "").spread)
    assert all_models(state) == pytest.approx(all_models(estimator.state()))
