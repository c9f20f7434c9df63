"""What a model predicts for one request: the estimate, its doubt, and the limits that no tokenizer exceeds."""

from math import exp, log, sqrt

import numpy as np
import pytest
from msgspec.structs import replace

from extproc.core.estimator.belief import Belief, believe
from extproc.core.estimator.features import FEATURE_NAMES, features
from extproc.core.estimator.prices import Prior, prior
from extproc.core.estimator.residual import Residual
from extproc.core.estimator.served_model import ServedModel
from extproc.core.estimator.settings import ByteClassSettings, MediaTokens
from extproc.core.estimator.text import look
from extproc.core.facts import Api, MediaCount, RequestFacts
from tests.unit.byteclass_lessons import WORDS, structure_tokens

PRIOR = prior(MediaTokens())
FACTS = RequestFacts(Api.CHAT, "m", WORDS * 20, messages=1)


def new_model() -> ServedModel:
    """Return a model that has learned nothing."""
    return ServedModel(PRIOR, ByteClassSettings(), Residual())


def believed(
    facts: RequestFacts = FACTS, model: ServedModel | None = None, residual: Residual | None = None
) -> Belief:
    """Return the prediction of a model, by default a new one, for a request."""
    x = features(facts, look(facts.text))
    return believe(x, facts.text_bytes, model or new_model(), residual or Residual())


@pytest.mark.parametrize("count", [1, 20, 400])
def test_the_grain_of_whole_tokens_adds_to_the_doubt(count: int) -> None:
    """In addition to what the prices leave open, k tokens scatter by the square root of k / 2."""
    facts = replace(FACTS, text=WORDS * count)
    belief = believed(facts)
    leverage = new_model().prices.leverage(features(facts, look(facts.text)) / belief.tokens)
    assert leverage + 0.5 / belief.tokens == pytest.approx(belief.doubt)
    assert 0.1**2 + belief.doubt == pytest.approx(belief.variance)


def test_the_scatter_of_a_category_adds_to_the_doubt() -> None:
    """Variances of independent errors add up."""
    belief = believed(residual=Residual(spread=0.3))
    assert 0.3**2 + belief.doubt == pytest.approx(belief.variance)


def test_the_residual_is_a_factor() -> None:
    """A category that costs 50 % more is estimated 50 % higher, and the belief reports that residual."""
    residual = Residual(mean=log(1.5))
    belief = believed(residual=residual)
    assert 1.5 * believed().tokens == pytest.approx(belief.tokens)
    assert log(1.5) == belief.residual


def test_the_factors_of_an_ordinary_request_are_about_zero() -> None:
    """Size is relative to 1,000 tokens, leverage to 0.001, and the factor for youth falls with the responses."""
    belief = believed(residual=Residual(responses=3))
    leverage = belief.doubt - 0.5 / belief.tokens
    first = (1.0, log(belief.tokens / 1_000), log((leverage + 1e-9) / 0.001), 1 / sqrt(4))
    assert first == pytest.approx(tuple(belief.factors[:4]))
    assert 1.0 == believed().factors[3]


def test_the_bound_is_q_scales_above_the_estimate() -> None:
    """The multiple belongs to the model, the scale to the request."""
    model = new_model()
    model.bound.q = 1.0
    belief = believed(model=model)
    assert belief.tokens * exp(1.0 * belief.scale) == pytest.approx(belief.bound)
    leverage = belief.doubt - 0.5 / belief.tokens
    beyond_the_ordinary = 3 * (leverage - 4 * 0.001)  # the usual leverage of a model that has learned nothing
    expected = sqrt(model.scale.variance(belief.variance, belief.factors) + beyond_the_ordinary)
    assert expected == pytest.approx(belief.scale)


def test_learned_errors_do_not_narrow_the_bound_of_unfamiliar_text() -> None:
    """A model with tiny errors doubts a script it has never seen as much as if it had learned of no errors."""
    model = new_model()
    for number in range(300):
        facts = replace(FACTS, text=(WORDS * 20)[number : number + 1_500])
        belief = believed(facts, model)
        model.scale.learn(belief.variance, belief.factors, 0.003)
        model.prices.learn(features(facts, look(facts.text)), belief.tokens)
    ordinary = believed(facts, model)
    unlike = believed(replace(FACTS, text="ᏤᏯᏪᏕᏢᏣᏔᎪᏀᏭᏞᏦ".encode() * 60), model)
    assert ordinary.scale < 0.4 * sqrt(ordinary.variance)
    assert sqrt(unlike.doubt) * 0.99 < unlike.scale
    assert unlike.bound > 5 * unlike.tokens or unlike.bound == unlike.highest


