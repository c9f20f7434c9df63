"""Tools that a request forbids to call, which some servers leave out of the prompt."""

import random

import pytest
from msgspec.structs import replace

from extproc.core.estimator.byteclass import ByteClassEstimator
from extproc.core.estimator.counting import Count, Counting
from extproc.core.estimator.evidence import Evidence
from extproc.core.estimator.protocol import Learning, Refused
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.estimator.unused_tools import ENOUGH
from extproc.core.usage import Overflow, Usage
from tests.unit.byteclass_lessons import WORDS, facts, teach

TEXT = b'{"name":"look","description":"' + WORDS * 40 + b'"}'
BYTES_PER_TOKEN = 4


def asked(estimator: ByteClassEstimator, rng: random.Random, *, left_out: bool) -> tuple[float, Learning]:
    """Ask once with tools that must not be called; return estimate / usage, and what usage taught."""
    text = (WORDS * 20)[: rng.randint(400, 1_200)]
    request = facts(text + TEXT, tools=1, unused_tools_bytes=len(TEXT))
    estimate = estimator.estimate(request, "")
    usage = Usage((len(text) + (0 if left_out else len(TEXT))) // BYTES_PER_TOKEN + 20)
    return estimate.prompt_tokens / usage.prompt_tokens, estimator.observe(estimate, usage)


@pytest.fixture
def estimator() -> ByteClassEstimator:
    """Return an estimator that knows the model."""
    made = ByteClassEstimator(EstimatorSettings())
    teach(made, 200, BYTES_PER_TOKEN)
    return made


def test_a_server_that_leaves_them_out_is_recognised(estimator: ByteClassEstimator) -> None:
    """The first responses teach no prices, whose tools would cost nothing; later estimates are without tools."""
    rng = random.Random(1)
    before = estimator.prices("m").copy()
    first = [asked(estimator, rng, left_out=True) for _ in range(ENOUGH)]
    assert all(ratio > 2 and learning.refused is Refused.TRUNCATED for ratio, learning in first)
    assert before == pytest.approx(estimator.prices("m"))
    later = [asked(estimator, rng, left_out=True) for _ in range(20)]
    assert all(0.8 < ratio < 1.25 and learning.refused is None for ratio, learning in later)


def test_a_server_that_keeps_them_is_estimated_as_ever(estimator: ByteClassEstimator) -> None:
    """Tools count and teach, whatever the request says of them."""
    rng = random.Random(1)
    results = [asked(estimator, rng, left_out=False) for _ in range(20)]
    assert all(0.7 < ratio < 1.3 and learning.refused is None for ratio, learning in results)


def test_one_response_with_tools_ends_the_belief(estimator: ByteClassEstimator) -> None:
    """Servers behind one name may differ: tools count again until they are left out several times in a row."""
    rng = random.Random(1)
    for _ in range(ENOUGH):
        asked(estimator, rng, left_out=True)
    too_low, _ = asked(estimator, rng, left_out=False)
    again, _ = asked(estimator, rng, left_out=True)
    assert too_low < 0.5
    assert again > 2


def test_only_responses_in_a_row_count(estimator: ByteClassEstimator) -> None:
    """One with tools in between, and as many without are needed as at first."""
    rng = random.Random(1)
    for _ in range(20):
        ratios = [asked(estimator, rng, left_out=True)[0] for _ in range(ENOUGH - 1)]
        assert min(ratios) > 2
        assert asked(estimator, rng, left_out=False)[0] > 0.7


def test_one_client_does_not_decide_for_all(estimator: ByteClassEstimator) -> None:
    """Its tools may cost less than any estimate; those of most clients have to be left out."""
    rng = random.Random(1)
    text = WORDS * 8 + TEXT
    for client in ("a", "b", "c"):
        request = facts(text, tools=1, unused_tools_bytes=len(TEXT))
        estimator.observe(estimator.estimate(request, client), Usage(len(text) // BYTES_PER_TOKEN))
    odd = [asked(estimator, rng, left_out=True) for _ in range(2 * ENOUGH)]
    assert all(ratio > 2 for ratio, _ in odd)


@pytest.mark.parametrize("tokens", [1, 3, 20_000])
def test_usage_that_fits_neither_says_nothing_of_tools(estimator: ByteClassEstimator, tokens: int) -> None:
    """A broken counter is refused or clipped as ever."""
    request = facts(WORDS * 10 + TEXT, tools=1, unused_tools_bytes=len(TEXT))
    for _ in range(ENOUGH):
        estimate = estimator.estimate(request, "")
        learning = estimator.observe(estimate, Usage(tokens))
        assert learning.clipped or learning.refused is Refused.IMPLAUSIBLE
    assert estimator.estimate(request, "").prompt_tokens > len(TEXT) / BYTES_PER_TOKEN


def test_a_few_unused_tools_decide_nothing(estimator: ByteClassEstimator) -> None:
    """If both estimates are close, an error explains either."""
    request = facts(WORDS * 40, tools=1, unused_tools_bytes=len(WORDS) * 10)
    for _ in range(ENOUGH):
        estimate = estimator.estimate(request, "")
        usage = Usage(round(estimate.prompt_tokens * 0.75))
        assert isinstance(estimate.evidence, Evidence)
        assert estimate.evidence.shows_left_out(usage) is None
        assert estimator.observe(estimate, usage).refused is None


def test_a_conversation_is_not_continued_with_tools_that_its_known_turn_may_lack(
    estimator: ByteClassEstimator,
) -> None:
    """Its known tokens may be those of a prompt without them."""
    text = WORDS * 20
    turns = (("user", len(text)),)
    first = facts(text + TEXT, tools=1, turns=turns, unused_tools_bytes=len(TEXT))
    estimate = estimator.estimate(first, "")
    estimator.observe(estimate, Usage(round(estimate.prompt_tokens)))
    more = text + b"And now?"
    then = facts(more + TEXT, tools=1, turns=(*turns, ("user", len(more))))
    continued = estimator.estimate(then, "").evidence
    assert isinstance(continued, Evidence)
    assert continued.recalled is not None
    assert continued.recalled.known is None


class _Counter:
    """Counts every text as one token."""

    def tokenizer_of(self, model: str) -> str | None:
        return model

    def count(self, tokenizer: str, texts: list[bytes]) -> Count:  # noqa: ARG002  (the protocol's)
        return Count((1,) * len(texts), 0.0)


def test_they_are_not_counted_exactly(estimator: ByteClassEstimator) -> None:
    """A tokenizer does not know whether the server leaves them out."""
    counting = Counting(_Counter(), 0.01, 8)  # type: ignore[arg-type]
    request = facts(WORDS + TEXT, tools=1, unused_tools_bytes=len(TEXT))
    estimate = estimator.estimate(request, "")
    assert counting.narrow(request, estimate) == (estimate, None)
    assert counting.narrow(replace(request, unused_tools_bytes=0), estimate)[1] is not None


def test_a_tenants_constant_is_part_of_both_estimates(estimator: ByteClassEstimator) -> None:
    """A server that adds 1,500 tokens to a tenant's prompts, and leaves tools out, is recognised as well."""
    added, rng = 1_500, random.Random(2)
    for _ in range(60):
        text = (WORDS * 40)[: rng.randint(400, 3_000)]
        estimator.observe(estimator.estimate(facts(text), "t"), Usage(len(text) // BYTES_PER_TOKEN + added))
    many = TEXT * 6
    for _ in range(ENOUGH):
        estimate = estimator.estimate(facts(WORDS * 10 + many, tools=6, unused_tools_bytes=len(many)), "t")
        usage = Usage(len(WORDS) * 10 // BYTES_PER_TOKEN + added)
        assert estimator.observe(estimate, usage).refused is Refused.TRUNCATED
    last = estimator.estimate(facts(WORDS * 10 + many, tools=6, unused_tools_bytes=len(many)), "t")
    assert last.prompt_tokens == pytest.approx(len(WORDS) * 10 / BYTES_PER_TOKEN + added, rel=0.2)


def heads(estimator: ByteClassEstimator, client: str, *, left_out: bool, times: int) -> None:
    """Observe requests of a client with tools that must not be called."""
    text = client.encode() * 20 + WORDS * 10
    for _ in range(times):
        request = facts(text + TEXT, tools=1, unused_tools_bytes=len(TEXT))
        usage = Usage((len(text) + (0 if left_out else len(TEXT))) // BYTES_PER_TOKEN + 20)
        estimator.observe(estimator.estimate(request, client), usage)


def leaves_out(estimator: ByteClassEstimator) -> bool:
    """Return whether a request is estimated without its tools."""
    evidence = estimator.estimate(facts(WORDS * 10 + TEXT, tools=1, unused_tools_bytes=len(TEXT)), "").evidence
    assert isinstance(evidence, Evidence)
    return evidence.has_left_out


def test_two_responses_are_too_few(estimator: ByteClassEstimator) -> None:
    """Two errors of a factor of two in a row come by chance."""
    heads(estimator, "a", left_out=True, times=2)
    assert not leaves_out(estimator)
    heads(estimator, "a", left_out=True, times=1)
    assert leaves_out(estimator)


def test_half_of_the_clients_are_not_most(estimator: ByteClassEstimator) -> None:
    """Of two, each may be the odd one."""
    heads(estimator, "a", left_out=False, times=1)
    heads(estimator, "b", left_out=True, times=2 * ENOUGH)
    assert not leaves_out(estimator)
    heads(estimator, "c", left_out=True, times=1)
    assert leaves_out(estimator)


def test_each_end_doubles_what_it_takes_to_begin_again(estimator: ByteClassEstimator) -> None:
    """With two kinds of servers behind one name, ever fewer prompts are estimated without tools that they have."""
    too_short = [0, 0]
    for at in range(2_000):
        too_short[at >= 1_000] += leaves_out(estimator) and at % 10 == 0
        heads(estimator, "a", left_out=at % 10 != 0, times=1)
    assert too_short == [2, 0]


def test_responses_in_flight_when_servers_begin_to_show_tools_teach_no_prices(
    estimator: ByteClassEstimator,
) -> None:
    """Hundreds may have been estimated without: neither text nor tools have become dearer."""
    rng = random.Random(1)
    many = TEXT * 5
    request = facts(WORDS * 20 + many, tools=5, unused_tools_bytes=len(many))
    for _ in range(2 * ENOUGH):
        estimator.observe(estimator.estimate(request, ""), Usage(len(WORDS) * 20 // BYTES_PER_TOKEN + 20))
    in_flight = [estimator.estimate(request, "") for _ in range(100)]
    before = estimator.estimate(facts(WORDS * 20), "")
    usage = Usage(len(request.text) // BYTES_PER_TOKEN + 20)
    learned = [estimator.observe(estimate, usage) for estimate in in_flight]
    assert {(each.refused, each.under_counted, each.is_judged) for each in learned} == {
        (Refused.TOOLS, True, True)
    }
    after = estimator.estimate(facts(WORDS * 20), "")
    assert (after.prompt_tokens, after.prompt_bound) == (before.prompt_tokens, before.prompt_bound)
    ratio, learning = asked(estimator, rng, left_out=False)
    assert 0.7 < ratio < 1.3
    assert learning.refused is None


def test_a_pools_refusal_shows_that_tools_are_kept(estimator: ByteClassEstimator) -> None:
    """A pool that was too small for them states a lower bound, and may be all that is ever seen of them."""
    heads(estimator, "a", left_out=True, times=ENOUGH)
    request = facts(WORDS * 10 + TEXT, tools=1, unused_tools_bytes=len(TEXT))
    estimate = estimator.estimate(request, "")
    estimator.observe_overflow(estimate, Overflow(round(estimate.prompt_tokens * 1.5)))
    assert leaves_out(estimator)
    before = estimator.prices("m").copy()
    estimator.observe_overflow(estimate, Overflow(round(estimate.prompt_tokens * 3)))
    assert not leaves_out(estimator)
    assert before == pytest.approx(estimator.prices("m"))


@pytest.mark.parametrize(("other", "tokens", "left_out"), [(190, 100, None), (210, 100, True), (210, 200, False)])
def test_usage_decides_between_estimates_that_differ_by_more_than_two(
    other: float, tokens: int, left_out: object
) -> None:
    """Errors of a single estimate are smaller."""
    evidence = Evidence.of(facts(WORDS), other, other_tokens=100.0)
    assert evidence.shows_left_out(Usage(tokens)) is left_out


def test_a_prompt_that_the_client_has_cut_says_nothing_of_tools() -> None:
    """Its usage may be as low as if they were left out."""
    evidence = Evidence.of(facts(WORDS, truncate_prompt_tokens=100), 210.0, other_tokens=100.0)
    assert evidence.shows_left_out(Usage(100)) is None


def test_a_conversation_goes_on_where_tools_are_left_out(estimator: ByteClassEstimator) -> None:
    """A prompt without them is the same whether the request offered some or none."""
    heads(estimator, "a", left_out=True, times=ENOUGH)
    text = WORDS * 20
    first = facts(text + TEXT, tools=1, turns=(("user", len(text)),), unused_tools_bytes=len(TEXT))
    estimate = estimator.estimate(first, "")
    estimator.observe(estimate, Usage(round(estimate.prompt_tokens)))
    more = text + b"And now?"
    evidence = estimator.estimate(facts(more, turns=(("user", len(text)), ("user", len(more)))), "").evidence
    assert isinstance(evidence, Evidence)
    assert evidence.recalled is not None
    assert evidence.recalled.known is not None
