"""The outcome of each request, and whether it was placed well, judged by the pool's own count. No I/O."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, quantiles
from typing import Any

import msgspec

from extproc.core.apis import api_of, read_request
from extproc.core.estimator import make_estimator
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.placing.policy import Pool
from extproc.demo.workload import Ask

__all__ = ["Category", "Logged", "Outcome", "Placement", "Row", "Summary", "summarise"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request's response, as its client saw it.

    `prompt_tokens` is the pool's own count (None if it refused), `completion_tokens` the output that it reported.
    `cut_by_length`: the response ended at a token limit. `attempts` is Envoy's x-envoy-attempt-count.
    """

    ask: Ask
    status: int
    pool: str = ""
    attempts: int = 1
    prompt_tokens: int | None = None
    completion_tokens: int = 0
    cut_by_length: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True)
class Logged:
    """The entry of one request in Envoy's access log.

    `estimate` is the token budget that the request was routed on, an upper bound; `prompt_tokens` is the likeliest
    number of prompt tokens.
    """

    reason: str | None
    estimate: int | None
    prompt_tokens: int | None


@dataclass(frozen=True, slots=True)
class Category:
    """Bytes per token of one category: as learned by the router, and by the pools' counts."""

    key: str
    learned: float
    true: float | None
    requests: int


class Placement:
    """The judgement of one outcome by true counts: the pool's prompt tokens, and the output declared or produced.

    `misrouted`: sent to the short pool although it did not fit there: it was refused, or its output had less room
    than it declared, or was cut by the context.
    `repaired`: served by the long pool after Envoy's retry, as it was misrouted or the short pool failed.
    `over_counted`: sent to the long pool although it was within the short pool's threshold.
    `failed`: not served although a pool could hold it, or served although none could.
    """

    def __init__(self, outcome: Outcome, short: Pool) -> None:
        ask = outcome.ask
        served = outcome.status == 200  # noqa: PLR2004
        output = outcome.completion_tokens if ask.output_tokens is None else ask.output_tokens
        needed = None if outcome.prompt_tokens is None else outcome.prompt_tokens + output
        cut_by_context = outcome.cut_by_length and ask.output_tokens is None
        self.refused_rightly = ask.no_pool_holds_it and outcome.status == 400  # noqa: PLR2004
        fits = needed is not None and needed <= short.context_tokens
        had_less_room = cut_by_context or (served and not fits)
        belongs = needed is not None and needed <= short.max_budget_tokens
        self.misrouted = not fits if outcome.attempts > 1 else outcome.pool == "short" and had_less_room
        self.repaired = outcome.attempts > 1 and served
        self.over_counted = belongs and outcome.pool == "long" and outcome.attempts == 1
        self.failed = served == ask.no_pool_holds_it or not (served or self.refused_rightly)


@dataclass(slots=True)
class Row:
    """The counts for one kind of request."""

    requests: int = 0
    short: int = 0
    long: int = 0
    over_counted: int = 0
    misrouted: int = 0
    repaired: int = 0
    failed: int = 0

    def add(self, outcome: Outcome, placement: Placement) -> None:
        """Count one outcome."""
        self.requests += 1
        self.short += outcome.pool == "short"
        self.long += outcome.pool == "long"
        self.over_counted += placement.over_counted
        self.misrouted += placement.misrouted
        self.repaired += placement.repaired
        self.failed += placement.failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The result of a run; see as_json.

    Errors are those of the likeliest prompt tokens, relative to the true count. Requests were placed by an upper
    bound, which `undercounted` prompts exceeded.
    """

    rows: Mapping[str, Row]
    total: Row
    refused_rightly: int
    undercounted: int
    median_abs_error: float | None
    p90_abs_error: float | None
    reasons: Mapping[str, int]
    categories: Sequence[Category]
    failures: Sequence[str]

    def as_json(self) -> dict[str, Any]:
        """Return the summary's fields under the names that scripts read."""
        total = self.total
        return {
            "requests": total.requests,
            "short": total.short,
            "long": total.long,
            "failed": total.failed,
            "refused_rightly": self.refused_rightly,
            "misrouted": total.misrouted,
            "repaired": total.repaired,
            "overcounted": total.over_counted,
            "undercounted": self.undercounted,
            "median_abs_error": self.median_abs_error,
            "p90_abs_error": self.p90_abs_error,
            "reasons": dict(self.reasons),
            "bytes_per_token": [
                {"category": each.key, "learned": each.learned, "true": each.true, "requests": each.requests}
                for each in self.categories
            ],
            "kinds": {kind: msgspec.to_builtins(row) for kind, row in self.rows.items()},
            "failures": list(self.failures),
        }


