from typing import Any

import pytest

from extproc.core.placing.policy import Pool
from extproc.demo.outcomes import Category, Logged, Outcome, Placement, summarise
from extproc.demo.workload import Ask, Endpoint

SHORT = Pool("short", 8_192, 10_240)


def ask(number: int = 0, text: str = "hello", limit: int | None = 100, **fields: Any) -> Ask:
    """Return a chat request."""
    arguments = {"model": "m", "messages": [{"role": "user", "content": text}]}
    return Ask(number, "chat", Endpoint.CHAT, arguments, limit, **fields)


def answered(number: int = 0, pool: str = "short", prompt_tokens: int | None = 50, **fields: Any) -> Outcome:
    """Return the outcome of a request that was served."""
    asked = fields.pop("ask", None) or ask(number)
    return Outcome(asked, fields.pop("status", 200), pool=pool, prompt_tokens=prompt_tokens, **fields)


def judged(outcome: Outcome) -> set[str]:
    """Return all verdicts about an outcome."""
    placement = Placement(outcome, SHORT)
    names = ("failed", "misrouted", "repaired", "over_counted", "refused_rightly")
    return {name for name in names if getattr(placement, name)}


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (answered(), set()),
        (answered(pool="long", prompt_tokens=20_000), set()),
        (answered(pool="long"), {"over_counted"}),
        (answered(pool="long", prompt_tokens=8_192 - 100), {"over_counted"}),
        (answered(pool="long", prompt_tokens=8_192 - 99), set()),
        (answered(pool="long", prompt_tokens=9_000, attempts=2), {"repaired"}),
        (answered(pool="long", prompt_tokens=11_000, attempts=2), {"misrouted", "repaired"}),
        (answered(pool="long", attempts=2), {"repaired"}),
        (answered(pool="long", status=503, prompt_tokens=None), {"failed"}),
        (answered(pool="long", status=400, prompt_tokens=None), {"failed"}),
        (answered(pool="long", status=400, prompt_tokens=None, attempts=2), {"failed", "misrouted"}),
        (answered(status=0, pool="", prompt_tokens=None, error="connection lost"), {"failed"}),
        (
            answered(ask=ask(no_pool_holds_it=True), pool="long", status=400, prompt_tokens=None),
            {"refused_rightly"},
        ),
        (answered(ask=ask(no_pool_holds_it=True), pool="long"), {"failed", "over_counted"}),
        (answered(ask=ask(limit=8143), pool="long"), set()),
        (answered(ask=ask(limit=None), pool="long", completion_tokens=30), {"over_counted"}),
        (answered(ask=ask(limit=None), completion_tokens=8142, cut_by_length=True), {"misrouted"}),
        (answered(ask=ask(limit=10), completion_tokens=10, cut_by_length=True), set()),
        (answered(ask=ask(limit=141), prompt_tokens=10_100), {"misrouted"}),
        (answered(ask=ask(limit=140), prompt_tokens=10_100), set()),
    ],
)
def test_an_outcome_is_judged_by_true_counts(outcome: Outcome, said: set[str]) -> None:
    """Over-counted, misrouted, repaired and failed follow from the pool's own count and the declared output."""
    assert judged(outcome) == said


def test_errors_are_measured_at_the_likeliest_count_and_under_counts_at_the_bound() -> None:
    """The error compares the likeliest prompt with the true one; the bound is the budget minus the output."""
    outcomes = [answered(number, prompt_tokens=200) for number in range(3)]
    logged = {0: Logged("fits", 320, 220), 1: Logged("fits", 280, 180), 2: Logged("deadline", None, None)}
    summary = summarise(outcomes, logged, {}, SHORT)
    assert summary.median_abs_error == 0.1
    assert summary.undercounted == 1
    assert summary.reasons == {"deadline": 1, "fits": 2}


def test_requests_without_a_declared_limit_are_not_judged_by_their_bound() -> None:
    """If the client declares no limit, the logged budget does not reveal the prompt's share of the bound."""
    summary = summarise(
        [answered(ask=ask(limit=None), prompt_tokens=2000)], {0: Logged("fits", 1100, 1000)}, {}, SHORT
    )
    assert (0.5, 0) == (summary.median_abs_error, summary.undercounted)


def test_learned_ratios_are_compared_with_the_mean_of_the_true_ones() -> None:
    """The true ratio of a category is the mean of prompt text bytes per token counted by the pool."""
    outcomes = [
        answered(ask=ask(text="plain words"), prompt_tokens=2),
        answered(ask=ask(text="other words"), prompt_tokens=4),
        answered(ask=ask(text="слова"), prompt_tokens=5),
    ]
    summary = summarise(outcomes, {}, {"latin": 4.0, "cyrillic": 2.5, "han": 3.0}, SHORT)
    assert summary.categories == [
        Category("cyrillic", 2.5, 2.0, 1),
        Category("han", 3.0, None, 0),
        Category("latin", 4.0, 4.125, 2),
    ]


def test_the_json_has_the_names_that_scripts_read() -> None:
    """The summary's JSON has all documented fields, and describes failures in words."""
    outcomes = [
        answered(0),
        answered(1, pool="long", prompt_tokens=11_000, attempts=2),
        answered(2, pool="long", status=503, prompt_tokens=None, error="no healthy upstream"),
    ]
    fields = summarise(outcomes, {0: Logged("fits", 155, 55)}, {"latin": 4.0}, SHORT).as_json()
    documented = (
        "requests",
        "short",
        "long",
        "failed",
        "misrouted",
        "repaired",
        "undercounted",
        "median_abs_error",
    )
    assert [fields[name] for name in documented] == [3, 1, 2, 1, 1, 1, 0, 0.1]
    assert fields["failures"] == ["request 2 (chat): 503 no healthy upstream"]
    assert fields["kinds"]["chat"]["requests"] == 3
