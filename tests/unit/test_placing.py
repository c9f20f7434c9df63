from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from extproc.core.apis import read_request
from extproc.core.errors import ConfigurationError
from extproc.core.estimator import make_estimator
from extproc.core.estimator.protocol import CategoryKey, Estimate, Source
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.facts import Api, MediaCount, RequestFacts
from extproc.core.placing.budget import MAX_BUDGET_TOKENS, TokenBudget, token_budget
from extproc.core.placing.policy import Pool, Pools, Reason
from extproc.core.placing.pool import Endpoints

THREE = Pools((Pool("s", 100), Pool("m", 1_000), Pool("l", 10_000)))

FACTS = RequestFacts(Api.CHAT, "m", b"")


def estimate(prompt: float, bound: float, output: int) -> Estimate:
    """Return an estimate with these token counts."""
    return Estimate(
        prompt, bound, output, output_declared=True, source=Source.PRIOR, category=CategoryKey("m", "k")
    )


@pytest.mark.parametrize(
    ("tokens", "pool"), [(1, "s"), (100, "s"), (101, "m"), (1_000, "m"), (5_000, "l"), (10**30, "l")]
)
def test_a_budget_goes_to_the_first_pool_that_holds_it(tokens: int, pool: str) -> None:
    """Limits are inclusive; a budget that exceeds every limit goes to the largest pool."""
    reason = Reason.TOO_LONG if tokens > 1_000 else Reason.FITS
    placed, why = THREE.place(FACTS, TokenBudget(tokens, tokens, 0, 1, tokens))
    assert (pool, reason) == (placed.name, why)


@pytest.mark.parametrize(
    ("budget", "pool"),
    [
        (TokenBudget(50, 100, 0, 1, 50), "s"),
        (TokenBudget(50, 101, 0, 1, 50), "m"),
        (TokenBudget(1, 10_000, 0, 1, 1), "l"),
        (TokenBudget(10, 80, 20, 3, 10), "s"),
        (TokenBudget(10, 81, 20, 3, 10), "m"),
    ],
)
def test_the_upper_bound_decides_and_not_the_likeliest_count(budget: TokenBudget, pool: str) -> None:
    """A prompt whose bound exceeds a pool's limit is not sent there, however likely it is to fit."""
    reason = Reason.TOO_LONG if pool == "l" else Reason.FITS
    placed, why = THREE.place(FACTS, budget)
    assert (pool, reason) == (placed.name, why)


def test_a_request_with_unseen_history_goes_to_the_largest_pool() -> None:
    """History that only the server has may be of any length, however small the request looks."""
    unseen = replace(FACTS, unseen_history=True)
    assert (THREE.default, Reason.UNSEEN_HISTORY) == THREE.place(unseen, TokenBudget(1, 1, 1, 1, 1))


def test_the_largest_pool_but_the_default_sets_the_largest_optional_tokens() -> None:
    """Of three pools, the middle one has the largest limit that a request may exceed."""
    assert 1_000 == THREE.largest_optional_tokens
    assert ("l", ["s", "m", "l"]) == (THREE.default.name, [pool.name for pool in THREE.ascending])


@pytest.mark.parametrize(
    ("pools", "said"),
    [
        ([], "0 given; at least 2"),
        ([("a", 1)], "1 given; at least 2"),
        ([("a", 1), ("a", 2)], "must differ"),
        ([("a", 2), ("b", 1)], "must be positive and ascend"),
        ([("a", 2), ("b", 2)], "must be positive and ascend"),
        ([("a", 1), ("b", 2), ("c", 2)], "must be positive and ascend"),
        ([("a", 0), ("b", 1)], "must be positive and ascend"),
        ([("a", -1), ("b", 1)], "must be positive and ascend"),
    ],
)
def test_pools_that_are_not_in_ascending_order_are_refused(pools: list[tuple[str, int]], said: str) -> None:
    """Pools must be a strictly ascending list of at least two."""
    with pytest.raises(ConfigurationError, match=said):
        Pools([Pool(*pool) for pool in pools])


@pytest.mark.parametrize(
    ("likeliest", "bound", "pool"),
    [
        (100, 125, "s"),
        (101, 101, "m"),  # over the threshold, although it fits the context
        (100, 126, "m"),  # within the threshold, but may not fit the context
        (900, 1_000, "m"),
        (900, 1_001, "l"),  # without max_model_len, the context equals the threshold
    ],
)
def test_the_likeliest_total_chooses_the_pool_and_the_bound_has_to_fit_its_context(
    likeliest: int, bound: int, pool: str
) -> None:
    """A pool is chosen if the likeliest total is within its threshold and the bound within its context."""
    pools = Pools((Pool("s", 100, 125), Pool("m", 1_000), Pool("l", 10_000, 12_500)))
    placed, _ = pools.place(FACTS, TokenBudget(likeliest, bound, 0, 1, likeliest))
    assert pool == placed.name


