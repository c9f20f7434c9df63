"""How much one source counts for all, and that the rest goes into its own deviation."""

from itertools import cycle, islice
from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.estimator.bound import AdaptiveBound
from extproc.core.estimator.byteclass import ByteClassEstimator
from extproc.core.estimator.protocol import Estimate
from extproc.core.estimator.residual import Residual
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.estimator.voices import FAIR_SHARE, MOST_SOURCES, Voice, Voices
from extproc.core.usage import Usage
from tests.unit.byteclass_lessons import WORDS, facts


def weights(sources: list[int]) -> list[float]:
    """Return the weight of each response of these sources."""
    voices = Voices()
    return [voices.observe(source).weight for source in sources]


@given(st.integers(1, 8), st.integers(1, 600))
def test_equal_sources_are_not_held_back(sources: int, responses: int) -> None:
    """For sources that take turns, including a single one, every response
    counts almost fully from the first on.
    """
    assert min(weights(list(islice(cycle(range(sources)), responses)))) > 0.8


@given(st.lists(st.integers(0, 20), max_size=400))
def test_a_weight_is_above_0_and_at_most_1(sources: list[int]) -> None:
    """For any sequence of sources, each response has some weight, and none more than 1."""
    assert all(0 < weight <= 1 for weight in weights(sources))


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_one_source_among_many_counts_as_its_fair_share(share: float) -> None:
    """A source with a tenth to half of the traffic gets a few per cent of the total weight."""
    rng = np.random.default_rng(1)
    loud = rng.random(3_000) < share
    counted = np.array(weights([0 if is_loud else place + 1 for place, is_loud in enumerate(loud)]))[1_000:]
    said = counted[loud[1_000:]].sum() / counted.sum()
    assert FAIR_SHARE / 2 < said < 4 * FAIR_SHARE
    assert 0.99 < counted[~loud[1_000:]].mean()


def test_a_source_is_one_of_several_once_it_comes_again_next_to_others() -> None:
    """A single source never is; of two in turn, each is from its second response on."""
    alone, two = Voices(), Voices()
    assert not any(alone.is_one_of_several(alone.observe(1)) for _ in range(300))
    assert [False, False, *[True] * 298] == [two.is_one_of_several(two.observe(turn % 2)) for turn in range(300)]


def test_sources_are_bounded() -> None:
    """However many sources there are, the most recent ones are kept, and others count as new."""
    voices = Voices()
    voices.observe(0).q = 1.0
    for source in range(1, MOST_SOURCES):
        voices.observe(source)
    assert 0 in voices.known
    voices.observe(MOST_SOURCES)
    assert 0 not in voices.known
    assert 1 == voices.observe(0).count


@given(st.floats(-2, 2), st.floats(-2, 2), st.floats(0, 1), st.integers(0, 100))
def test_a_residual_of_less_weight_fades_as_any(mean: float, error: float, weight: float, responses: int) -> None:
    """A response of partial weight moves the mean like a full one with a smaller error, so sums stay sums."""
    part, whole = (Residual(mean, 0.1, responses=responses) for _ in range(2))
    part.learn(error, 0.0, 4.0, move_mean=True, weight=weight)
    whole.learn(mean + weight * (error - mean), 0.0, 4.0, move_mean=True)
    assert whole.mean == pytest.approx(part.mean)
    assert whole.responses == part.responses


def test_the_withheld_part_goes_into_the_sources_own_deviation() -> None:
    """A source with a weight of .2 moves its own deviation by .8 of a step;
    one with a weight of 1 has no deviation.
    """
    held_back, whole = Voice(), Voice()
    held_back.weight = 0.2
    residual = Residual(0.3, 0.1)
    for voice in (held_back, whole):
        voice.learn(0.5, 0.0, residual, move_mean=True)
    assert residual is whole.adjusted(residual)
    assert (0.0, 0.8 * 0.1 * 0.5) == pytest.approx((whole.deviation, held_back.deviation))
    assert 0.3 + held_back.deviation == held_back.adjusted(residual).mean
    own = held_back.own
    assert own is not None
    assert sqrt(0.2 * 0.1**2 + 0.8 * own.spread**2) == pytest.approx(held_back.adjusted(residual).spread)


