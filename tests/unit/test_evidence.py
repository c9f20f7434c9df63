"""Which usage is plausible for a request, and what it can teach."""

from collections.abc import Callable

import numpy as np
import pytest
from msgspec.structs import replace

from extproc.core.estimator.byteclass import ByteClassEstimator
from extproc.core.estimator.ema import EmaEstimator
from extproc.core.estimator.evidence import Evidence
from extproc.core.estimator.protocol import Estimator, Refused
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.facts import CUT_TO_FIT, Api, RequestFacts
from extproc.core.usage import Usage

FACTS = RequestFacts(Api.CHAT, "m", b"x" * 4_000, messages=1)
# A prompt which the server may cut to what its context leaves next to the output.
FITTED = {"truncate_prompt_tokens": CUT_TO_FIT, "max_output_tokens": 500}
CUT = Usage(8_000, 192, cut_by_length=True)


def evidence(**others: object) -> Evidence:
    """Return the evidence of a request of 4,000 bytes, estimated at 1,000 tokens."""
    return Evidence.of(replace(FACTS, **others), 1_000)


@pytest.mark.parametrize(
    ("usage", "others", "accepted"),
    [
        (Usage(1_000, 50), {}, True),
        (Usage(250, 50), {}, True),  # 16 bytes per token
        (Usage(249, 50), {}, False),
        (Usage(0), {}, False),
        (Usage(-1), {}, False),
        (Usage(1_000_000), {}, True),
        (Usage(1_000_001), {}, False),
        (Usage(10), {"truncate_prompt_tokens": 10}, True),
        (Usage(10), {"unseen_history": True}, True),
        (Usage(1_000, 50), {"max_output_tokens": 50}, True),
        (Usage(1_000, 150), {"max_output_tokens": 50, "sequences": 3}, True),
        (Usage(1_000, 16 * 50 + 16), {"max_output_tokens": 50}, True),  # sixteen turns
        (Usage(1_000, 16 * 50 + 17), {"max_output_tokens": 50}, False),
        (Usage(1_000, 3 * (16 * 50 + 16)), {"max_output_tokens": 50, "sequences": 3}, True),
        (Usage(1_000, 3 * (16 * 50 + 16) + 1), {"max_output_tokens": 50, "sequences": 3}, False),
        (Usage(1_000, 9_999_999), {"max_output_tokens": 50}, False),
        (Usage(1_000, 4 * 8_192), {}, True),
        (Usage(1_000, 4 * 8_192 + 1), {}, False),  # more than four times the pool's context
        (Usage(1_000, 8 * 8_192), {"sequences": 2}, True),
        (Usage(1_000, 8 * 8_192 + 1), {"sequences": 2}, False),
        (Usage(1_000, 0), {"max_output_tokens": 0}, True),
        (Usage(1_000, 17), {"max_output_tokens": 0}, False),
    ],
)
def test_implausible_usage_is_not_accepted(usage: Usage, others: dict[str, object], *, accepted: bool) -> None:
    """Counts below any tokenizer's, a thousand times the estimate, or far above the limit are rejected."""
    assert accepted == evidence(**others).accepts(usage, 8_192)


def test_without_a_pool_output_is_at_most_a_million_tokens() -> None:
    """The output of a response without a known limit is capped there."""
    assert evidence().accepts(Usage(1_000, 1 << 20), None)
    assert not evidence().accepts(Usage(1_000, (1 << 20) + 1), None)


@pytest.mark.parametrize("tokens", [0.0, 0.4, 1.0])
def test_a_nearly_empty_prompt_has_at_most_a_thousand_tokens(tokens: float) -> None:
    """An estimate below one token counts as one: chat templates add tokens to an empty prompt."""
    empty = Evidence.of(replace(FACTS, text=b""), tokens)
    assert empty.accepts(Usage(1_000), None)
    assert not empty.accepts(Usage(1_001), None)
    assert empty.accepts(Usage(1), None)
    assert not empty.accepts(Usage(0), None)


@pytest.mark.parametrize(
    ("others", "refused"),
    [
        ({}, None),
        ({"exact_prompt_tokens": 5}, "exact"),
        ({"truncate_prompt_tokens": 5}, "truncated"),
        ({"truncate_prompt_tokens": 0}, "truncated"),
        ({"truncate_prompt_tokens": CUT_TO_FIT}, None),  # usage will show whether it was cut
        ({"unseen_history": True}, "unseen_history"),
        ({"exact_prompt_tokens": 5, "truncate_prompt_tokens": 5, "unseen_history": True}, "exact"),
        ({"truncate_prompt_tokens": 5, "unseen_history": True}, "truncated"),
    ],
)
def test_usage_that_does_not_belong_to_the_text_is_refused(others: dict[str, object], refused: str | None) -> None:
    """Counts of token ids, of a truncated prompt, or of more than the body do not belong to its text."""
    assert refused == evidence(**others).refused


@pytest.mark.parametrize(
    ("completion", "others", "single"),
    [
        (50, {}, True),
        (50, {"max_output_tokens": 50}, True),
        (66, {"max_output_tokens": 50}, True),  # some servers count the end token
        (67, {"max_output_tokens": 50}, False),  # the sum of several turns
        (50, {"sequences": 2}, False),
        (50, {"longest_share": 0.5}, False),
    ],
)
def test_only_single_responses_reveal_output_lengths(
    completion: int, others: dict[str, object], *, single: bool
) -> None:
    """Usage that is summed over sequences, prompts or turns is not a length."""
    assert single == evidence(**others).has_one_output(Usage(1_000, completion))
    assert not evidence(**others).has_one_output(Usage(1_000, completion, several_turns=True))