def test_a_response_is_trusted_by_how_far_such_requests_usually_err() -> None:
    """Errors of the usual size, or up to 5 %, count in full; errors twice as large count a quarter."""
    belief = believed(residual=Residual(spread=0.2))
    noise = belief.scale * sqrt(1 - belief.doubt / belief.variance)
    assert 1.0 == pytest.approx(belief.trust(noise))
    assert 1.0 == belief.trust(2 * noise)
    assert 0.25 == pytest.approx(belief.trust(noise / 2))
    assert (0.05 / noise) ** 2 == pytest.approx(belief.trust(0.01))
    assert 1.0 == believed(residual=Residual(spread=0.01)).trust(0.01)


@pytest.mark.parametrize("media", [MediaCount(), MediaCount(medium_images=2)])
def test_no_bound_exceeds_the_physical_limit(media: MediaCount) -> None:
    """The maximum is one token per byte, four times the price of what is not text, and 256 for a template."""
    facts = replace(FACTS, media=media)
    x = features(facts, look(facts.text))
    highest = facts.text_bytes + 4 * structure_tokens(x, PRIOR.mean) + 256
    model = new_model()
    model.bound.q = 1_000.0
    belief = believed(facts, model)
    assert (highest, highest) == pytest.approx((belief.highest, belief.bound))
    expensive = believed(facts, residual=Residual(mean=20.0))
    assert (highest, highest) == pytest.approx((expensive.tokens, expensive.bound))


def test_learned_high_prices_raise_the_limit() -> None:
    """If the learned prices of what is not text exceed the prior's, the limit follows them."""
    model = new_model()
    x = features(FACTS, look(FACTS.text))
    for _ in range(50):
        model.prices.learn(x, 5_000.0, 1.0)
    learned = structure_tokens(x, model.prices.weights)
    assert learned > 10 * structure_tokens(x, PRIOR.mean)
    assert FACTS.text_bytes + 4 * learned + 256 == pytest.approx(believed(model=model).highest)


def test_no_estimate_is_below_what_any_tokenizer_makes() -> None:
    """A token has at most 16 bytes, and a prompt has at least one token."""
    cheap = Residual(mean=-20.0)
    assert len(FACTS.text) / 16 == pytest.approx(believed(residual=cheap).tokens, rel=1e-3)
    assert 1.0 == believed(replace(FACTS, text=b""), residual=cheap).tokens


def test_padding_may_cost_less_than_any_text() -> None:
    """Tokenizers have tokens of up to 128 spaces: learned prices of padding are believed down to there."""
    padding = replace(FACTS, text=WORDS + b" " * 12_800)
    assert (len(WORDS) / 16 + 12_800 / 128) == pytest.approx(
        believed(padding, residual=Residual(mean=-20.0)).tokens, rel=0.02
    )


def test_the_belief_about_an_empty_prompt_is_finite() -> None:
    """However little there is, all numbers are finite."""
    belief = believed(replace(FACTS, text=b"", messages=0))
    assert np.isfinite([belief.tokens, belief.bound, belief.doubt, belief.scale, *belief.factors]).all()


@pytest.mark.parametrize(
    ("vowel", "punctuation", "shares"),
    [(5.0, -4.0, [2.0, 2.0]), (1.5, -0.5, [0.5, 1.5]), (0.25, 0.75, [0.25, 0.75])],
)
def test_a_groups_share_of_the_tokens_is_from_0_to_2(
    vowel: float, punctuation: float, shares: list[float]
) -> None:
    """If some prices are below zero and others far above, each group's share of the tokens is taken as positive,
    and capped at 2; those of the other groups stay what they are.
    """
    mean = np.zeros_like(PRIOR.mean)
    mean[FEATURE_NAMES.index("vowel")], mean[FEATURE_NAMES.index("punctuation")] = vowel, punctuation
    odd = Prior(mean, PRIOR.covariance)
    text = b"a!" * 100
    x = features(RequestFacts(Api.CHAT, "m", text), look(text))
    model = ServedModel(odd, ByteClassSettings(), Residual())
    belief = believe(x, len(text), model, Residual())
    assert 100 == pytest.approx(belief.tokens)
    others = [0.0] * (len(belief.factors) - 6)
    assert others + shares == pytest.approx(sorted(belief.factors[4:]))
