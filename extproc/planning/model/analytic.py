"""The cost model: the saving of two pools by the paper's closed form, by an honest form, and in whole instances.

    closed form   alpha (1 - 1/rho), rho = mu_S / mu_H              drops ceilings and sets mu_L = mu_H
    honest form   1 - alpha mu_H / mu_S - (1 - alpha) mu_H / mu_L   the long pool serves only long requests
    integers      ceil(alpha lambda / mu_S) + ceil((1 - alpha) lambda / mu_L) + 2 spares
                  against ceil(lambda / mu_H) + 1 spare

alpha is the share of requests whose *budget* fits the short pool: the router routes on the budget, not on the true
length. There are two baselines: one pool with the long context, and one with the smallest usual context that holds
every request. The second is the fair one. Rates are measured, or computed by `throughput.py` for each pool's own
requests.
"""

from math import ceil, inf

import numpy as np

from extproc.core.errors import ConfigurationError
from extproc.planning.model.reach import check_reach, refused_share, served
from extproc.planning.model.setup import Setup
from extproc.planning.model.splits import Analysis, Baseline, Split
from extproc.planning.model.throughput import throughput
from extproc.planning.workload.declared import DeclaredRule, budgets, declared_tokens
from extproc.planning.workload.lengths import Lengths, Tokens

__all__ = [
    "USUAL_CONTEXTS",
    "analyse",
    "break_even_rate",
    "default_thresholds",
    "right_sized_context",
]

USUAL_CONTEXTS = (2_048, 4_096, 8_192, 16_384, 32_768, 65_536, 131_072)
KEEP = 0.8  # share of the best saving that defines the band in which the exact threshold hardly matters
ROUNDING = 1e-9
AS_GOOD = 0.005  # difference of the honest form too small to change a fleet of whole instances
MAX_BREAKPOINTS = 1_000_000


