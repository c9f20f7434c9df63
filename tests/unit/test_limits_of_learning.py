"""Limits in the byte-class model that only unusual numbers reach, and the kind of a text by its product."""

from math import exp

import pytest

from extproc.core.estimator.bound import AdaptiveBound
from extproc.core.estimator.features import OF_KIND, Views, features
from extproc.core.estimator.length_counts import LengthCounts
from extproc.core.estimator.prices import prior
from extproc.core.estimator.scale import MAX_LOG, SCALE_FACTORS, LogVariance
from extproc.core.estimator.settings import MediaTokens
from extproc.core.estimator.text import TextKind, kind_of, look
from extproc.core.estimator.voices import Voices
from extproc.core.facts import Api, RequestFacts

TEXTS = {
    TextKind.LATIN: "Words of a language with Latin letters. ",
    TextKind.MARKUP: '{"id": [1, 2, 3], "at": {"x": 4.5}};\n',
    TextKind.TWO_BYTE: "Слова на другом языке. ",
    TextKind.INDIC: "शब्द और वाक्य। ",
    TextKind.CJK: "文章和句子的文字。",
    TextKind.NONE: "",
}


@pytest.mark.parametrize("kind", TEXTS)
def test_the_views_of_a_request_show_the_kind_of_its_text(kind: TextKind) -> None:
    """The product that makes an estimate also shows the kind, whatever else the request contains."""
    facts, prices = RequestFacts(Api.CHAT, "m", TEXTS[kind].encode() * 9, messages=3), prior(MediaTokens()).mean
    assert kind == kind_of(Views(prices).of(features(facts, look(facts.text)), prices)[OF_KIND])


def test_a_bound_is_never_below_the_estimate() -> None:
    """A source with a large negative q' of its own gets the estimate as its bound."""
    assert AdaptiveBound(0.01, q=1.0).above(100.0, 0.5, more=-3.0) == 100


@pytest.mark.parametrize(("fitted", "limited"), [(-50.0, -MAX_LOG), (50.0, MAX_LOG), (0.5, 0.5)])
def test_the_scale_stays_within_its_limits(fitted: float, limited: float) -> None:
    """However far the fit goes, in both directions, the scale changes by no more than exp(MAX_LOG)."""
    scale = LogVariance()
    scale._t = [fitted, *([0.0] * (SCALE_FACTORS - 1))]
    assert 2 * exp(limited) == pytest.approx(scale.variance(2.0, [1.0] * SCALE_FACTORS))


def test_lengths_ripen_from_the_earliest_request() -> None:
    """A response to an earlier request that comes later moves the beginning back, and the longest wait up."""
    lengths = LengthCounts(0.05)
    lengths.wait(9, 10)
    lengths.wait(3, 10)
    assert not lengths.is_ripe(16)
    assert lengths.is_ripe(17)


def test_rare_sources_count_once_in_the_mean() -> None:
    """A source of half of the traffic counts by .02 relative to a mean of .51, since all others count in full."""
    voices = Voices(fair_share=0.01, window=200.0)
    for other in range(1, 2_001):
        voices.observe(other)
        weight = voices.observe(0).weight
    assert 0.02 / 0.51 == pytest.approx(weight, rel=0.05)
