"""What the live page shows, from two looks at the metrics: what happened in between, by pool, reason and model.

It reads metrics and no object of the router, so that one process and the sum of several are shown alike. What
costs the most are histograms by model, thousands of series: they are looked at less often, and what follows from
them is `Judged`.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import Metric

__all__ = [
    "Figures",
    "Judged",
    "Look",
    "ModelFigures",
    "PoolFigures",
    "Wanted",
    "figures_between",
    "is_histogram",
    "is_number",
    "judged_between",
    "look_at",
    "rates_between",
]

MOST_MODELS = 12
# Whatever is here should not happen: shown as soon as it does.
TROUBLE = {
    "dualpool_misconfigured_total": "gateway misconfigured",
    "dualpool_exceptions_total": "exceptions in the router",
    "dualpool_streams_undecided_total": "streams that ended undecided",
    "dualpool_shed_requests_total": "shed: more came than could be decided in time",
    "dualpool_bodies_not_understood_total": "bodies not understood",
    "dualpool_retried_total": "retried after a smaller pool failed or refused",
    "dualpool_context_overflows_total": "refused by a pool for their length",
    "dualpool_truncated_by_pool_total": "cut short by a pool's context",
    "dualpool_config_reloads_total": "configuration reloads",
    "dualpool_state_snapshots_total": "saves of what was learned",
    "dualpool_state_exchanges_total": "exchanges with the store",
    "dualpool_workers_replaced_total": "workers replaced",
}
HARMLESS = {"gateway_left", "idle", "applied", "done"}
HISTOGRAMS = frozenset({"dualpool_estimate_ratio", "dualpool_bound_ratio", "dualpool_budget_tokens"})
Wanted = Callable[[str, str], bool]
"""Whether a metric of a name and type is looked at."""
Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Look:
    """All samples at one moment, `at_s` by a monotonic clock."""

    at_s: float
    samples: Mapping[str, Mapping[Labels, float]]


@dataclass(frozen=True, slots=True)
class PoolFigures:
    """One pool's part of the decisions: a second, and as a share of all."""

    name: str
    per_s: float
    share: float