def default_thresholds(long_context: int) -> tuple[int, ...]:
    """Return thresholds from 512 tokens up to below the long context, four per doubling."""
    return tuple(t for k in range(9, 18) for t in (2**k * step // 4 for step in (4, 5, 6, 7)) if t < long_context)


def right_sized_context(lengths: Lengths, rule: DeclaredRule, long_context: int) -> int:
    """Return the smallest usual context that holds every request as declared; at most the long context.

    A request that the long context does not hold is refused in either, and needs none.
    """
    declared = declared_tokens(lengths, rule)
    longest = int((lengths.prompt + (np.maximum(lengths.output, 1) if declared is None else declared)).max())
    return min(long_context, next((c for c in USUAL_CONTEXTS if c >= longest), long_context))


def analyse(
    lengths: Lengths, rate: float, setup: Setup, rule: DeclaredRule, thresholds: tuple[int, ...]
) -> Analysis:
    """Apply the cost model at each threshold.

    Raises ConfigurationError if the rate is not positive, a threshold is not below the long context, or no
    instance meets the objective.
    """
    if not 0 < rate < inf:
        raise ConfigurationError(f"rate {rate:g}: requests per second must be positive")
    wrong = [t for t in thresholds if not 0 < t < setup.long_context]
    if wrong:
        raise ConfigurationError(
            f"--threshold {wrong[0]:,}: must be positive and below the long context of {setup.long_context:,}"
        )
    load = served(lengths, setup)
    if load is None:
        raise ConfigurationError(
            f"{lengths.source}: all requests are longer than {setup.long_context:,} tokens (--long-context)"
        )
    right_context = right_sized_context(load, rule, setup.long_context)
    measured = setup.measured
    long_rate = measured.homogeneous if measured else _rate(lengths, setup, setup.long_context)
    right_rate = (
        (measured.right_sized or measured.homogeneous) if measured else _rate(lengths, setup, right_context)
    )
    check_reach(lengths, setup)
    assert long_rate is not None, "some requests are served"
    assert right_rate is not None, "some requests are served"
    long = _baseline("homogeneous, long", setup.long_context, long_rate, rate, setup)
    right = _baseline("homogeneous, right-sized", right_context, right_rate, rate, setup)
    budget = budgets(lengths, rule)
    tried = {
        t: _split(lengths, budget, t, rate=rate, setup=setup, baselines=(long, right)) for t in sorted(thresholds)
    }
    splits = tuple(split for split in tried.values() if split is not None)
    if not splits:
        raise ConfigurationError(
            f"objective {_tpot(setup)}: at no threshold do both pools meet it with the "
            "requests they get; one pool of all requests does"
        )
    # Of equally small fleets, the one with the larger continuous saving has more room to spare.
    # A threshold that leaves one of the pools without requests is really one pool.
    real = [split for split in splits if 0 < split.alpha < 1] or splits
    fewest = min(split.instances for split in real)
    smallest = [split for split in real if split.instances == fewest]
    most = max(split.honest_form for split in smallest)
    # Take the smallest threshold of those equal within AS_GOOD, so that the choice does not jump with small
    # changes.
    best = next(split for split in smallest if split.honest_form >= most - AS_GOOD)
    out_of_reach = tuple(t for t, split in tried.items() if split is None)
    return Analysis(rule, rate, long, right, splits, best, _band(splits, best), out_of_reach)


def break_even_rate(alpha: float, rates: tuple[float, float, float], spare: int) -> float | None:
    """Return the rate above which two pools always need fewer instances, or None if there is none.

    `rates` are mu of the single, the short and the long pool. Fleet sizes change only where a ceiling steps, so
    the last step at which two pools were not smaller is computed exactly. If no request gains from the split, as
    when all are bound by prefill, the saving is zero except for rounding, and the result is None.
    """
    one, short, long = rates
    per_rate = 1 / one - alpha / short - (1 - alpha) / long
    if per_rate <= ROUNDING / one:
        return None
    beyond = (spare + 3) / per_rate  # from here on the linear gap exceeds the cost of ceilings and a second spare
    steps = [(alpha / short) * beyond, ((1 - alpha) / long) * beyond, beyond / one]
    if sum(steps) > MAX_BREAKPOINTS:
        return beyond
    ends = [
        np.arange(1, n + 2) / f
        for f, n in zip((alpha / short, (1 - alpha) / long, 1 / one), map(int, steps), strict=True)
        if f > 0
    ]
    changes = np.unique(np.concatenate(ends))
    middles = (changes + np.concatenate([[0.0], changes[:-1]])) / 2  # the sizes between two changes are constant
    apart = np.ceil(alpha * middles / short) + np.ceil((1 - alpha) * middles / long) + 2 * spare
    smaller = apart < np.ceil(middles / one) + spare
    not_smaller = np.flatnonzero(~smaller[changes <= beyond])
    return 0.0 if len(not_smaller) == 0 else float(changes[not_smaller[-1]])


def _tpot(setup: Setup) -> str:
    return f"TPOT {setup.objective.tightest_tpot_s * 1e3:g} ms"


def _or(rate: float | None, otherwise: float) -> float:
    return otherwise if rate is None else rate


def _rate(lengths: Lengths, setup: Setup, context_tokens: int, *, short: bool = False) -> float | None:
    """Return how many requests per second of these lengths one instance takes; None if it serves none of them.

    Requests that are refused because of their length arrive, but take no time.
    """
    load = served(lengths, setup)
    if load is None:
        return None
    limits = setup.limits(context_tokens, short=short)
    found = throughput(load, setup.cost, limits, setup.objective.tightest_tpot_s)
    return found.requests_per_s / (1 - refused_share(lengths, setup))


def _baseline(name: str, context_tokens: int, per_instance: float, rate: float, setup: Setup) -> Baseline:
    instances = ceil(rate / per_instance) + setup.spare
    return Baseline(name, context_tokens, per_instance, instances, setup.usd_per_year(instances))


def _split(
    lengths: Lengths,
    budget: Tokens,
    threshold: int,
    *,
    rate: float,
    setup: Setup,
    baselines: tuple[Baseline, Baseline],
) -> Split | None:
    """Return two pools at one threshold, or None if one of them cannot meet the TPOT with its requests."""
    fits = budget <= threshold
    alpha = float(fits.mean())
    long_base, right = baselines
    # A pool without requests has no rate; its share is 0, so any rate works. Nor has one whose requests are all
    # refused: it needs hardly an instance.
    short = long = long_base.rate_per_instance
    if setup.measured is not None:
        short, long = setup.measured.short, setup.measured.long
    else:
        if alpha > 0:
            short = _or(_rate(lengths.subset(fits), setup, threshold, short=True), short)
        if alpha < 1:
            long = _or(_rate(lengths.subset(~fits), setup, setup.long_context), long)
    if 0 in (short, long):
        return None
    one = long_base.rate_per_instance
    short_instances = ceil(alpha * rate / short) + setup.spare
    long_instances = ceil((1 - alpha) * rate / long) + setup.spare
    both = short_instances + long_instances
    return Split(
        threshold=threshold,
        alpha=alpha,
        rho=short / one,
        short_rate=short,
        long_rate=long,
        short_instances=short_instances,
        long_instances=long_instances,
        closed_form=alpha * (1 - one / short),
        honest_form=1 - alpha * one / short - (1 - alpha) * one / long,
        saving_long=1 - both / long_base.instances,
        saving_right_sized=1 - both / right.instances,
        break_even_rate=break_even_rate(alpha, (right.rate_per_instance, short, long), setup.spare),
        usd_per_year=setup.usd_per_year(both),
    )


def _band(splits: tuple[Split, ...], best: Split) -> tuple[int, int] | None:
    """Return the widest range of thresholds around the best that keeps 80 % of its saving."""
    if best.saving_right_sized <= 0:
        return None
    at = splits.index(best)
    keeps = [split.saving_right_sized >= KEEP * best.saving_right_sized for split in splits]
    low = high = at
    while low > 0 and keeps[low - 1]:
        low -= 1
    while high + 1 < len(splits) and keeps[high + 1]:
        high += 1
    return splits[low].threshold, splits[high].threshold
