"""The comparison as Markdown: the bars and whether they are met, then all figures, mean and spread over seeds."""

from collections.abc import Mapping, Sequence
from hashlib import blake2b

import numpy as np

from extproc.evaluation.bars import HEAD, comparison_bars, means, output_bar, percent, timing_bars
from extproc.evaluation.cases import Plan
from extproc.evaluation.contestants import OURS
from extproc.evaluation.exact import Counts
from extproc.evaluation.measure import HEADROOMS, THRESHOLDS, Figures
from extproc.evaluation.mixes import Material
from extproc.evaluation.outputs import OutputFigures, count_outputs
from extproc.evaluation.sampled import Samples
from extproc.evaluation.sampled_report import sampled_section
from extproc.evaluation.scenarios import Comparison
from extproc.evaluation.texts import Texts
from extproc.evaluation.timing import Timing
from extproc.evaluation.unseen import held_out

__all__ = ["kinds_report", "report"]

MAX_KIND_SHARE = 0.02  # under-counts; the target is for all kinds together


def report(
    comparisons: Sequence[Comparison],
    timing: Timing,
    plan: Plan,
    material: Material,
    command: str,
    *,
    samples: Mapping[str, Samples],
) -> str:
    """Return the complete report; `samples` is by tokenizer, `command` is the command that repeats the run."""
    parts = [_INTRODUCTION.format(command=command, plan=plan, seeds=len(plan.seeds), kinds=len(material.texts))]
    for comparison in comparisons:
        parts += [
            f"## {comparison.tokenizer}",
            "\n".join([HEAD, *comparison_bars(comparison)]),
            _contest(comparison),
            _near(comparison.mixed),
            _kinds(comparison.mixed[OURS]),
            _cases(comparison),
            _sights(comparison.sights),
            _counts(comparison.counts),
        ]
    outputs = [count_outputs(material.lengths, seed) for seed in plan.seeds]
    parts += [
        "## Output lengths without a declared limit",
        "\n".join([HEAD, output_bar(outputs)]),
        _counted(outputs),
    ]
    parts += ["## Learning under the default budget", *sampled_section(samples, plan)]
    parts += ["## CPU time and space", "\n".join([HEAD, *timing_bars(timing)]), _learning(timing)]
    parts += ["## Texts", _texts(material.texts)]
    return "\n\n".join(parts) + "\n"


def kinds_report(kinds: Mapping[str, Sequence[Figures]], command: str) -> str:
    """Return only the report's section on kinds of text; `kinds` is by tokenizer."""
    parts = [f"Written by `{command}`."]
    for tokenizer, rows in kinds.items():
        parts += [f"## {tokenizer}", _kinds(rows)]
    return "\n\n".join(parts) + "\n"


_INTRODUCTION = """# Estimators compared

Written by `{command}`.

Each estimator predicts a request's prompt tokens, then learns from its usage, request by request:
{plan.requests:,} requests per stream, {seeds} seeds, mean ± standard deviation over the seeds. Figures are in
percent, of the requests after the first {plan.warm_up} (except for the cold start). The error is that of the
likeliest count; *under-counted* and *bound over truth* are those of the tokens that the request is routed on.
Byte classes are given neither the kind of text nor the tenant.

The streams are described in `extproc/evaluation/mixes.py`; they contain {kinds} kinds of text, whose sizes and
digests are listed at the end. A misroute is a request sent to a pool of 4,096 tokens that does not hold it and
its output; a detour is a request that this pool would hold, sent to the larger one. *Within 20 %* are the
requests whose true total is that close to a threshold; about half of them fit, and only those can take a
detour. With head-room, the pool's context is longer than the threshold by that share: the likeliest total is
compared with the threshold, and the bound with the context.

The tokenizer under test, and all others of its maker, are left out of the prior prices that all rows start
from; the row "a prior that includes this vocabulary" has the prior that is shipped. The texts are those that
the prices of the other tokenizers were fitted to. docs/estimator.md says where each constant of the method
comes from."""


def _contest(comparison: Comparison) -> str:
    head = (
        "### The mix\n\n| estimator | mean abs. error | p1 | p99 | under-counted | bound over truth | "
        "misroutes at 4,096 | detours |\n|---|---|---|---|---|---|---|---|"
    )
    return "\n".join([head, *(f"| {name} | {_cells(rows)} |" for name, rows in comparison.mixed.items())])


