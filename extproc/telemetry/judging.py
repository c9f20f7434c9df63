"""Figures from the histograms by model: the estimates' errors, the width of the bounds, the sizes of budgets.

With thousands of series they are the most expensive metrics to sample, so they are sampled less often than others.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate

from extproc.core.placing.pool import Reason
from extproc.telemetry.looks import Look, differences, grown, seconds_between, sum_of

__all__ = ["Buckets", "Judged", "ModelFigures", "judged_between"]

MOST_MODELS = 12
FITS, SPILLED = Reason.FITS.value, Reason.SPILLED.value


@dataclass(frozen=True, slots=True)
class ModelFigures:
    """One model: decisions a second, share routed to smaller pools than its default one, median and 90th
    percentile of |estimate / actual - 1|, the share of prompts beyond their bound, and the bound over the truth
    (median).

    A value without observations is None.
    """

    name: str
    per_s: float
    routed: float | None
    error_p50: float | None
    error_p90: float | None
    under_counted: float | None
    bound_ratio: float | None


Buckets = tuple[tuple[float | None, float], ...]


@dataclass(frozen=True, slots=True)
class Judged:
    """Figures of the busiest models, and of all models. `errors` and `budgets` are counts by the bucket's upper
    bound, which is None for the last bucket.
    """

    models: tuple[ModelFigures, ...]
    observed: int
    errors: Buckets
    budgets: Buckets


def judged_between(before: Look, after: Look) -> Judged:
    """Return the histograms' figures for the time between two looks."""
    errors, bounds, budgets = (
        _histograms(before, after, f"dualpool_{what}")
        for what in ("estimate_ratio", "bound_ratio", "budget_tokens")
    )
    return Judged(
        models=tuple(_models(before, after, errors, bounds)),
        observed=int(sum_of(before, after, "dualpool_estimate_ratio_count")),
        errors=_all_of(errors),
        budgets=_all_of(budgets),
    )


def _models(
    before: Look, after: Look, errors_of: Mapping[str, Buckets], bounds_of: Mapping[str, Buckets]
) -> Iterator[ModelFigures]:
    seconds = seconds_between(before, after)
    decisions: dict[str, float] = defaultdict(float)
    routed: dict[str, float] = defaultdict(float)
    smaller = _smaller(after)
    for labels, count in grown(before, after, "dualpool_requests_total"):
        model, reason = labels.get("model", ""), labels.get("reason")
        decisions[model] += count
        if reason == FITS or (reason == SPILLED and (model, labels.get("pool")) in smaller):
            routed[model] += count
    under = {labels.get("model"): n for labels, n in grown(before, after, "dualpool_under_counted_total")}
    for name in sorted(decisions, key=lambda each: -decisions[each])[:MOST_MODELS]:
        errors, bounds = errors_of.get(name, ()), bounds_of.get(name, ())
        seen = sum(count for _, count in errors)
        yield ModelFigures(
            name=name,
            per_s=decisions[name] / seconds,
            routed=routed[name] / decisions[name],
            error_p50=_error(errors, 0.5),
            error_p90=_error(errors, 0.9),
            under_counted=under.get(name, 0.0) / seen if seen else None,
            bound_ratio=_median(bounds),
        )


def _smaller(look: Look) -> set[tuple[str, str | None]]:
    """Return each model with the pools that are smaller than its default, where its requests fitted.

    A model's default is not always the last of all pools, which may serve other models only.
    """
    placed = map(dict, look.samples.get("dualpool_requests_total", ()))
    return {(each.get("model", ""), each.get("pool")) for each in placed if each.get("reason") == FITS}


def _histograms(before: Look, after: Look, name: str) -> dict[str, Buckets]:
    """Return the count of each bucket by its upper bound, for each model."""
    reached: dict[str, dict[float, float]] = defaultdict(dict)
    for labels, count in differences(before, after, f"{name}_bucket"):
        reached[labels.get("model", "")][float(labels["le"])] = count
    return {model: _buckets(counts) for model, counts in reached.items()}


def _buckets(reached: Mapping[float, float]) -> Buckets:
    found, past = [], 0.0
    for bound in sorted(reached):
        found.append((None if bound == float("inf") else bound, reached[bound] - past))
        past = reached[bound]
    return tuple(found)


def _all_of(models: Mapping[str, Buckets]) -> Buckets:
    """Return the sum of the models' histograms, which have the same buckets."""
    found: dict[float | None, float] = defaultdict(float)
    for buckets in models.values():
        for bound, count in buckets:
            found[bound] += count
    return tuple(found.items())


def _median(counts: Buckets) -> float | None:
    """Return the median, interpolated within its bucket; in the open last bucket, its lower bound."""
    sums = list(accumulate(count for _, count in counts))
    if not sums or not sums[-1]:
        return None
    half = sums[-1] / 2
    at = bisect_left(sums, half)
    (bound, count), lower = counts[at], (counts[at - 1][0] if at else None) or 0.0
    return lower if bound is None else bound - (bound - lower) * (sums[at] - half) / count


def _error(ratios: Buckets, q: float) -> float | None:
    """Return a quantile of |ratio - 1|: the buckets on both sides of 1 are combined, each at its midpoint."""
    folded, lower = [], 0.0
    for bound, count in ratios:
        middle = lower if bound is None else (lower + bound) / 2
        folded.append((abs(middle - 1), count))
        lower = lower if bound is None else bound
    folded.sort()
    sums = list(accumulate(count for _, count in folded))
    return folded[bisect_left(sums, q * sums[-1])][0] if sums and sums[-1] else None
