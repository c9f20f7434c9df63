"""Replicas agree on whether a model has changed, and harm nobody but themselves."""

from dataclasses import replace

import numpy as np
import pytest

from extproc.core.estimator.byteclass import ByteClassEstimator
from extproc.core.estimator.packing import unpacked
from extproc.core.estimator.protocol import ModelState
from extproc.core.estimator.state_tables import state_of
from tests.unit.sharing_fleet import Fleet, guess, lesson


def test_a_change_for_a_model_that_was_restarted_is_skipped() -> None:
    """A change computed for one tokenizer's sums is not applied to those
    of the next, and is reported as skipped.
    """
    fleet, rng = Fleet(2), np.random.default_rng(5)
    for _ in range(80):
        lesson(rng, fleet.estimators)
    fleet.exchange(0)
    replica, share = fleet.estimators[1], fleet.shares[1]
    assert isinstance(replica, ByteClassEstimator)
    change = share.exchange(replica.state(), [fleet.published_tables[0]]).change
    restart(replica, "m")
    skipped = replica.shift(change)
    assert skipped.models == change.models
    share.skipped(skipped)
    assert replica.state().models[0].observations == 0


@pytest.mark.parametrize("responses", [90, 150])
def test_a_model_that_was_learned_anew_publishes_all_that_it_learned(responses: int) -> None:
    """Once a change for the former model is skipped, what was agreed on for that one is not taken for its q.

    Nor is the others' part of it subtracted, also if the new one has learned from more responses by then.
    """
    fleet, rng = Fleet(2), np.random.default_rng(5)
    for _ in range(60):
        lesson(rng, fleet.estimators)
    fleet.exchange(0)
    share, anew = fleet.shares[1], ByteClassEstimator(fleet.settings)
    change = share.exchange(fleet.estimators[1].state(), [fleet.published_tables[0]]).change
    share.skipped(anew.shift(change))
    for _ in range(responses):
        lesson(rng, [anew])
    (model,) = anew.state().models
    own = share.exchange(anew.state(), []).own.models
    row = own.sums.index["m"]
    assert model.q_began == own.bounds.began[row]
    assert unpacked(model.scores).tolist() == own.bounds.scores[row].tolist()
    assert responses == own.sums.counts[row]


def test_a_restored_model_keeps_others_knowledge_apart() -> None:
    """A model that was replaced and then restored includes others' knowledge, which
    its replica does not publish as its own.
    """
    fleet, rng = Fleet(2), np.random.default_rng(5)
    for _ in range(40):
        for replica in fleet.estimators:
            lesson(rng, [replica])
    for _ in range(2):
        fleet.exchange(0)
        fleet.exchange(1)
    replica, share = fleet.estimators[1], fleet.shares[1]
    assert isinstance(replica, ByteClassEstimator)
    others = [fleet.published_tables[0]]

    def own() -> ModelState:
        return state_of(share.exchange(replica.state(), others).own).models[0]

    before, known = own(), replica._known.models.use("m")
    restart(replica, "m")
    assert 0 == own().observations
    replica._known.models.put("m", known)
    after = own()
    assert (40, 40) == (before.observations, after.observations)
    assert unpacked(before.sums_b) == pytest.approx(unpacked(after.sums_b))
    for _ in range(7):
        lesson(rng, [replica])
    assert 47 == own().observations


def restart(estimator: ByteClassEstimator, name: str) -> None:
    """Replace a model by one without any response, as a rival does."""
    model = estimator._known._new_model(name)
    model.generation = estimator._known.models.use(name).generation + 1
    estimator._known.models.put(name, model)


