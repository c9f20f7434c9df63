"""The plots of the report, one SVG image each, drawn by matplotlib without a display."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO

import numpy as np

from extproc.core.errors import ConfigurationError
from extproc.planning.design.answer import Plan
from extproc.planning.model.costs import Costs
from extproc.planning.workload.lengths import Lengths

try:
    import matplotlib as mpl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
except ImportError as error:  # an optional dependency
    raise ConfigurationError("--report needs matplotlib: install dualpool[plots]") from error

__all__ = ["Plot", "draw_plots"]

# The palette of Okabe and Ito: distinguishable with every kind of colour vision, and in grey.
BLUE, ORANGE, GREEN, RED, SKY, BLACK = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#222222"
LINES = (BLUE, ORANGE, GREEN, RED, SKY, BLACK)
SIZE_INCHES = (6.4, 3.4)
CURVE_POINTS = 400
KILO = 1024


class Plot:
    """One image: its title, a caption that says what it shows, and the SVG text."""

    def __init__(self, title: str, caption: str, svg: str) -> None:
        self.title = title
        self.caption = caption
        self.svg = svg


def draw_plots(plan: Plan, lengths: Lengths, costs: Costs) -> list[Plot]:
    """Draw all plots that the plan has data for."""
    best = plan.analysis.best.threshold
    plots = [
        _plot(
            "Request lengths",
            f"Share of requests up to each length. The dashed line is the threshold of {best:,} tokens.",
            lambda axes: _lengths(axes, lengths, best),
        ),
        _plot(
            "Cost model: saving by threshold",
            "Instances that two pools save: by the paper's closed form, by the honest form, and as whole "
            "instances with spares, compared with the right-sized pool. Thresholds in the band keep 80 % of the "
            "best saving.",
            lambda axes: _savings(axes, plan),
        ),
        _plot(
            "Fleet sizes",
            "GPUs of each design, spares included; the first colour is the pool for the shortest requests.",
            lambda axes: _fleets(axes, plan, costs),
        ),
        _plot(
            "Sensitivity to declared max_tokens",
            "Share of requests that the short pool takes, by how clients set max_tokens.",
            lambda axes: _sensitivity(axes, plan),
        ),
    ]
    if plan.fleets:
        plots.insert(
            3,
            _plot(
                "Time to first token",
                "Simulated, with the smallest fleet of each design.",
                lambda axes: _ttft(axes, plan),
            ),
        )
    return plots


def _plot(title: str, caption: str, draw: Callable[[Axes], None]) -> Plot:
    with _axes() as (axes, svg):
        draw(axes)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(frameon=False, fontsize=8)
    return Plot(title, caption, svg.getvalue())


@contextmanager
def _axes() -> Iterator[tuple[Axes, StringIO]]:
    svg = StringIO()
    # A fixed salt makes the same plan produce the same bytes.
    with mpl.rc_context(
        {"svg.hashsalt": "dualpool", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    ):
        figure = Figure(figsize=SIZE_INCHES, layout="constrained")
        axes = figure.add_subplot()
        axes.grid(visible=True, alpha=0.25, linewidth=0.6)
        yield axes, svg
        figure.savefig(svg, format="svg", metadata={"Date": None})


def _token_axis(axes: Axes, label: str) -> None:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda tokens, _: f"{tokens / KILO:g}K" if tokens >= KILO else f"{tokens:g}")
    axes.set_xlabel(label)


def _lengths(axes: Axes, lengths: Lengths, threshold: int) -> None:
    shares = np.linspace(0, 1, CURVE_POINTS)
    for name, tokens, colour in (
        ("input", lengths.prompt, ORANGE),
        ("output", lengths.output, GREEN),
        ("total", lengths.total, BLUE),
    ):
        axes.plot(np.maximum(np.quantile(tokens, shares), 1), shares, color=colour, label=name)
    axes.axvline(threshold, color=BLACK, linewidth=1, linestyle="--")
    _token_axis(axes, "tokens")
    axes.set_ylabel("share of requests")


def _savings(axes: Axes, plan: Plan) -> None:
    splits = plan.analysis.splits
    at = [split.threshold for split in splits]
    axes.axhline(0, color=BLACK, linewidth=0.8)
    axes.plot(at, [100 * s.closed_form for s in splits], color=SKY, linestyle=":", label="closed form (paper)")
    axes.plot(at, [100 * s.honest_form for s in splits], color=ORANGE, label="honest form")
    axes.step(
        at,
        [100 * s.saving_right_sized for s in splits],
        color=BLUE,
        where="mid",
        label="instances, vs right-sized",
    )
    if plan.analysis.band is not None:
        axes.axvspan(*plan.analysis.band, color=BLUE, alpha=0.08)
    _token_axis(axes, "threshold, tokens")
    axes.set_ylabel("saving, %")


def _fleets(axes: Axes, plan: Plan, costs: Costs) -> None:
    """Draw the fleets of the recommendation: the simulated ones, or the cost model's if none was simulated."""
    rows: list[tuple[str, tuple[int, ...]]] = []
    for fleet in plan.fleets:
        cost = costs.of(fleet)
        gpus = tuple(n * each for n, each in zip(cost.instances, cost.gpus_per_instance, strict=True))
        rows.append((fleet.design.name, gpus))
    if not plan.fleets:
        best, gpus_each = plan.analysis.best, plan.gpus_per_instance
        rows += [
            (f"one pool of {one.context_tokens:,}", (one.instances * gpus_each,))
            for one in (plan.analysis.long, plan.analysis.right_sized)
        ]
        both = (best.short_instances * gpus_each, best.long_instances * gpus_each)
        rows.append((f"two pools at {best.threshold:,}", both))
    for place, (_, sizes) in enumerate(rows):
        left = 0
        for size, colour in zip(sizes, (BLUE, SKY, GREEN), strict=False):
            axes.barh(place, size, left=left, color=colour, height=0.6)
            left += size
        axes.annotate(f" {left:,}", (left, place), va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=7)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("GPUs")


def _ttft(axes: Axes, plan: Plan) -> None:
    for index, fleet in enumerate(plan.fleets):
        curve = fleet.typical.summary.ttft_curve_s
        style = "--" if len(fleet.design.contexts) == 1 else "-"
        axes.plot(
            curve[:-1],
            np.linspace(0, 1, len(curve))[:-1],
            style,
            color=LINES[index % len(LINES)],
            label=fleet.design.name,
        )
    axes.set_xlabel("time to first token, s")
    axes.set_ylabel("share of requests")


def _sensitivity(axes: Axes, plan: Plan) -> None:
    for one, colour in zip(plan.sensitivity, LINES, strict=False):
        axes.plot(
            [s.threshold for s in one.splits], [s.alpha for s in one.splits], color=colour, label=one.rule.value
        )
    axes.axvline(plan.analysis.best.threshold, color=BLACK, linewidth=1, linestyle="--")
    _token_axis(axes, "threshold, tokens")
    axes.set_ylabel("alpha, share in the short pool")