@given(likeliest=st.integers(0, 2_000), above=st.integers(0, 2_000), limit=st.integers(1, 1_000))
def test_with_equal_limits_the_bound_alone_decides(likeliest: int, above: int, limit: int) -> None:
    """If a pool's two limits are equal, stated or by default, only the bound decides."""
    budget = TokenBudget(likeliest, likeliest + above, 0, 1, likeliest)
    for pool in (Pool("s", limit), Pool("s", limit, limit)):
        placed, _ = Pools((pool, Pool("l", 10_000))).place(FACTS, budget)
        assert (likeliest + above <= limit) == (placed is pool)


@pytest.mark.parametrize(
    ("pools", "said"),
    [
        ([("a", 100, 99), ("b", 200)], r"pools\[0\].max_model_len: 99 given; .* max_budget_tokens, 100"),
        ([("a", 100, 300), ("b", 200)], r"max_model_len \[300, 200\] must not descend"),
    ],
)
def test_a_pool_that_would_take_more_than_it_holds_is_refused(pools: list[tuple[str, int]], said: str) -> None:
    """Contexts are at least as large as the thresholds and in the same order."""
    with pytest.raises(ConfigurationError, match=said):
        Pools([Pool(*pool) for pool in pools])


def test_every_sequence_has_the_context_to_itself_and_all_are_the_load() -> None:
    """The capacity needed is prompt + output for any number of outputs; the
    load counts n x output. Fractions round up.
    """
    facts = RequestFacts(Api.CHAT, "m", b"", sequences=3)
    budget = token_budget(facts, estimate(10.2, 12.5, 5))
    assert (11 + 5, 13 + 5, 11 + 15) == (budget.total, budget.bound, budget.load_tokens)


def test_n_does_not_make_a_short_request_long() -> None:
    """Servers check each sequence: 100 ids and 8 outputs of 120 tokens need 220 tokens of context, not 1,060."""
    body = b'{"prompt":[%b],"max_tokens":120,"n":8}' % b",".join([b"1"] * 100)
    facts = read_request(Api.COMPLETIONS, body)
    budget = token_budget(facts, make_estimator(EstimatorSettings()).estimate(facts, ""))
    assert (220, 100 + 8 * 120) == (budget.bound, budget.load_tokens)


def test_prompts_of_a_list_are_sequences_each_with_its_outputs() -> None:
    """The context has to hold the longest prompt and one output; the load is the sum over all of them."""
    facts = read_request(Api.COMPLETIONS, b'{"prompt":[[1,2,3],[4],[5,6]],"max_tokens":10,"n":2}')
    budget = token_budget(facts, make_estimator(EstimatorSettings()).estimate(facts, ""))
    assert (3 + 10, 6 + 3 * 2 * 10) == (budget.total, budget.load_tokens)


def test_of_several_prompts_the_longest_counts() -> None:
    """Each prompt of a list is a separate sequence; in the bound, its bytes may hold three times as many tokens as
    those of the others.
    """
    facts = RequestFacts(Api.COMPLETIONS, "m", b"", longest_share=0.25)
    assert TokenBudget(75, 200, 7, 1, 300) == token_budget(facts, estimate(300, 400, 7))


def test_a_list_of_several_languages_fits_the_pool_of_its_longest_prompt() -> None:
    """Of nine English prompts and a Thai one of nearly as many bytes, the Thai one has 2.5 times the tokens."""
    english, thai = 9 * 4_730, 11_518
    facts = RequestFacts(Api.EMBEDDINGS, "m", b"", longest_share=21_502 / (9 * 21_502 + 21_005))
    budget = token_budget(facts, estimate(english + thai, english + thai, 0))
    assert thai <= budget.bound <= 1.3 * thai


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=50))
def test_the_longest_of_several_exact_prompts_is_exact(lengths: list[int]) -> None:
    """The share of the sum of token ids is the longest prompt's length: 25 x (7 / 25) is 7, not 8."""
    facts = RequestFacts(
        Api.COMPLETIONS, "m", b"", longest_share=max(lengths) / sum(lengths), exact_prompt_tokens=sum(lengths)
    )
    budget = token_budget(facts, estimate(sum(lengths), sum(lengths), 0))
    assert (max(lengths), max(lengths)) == (budget.prompt_tokens, budget.prompt_bound)


