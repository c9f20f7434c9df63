"""The bars that the estimator has to meet, and whether it does: one table row for each."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan

import numpy as np

from extproc.evaluation.contestants import OURS
from extproc.evaluation.exact import EXACT
from extproc.evaluation.measure import BANDS, THRESHOLDS, Figures
from extproc.evaluation.outputs import OutputFigures
from extproc.evaluation.sampled import MOVED, Samples
from extproc.evaluation.scenarios import Comparison
from extproc.evaluation.timing import Timing
from extproc.evaluation.unseen import held_out

__all__ = ["HEAD", "comparison_bars", "mean", "means", "output_bar", "percent", "sampled_bars", "timing_bars"]

HEAD = "| bar | measured | allowed | |\n|---|---|---|---|"
EPSILON = 0.01
HEADROOM_25 = 2  # its index in HEADROOMS


@dataclass(frozen=True, slots=True)
class _Bar:
    """One bar: its name, the value measured, the largest value allowed, and how to format both."""

    name: str
    measured: float
    allowed: float
    form: Callable[[float], str]

    def row(self) -> str:
        if isnan(self.measured):
            return f"| {self.name} | | <= {self.form(self.allowed)} | not measured: no such request |"
        verdict = (
            "met" if self.measured <= self.allowed else f"**missed by {self.form(self.measured - self.allowed)}**"
        )
        return f"| {self.name} | {self.form(self.measured)} | <= {self.form(self.allowed)} | {verdict} |"


def comparison_bars(comparison: Comparison) -> Iterable[str]:
    """Return the rows of one tokenizer."""
    ours, cases = comparison.mixed[OURS], comparison.cases
    bars = [
        _Bar("mean absolute error", mean(ours, "mean_error"), 0.035, percent),
        _Bar("first 50 requests of a new model", mean(ours, "first_50"), 0.09, percent),
        _Bar("the next 50", mean(ours, "next_50"), 0.06, percent),
        _Bar("mean width of the bound", mean(ours, "width"), 0.15, percent),
        _Bar("under-counts, distance from 1 %", abs(mean(ours, "under_counted") - EPSILON), 0.002, _points),
        *_under_counts(ours),
        *_detours("", ours, 0.20, 0.08),
        *_detours("sessions: ", cases["sessions"].figures, 0.10, None),
        *_exact(cases[EXACT].figures),
    ]
    for name in cases:
        if not cases[name].without:
            continue
        for figure, field in (("mean error", "mean_error"), ("detours", "detoured")):
            growth = mean(cases[name].figures, field) / max(mean(cases[name].without, field), 1e-9)
            bars.append(_Bar(f"{name}: {figure}, ratio to the run without", growth, 1.2, "{:.2f}".format))
    bars += _first_sights(comparison.sights)
    return (bar.row() for bar in bars)


def timing_bars(timing: Timing) -> Iterable[str]:
    """Return the rows on CPU time and the size of the state."""
    bars = (
        _Bar("4 KB: features + predict + bound, median", timing.small_us, 80, _microseconds),
        _Bar("1 MB: features + predict + bound, median", timing.large_us, 450, _microseconds),
        _Bar("state of one model", timing.state_bytes / 1024, 64, "{:.1f} KB".format),
    )
    return (bar.row() for bar in bars)


def output_bar(outputs: Sequence[OutputFigures]) -> str:
    """Return the row on output lengths, from the figures of each seed."""
    exceeded = float(np.mean([each.exceeded for each in outputs]))
    return _Bar("responses longer than assumed, first 8,000 at 100 per second", exceeded, 0.02, percent).row()


def sampled_bars(samples: Samples) -> Iterable[str]:
    """Yield the rows on the application that declares 8,192 tokens, under the default learning budget."""
    for (per_s, with_tenants), runs in samples.items():
        name = f"8,192-token class, {per_s:g} per second, {'with' if with_tenants else 'without'} tenants"
        missed = [[half.missed[MOVED] for half in (run.before, run.after)] for run in runs]
        least = min(min(half.learned[MOVED] for half in (run.before, run.after)) for run in runs)
        before, after = np.mean(missed, axis=0).tolist()
        yield _Bar(f"{name}: not learned from, at most", 1 - least, 0.99, percent).row()
        yield _Bar(f"{name}: missed", before, 0.02, percent).row()
        yield _Bar(f"{name}: missed from the 500th request at 30 % more tokens on", after, 0.02, percent).row()


def mean(rows: Sequence[Figures], name: str) -> float:
    """Return the mean of one figure over the seeds."""
    return float(np.mean([getattr(row, name) for row in rows]))


def means(rows: Iterable[tuple[float, ...]]) -> list[float]:
    """Return the mean of each column."""
    columns: list[float] = np.mean(list(rows), axis=0).tolist()
    return columns


def percent(share: float) -> str:
    """Format a share as a percentage."""
    return f"{share * 100:.2f} %"


def _under_counts(rows: Sequence[Figures]) -> Iterable[_Bar]:
    bands = np.mean([row.bands for row in rows], axis=0).tolist()
    for (low, high), share in zip(BANDS, bands, strict=True):
        name = f"{low:,} to {high:,} tokens" if high < 1 << 20 else f"from {low:,} tokens on"
        yield _Bar(f"under-counts, {name}", share, 0.02, percent)
    for place, threshold in enumerate(THRESHOLDS):
        near = float(np.mean([row.near[place].under_counted for row in rows]))
        yield _Bar(f"under-counts within 20 % of {threshold:,}", near, 0.02, percent)
    tenants = np.mean([row.tenants for row in rows], axis=0).tolist()
    yield _Bar("under-counts, worst tenant of at least 5 %", max(tenants, default=0.0), 0.02, percent)


def _exact(rows: Sequence[Figures]) -> Iterable[_Bar]:
    yield from _detours("exact: ", rows, 0.04, None)
    distance = abs(mean(rows, "under_counted") - EPSILON)
    yield _Bar("exact: under-counts, distance from 1 %", distance, 0.002, _points)
    for place, threshold in enumerate(THRESHOLDS):
        near = float(np.mean([row.near[place].under_counted for row in rows]))
        yield _Bar(f"exact: under-counts within 20 % of {threshold:,}", near, 0.02, percent)


def _detours(name: str, rows: Sequence[Figures], equal: float, with_headroom: float | None) -> Iterable[_Bar]:
    for place, threshold in enumerate(THRESHOLDS):
        near = [row.near[place] for row in rows]
        what = f"{name}detours within 20 % of {threshold:,}"
        yield _Bar(f"{what}, equal limits", float(np.mean([n.detoured[0] for n in near])), equal, percent)
        if with_headroom is None:
            continue
        share = float(np.mean([n.detoured[HEADROOM_25] for n in near]))
        yield _Bar(f"{what}, head-room 25 %", share, with_headroom, percent)
        low = float(np.mean([n.low[HEADROOM_25] for n in near]))
        yield _Bar(f"detours below .9 x {threshold:,}, head-room 25 %", low, 0.005, percent)


def _first_sights(sights: Mapping[str, float]) -> Iterable[_Bar]:
    for half, is_held_out in (("", None), (", the held-out half", True), (", the other half", False)):
        ratios = [ratio for kind, ratio in sights.items() if is_held_out in {None, held_out(kind)}]
        missed = sum(ratio < 1 for ratio in ratios) / max(len(ratios), 1)
        yield _Bar(f"{len(ratios)} kinds at first sight{half}: missed", missed, 0.10, percent)


def _points(share: float) -> str:
    return f"{share * 100:.3f} points"


def _microseconds(value: float) -> str:
    return f"{value:.0f} us"
