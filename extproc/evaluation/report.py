"""The comparison as Markdown: the bars and whether they are met, then every figure, mean and spread over seeds."""

from collections.abc import Iterable, Sequence
from hashlib import blake2b

import numpy as np

from extproc.evaluation.bars import HEAD, comparison_bars, output_bar, percent, timing_bars
from extproc.evaluation.cases import Plan
from extproc.evaluation.contestants import OURS
from extproc.evaluation.exact import Counts
from extproc.evaluation.measure import HEADROOMS, THRESHOLDS, Figures
from extproc.evaluation.mixes import Material
from extproc.evaluation.outputs import OutputFigures, count_outputs
from extproc.evaluation.scenarios import Comparison
from extproc.evaluation.texts import Texts
from extproc.evaluation.timing import Timing
from extproc.evaluation.unseen import held_out

__all__ = ["report"]


def report(comparisons: Sequence[Comparison], timing: Timing, plan: Plan, material: Material, command: str) -> str:
    """Return the whole report; `command` is what repeats it."""
    parts = [_INTRODUCTION.format(command=command, plan=plan, seeds=len(plan.seeds), kinds=len(material.texts))]
    for comparison in comparisons:
        parts += [
            f"## {comparison.tokenizer}",
            "\n".join([HEAD, *comparison_bars(comparison)]),
            _contest(comparison),
            _near(comparison.mixed),
            _cases(comparison),
            _sights(comparison.sights),
            _counts(comparison.counts),
        ]
    outputs = [count_outputs(material.lengths, seed) for seed in plan.seeds]
    parts += [
        "## Output lengths where no limit is declared",
        "\n".join([HEAD, output_bar(outputs)]),
        _counted(outputs),
    ]
    parts += ["## CPU time and space", "\n".join([HEAD, *timing_bars(timing)]), _learning(timing)]
    parts += ["## Texts", _texts(material.texts)]
    return "\n\n".join(parts) + "\n"


_INTRODUCTION = """# Estimators compared

Written by `{command}`.

Each estimator predicts a request's prompt tokens, then learns its usage, request by request: {plan.requests:,}
requests of each stream, {seeds} seeds, mean ± standard deviation over them. Figures are in percent, of requests
after the first {plan.warm_up} (but for the cold start). The error is that of the likeliest count; *under-counted*
and *bound over truth* are of the number that the request is routed on. Byte classes are told neither the kind of
text nor the tenant.

The streams are described in `extproc/evaluation/mixes.py`; they hold {kinds} kinds of text, whose sizes and
digests are at the end. A misroute is a request sent to a pool of 4,096 tokens that does not hold it and its
output; a detour is one that it would hold, sent to the larger pool. *Within 20 %* are requests whose true total
is that near a threshold; half of them fit, and those alone can take a detour. With head-room the pool's context
is longer than the threshold by that share: the likeliest total is held against the threshold, the bound against
the context.

The tokenizer that is measured, and its maker's others, are left out of the prior prices that all rows start from;
the row "a prior that holds this vocabulary" has what is shipped. The texts are those that the prices of the others
were fitted on. docs/estimator.md tells where each constant of the method comes from."""


def _contest(comparison: Comparison) -> str:
    head = (
        "### The mix\n\n| estimator | mean abs. error | p1 | p99 | under-counted | bound over truth | "
        "misroutes at 4,096 | detours |\n|---|---|---|---|---|---|---|---|"
    )
    return "\n".join([head, *(f"| {name} | {_cells(rows)} |" for name, rows in comparison.mixed.items())])


def _near(mixed: dict[str, tuple[Figures, ...]]) -> str:
    """Return the detours near each threshold, of all requests there and of those that fit."""
    limits = ["equal limits", *(f"head-room {share:.0%}" for share in HEADROOMS[1:])]
    head = "### Detours within 20 % of a threshold, of all requests there / of those that fit\n\n"
    head += (
        f"| estimator | threshold | under-counted | {' | '.join(limits)} |\n|---|---|---|{'---|' * len(limits)}"
    )
    rows = []
    for name, figures in mixed.items():
        for place, threshold in enumerate(THRESHOLDS):
            near = [row.near[place] for row in figures]
            pairs = zip(_mean(n.detoured for n in near), _mean(n.of_fitting for n in near), strict=True)
            cells = [f"{100 * share:.1f} / {100 * of_fitting:.0f}" for share, of_fitting in pairs]
            under = float(np.mean([n.under_counted for n in near]))
            rows.append(f"| {name} | {threshold:,} | {100 * under:.2f} | {' | '.join(cells)} |")
    return "\n".join([head, *rows])


def _cases(comparison: Comparison) -> str:
    """Return our figures where it is hard."""
    head = (
        f"### {OURS.capitalize()} where it is hard\n\n| | first 50 | next 50 | mean abs. error | under-counted | "
        "bound over truth | detours at 4,096 | within 20 % of 4,096 | of 8,192 |\n"
        f"{'|---' * 9}|"
    )
    rows = []
    for case in comparison.cases.values():
        rows.append(f"| {case.name} | {_hard_cells(case.figures)} |")
        rows += [f"| the same, without those | {_hard_cells(case.without)} |"] if case.without else []
    return "\n".join([head, *rows])


def _hard_cells(rows: Sequence[Figures]) -> str:
    names = ("first_50", "next_50", "mean_error", "under_counted", "width", "detoured")
    cells = [_spread([getattr(row, name) for row in rows]) for name in names]
    cells += [_spread([row.near[place].detoured[0] for row in rows]) for place in range(len(THRESHOLDS))]
    return " | ".join(cells)


def _sights(sights: dict[str, float]) -> str:
    """Return the kinds missed at first sight, those held out in italics."""
    low = sorted((ratio, kind) for kind, ratio in sights.items() if ratio < 1)
    cells = ", ".join(f"{f'*{kind}*' if held_out(kind) else kind} {ratio:.2f}" for ratio, kind in low)
    return (
        f"Of {len(sights)} kinds missed at first sight, with bound / truth, the least of three prompts (in "
        f"italics those that no constant was chosen on): {cells or 'none'}."
    )


def _counted(outputs: Sequence[OutputFigures]) -> str:
    times = float(np.mean([each.counted_times for each in outputs]))
    return f"What was counted with is {times:.1f} times what came, in the mean."


def _learning(timing: Timing) -> str:
    return f"Learning from a response takes {timing.learning_us:.0f} us (median, not on the request's path)."


def _counts(counts: Counts) -> str:
    """Say how often a text was counted, and what that took."""
    size = counts.text_bytes / max(counts.counted, 1) / 1024
    return (
        f"Exact counts: {percent(counts.share)} of the requests, {size:.0f} KB and {counts.mean_ms:.2f} ms each "
        "(CPU, by the library that the evaluation counts with; see the module's text for the router's)."
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


def _mean(rows: Iterable[tuple[float, ...]]) -> list[float]:
    means: list[float] = np.mean(list(rows), axis=0).tolist()
    return means