def test_the_share_of_a_prompt_may_exceed_it_by_a_rounding_error() -> None:
    """A product that exceeds an integer only by floating-point error counts as that integer."""
    assert 25 * (7 / 25) > 7
    facts = RequestFacts(Api.COMPLETIONS, "m", b"", longest_share=7 / 25, exact_prompt_tokens=25)
    assert TokenBudget(7, 7, 0, 1, 25) == token_budget(facts, estimate(25, 25, 0))


@pytest.mark.parametrize(
    ("cap", "prompt", "bound"),
    [(None, 300, 400), (50, 50, 50), (350, 300, 350), (500, 300, 400), (1, 1, 1), (0, 300, 400), (-1, 300, 400)],
)
def test_truncation_caps_a_prompt(cap: int | None, prompt: int, bound: int) -> None:
    """truncate_prompt_tokens caps every prompt; a cap of 0 or less is
    ignored, which errs towards the larger pool.
    """
    facts = RequestFacts(Api.COMPLETIONS, "m", b"", truncate_prompt_tokens=cap)
    assert TokenBudget(prompt, bound, 7, 1, prompt) == token_budget(facts, estimate(300, 400, 7))


def test_truncation_does_not_cap_media() -> None:
    """A prompt is cut before the images in it are expanded (vLLM issue 57038)."""
    media = MediaCount(large_images=1)
    facts = RequestFacts(Api.CHAT, "m", b"", media=media, truncate_prompt_tokens=50)
    assert TokenBudget(300, 400, 7, 1, 300) == token_budget(facts, estimate(300, 400, 7))


@pytest.mark.parametrize("output", [10**9, 10**300, 10**4_000])
def test_a_budget_without_end_is_a_finite_number(output: int) -> None:
    """However much output is declared, for however many sequences, the budget stays a finite number of tokens."""
    budget = token_budget(RequestFacts(Api.CHAT, "m", b"", sequences=output), estimate(10, 12, output))
    assert (MAX_BUDGET_TOKENS, MAX_BUDGET_TOKENS) == (budget.total, budget.bound)
    assert (THREE.default, Reason.TOO_LONG) == THREE.place(FACTS, budget)


@pytest.mark.parametrize(
    ("stored", "by_default", "reason"),
    [
        (True, False, Reason.STORED),
        (None, False, Reason.FITS),
        (None, True, Reason.STORED),
        (False, True, Reason.FITS),
    ],
)
def test_a_stored_response_stays_where_later_requests_find_it(
    stored: bool | None,  # noqa: FBT001
    by_default: bool,  # noqa: FBT001
    reason: Reason,
) -> None:
    """A request that asks to be stored goes to the default pool, and so does one
    without the field if servers store by default.
    """
    pools = Pools(THREE.ascending, stored_by_default=by_default)
    facts = RequestFacts(Api.RESPONSES, "m", b"", stored=stored)
    assert reason == pools.place(facts, TokenBudget(1, 1, 0, 1, 1))[1]
    if not by_default:  # as in vLLM, and the default for pools
        assert reason == THREE.place(facts, TokenBudget(1, 1, 0, 1, 1))[1]


@pytest.mark.parametrize(
    ("output", "sequences", "prompts", "load", "outputs"),
    [
        (20, 3, 10, 70, 60),
        (20, 1, 10, 30, 20),
        (0, 3, 10, 10, 0),
        (60_000_000, 1, 60_000_000, 100_000_000, 60_000_000),
        (60_000_000, 2, 10, 100_000_000, 100_000_000),
        (10**300, 10**300, 10, 100_000_000, 100_000_000),
    ],
)
def test_the_load_of_a_request_is_all_prompts_and_all_outputs(
    output: int, sequences: int, prompts: int, load: int, outputs: int
) -> None:
    """Servers process every sequence, although each has a context of its
    own; no figure exceeds a hundred million.
    """
    budget = TokenBudget(10, 10, output, sequences, prompts)
    assert (load, outputs) == (budget.load_tokens, budget.all_outputs_tokens)


def test_a_hundred_million_tokens_are_the_most() -> None:
    """The cap exceeds any context and is still a finite number."""
    assert 100_000_000 == MAX_BUDGET_TOKENS
    assert 100_000_000 == TokenBudget(1, 1, 10**9, 1, 1).total == TokenBudget(1, 1, 10**9, 1, 1).bound


@pytest.mark.parametrize(("cap", "all_prompts"), [(50, 150), (99, 297), (150, 300), (100, 300)])
def test_truncation_caps_every_prompt_of_a_list(cap: int, all_prompts: int) -> None:
    """Each of three prompts is cut; together they have at most three times the cap, and never more than before."""
    facts = RequestFacts(Api.COMPLETIONS, "m", b"", sequences=3, longest_share=0.5, truncate_prompt_tokens=cap)
    assert all_prompts == token_budget(facts, estimate(300, 400, 7)).all_prompts_tokens


