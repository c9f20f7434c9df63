"""Replicas that share what they learn: each keeps its own and the others' knowledge apart, and uses both."""

from dataclasses import replace

import numpy as np
import pytest

from extproc.core.estimator import make_estimator
from extproc.core.estimator.byteclass import ByteClassEstimator
from extproc.core.estimator.change import Change
from extproc.core.estimator.length_counts import FADING
from extproc.core.estimator.merging import merged
from extproc.core.estimator.packing import unpacked
from extproc.core.estimator.protocol import Estimate, Estimator, LearnedState, ModelState
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.estimator.sharing import Share
from extproc.core.estimator.state_tables import state_of, tables_of
from extproc.core.estimator.tables import Tables, settled
from extproc.core.estimator.terms import Terms
from extproc.core.usage import Usage
from tests.unit.byteclass_lessons import WORDS, facts, teach

SETTINGS = EstimatorSettings()
TERMS = Terms.of(SETTINGS)
KINDS = ["byteclass", "ema"]


class Fleet:
    """Replicas that publish and read each other's knowledge, without a store in between."""

    def __init__(self, replicas: int, kind: str = "byteclass") -> None:
        self.settings = EstimatorSettings(kind=kind)  # type: ignore[arg-type]
        self.terms = Terms.of(self.settings)
        self.published_tables: dict[int, Tables] = {}
        self.estimators: list[Estimator] = []
        self.shares: list[Share] = []
        self.read: dict[tuple[int, int], Tables] = {}
        for _ in range(replicas):
            self.join()

    def join(self) -> Estimator:
        """Add a replica that has learned nothing."""
        self.estimators.append(make_estimator(self.settings))
        self.shares.append(Share(self.terms))
        return self.estimators[-1]

    @property
    def published(self) -> dict[int, LearnedState]:
        """The last published state of each replica, as rows."""
        return {replica: state_of(tables) for replica, tables in self.published_tables.items()}

    def exchange(self, *replicas: int) -> None:
        """Let these replicas, or all of them, publish and read once."""
        for i in replicas or range(len(self.estimators)):
            peers = [
                settled(tables) if self.read.get((i, j)) is tables else tables
                for j, tables in self.published_tables.items()
                if j != i
            ]
            self.read |= {(i, j): tables for j, tables in self.published_tables.items()}
            exchanged = self.shares[i].exchange(self.estimators[i].state(), peers)
            self.published_tables[i] = exchanged.own
            for bite in exchanged.change.bites():
                self.shares[i].skipped(self.estimators[i].shift(bite))


def lesson(rng: np.random.Generator, estimators: list[Estimator], ratio: float = 4.0, model: str = "m") -> None:
    """Teach the same response to several estimators."""
    text = (WORDS * 42)[rng.integers(0, 50) :][: int(rng.integers(200, 4_000))]
    usage = Usage(max(1, round(len(text) / ratio * rng.normal(1, 0.03))), int(rng.integers(1, 900)))
    tenant = f"tenant {rng.integers(5)}"
    for estimator in estimators:
        estimator.observe(estimator.estimate(facts(text, model=model), tenant), usage)


def guess(estimator: Estimator) -> Estimate:
    """Return the estimate of a fixed request."""
    return estimator.estimate(facts((WORDS * 42)[:1_500]), "tenant 1")


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
    assert change.is_nothing
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
    assert replica.shift(change).is_nothing
    assert replica.state().models[0].observations == 80 + 30 + 7
    own = state_of(share.exchange(replica.state(), [fleet.published_tables[0]]).own)
    assert own.models[0].observations == 37


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


def test_knowledge_from_a_file_is_not_published_as_own() -> None:
    """Knowledge that a replica started with belongs to others, so the replica does not publish it again."""
    taught, estimator, share = ByteClassEstimator(SETTINGS), ByteClassEstimator(SETTINGS), Share(TERMS)
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
        tuple(row for bite in bites for row in bite.categories),
        tuple(row for bite in bites for row in bite.outputs),
    )
    assert max(len(bite.models) + len(bite.categories) / 4 + len(bite.outputs) / 4 for bite in bites) <= 1
    parts = [make() for make in other.parts()]
    assert max(len(part.models) + len(part.categories) / 4 + len(part.outputs) / 4 for part in parts) <= 1
    assert other.state() == LearnedState.joined(parts)


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
        assert estimator.shift(exchanged.change).is_nothing
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
        assert estimator.shift(change).is_nothing
        assert (q, 20) == (estimator.state().models[0].q, estimator.state().models[0].observations)
