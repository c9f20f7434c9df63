"""Predict, then learn, request by request; and the figures of such a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from extproc.evaluation.contestants import Contestant
from extproc.evaluation.requests import Request

__all__ = ["BANDS", "HEADROOMS", "THRESHOLDS", "Figures", "Near", "Run", "figures", "run"]

Tokens = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

BANDS = ((0, 256), (256, 2_048), (2_048, 8_192), (8_192, 1 << 62))  # prompt tokens
THRESHOLDS = (4_096, 8_192)
NEAR = 0.2  # share of a threshold
HEADROOMS = (0.0, 0.10, 0.25, 0.50)


@dataclass(frozen=True, slots=True)
class Run:
    """What was predicted for each request of a stream, and what it cost; all in tokens."""

    likely: Tokens
    bound: Tokens
    actual: Tokens
    output: Tokens

    def of(self, chosen: Mask) -> "Run":
        """Return the run of some of its requests."""
        return Run(self.likely[chosen], self.bound[chosen], self.actual[chosen], self.output[chosen])

    @property
    def errors(self) -> Tokens:
        """Signed relative errors of the likeliest count."""
        return self.likely / self.actual - 1

    @property
    def widths(self) -> Tokens:
        """How far the bound is above the truth, relative."""
        return self.bound / self.actual - 1

    @property
    def misses(self) -> Mask:
        """Where the truth is above the bound."""
        return self.actual > self.bound

    def near(self, threshold: int) -> Mask:
        """Where the true total is within 20 % of a threshold."""
        return np.abs((self.actual + self.output) / threshold - 1) <= NEAR

    def misroutes(self, threshold: int) -> Mask:
        """Where a request is sent to a pool of `threshold` tokens that does not hold it."""
        return (self.actual + self.output > threshold) & (self.bound + self.output <= threshold)

    def detours(self, threshold: int, headroom: float = 0.0) -> Mask:
        """Where a request that a pool of `threshold` tokens would hold is sent to a larger one.

        With head-room, the pool's context is longer than what it is offered by that share: the likeliest total is
        held against the threshold, the bound against the context. Without, the bound against the threshold.
        """
        fits = self.actual + self.output <= threshold
        if headroom:
            bound_fits = self.bound + self.output <= threshold * (1 + headroom)
            return fits & ~((self.likely + self.output <= threshold) & bound_fits)
        return fits & (self.bound + self.output > threshold)


@dataclass(frozen=True, slots=True)
class Near:
    """What happens within 20 % of a threshold: shares of the requests there, `of_fitting` of those that fit.

    `detoured` has a share for each of HEADROOMS, `of_fitting` and `low` too: `low` is the share of detours among
    all requests whose total is below .9 of the threshold.
    """

    under_counted: float
    detoured: tuple[float, ...]
    of_fitting: tuple[float, ...]
    low: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of one run; shares, not percentages. All but the first two are after a warm-up.

    `bands` are under-counts in each of BANDS, `tenants` in each tenant of at least 5 %, `near` one for each of
    THRESHOLDS. `kinds` has the under-counts and the requests of each kind of text.
    """

    first_50: float
    next_50: float
    mean_error: float
    p1: float
    p99: float
    under_counted: float
    width: float
    misrouted: float
    detoured: float
    bands: tuple[float, ...]
    tenants: tuple[float, ...]
    near: tuple[Near, ...]
    kinds: Mapping[str, tuple[int, int]]


def run(
    contestant: Contestant, stream: Sequence[Request], told: Sequence[int] | None = None, in_flight: int = 0
) -> Run:
    """Run a contestant through a stream; `told` is the usage it is given where that is not the truth.

    It is told of each request after `in_flight` others were predicted, as responses come late.
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


def figures(result: Run, stream: Sequence[Request], warm_up: int, only: Mask | None = None) -> Figures:
    """Return the figures of a run after `warm_up` requests; of those chosen by `only`, if it is given."""
    errors = np.abs(result.errors)
    counted = np.arange(errors.size) >= warm_up
    if only is not None:
        counted &= only
    late = result.of(counted)
    p1, p99 = np.percentile(late.errors, (1, 99)).tolist()
    tenants = np.array([request.tenant for request in stream])[counted]
    kinds = np.array([request.kind for request in stream])[counted]
    large = [tenant for tenant in np.unique(tenants) if (tenants == tenant).mean() >= 0.05]  # noqa: PLR2004
    threshold = THRESHOLDS[0]
    return Figures(
        first_50=float(errors[:50].mean()),
        next_50=float(errors[50:100].mean()),
        mean_error=float(np.abs(late.errors).mean()),
        p1=p1,
        p99=p99,
        under_counted=float(late.misses.mean()),
        width=float(late.widths.mean()),
        misrouted=float(late.misroutes(threshold).mean()),
        detoured=float(late.detours(threshold).mean()),
        bands=tuple(_share(late.misses, (late.actual >= low) & (late.actual < high)) for low, high in BANDS),
        tenants=tuple(_share(late.misses, tenants == tenant) for tenant in large),
        near=tuple(_near(late, threshold) for threshold in THRESHOLDS),
        kinds={kind: (int(late.misses[kinds == kind].sum()), int((kinds == kind).sum())) for kind in set(kinds)},
    )


def _near(result: Run, threshold: int) -> Near:
    near, total = result.near(threshold), result.actual + result.output
    detours = [result.detours(threshold, headroom) for headroom in HEADROOMS]
    return Near(
        under_counted=_share(result.misses, near),
        detoured=tuple(_share(detour, near) for detour in detours),
        of_fitting=tuple(_share(detour, near & (total <= threshold)) for detour in detours),
        low=tuple(_share(detour, total < 0.9 * threshold) for detour in detours),
    )


def _share(what: Mask, among: Mask) -> float:
    """Return the share of `what` among some requests; 0 when there are none."""
    return float(what[among].mean()) if among.any() else 0.0