def test_a_share_of_the_scores_moves_the_common_bound() -> None:
    """Of ten misses of a source with a weight of .2, two move the common q and
    eight its own q'; q + q' stays at least 0.
    """
    voice, bound = Voice(), AdaptiveBound(0.01)
    voice.weight = 0.2
    for _ in range(10):
        voice.score(bound, 1_000.0)
    assert (2, 8 * 0.5 * 0.99) == pytest.approx((bound.scored, voice.q))
    voice.q, voice.credit = -bound.q, 0.0
    voice.score(bound, -1_000.0)
    assert -bound.q == voice.q


def test_a_bound_is_never_below_its_estimate() -> None:
    """However negative a source's own part is compared with q, the multiple is not below 0."""
    assert 100.0 == AdaptiveBound(0.01, q=1.0).above(100.0, 0.1, more=-3.0)


class Clients:
    """Clients of one model; `tenants_known` says whether the estimator gets their names as tenants."""

    def __init__(self, tenants_known: bool) -> None:  # noqa: FBT001
        self.estimator = ByteClassEstimator(EstimatorSettings())
        self._rng = np.random.default_rng(2)
        self._tenants_known = tenants_known

    def estimate(self, client: str, size_bytes: int) -> Estimate:
        """Return the estimate of a client's request."""
        text = f"You are the helper of {client}.".encode().ljust(128) + (WORDS * 42)[:size_bytes]
        return self.estimator.estimate(facts(text), client if self._tenants_known else "")

    def say(self, client: str, ratio: float) -> None:
        """Let the estimator learn from a response, whose tokens are this multiple of the usual."""
        size_bytes = int(self._rng.integers(400, 4_000))
        tokens = (128 + size_bytes) / 4 * ratio * self._rng.normal(1, 0.03)
        self.estimator.observe(self.estimate(client, size_bytes), Usage(round(tokens)))

    def run(self, responses: int, doubling_share: float) -> None:
        """Send requests of many small clients, and possibly of one whose usage is doubled."""
        for turn in range(responses):
            doubles = self._rng.random() < doubling_share
            self.say("the doubling one" if doubles else f"client {turn % 90}", 2.0 if doubles else 1.0)


@pytest.mark.parametrize("tenants_known", [True, False])
@pytest.mark.parametrize("share", [0.1, 0.3])
def test_doubled_usage_of_one_client_stays_its_own(tenants_known: bool, share: float) -> None:  # noqa: FBT001
    """It is learned for that client, while estimates and bounds of others change by at most 2 and 5 %."""
    alone, mixed = Clients(tenants_known), Clients(tenants_known)
    alone.run(1_500, 0.0)
    mixed.run(1_500, share)
    expected, others = (each.estimate("client 5", 2_000) for each in (alone, mixed))
    assert expected.prompt_tokens == pytest.approx(others.prompt_tokens, rel=0.02)
    assert others.prompt_bound < 1.05 * expected.prompt_bound
    its_own = mixed.estimate("the doubling one", 2_000)
    assert 2 * 2_128 / 4 == pytest.approx(its_own.prompt_tokens, rel=0.1)
    assert its_own.prompt_bound > 2 * 2_128 / 4


def test_a_restarted_model_forgets_the_deviations_of_its_sources() -> None:
    """When a model starts from scratch, no source keeps a deviation from the former prices."""
    clients = Clients(tenants_known=False)
    clients.run(300, 0.3)
    model = clients.estimator._known.models.use("m")
    loud = next(voice for voice in model.voices.known.values() if voice.own is not None)
    model.voices.forget()
    assert (0.0, 0.0) == (loud.deviation, loud.q)
    assert loud.count > 1
