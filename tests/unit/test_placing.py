import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.errors import ConfigurationError
from extproc.core.estimator.protocol import CategoryKey, Estimate, Source
from extproc.core.facts import Api, RequestFacts
from extproc.core.placing.budget import MAX_BUDGET_TOKENS, TokenBudget, token_budget
from extproc.core.placing.early import EarlyRule, media_bytes
from extproc.core.placing.policy import Pool, Pools, Reason
from extproc.core.router.learning_budget import LearningBudget, LearningSettings

THREE = Pools((Pool("s", 100), Pool("m", 1_000), Pool("l", 10_000)))

FACTS = RequestFacts(Api.CHAT, "m", b"")


def estimate(prompt: float, bound: float, output: int) -> Estimate:
    """Return an estimate of so many tokens."""
    return Estimate(
        prompt, bound, output, output_declared=True, source=Source.PRIOR, category=CategoryKey("m", "k")
    )


@pytest.mark.parametrize(
    ("tokens", "pool"), [(1, "s"), (100, "s"), (101, "m"), (1_000, "m"), (5_000, "l"), (10**30, "l")]
)
def test_a_budget_goes_to_the_first_pool_that_holds_it(tokens: int, pool: str) -> None:
    """Limits are inclusive, and what fits nowhere goes to the largest."""
    reason = Reason.TOO_LONG if tokens > 1_000 else Reason.FITS
    placed, why = THREE.place(FACTS, TokenBudget(tokens, tokens, 0, 1))
    assert (pool, reason) == (placed.name, why)


@pytest.mark.parametrize(
    ("pools", "said"),
    [
        ([], "0 given; at least 2"),
        ([("a", 1), ("a", 2)], "must differ"),
        ([("a", 2), ("b", 1)], "must be positive and ascend"),
        ([("a", 0), ("b", 1)], "must be positive and ascend"),
    ],
)
def test_pools_that_are_no_order_are_refused(pools: list[tuple[str, int]], said: str) -> None:
    """Pools are a strictly ascending list of at least two."""
    with pytest.raises(ConfigurationError, match=said):
        Pools([Pool(*pool) for pool in pools])


def test_the_budget_is_prompt_and_output_of_every_sequence() -> None:
    """Output tokens count once for each of n; fractions of a prompt token round up."""
    facts = RequestFacts(Api.CHAT, "m", b"", sequences=3)
    budget = token_budget(facts, estimate(10.2, 12.5, 5))
    assert (11 + 15, 13 + 15) == (budget.total, budget.bound)


def test_of_several_prompts_the_longest_counts_and_truncation_caps() -> None:
    """Each prompt of a list is a sequence of its own; truncate_prompt_tokens is the most of any."""
    facts = RequestFacts(Api.COMPLETIONS, "m", b"", longest_share=100 / 300)
    assert 100 == token_budget(facts, estimate(300, 300, 0)).total
    facts = RequestFacts(Api.COMPLETIONS, "m", b"", truncate_prompt_tokens=50)
    assert 50 + 7 == token_budget(facts, estimate(300, 400, 7)).bound


@given(
    before=st.text(max_size=50).map(str.encode),
    media=st.binary(max_size=200),
    form=st.sampled_from([b'"data:image/png;base64,%b"', b'"input_audio":{"data": "%b"}']),
)
def test_media_is_found_without_parsing(before: bytes, media: bytes, form: bytes) -> None:
    """Base64 in either JSON form is left out of the count, and never more than there is."""
    encoded = media.hex().encode()
    body = before.replace(b'"', b"").replace(b";base64,", b"") + form % encoded
    assert len(encoded) == media_bytes(body)


@given(body=st.binary(max_size=3_000))
def test_the_next_look_is_later_and_bounded(body: bytes) -> None:
    """Looking again never comes before more bytes have, and a body at its cap is decided."""
    rule = EarlyRule(largest_optional_tokens=100, max_held_bytes=2_000)
    later = rule.next_look(Api.CHAT, body)
    assert later == 0 or len(body) < later <= 2_000
    assert later == 0 or len(body) < 2_000


