"""The band of thresholds that keep 80 % of the best saving, and thresholds with hardly any requests below them."""

import numpy as np
import pytest

from extproc.planning.hardware.catalogue import built_in
from extproc.planning.hardware.instance import Instance
from extproc.planning.model.analytic import analyse
from extproc.planning.model.objective import Objective
from extproc.planning.model.setup import MeasuredRates, Setup
from extproc.planning.model.splits import Analysis
from extproc.planning.workload.declared import DeclaredRule
from extproc.planning.workload.lengths import Lengths

THRESHOLDS = (512, 1024, 2048, 4096)


def analysed(shares: tuple[float, float, float], short_rate: float) -> Analysis:
    """Analyse 1,000 requests at 1,000 req/s; the shares are those within
    512, 1,024 and 2,048 tokens.

    A long or single instance serves 1 req/s, so the saving is alpha (1 - 1 / short_rate).
    """
    catalogue = built_in()
    instance = Instance(catalogue.model("llama-3-8b"), catalogue.gpu("h100-80g"), 1)
    measured = MeasuredRates(homogeneous=1, short=short_rate, long=1)
    setup = Setup("llama-3-8b", "h100-80g", instance, 16_384, Objective(), spare=0, measured=measured)
    counts = np.round(np.diff([0, *shares, 1]) * 1000).astype(int)
    output = np.repeat([400, 900, 1900, 9000], counts)
    lengths = Lengths(np.ones_like(output), output, "made")
    return analyse(lengths, 1000, setup, DeclaredRule.TRUTH, THRESHOLDS)


@pytest.mark.parametrize(
    ("shares", "band"),
    [
        ((0.30, 0.65, 0.80), (1024, 4096)),  # .65 is over .8 x .80, .30 is not
        ((0.30, 0.63, 0.80), (2048, 4096)),  # .63 is not
        ((0.70, 0.70, 0.80), (512, 4096)),
        ((0.10, 0.20, 0.80), (2048, 4096)),
    ],
)
def test_the_band_ends_before_the_first_threshold_that_keeps_less(
    shares: tuple[float, float, float], band: tuple[int, int]
) -> None:
    """The band extends from the best threshold to both sides, up to the
    first one that saves less than 80 % as much.
    """
    assert analysed(shares, short_rate=2).band == band


def test_without_a_saving_there_is_no_band() -> None:
    """A short pool no faster than one pool saves nothing at any threshold."""
    assert analysed((0.3, 0.6, 0.8), short_rate=1).band is None


def test_the_best_threshold_does_not_jump_to_the_other_end_if_the_saving_is_negligible() -> None:
    """With the same number of instances at each threshold and negligible differences
    in utilisation, the smallest is reported.
    """
    assert analysed((0.3, 0.6, 0.8), short_rate=1.0001).best.threshold == THRESHOLDS[0]


def test_a_pool_may_get_empty_prompts_only() -> None:
    """One failed request without a prompt, in a trace of long ones, is all that a small pool gets; the others are
    planned as without it.
    """
    catalogue = built_in()
    instance = Instance(catalogue.model("llama-3-8b"), catalogue.gpu("h100-80g"), 1)
    setup = Setup("llama-3-8b", "h100-80g", instance, 16_384, Objective())
    prompt, output = np.full(3_001, 2_000), np.full(3_001, 50)
    prompt[0] = 0
    found = analyse(Lengths(prompt, output, "made"), 5, setup, DeclaredRule.TRUTH, THRESHOLDS).splits[0]
    others = analyse(Lengths(prompt[1:], output[1:], "made"), 5, setup, DeclaredRule.TRUTH, THRESHOLDS)
    assert found.alpha == pytest.approx(1 / 3_001)
    assert found.long_rate == pytest.approx(others.long.rate_per_instance)