def test_a_pool_of_one_token_is_a_pool() -> None:
    """One token is the smallest possible limit."""
    pools = Pools((Pool("a", 1), Pool("b", 2)))
    assert ["a", "b", "b"] == [pools.place(FACTS, TokenBudget(n, n, 0, 1, n))[0].name for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("fields", "accepted"),
    [
        ({}, True),
        ({"max_budget_tokens": 0}, False),
        ({"max_model_len": 1}, True),
        ({"max_model_len": 0}, False),
        ({"models": ["m"]}, True),
        ({"models": ["m" * 256]}, True),
        ({"models": ["m" * 257]}, False),
        ({"models": [""]}, False),
    ],
)
def test_the_settings_of_a_pool_have_limits(fields: dict[str, object], *, accepted: bool) -> None:
    """Limits are at least one token, and model names at most as long as a key may be."""
    given = {"name": "a", "max_budget_tokens": 1} | fields
    if accepted:
        assert "a" == msgspec.convert(given, Pool).name
    else:
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(given, Pool)


@pytest.mark.parametrize(
    ("one", "other", "accepted"),
    [
        ({}, {}, False),
        ({"models": ("m",)}, {"models": ("n",)}, True),
        ({"models": ("m",)}, {"models": ("m",)}, False),
        ({"models": ("m",)}, {}, False),
        ({}, {"models": ("m",)}, False),
        ({"endpoints": Endpoints()}, {"endpoints": Endpoints()}, True),
        ({"models": ("m",)}, {"endpoints": Endpoints()}, True),
        ({"endpoints": Endpoints()}, {}, False),
    ],
)
def test_pools_as_large_as_each_other_are_of_different_models(
    one: dict[str, Any], other: dict[str, Any], *, accepted: bool
) -> None:
    """Two pools of equal size must serve different models, configured here or listed by their servers."""
    pools = (Pool("a", 100, **one), Pool("b", 100, **other), Pool("c", 1_000))
    if accepted:
        assert 3 == len(Pools(pools).ascending)
    else:
        with pytest.raises(ConfigurationError, match="must be positive and ascend"):
            Pools(pools)


def test_a_cluster_belongs_to_one_pool() -> None:
    """A cluster that two pools claim is an error that names it; listing it twice in one pool is allowed."""
    with pytest.raises(ConfigurationError, match=r"clusters \['b'\] are given to several"):
        Pools([Pool("short", 10, clusters=("a", "b")), Pool("long", 20, clusters=("b", "c"))])
    Pools([Pool("short", 10, clusters=("a", "a")), Pool("long", 20, clusters=("b",))])


@pytest.mark.parametrize(("length", "fits"), [(0, False), (1, True), (256, True), (257, False)])
def test_names_of_clusters_have_1_to_256_characters(length: int, *, fits: bool) -> None:
    """Both limits are inclusive."""
    pools = [{"name": "a", "max_budget_tokens": 1, "clusters": ["c" * length]}]
    if fits:
        assert "c" * length == msgspec.convert(pools, list[Pool])[0].clusters[0]
    else:
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(pools, list[Pool])


@pytest.mark.parametrize(
    ("prompt", "bound", "output", "fields", "doubt"),
    [
        (1_500, 3_000, 250, {}, True),  # as far below the estimate as the bound is above it: 750, plus the output
        (1_500, 3_000, 251, {}, False),
        (700, 900, 100, {}, False),  # the bound fits
        (900, 900, 100, {}, False),
        (700, 901, 100, {}, True),
        (3_000, 6_000, 250, {"longest_share": 0.5, "sequences": 2}, True),  # only the longest prompt has to fit
        (3_000, 6_000, 251, {"longest_share": 0.5, "sequences": 2}, False),
        (0, 0, 5, {}, False),  # an empty prompt
        (1.2, 1.2, 999, {}, False),  # a fraction of a token counts as a token
        (1_500, 3_000, 250, {"truncate_prompt_tokens": 600}, False),  # fits once the prompt is cut
        (1_500, 3_000, 450, {"truncate_prompt_tokens": 600}, False),  # too long even when cut: the output
    ],
)
def test_a_request_in_doubt_may_fit_a_smaller_pool(
    prompt: float, bound: float, output: int, fields: dict[str, object], *, doubt: bool
) -> None:
    """The estimate may be too high by as much as it may be too low; the output
    and a truncated prompt are known exactly.
    """
    two = Pools((Pool("s", 1_000), Pool("l", 100_000)))
    facts, estimated = replace(FACTS, **fields), estimate(prompt, bound, output)
    assert doubt == two.in_doubt(facts, estimated, token_budget(facts, estimated))