@dataclass(frozen=True, slots=True)
class ModelFigures:
    """One model: decisions a second, share routed off the default pool, median and 90th percentile of
    |estimate / actual - 1|, the share of prompts beyond their bound, and the bound over the truth (median).

    What was not observed is None.
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
    """What histograms say: of the busiest models, and of all. `errors` and `budgets` are counts by upper bound,
    the last one open (None).
    """

    models: tuple[ModelFigures, ...]
    observed: int
    errors: Buckets
    budgets: Buckets


@dataclass(frozen=True, slots=True)
class Figures:
    """What happened between two looks; what is `Judged` may be of a little earlier. `trouble` names what should
    not happen, by cause.
    """

    seconds: float
    per_s: float
    observed: int
    pools: tuple[PoolFigures, ...]
    reasons: Mapping[str, float]
    models: tuple[ModelFigures, ...]
    errors: Buckets
    budgets: Buckets
    under_counted: int
    kept_share: float | None
    trouble: tuple[tuple[str, str, float], ...]


def look_at(metrics: Iterable[Metric], at_s: float) -> Look:
    """Return all samples of some metrics."""
    samples: dict[str, dict[Labels, float]] = defaultdict(dict)
    for metric in metrics:
        for sample in metric.samples:
            samples[sample.name][frozenset(sample.labels.items())] = sample.value
    return Look(at_s, dict(samples))


def is_number(name: str, kind: str) -> bool:
    """Whether a metric is a number or a few: what is looked at each time."""
    return kind != "histogram" and not name.endswith("_per_token")


def is_histogram(name: str, _: str) -> bool:
    """Whether a metric is one of the histograms that are judged by."""
    return name in HISTOGRAMS


def rates_between(before: Look, after: Look, pools: Iterable[str]) -> tuple[float, ...]:
    """Return the decisions a second of each pool."""
    by_pool: dict[str, float] = defaultdict(float)
    for labels, count in _grown(before, after, "dualpool_requests_total"):
        by_pool[labels.get("pool", "")] += count
    seconds = _seconds(before, after)
    return tuple(by_pool[name] / seconds for name in pools)


def judged_between(before: Look, after: Look, pools: Iterable[str]) -> Judged:
    """Return what histograms say of the time between two looks."""
    errors, bounds, budgets = (
        _histograms(before, after, f"dualpool_{what}")
        for what in ("estimate_ratio", "bound_ratio", "budget_tokens")
    )
    return Judged(
        models=tuple(_models(before, after, tuple(pools)[-1], errors, bounds)),
        observed=int(_sum(before, after, "dualpool_estimate_ratio_count")),
        errors=_all_of(errors),
        budgets=_all_of(budgets),
    )


def figures_between(before: Look, after: Look, pools: Iterable[str], judged: Judged | None = None) -> Figures:
    """Return what happened between two looks; the pools in their order, the last one the default."""
    names = tuple(pools)
    seconds = _seconds(before, after)
    judged = judged or judged_between(before, after, names)
    by_pool: dict[str, float] = defaultdict(float)
    reasons: dict[str, float] = defaultdict(float)
    for labels, count in _grown(before, after, "dualpool_requests_total"):
        by_pool[labels.get("pool", "")] += count
        reasons[labels.get("reason", "")] += count
    total = sum(by_pool.values())
    kept, released = (_sum(before, after, f"dualpool_streams_{what}_total") for what in ("kept", "released"))
    return Figures(
        seconds=seconds,
        per_s=total / seconds,
        observed=judged.observed,
        pools=tuple(PoolFigures(n, by_pool[n] / seconds, by_pool[n] / total if total else 0.0) for n in names),
        reasons=dict(sorted(reasons.items(), key=lambda entry: -entry[1])),
        models=judged.models,
        errors=judged.errors,
        budgets=judged.budgets,
        under_counted=int(_sum(before, after, "dualpool_under_counted_total")),
        kept_share=kept / (kept + released) if kept + released else None,
        trouble=tuple(_trouble(before, after)),
    )


def _seconds(before: Look, after: Look) -> float:
    return max(after.at_s - before.at_s, 1e-9)


def _grown(before: Look, after: Look, name: str) -> Iterator[tuple[dict[str, str], float]]:
    """Yield what a counter grew by, for each of its labels that did."""
    return ((labels, count) for labels, count in _differences(before, after, name) if count > 0)


def _differences(before: Look, after: Look, name: str) -> Iterator[tuple[dict[str, str], float]]:
    """Yield by how much a counter differs, for each of its labels; one that fell began anew."""
    earlier = before.samples.get(name, {})
    for labels, value in after.samples.get(name, {}).items():
        past = earlier.get(labels, 0.0)
        yield dict(labels), value - past if value >= past else value


def _sum(before: Look, after: Look, name: str) -> float:
    return sum(count for _, count in _grown(before, after, name))


def _models(
    before: Look, after: Look, default: str, errors_of: Mapping[str, Buckets], bounds_of: Mapping[str, Buckets]
) -> Iterator[ModelFigures]:
    seconds = _seconds(before, after)
    asked: dict[str, float] = defaultdict(float)
    routed: dict[str, float] = defaultdict(float)
    for labels, count in _grown(before, after, "dualpool_requests_total"):
        asked[labels.get("model", "")] += count
        routed[labels.get("model", "")] += count * (labels.get("pool") != default)
    under = {labels.get("model"): n for labels, n in _grown(before, after, "dualpool_under_counted_total")}
    for name in sorted(asked, key=lambda each: -asked[each])[:MOST_MODELS]:
        errors, bounds = errors_of.get(name, ()), bounds_of.get(name, ())
        seen = sum(count for _, count in errors)
        yield ModelFigures(
            name=name,
            per_s=asked[name] / seconds,
            routed=routed[name] / asked[name],
            error_p50=_error(errors, 0.5),
            error_p90=_error(errors, 0.9),
            under_counted=under.get(name, 0.0) / seen if seen else None,
            bound_ratio=_quantile(bounds, 0.5),
        )


def _histograms(before: Look, after: Look, name: str) -> dict[str, Buckets]:
    """Return the count of each bucket by its upper bound, for each model."""
    reached: dict[str, dict[float, float]] = defaultdict(dict)
    for labels, count in _differences(before, after, f"{name}_bucket"):
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


def _quantile(counts: Buckets, q: float) -> float | None:
    """Return a quantile, even within its bucket; an open last bucket is taken at its lower bound."""
    total = sum(count for _, count in counts)
    if not total:
        return None
    below, lower = 0.0, 0.0
    for bound, count in counts:
        if below + count >= q * total and count:
            return lower if bound is None else lower + (bound - lower) * (q * total - below) / count
        below, lower = below + count, lower if bound is None else bound
    return lower


def _error(ratios: Buckets, q: float) -> float | None:
    """Return a quantile of |ratio - 1|: both sides of 1 are folded upon each other, each bucket at its middle."""
    folded, lower = [], 0.0
    for bound, count in ratios:
        middle = lower if bound is None else (lower + bound) / 2
        folded.append((abs(middle - 1), count))
        lower = lower if bound is None else bound
    folded.sort()
    total = sum(count for _, count in folded)
    if not total:
        return None
    reached, sums = 0.0, []
    for _, count in folded:
        reached += count
        sums.append(reached)
    return folded[min(bisect_left(sums, q * total), len(folded) - 1)][0]


def _trouble(before: Look, after: Look) -> Iterator[tuple[str, str, float]]:
    for name, text in TROUBLE.items():
        by_cause: dict[str, float] = defaultdict(float)
        for labels, count in _grown(before, after, name):
            cause = next(
                (v for k, v in labels.items() if k in {"cause", "kind", "outcome"}), labels.get("pool", "")
            )
            by_cause[cause] += count
        for cause, count in by_cause.items():
            if cause not in HARMLESS:
                yield text, cause, count