def test_a_single_replica_with_a_broken_counter_harms_only_itself() -> None:
    """If one replica restarts a model and two do not, the two do not follow it, and neither does a new replica."""
    fleet, rng = Fleet(3), np.random.default_rng(6)
    for _ in range(3):
        for _ in range(60):
            lesson(rng, fleet.estimators[:2])
            lesson(rng, fleet.estimators[2:])
        fleet.exchange()
    for _ in range(3):
        for _ in range(60):
            lesson(rng, fleet.estimators[:2])
            lesson(rng, fleet.estimators[2:], ratio=0.9)
        fleet.exchange()
    assert [0, 0] == [fleet.published[i].models[0].generation for i in range(2)]
    assert fleet.published[2].models[0].generation > 0
    fleet.join()
    fleet.exchange(3)
    for i in (0, 1, 3):
        assert guess(fleet.estimators[i]).prompt_tokens == pytest.approx(1_500 / 4, rel=0.05)


def test_replicas_follow_when_most_have_found_that_a_model_has_changed() -> None:
    """A replica without traffic drops what it knows about the old tokenizer once the others have done so."""
    fleet, rng = Fleet(3), np.random.default_rng(7)
    for _ in range(60):
        lesson(rng, fleet.estimators)
    fleet.exchange()
    fleet.exchange()
    for _ in range(100):
        lesson(rng, fleet.estimators[:2], ratio=1.2)
    fleet.exchange()
    fleet.exchange()
    assert [1, 1, 1] == [fleet.published[i].models[0].generation for i in range(3)]
    assert guess(fleet.estimators[2]).prompt_tokens == pytest.approx(1_500 / 1.2, rel=0.1)
    assert fleet.published[2].models[0].observations == 0


def test_a_change_is_undone_for_all_when_most_have_undone_it() -> None:
    """A replica that undoes a change does not follow the others again; they
    follow once most replicas have undone it.
    """
    fleet, rng = Fleet(3), np.random.default_rng(8)
    for _ in range(60):
        lesson(rng, fleet.estimators)
    fleet.exchange()
    fleet.exchange()
    for _ in range(100):
        lesson(rng, fleet.estimators[:2], ratio=1.2)
    fleet.exchange()
    fleet.exchange()
    lesson(rng, fleet.estimators, ratio=1.2)
    fleet.exchange()
    for i, others_follow in ((0, False), (1, True)):
        assert fleet.estimators[i].undo("m")
        for _ in range(3):
            fleet.exchange()
            assert guess(fleet.estimators[i]).prompt_tokens == pytest.approx(1_500 / 4, rel=0.2)
        assert others_follow == (guess(fleet.estimators[2]).prompt_tokens < 1_500 / 2)
    assert 1 == len({fleet.published[i].models[0].generation for i in range(3)})
    assert 0 < fleet.published[0].models[0].observations < 1_000
    assert not fleet.estimators[2].undo("m")


@pytest.mark.parametrize("models", [("m",), ("m", "another")])
def test_a_change_from_before_the_first_exchange_can_be_undone(models: tuple[str, ...]) -> None:
    """A replica that replaced a model before the store could be reached shares what it knows after an undo."""
    fleet, rng = Fleet(2), np.random.default_rng(9)
    for ratio, responses in ((4.0, 60), (1.2, 40)):
        for _ in range(responses):
            for model in models:
                lesson(rng, fleet.estimators[:1], ratio=ratio, model=model)
    fleet.exchange(0)
    published = {model.model: model.observations for model in fleet.published[0].models}
    assert fleet.estimators[0].undo("m")
    fleet.exchange(0, 1)
    assert published | {"m": 73} == {model.model: model.observations for model in fleet.published[0].models}
    assert 73 == {model.model: model.observations for model in fleet.estimators[1].state().models}["m"]


def test_a_replica_may_forget_all_output_lengths() -> None:
    """If a replica's view has no output lengths any more, it takes those of others again."""
    fleet, rng = Fleet(2), np.random.default_rng(10)
    for _ in range(20):
        lesson(rng, fleet.estimators[:1])
    for _ in range(2):
        fleet.exchange()
    view = replace(fleet.estimators[1].state(), outputs=())
    exchanged = fleet.shares[1].exchange(view, [fleet.published_tables[0]])
    lengths = {output.category: output.observations for output in fleet.published[0].outputs}
    assert lengths == {change.key: change.responses for change in exchanged.change.outputs}
