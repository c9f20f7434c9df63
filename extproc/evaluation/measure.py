"""Predict, then learn, request by request; and the figures of such a run."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from extproc.evaluation.contestants import Contestant
from extproc.evaluation.requests import Request

__all__ = ["Figures", "Run", "figures", "run"]

Tokens = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Run:
    """What was predicted for each request of a stream, and what it cost; all in tokens."""

    likely: Tokens
    bound: Tokens
    actual: Tokens
    output: Tokens

    @property
    def errors(self) -> Tokens:
        """Signed relative errors of the likeliest count."""
        return self.likely / self.actual - 1

    @property
    def widths(self) -> Tokens:
        """How far the bound is above the truth, relative."""
        return self.bound / self.actual - 1

    @property
    def misses(self) -> npt.NDArray[np.bool_]:
        """Where the truth is above the bound."""
        return self.actual > self.bound

    def misroutes(self, threshold: int) -> npt.NDArray[np.bool_]:
        """Where a request is sent to a pool of `threshold` tokens that does not hold it."""
        return (self.actual + self.output > threshold) & (self.bound + self.output <= threshold)

    def detours(self, threshold: int) -> npt.NDArray[np.bool_]:
        """Where a request that a pool of `threshold` tokens would hold is sent to a larger one."""
        return (self.actual + self.output <= threshold) & (self.bound + self.output > threshold)


@dataclass(frozen=True, slots=True)
class Figures:
    """One line of the table; shares, not percentages. All but the first two are after a warm-up."""

    first_50: float
    next_50: float
    mean_error: float
    p1: float
    p99: float
    under_counted: float
    width: float
    misrouted: float
    detoured: float


def run(
    contestant: Contestant, stream: Sequence[Request], told: Sequence[int] | None = None, in_flight: int = 0
) -> Run:
    """Run a contestant through a stream; `told` is the usage it hears where that is not the truth.

    It hears of each request after `in_flight` others were predicted, as responses come late.
    """
    usage = [request.tokens for request in stream] if told is None else told
    predicted = []
    for position, request in enumerate(stream):
        predicted.append(contestant.predict(request))
        if position >= in_flight:
            contestant.learn(usage[position - in_flight])
    likely, bound = np.array(predicted).T
    actual = np.array([request.tokens for request in stream], np.float64)
    return Run(likely, bound, actual, np.array([request.output_tokens for request in stream], np.float64))


def figures(result: Run, warm_up: int, threshold: int) -> Figures:
    """Return the figures of a run, after `warm_up` requests."""
    errors = np.abs(result.errors)
    p1, p99 = np.percentile(result.errors[warm_up:], (1, 99)).tolist()
    return Figures(
        first_50=float(errors[:50].mean()),
        next_50=float(errors[50:100].mean()),
        mean_error=float(errors[warm_up:].mean()),
        p1=p1,
        p99=p99,
        under_counted=float(result.misses[warm_up:].mean()),
        width=float(result.widths[warm_up:].mean()),
        misrouted=float(result.misroutes(threshold)[warm_up:].mean()),
        detoured=float(result.detours(threshold)[warm_up:].mean()),
    )
