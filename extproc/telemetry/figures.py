"""The live page's figures for the time between two looks at the metrics, by pool, reason and model.

The figures from histograms are in `Judged`, which may be a little older (judging.py).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from extproc.telemetry.judging import Buckets, Judged, ModelFigures
from extproc.telemetry.looks import Look, grown, seconds_between, sum_of

__all__ = ["Figures", "figures_between", "rates_between"]

# Problems by metric; each is shown as soon as it occurs.
TROUBLE = {
    "dualpool_misconfigured_total": "gateway misconfigured",
    "dualpool_exceptions_total": "exceptions in the router",
    "dualpool_streams_undecided_total": "streams that ended undecided",
    "dualpool_shed_requests_total": "shed: more requests than could be decided in time",
    "dualpool_bodies_not_understood_total": "bodies not understood",
    "dualpool_retried_total": "retried after a smaller pool failed or refused",
    "dualpool_context_overflows_total": "refused by a pool for their length",
    "dualpool_truncated_by_pool_total": "cut short by a pool's context",
    "dualpool_config_reloads_total": "configuration reloads",
    "dualpool_state_snapshots_total": "saves of learned state",
    "dualpool_state_exchanges_total": "exchanges with the store",
    "dualpool_workers_replaced_total": "workers replaced",
}
HARMLESS = {"gateway_left", "idle", "applied", "done"}


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures for the time between two looks; those from `Judged` may be a little older.

    `shares` are those of the pools in all decisions; `trouble` lists problems, by cause.
    """

    observed: int
    shares: tuple[float, ...]
    reasons: Mapping[str, float]
    models: tuple[ModelFigures, ...]
    errors: Buckets
    budgets: Buckets
    under_counted: int
    kept_share: float | None
    trouble: tuple[tuple[str, str, float], ...]


def rates_between(before: Look, after: Look, pools: Iterable[str]) -> tuple[float, ...]:
    """Return the decisions per second of each pool."""
    by_pool: dict[str, float] = defaultdict(float)
    for labels, count in grown(before, after, "dualpool_requests_total"):
        by_pool[labels.get("pool", "")] += count
    seconds = seconds_between(before, after)
    return tuple(by_pool[name] / seconds for name in pools)


def figures_between(before: Look, after: Look, pools: Sequence[str], judged: Judged) -> Figures:
    """Return the figures for the time between two looks; `pools` in order, the default one last."""
    by_pool: dict[str, float] = defaultdict(float)
    reasons: dict[str, float] = defaultdict(float)
    for labels, count in grown(before, after, "dualpool_requests_total"):
        by_pool[labels.get("pool", "")] += count
        reasons[labels.get("reason", "")] += count
    total = sum(by_pool.values())
    kept, released = (sum_of(before, after, f"dualpool_streams_{what}_total") for what in ("kept", "released"))
    return Figures(
        observed=judged.observed,
        shares=tuple(by_pool[name] / total if total else 0.0 for name in pools),
        reasons=dict(sorted(reasons.items(), key=lambda entry: -entry[1])),
        models=judged.models,
        errors=judged.errors,
        budgets=judged.budgets,
        under_counted=int(sum_of(before, after, "dualpool_under_counted_total")),
        kept_share=kept / (kept + released) if kept + released else None,
        trouble=tuple(_trouble(before, after)),
    )


def _trouble(before: Look, after: Look) -> Iterator[tuple[str, str, float]]:
    for name, text in TROUBLE.items():
        by_cause: dict[str, float] = defaultdict(float)
        for labels, count in grown(before, after, name):
            cause = next(
                (v for k, v in labels.items() if k in {"cause", "kind", "outcome"}), labels.get("pool", "")
            )
            by_cause[cause] += count
        for cause, count in by_cause.items():
            if cause not in HARMLESS:
                yield text, cause, count
