"""What a model believes of one request: the estimate, its doubt, and the limits that no tokenizer passes."""

from math import exp, log, sqrt

import numpy as np
import pytest
from msgspec.structs import replace

from extproc.core.estimator.belief import Belief, believe
from extproc.core.estimator.features import FEATURE_NAMES, features, structure_tokens
from extproc.core.estimator.prices import Prior, prior
from extproc.core.estimator.residual import Residual
from extproc.core.estimator.served_model import ServedModel
from extproc.core.estimator.settings import ByteClassSettings, MediaTokens
from extproc.core.estimator.text import look
from extproc.core.facts import Api, MediaCount, RequestFacts
from tests.unit.byteclass_lessons import WORDS

PRIOR = prior(MediaTokens())
FACTS = RequestFacts(Api.CHAT, "m", WORDS * 20, messages=1)


def new_model() -> ServedModel:
    """Return a model of which nothing is known."""
    return ServedModel(PRIOR, ByteClassSettings(), Residual())


def believed(
    facts: RequestFacts = FACTS, model: ServedModel | None = None, residual: Residual | None = None
) -> Belief:
    """Return what a model, by default a new one, believes of a request."""
    x = features(facts, look(facts.text))
    return believe(x, facts.text_bytes, model or new_model(), residual or Residual())


@pytest.mark.parametrize("count", [1, 20, 400])
def test_tokens_are_counted_in_whole(count: int) -> None:
    """Beside what the prices leave open, k tokens scatter by the square root of half of k."""
    facts = replace(FACTS, text=WORDS * count)
    belief = believed(facts)
    leverage = new_model().prices.leverage(features(facts, look(facts.text)) / belief.tokens)
    assert leverage + 0.5 / belief.tokens == pytest.approx(belief.doubt)
    assert 0.1**2 + belief.doubt == pytest.approx(belief.variance)


def test_the_scatter_of_a_category_adds_to_the_doubt() -> None:
    """Variances of what does not depend on each other add up."""
    belief = believed(residual=Residual(spread=0.3))
    assert 0.3**2 + belief.doubt == pytest.approx(belief.variance)


def test_the_residual_is_a_factor() -> None:
    """A category that costs half as much again is estimated so, and says by how much."""
    residual = Residual(mean=log(1.5))
    belief = believed(residual=residual)
    assert 1.5 * believed().tokens == pytest.approx(belief.tokens)
    assert log(1.5) == belief.residual


def test_the_factors_of_an_ordinary_request_are_about_nothing() -> None:
    """Size counts from 1,000 tokens on, leverage from a thousandth, and youth falls with the responses."""
    belief = believed(residual=Residual(responses=3))
    leverage = belief.doubt - 0.5 / belief.tokens
    first = (1.0, log(belief.tokens / 1_000), log((leverage + 1e-9) / 0.001), 1 / sqrt(4))
    assert first == pytest.approx(tuple(belief.factors[:4]))
    assert 1.0 == believed().factors[3]


def test_the_bound_is_as_many_scales_above_as_the_model_found() -> None:
    """The multiple is the model's, the scale the request's."""
    model = new_model()
    model.bound.q = 1.0
    belief = believed(model=model)
    assert belief.tokens * exp(1.0 * belief.scale) == pytest.approx(belief.bound)
    leverage = belief.doubt - 0.5 / belief.tokens
    beyond_the_ordinary = 3 * (leverage - 4 * 0.001)  # of a model that nothing taught what is ordinary
    expected = sqrt(model.scale.variance(belief.variance, belief.factors) + beyond_the_ordinary)
    assert expected == pytest.approx(belief.scale)


def test_nothing_that_was_learned_of_errors_narrows_the_bound_of_what_is_unlike_all_that_was_seen() -> None:
    """A model whose errors are tiny doubts text in a script that it never saw as if it had learned of no error."""
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


def test_the_prices_believe_a_response_by_how_far_such_requests_err() -> None:
    """Errors as large as those of the model, or of 5 %, count in full, those twice as large a quarter."""
    belief = believed(residual=Residual(spread=0.2))
    noise = belief.scale * sqrt(1 - belief.doubt / belief.variance)
    assert 1.0 == pytest.approx(belief.trust(noise))
    assert 1.0 == belief.trust(2 * noise)
    assert 0.25 == pytest.approx(belief.trust(noise / 2))
    assert (0.05 / noise) ** 2 == pytest.approx(belief.trust(0.01))
    assert 1.0 == believed(residual=Residual(spread=0.01)).trust(0.01)


@pytest.mark.parametrize("media", [MediaCount(), MediaCount(medium_images=2)])
def test_no_bound_passes_the_physical_limit(media: MediaCount) -> None:
    """A token for each byte, four times what is not text, and 256 for a template are the most."""
    facts = replace(FACTS, media=media)
    x = features(facts, look(facts.text))
    highest = facts.text_bytes + 4 * structure_tokens(x, PRIOR.mean) + 256
    model = new_model()
    model.bound.q = 1_000.0
    belief = believed(facts, model)
    assert (highest, highest) == pytest.approx((belief.highest, belief.bound))
    dear = believed(facts, residual=Residual(mean=20.0))
    assert (highest, highest) == pytest.approx((dear.tokens, dear.bound))


def test_what_prices_have_learned_to_be_dear_may_be_so() -> None:
    """Where learned prices of what is not text are above the prior's, the limit is by them."""
    model = new_model()
    x = features(FACTS, look(FACTS.text))
    for _ in range(50):
        model.prices.learn(x, 5_000.0, 1.0)
    learned = structure_tokens(x, model.prices.weights)
    assert learned > 10 * structure_tokens(x, PRIOR.mean)
    assert FACTS.text_bytes + 4 * learned + 256 == pytest.approx(believed(model=model).highest)


def test_no_estimate_is_below_what_any_tokenizer_makes() -> None:
    """Sixteen bytes in a token are the most; and a prompt is a token at least."""
    cheap = Residual(mean=-20.0)
    assert len(FACTS.text) / 16 == pytest.approx(believed(residual=cheap).tokens, rel=1e-3)
    assert 1.0 == believed(replace(FACTS, text=b""), residual=cheap).tokens


def test_a_prompt_of_nothing_has_no_doubt_that_is_none() -> None:
    """However little there is, all numbers are finite."""
    belief = believed(replace(FACTS, text=b"", messages=0))
    assert np.isfinite([belief.tokens, belief.bound, belief.doubt, belief.scale, *belief.factors]).all()


def test_odd_prices_count_as_twice_the_whole_at_most() -> None:
    """Where some prices are far below zero and others far above, no group's share of the tokens is beyond 2."""
    mean = np.zeros_like(PRIOR.mean)
    mean[FEATURE_NAMES.index("vowel")], mean[FEATURE_NAMES.index("punctuation")] = 5.0, -4.0
    odd = Prior(mean, PRIOR.covariance)
    text = b"a!" * 100
    x = features(RequestFacts(Api.CHAT, "m", text), look(text))
    model = ServedModel(odd, ByteClassSettings(), Residual())
    belief = believe(x, len(text), model, Residual())
    assert 100 == pytest.approx(belief.tokens)
    assert [2.0, 2.0] == sorted(belief.factors[4:])[-2:]