def _kinds(rows: Sequence[Figures]) -> str:
    """Return the kinds of text whose share of under-counts, over all seeds, exceeds MAX_KIND_SHARE."""
    sums = {
        kind: np.sum([row.kinds.get(kind, (0, 0)) for row in rows], axis=0) for row in rows for kind in row.kinds
    }
    worst = sorted((-missed / count, kind, missed, count) for kind, (missed, count) in sums.items())
    above = [f"{kind} {missed} of {count}" for share, kind, missed, count in worst if -share > MAX_KIND_SHARE]
    return (
        f"### Under-counts by kind of text\n\nOf the {len(sums)} kinds in the mix, those with more than "
        f"{100 * MAX_KIND_SHARE:.0f} % under-counts, over all seeds: {', '.join(above) or 'none'}."
    )


def _near(mixed: dict[str, tuple[Figures, ...]]) -> str:
    """Return the detours near each threshold, as shares of all requests there and of those that fit."""
    limits = ["equal limits", *(f"head-room {share:.0%}" for share in HEADROOMS[1:])]
    head = "### Detours within 20 % of a threshold, of all requests there / of those that fit\n\n"
    head += (
        f"| estimator | threshold | under-counted | {' | '.join(limits)} |\n|---|---|---|{'---|' * len(limits)}"
    )
    rows = []
    for name, figures in mixed.items():
        for place, threshold in enumerate(THRESHOLDS):
            near = [row.near[place] for row in figures]
            pairs = zip(means(n.detoured for n in near), means(n.of_fitting for n in near), strict=True)
            cells = [f"{100 * share:.1f} / {100 * of_fitting:.0f}" for share, of_fitting in pairs]
            under = float(np.mean([n.under_counted for n in near]))
            rows.append(f"| {name} | {threshold:,} | {100 * under:.2f} | {' | '.join(cells)} |")
    return "\n".join([head, *rows])


def _cases(comparison: Comparison) -> str:
    """Return the figures of this project's estimator on the hard streams."""
    head = (
        f"### {OURS.capitalize()} on hard streams\n\n| | first 50 | next 50 | mean abs. error | under-counted | "
        "bound over truth | detours at 4,096 | within 20 % of 4,096 | of 8,192 |\n"
        f"{'|---' * 9}|"
    )
    rows = []
    for case in comparison.cases.values():
        rows.append(f"| {case.name} | {_hard_cells(case.figures)} |")
        rows += [f"| the same requests, without that | {_hard_cells(case.without)} |"] if case.without else []
    return "\n".join([head, *rows])


def _hard_cells(rows: Sequence[Figures]) -> str:
    names = ("first_50", "next_50", "mean_error", "under_counted", "width", "detoured")
    cells = [_spread([getattr(row, name) for row in rows]) for name in names]
    cells += [_spread([row.near[place].detoured[0] for row in rows]) for place in range(len(THRESHOLDS))]
    return " | ".join(cells)


def _sights(sights: dict[str, float]) -> str:
    """Return the kinds whose prompts exceeded the bound at first sight, with held-out ones in italics."""
    low = sorted((ratio, kind) for kind, ratio in sights.items() if ratio < 1)
    cells = ", ".join(f"{f'*{kind}*' if held_out(kind) else kind} {ratio:.2f}" for ratio, kind in low)
    return (
        f"Of {len(sights)} kinds, those missed at first sight, with the lowest bound / truth of three prompts (in "
        f"italics those on which no constant was chosen): {cells or 'none'}."
    )


def _counted(outputs: Sequence[OutputFigures]) -> str:
    times = float(np.mean([each.assumed_ratio for each in outputs]))
    return f"The mean length assumed is {times:.1f} times the mean actual length."


def _learning(timing: Timing) -> str:
    return f"Learning from a response takes {timing.learning_us:.0f} us (median, not on the request's path)."


def _counts(counts: Counts) -> str:
    """Return how often texts were counted exactly, and the cost of that."""
    size = counts.text_bytes / max(counts.counted, 1) / 1024
    return (
        f"Exact counts: {percent(counts.share)} of the requests, {size:.0f} KB and {counts.mean_ms:.2f} ms each "
        "(CPU, by the library that the evaluation counts with; extproc/exact/tokenizers.py has the router's)."
    )


def _texts(texts: Texts) -> str:
    rows = (
        f"| {kind} | {len(text):,} | {blake2b(text, digest_size=6).hexdigest()} |"
        for kind, text in sorted(texts.items())
    )
    return "\n".join(["| kind | bytes | BLAKE2b |\n|---|---|---|", *rows])


def _cells(rows: Sequence[Figures]) -> str:
    names = ("mean_error", "p1", "p99", "under_counted", "width", "misrouted", "detoured")
    return " | ".join(_spread([getattr(row, name) for row in rows]) for name in names)


def _spread(values: Sequence[float]) -> str:
    digits = 2 if abs(np.mean(values)) < 0.1 else 1  # noqa: PLR2004  (three digits of a percentage)
    mean = f"{np.mean(values) * 100:.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values) * 100:.{digits}f}"