@pytest.mark.parametrize("kind", [ByteClassEstimator, EmaEstimator])
@pytest.mark.parametrize(("reserved", "others"), [(0, {}), (500, FITTED)])
def test_no_estimator_learns_from_a_cut_prompt(
    kind: Callable[[EstimatorSettings], Estimator], reserved: int, others: dict[str, object]
) -> None:
    """Servers cut long documents to what the output leaves: the estimate of the next one stays as it was."""
    estimator, facts = kind(EstimatorSettings()), replace(FACTS, **others)
    before = estimator.estimate(facts, "")
    cut = int(before.prompt_tokens) - 1
    assert estimator.observe(before, Usage(cut), cut + reserved).refused is Refused.TRUNCATED
    assert before.prompt_tokens == estimator.estimate(facts, "").prompt_tokens


@pytest.mark.parametrize(
    ("tokens", "pool_tokens", "others", "why"),
    [
        (992, 1_000, {}, Refused.TRUNCATED),
        (999, 999, {}, Refused.TRUNCATED),
        (991, 1_000, {}, None),
        (999, 998, {}, None),  # more than the context, as far as it is known
        (1_000, 1_000, {}, None),  # all that was estimated
        (999, None, {}, None),
        (999, 1_000, {"longest_share": 0.5}, None),  # the sum over several prompts
        (999, 1_000, {"exact_prompt_tokens": 9}, Refused.EXACT),
        (992, 1_500, FITTED, Refused.TRUNCATED),  # vLLM up to 0.31
        (999, 1_499, FITTED, Refused.TRUNCATED),
        (991, 1_500, FITTED, None),
        (999, 1_498, FITTED, None),
        (1_000, 1_500, FITTED, None),
        (999, 1_000, FITTED, Refused.TRUNCATED),  # vLLM from 0.32 on
        (999, 1_000, {"truncate_prompt_tokens": -1}, Refused.TRUNCATED),
        (999, 998, {"truncate_prompt_tokens": -1}, None),
        (999, 1_499, {"max_output_tokens": 500}, None),  # a client's own count may leave just this
    ],
)
def test_a_prompt_that_the_server_cut_to_its_context_teaches_nothing(
    tokens: int, pool_tokens: int | None, others: dict[str, object], why: Refused | None
) -> None:
    """Usage below the estimate that fills the pool's context, next to the output, is not what the text costs."""
    assert why == evidence(**others).refusal(Usage(tokens), pool_tokens)


def test_a_prompt_is_cut_to_fit_only_if_the_client_asked_for_it() -> None:
    """Without a word about it, a response that leaves just the output's room free is not that of a cut prompt."""
    given = Evidence(None, 1_000, 4_000, 500, 1, one_prompt=True)
    assert given.refusal(Usage(999), 1_499) is None


def test_tools_that_cost_nothing_are_not_left_out() -> None:
    """Only an estimate below the one with all tools is one without some of them."""
    assert not Evidence.of(FACTS, 1_000, other_tokens=1_000).has_left_out
    assert Evidence.of(FACTS, 1_000, other_tokens=1_001).has_left_out


@pytest.mark.parametrize(
    ("usage", "pool_tokens", "others", "truncated"),
    [
        (CUT, 8_192, {}, True),
        (Usage(8_000, 191, cut_by_length=True), 8_192, {}, True),
        (CUT, 8_192, {"max_output_tokens": 500}, True),
        (Usage(8_000, 190, cut_by_length=True), 8_192, {}, False),
        (Usage(8_000, 193, cut_by_length=True), 8_192, {}, False),
        (Usage(8_000, 100, cut_by_length=True), 8_192, {}, False),
        (Usage(8_000, 192), 8_192, {}, False),
        (CUT, None, {}, False),
        (CUT, 8_192, {"max_output_tokens": 193}, True),
        (CUT, 8_192, {"max_output_tokens": 191}, False),
        (CUT, 8_192, {"max_output_tokens": 192}, False),  # the client's own limit
        (Usage(9_000, 50, cut_by_length=True), 8_192, {}, False),  # beyond the pool: another one responded
        (CUT, 8_192, {"sequences": 4}, False),
        (CUT, 8_192, {"longest_share": 0.1}, False),
    ],
)
def test_silent_cuts_are_recognised(
    usage: Usage, pool_tokens: int | None, others: dict[str, object], *, truncated: bool
) -> None:
    """A response with finish reason length that ends exactly at the pool's context was truncated by the pool."""
    assert truncated == evidence(**others).truncated_by_pool(usage, pool_tokens)


def test_evidence_of_the_same_request_is_the_same() -> None:
    """Evidence of one request is equal each time, whatever arrays it holds; that of another request differs."""
    first, second = (Evidence.of(FACTS, 1_000, x=np.zeros(3)) for _ in range(2))
    assert (first, hash(first)) == (second, hash(second))
    assert first != Evidence.of(FACTS, 1_001, x=np.zeros(3))
    assert first != "evidence"