def summarise(
    outcomes: Sequence[Outcome], logged: Mapping[int, Logged], learned: Mapping[str, float], short: Pool
) -> Summary:
    """Judge a run; `logged` is by request number, `learned` holds bytes per token by category."""
    rows: dict[str, Row] = {}
    total, refused, failures = Row(), 0, []
    for outcome in outcomes:
        placement = Placement(outcome, short)
        for row in (rows.setdefault(outcome.ask.kind, Row()), total):
            row.add(outcome, placement)
        refused += placement.refused_rightly
        if placement.failed:
            failures.append(f"request {outcome.ask.number} ({outcome.ask.kind}): {outcome.status} {outcome.error}")
    estimated = list(_estimated(outcomes, logged))
    errors = [(entry.prompt_tokens or 0) / (outcome.prompt_tokens or 1) - 1 for outcome, entry in estimated]
    reasons = [entry.reason for entry in logged.values() if entry.reason]
    return Summary(
        rows=rows,
        total=total,
        refused_rightly=refused,
        undercounted=sum(_under_counted(outcome, entry) for outcome, entry in estimated),
        median_abs_error=round(median(map(abs, errors)), 4) if errors else None,
        p90_abs_error=round(quantiles(map(abs, errors), n=10)[-1], 4) if len(errors) > 1 else None,
        reasons={reason: reasons.count(reason) for reason in sorted(set(reasons))},
        categories=_categories(outcomes, learned),
        failures=failures,
    )


def _estimated(outcomes: Iterable[Outcome], logged: Mapping[int, Logged]) -> Iterable[tuple[Outcome, Logged]]:
    """Yield the requests with one prompt whose estimate and true count are both known."""
    for outcome in outcomes:
        entry = logged.get(outcome.ask.number)
        # If there are several prompts, the router budgets the longest, but the pool reports their sum.
        prompts = outcome.ask.arguments.get("prompt", outcome.ask.arguments.get("input"))
        is_comparable = outcome.prompt_tokens and not isinstance(prompts, list)
        if is_comparable and entry is not None and entry.estimate is not None:
            yield outcome, entry


def _under_counted(outcome: Outcome, entry: Logged) -> bool:
    """Return whether the prompt exceeded the bound it was routed on; False if no output was declared."""
    declared = outcome.ask.output_tokens
    if declared is None or entry.estimate is None:
        return False
    return (outcome.prompt_tokens or 0) > entry.estimate - declared


def _categories(outcomes: Iterable[Outcome], learned: Mapping[str, float]) -> list[Category]:
    """Return each learned ratio together with the mean of the true ones, by the router's own categories."""
    estimator = make_estimator(EstimatorSettings())
    true: dict[str, list[float]] = {}
    for outcome in outcomes:
        api = api_of("POST", f"/v1/{outcome.ask.endpoint}")
        assert api is not None, "the demo calls only APIs that the router knows"
        facts = read_request(api, msgspec.json.encode(outcome.ask.arguments))
        text_only = facts.exact_prompt_tokens is None and not facts.media.images
        if outcome.prompt_tokens and facts.text and text_only:
            category = estimator.estimate(facts, "").category.key
            true.setdefault(category, []).append(facts.text_bytes / outcome.prompt_tokens)
    return [
        Category(
            key,
            round(ratio, 3),
            round(fmean(true[key]), 3) if key in true else None,
            len(true.get(key, ())),
        )
        for key, ratio in sorted(learned.items())
    ]
