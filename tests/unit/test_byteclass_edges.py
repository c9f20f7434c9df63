"""Edge cases of the byte-class estimator: usage that says little, or less than is known of a tenant."""

import pytest
from msgspec.structs import replace

from extproc.core.estimator.byteclass import ByteClassEstimator
from extproc.core.estimator.protocol import Learning, Refused
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.facts import RequestFacts
from extproc.core.usage import Overflow, Usage
from tests.unit.byteclass_lessons import WORDS, facts, teach

PROMPT = facts(WORDS * 20)


def taught(count: int = 150) -> ByteClassEstimator:
    """Return an estimator that has learned prose at four bytes per token."""
    estimator = ByteClassEstimator(EstimatorSettings())
    teach(estimator, count)
    return estimator


@pytest.mark.parametrize("tokens", [0, -1, 10**9])
def test_impossible_usage_is_reported_without_a_ratio(tokens: int) -> None:
    """No ratio, no miss and no bytes per token are reported for it."""
    estimator = taught()
    nothing = Learning(0.0, under_counted=False, bytes_per_token=0.0, refused=Refused.IMPLAUSIBLE)
    assert nothing == estimator.observe(estimator.estimate(PROMPT, ""), Usage(tokens))


def test_a_prompt_cut_below_its_tenants_constant_does_not_raise() -> None:
    """If less is left than a server adds for a tenant, the constant stays, and prices hardly move."""
    estimator = taught()
    for position in range(40):
        request = facts((WORDS * 42)[position:][: 400 + 90 * position])
        estimator.observe(estimator.estimate(request, "t"), Usage(len(request.text) // 4 + 1_000))
    before = estimator.estimate(PROMPT, "t").prompt_tokens
    learning = estimator.observe(estimator.estimate(PROMPT, "t"), Usage(len(PROMPT.text) // 14))
    assert (None, True, True) == (learning.refused, learning.clipped, learning.ratio > 8)
    assert before == pytest.approx(estimator.estimate(PROMPT, "t").prompt_tokens, rel=0.1)


@pytest.mark.parametrize("factor", [3.0, 1 / 3.0])
def test_one_outlier_moves_little_in_either_direction(factor: float) -> None:
    """It is weighed by how far estimates usually err, whether it is too high or too low."""
    estimator = taught()
    before = estimator.estimate(PROMPT, "").prompt_tokens
    learning = estimator.observe(estimator.estimate(PROMPT, ""), Usage(round(len(PROMPT.text) / 4 * factor)))
    assert learning.clipped
    assert before == pytest.approx(estimator.estimate(PROMPT, "").prompt_tokens, rel=0.02)


@pytest.mark.parametrize(
    "request_",
    [replace(PROMPT, unseen_history=True), replace(PROMPT, truncate_prompt_tokens=90)],
    ids=["unseen history", "truncated"],
)
def test_a_refusal_of_a_prompt_that_was_not_fully_seen_teaches_nothing(request_: RequestFacts) -> None:
    """The tokens that it names belong to more, or to less, than the text here."""
    estimator = taught()
    before = estimator.state()
    estimator.observe_overflow(estimator.estimate(request_, ""), Overflow(9_000))
    assert before == estimator.state()
    estimator.observe_overflow(estimator.estimate(PROMPT, ""), Overflow(9_000))
    assert before != estimator.state()


def test_padding_of_blanks_and_of_other_runs_may_cost_next_to_nothing() -> None:
    """A token may be up to 128 bytes of either, but only 16 bytes of anything else."""
    estimator = taught()
    padded, plain = facts(b" " * 8_000 + b"-" * 8_000), facts((WORDS * 200)[:16_000])
    refused = [estimator.observe(estimator.estimate(each, ""), Usage(160)).refused for each in (padded, plain)]
    assert [None, Refused.IMPLAUSIBLE] == refused


def test_usage_of_an_exact_count_is_neither_clipped_nor_learned_from() -> None:
    """Token ids are counted exactly, whatever the usage says."""
    estimator = taught()
    ids = replace(PROMPT, text=b"", exact_prompt_tokens=700)
    learning = estimator.observe(estimator.estimate(ids, ""), Usage(900))
    assert (Refused.EXACT, False, False) == (learning.refused, learning.clipped, learning.started_anew)
