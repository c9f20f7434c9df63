"""A PNG of how fast each estimator converges, and how much it scatters afterwards."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from extproc.core.errors import ConfigurationError
from extproc.evaluation.contestants import OURS
from extproc.evaluation.measure import Run, Tokens
from extproc.evaluation.scenarios import Comparison

__all__ = ["plot"]

SMOOTHED_REQUESTS = 50
WARM_UP = 500
COLOURS = ("#b0b0b0", "#c7a76c", "#7ba3c9", "#3b6ea5", "#c0392b")


def plot(comparisons: Sequence[Comparison], file: Path) -> None:
    """Draw two panels for each tokenizer. Raises ConfigurationError if matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  (an extra)
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError(f"plot: needs `pip install dualpool[plots]` ({error})") from error
    figure = Figure(figsize=(12, 3.6 * len(comparisons)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(comparisons), 2, squeeze=False)
    for (convergence, scatter), comparison in zip(panels, comparisons, strict=True):
        _draw_convergence(convergence, comparison)
        _draw_scatter(scatter, comparison)
    panels[0][1].legend(frameon=False, fontsize=8, loc="lower right")
    figure.savefig(file, dpi=110)


def _draw_convergence(panel: Any, comparison: Comparison) -> None:  # noqa: ANN401  (matplotlib's axes)
    """Draw the running mean of the absolute error over the first requests of a model."""
    for (name, result), colour in zip(comparison.curves.items(), COLOURS, strict=True):
        error = _running_mean(np.abs(result.errors)) * 100
        width = 2.2 if name == OURS else 1.3
        panel.plot(np.arange(1, error.size + 1), error, color=colour, linewidth=width, label=name)
    panel.set(
        title=f"{comparison.tokenizer}: mean absolute error, last {SMOOTHED_REQUESTS} requests",
        xlabel="requests seen of a new model (log)",
        ylabel="%",
        xscale="log",
        yscale="log",
        xlim=(5, None),
    )
    panel.set_yticks([1, 2, 5, 10, 20, 50, 100], labels=["1", "2", "5", "10", "20", "50", "100"])
    panel.grid(alpha=0.3)


def _draw_scatter(panel: Any, comparison: Comparison) -> None:  # noqa: ANN401  (as above)
    """Draw the distribution of the tokens routed on, divided by the truth, after the warm-up."""
    for (name, result), colour in zip(comparison.curves.items(), COLOURS, strict=True):
        ratio, share = _cumulative(result)
        width = 2.2 if name == OURS else 1.3
        panel.plot(ratio, share, color=colour, linewidth=width, label=name)
    panel.axvline(1, color="black", linewidth=0.8)
    panel.set(
        title=f"{comparison.tokenizer}: routed on / truth; left of 1 is under-counted",
        xlabel="ratio",
        ylabel="share of requests, %",
        xlim=(0.4, 2),
    )
    panel.grid(alpha=0.3)


def _running_mean(values: Tokens) -> Tokens:
    """Return the mean of the last SMOOTHED_REQUESTS values (fewer at the start)."""
    sums = np.concatenate(([0.0], np.cumsum(values)))
    ends = np.arange(1, values.size + 1)
    starts = np.maximum(ends - SMOOTHED_REQUESTS, 0)
    means: Tokens = (sums[ends] - sums[starts]) / (ends - starts)
    return means


def _cumulative(result: Run) -> tuple[Tokens, Tokens]:
    ratio = np.sort((result.bound / result.actual)[min(WARM_UP, result.actual.size // 2) :])
    return ratio, np.arange(1, ratio.size + 1) / ratio.size * 100