@pytest.mark.parametrize("api", [Api.COMPLETIONS, Api.EMBEDDINGS])
def test_many_small_prompts_are_not_taken_for_a_large_one(api: Api) -> None:
    """Bodies that may hold a list of prompts are waited for up to the cap of what is held."""
    rule = EarlyRule(largest_optional_tokens=10, max_held_bytes=2_000)
    assert 2_000 == rule.first_look(api) == rule.next_look(api, b"x" * 1_999)
    assert 0 == rule.next_look(api, b"x" * 2_000)


@pytest.mark.parametrize("output", [10**9, 10**300, 10**4_000])
def test_a_budget_without_end_is_a_number_to_count_with(output: int) -> None:
    """However much output is declared, for however many sequences, the budget stays a finite number of tokens."""
    budget = token_budget(RequestFacts(Api.CHAT, "m", b"", sequences=output), estimate(10, 12, output))
    assert (MAX_BUDGET_TOKENS, MAX_BUDGET_TOKENS) == (budget.total, budget.bound)
    assert (THREE.default, Reason.TOO_LONG) == THREE.place(FACTS, budget)


def test_learning_stays_within_its_budget_of_messages() -> None:
    """Admitted messages are the burst and what time adds; young categories always come in, on others' account."""
    budget = LearningBudget(LearningSettings(messages_per_s=10, burst_messages=100))
    assert budget.admit(100, young=False, now_s=0.0)
    assert not budget.admit(1, young=False, now_s=0.0)
    assert budget.admit(3, young=False, now_s=1.0)
    assert budget.admit(50, young=True, now_s=1.0)
    assert not budget.admit(3, young=False, now_s=4.0)
    assert budget.admit(3, young=False, now_s=6.0)


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 2_000), st.booleans()), max_size=60))
def test_however_requests_come_the_budget_holds(steps: list[tuple[float, int, bool]]) -> None:
    """For any arrivals the messages stay within burst + rate x time, and one burst more for young categories."""
    budget, now_s, spent = LearningBudget(LearningSettings(10, 100)), 0.0, 0
    for wait_s, messages, young in steps:
        now_s += wait_s
        spent += min(messages, 100) if budget.admit(messages, young=young, now_s=now_s) else 0
    assert spent <= (200 if any(young for _, _, young in steps) else 100) + 10 * now_s + 1e-6


def test_messages_that_did_not_come_are_paid_back() -> None:
    """A stream is paid for by the most that it may be, at most a burst, and settled by what it was."""
    budget = LearningBudget(LearningSettings(messages_per_s=0, burst_messages=100))
    assert budget.admit(6_000, young=False, now_s=0.0)
    assert not budget.admit(3, young=False, now_s=0.0)
    budget.pay_back(6_000, used=40)
    assert budget.admit(60, young=False, now_s=0.0)
    assert not budget.admit(1, young=False, now_s=0.0)
    budget.pay_back(60, used=1_000)
    assert not budget.admit(1, young=False, now_s=0.0)


def test_messages_beyond_what_was_paid_are_paid_in_the_end() -> None:
    """A response that came in more pieces than it had tokens leaves the others to wait for as long."""
    budget = LearningBudget(LearningSettings(messages_per_s=10, burst_messages=100))
    assert budget.admit(3, young=False, now_s=0.0)
    budget.pay_back(3, used=150)
    assert not budget.admit(3, young=False, now_s=5.0)
    assert budget.admit(3, young=False, now_s=6.0)


@pytest.mark.parametrize("young", [True, False])
def test_a_budget_of_nothing_learns_nothing(*, young: bool) -> None:
    """With no messages to spend no stream is kept, young or not."""
    budget = LearningBudget(LearningSettings(messages_per_s=0, burst_messages=0))
    assert not budget.admit(3, young=young, now_s=0.0)
