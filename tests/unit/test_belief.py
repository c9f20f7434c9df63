"""The estimate of one request, compared with its formulas written out."""

from math import exp, log, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.core.estimator.belief import believe
from extproc.core.estimator.features import FEATURE_NAMES, features
from extproc.core.estimator.least_squares import NOISE
from extproc.core.estimator.prices import prior
from extproc.core.estimator.residual import Residual
from extproc.core.estimator.scale import SCALE_FACTORS
from extproc.core.estimator.served_model import ServedModel
from extproc.core.estimator.settings import ByteClassSettings, MediaTokens
from extproc.core.estimator.text import BLANK_RUN, RUN, TEXT_FEATURES, look
from extproc.core.facts import Api, MediaCount, RequestFacts

PRIOR = prior(MediaTokens())


def taught_model() -> ServedModel:
    """Return a model whose prices and scale have all been moved by some responses."""
    model = ServedModel(PRIOR, ByteClassSettings(), Residual())
    rng = np.random.default_rng(3)
    for _ in range(40):
        x = rng.uniform(0, 50, len(FEATURE_NAMES))
        model.prices.learn(x, float(x @ PRIOR.mean) * rng.uniform(1.0, 1.3))
        model.scale.learn(0.01, rng.uniform(-1, 1, SCALE_FACTORS).tolist(), rng.uniform(0.01, 0.2))
    model.prices.load(model.prices.sums, 40, 40.0)
    return model


MODEL = taught_model()
GROUPS = (
    ("vowel", "consonant", "rare_letter", "vowels", "consonants", "word start", "letter pair"),
    ("upper", "capitals"),
    ("digit", "number start", "digit in a run"),
    ("bracket", "joiner", "punctuation", "marks", "spaced mark"),
    ("space", "line", "indentation", "blank line", "byte in a run of blanks", "byte in a run"),
)
UNREPEATED = ["unrepeated byte", "unrepeated character"]


def shares_of_tokens(costs: dict[str, float], tokens: float) -> list[float]:
    """Return each group's share of the tokens, by the features' names."""
    text, rest = FEATURE_NAMES[:TEXT_FEATURES], FEATURE_NAMES[TEXT_FEATURES:]
    of_ascii = [
        [n for n in text if n in names or (n.startswith("letter pair") and "letter pair" in names)]
        for names in GROUPS
    ]
    seen = {name for names in (*of_ascii, UNREPEATED) for name in names}
    groups = [*of_ascii, [n for n in text if n not in seen], UNREPEATED, rest[:6], rest[6:]]
    return [min(abs(sum(costs[n] for n in names)) / tokens, 2.0) for names in groups]


@given(
    text=st.one_of(st.binary(max_size=2_000), st.text(max_size=600).map(str.encode)),
    messages=st.integers(0, 50),
    images=st.integers(0, 3),
    residual=st.builds(Residual, st.floats(-0.5, 0.5), st.floats(0.01, 0.5), st.just(4.0), st.integers(0, 500)),
)
@settings(max_examples=60, deadline=None)
def test_an_estimate_is_what_its_formulas_say(text: bytes, messages: int, images: int, residual: Residual) -> None:
    """For any request, the tokens and the bound computed in one pass equal those of the separate formulas."""
    facts = RequestFacts(Api.CHAT, "m", text, messages=messages, media=MediaCount(large_images=images))
    x, weights = features(facts, look(text)), MODEL.prices.weights
    belief = believe(x, len(text), MODEL, residual)

    outside_text = max(float(x[TEXT_FEATURES:] @ prices[TEXT_FEATURES:]) for prices in (PRIOR.mean, weights))
    highest = len(text) + 4 * outside_text + 256
    padding = min(x[BLANK_RUN] + x[RUN], len(text))
    lowest = max((len(text) - padding) / 16 + padding / 128, 1)
    tokens = min(max(float(weights @ x) * exp(residual.mean), lowest), highest)
    sums, ridge = MODEL.prices.sums, NOISE**2 * np.linalg.inv(PRIOR.covariance)
    leverage = NOISE**2 * float(x @ np.linalg.solve(sums.a + ridge, x)) / tokens**2
    variance = residual.spread**2 + leverage + 0.5 / tokens
    costs = dict(zip(FEATURE_NAMES, (weights * x).tolist(), strict=True))
    factors = [1, log(tokens / 1_000), log((leverage + 1e-9) / 0.001), 1 / sqrt(1 + residual.responses)]
    factors += shares_of_tokens(costs, tokens)
    a, b = MODEL.scale.sums
    t = np.linalg.solve(a + 20 * np.eye(SCALE_FACTORS), b)
    usual = 0.001 * exp(a[0, 2] / (a[0, 0] + 20))
    scale = sqrt(variance * exp(min(max(float(t @ factors), -6), 6)) + 3 * max(leverage - 4 * usual, 0))
    assert tokens == pytest.approx(belief.tokens, rel=1e-9)
    assert highest == pytest.approx(belief.highest, rel=1e-9)
    assert min(tokens * exp(min(MODEL.bound.q * scale, 20)), highest) == pytest.approx(belief.bound, rel=1e-6)
