"""Runs that predict and then learn, request by request, and the figures of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan

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
    """The tokens predicted for each request of a stream, and the tokens that it actually had."""

    likely: Tokens
    bound: Tokens
    actual: Tokens
    output: Tokens

    def of(self, chosen: Mask) -> "Run":
        """Return the run reduced to the chosen requests."""
        return Run(self.likely[chosen], self.bound[chosen], self.actual[chosen], self.output[chosen])

    @property
    def errors(self) -> Tokens:
        """The signed relative error of each likeliest count."""
        return self.likely / self.actual - 1

    @property
    def widths(self) -> Tokens:
        """How far each bound is above the truth, relative to the truth."""
        return self.bound / self.actual - 1

    @property
    def misses(self) -> Mask:
        """Which requests have more prompt tokens than their bound."""
        return self.actual > self.bound

    def near(self, threshold: int) -> Mask:
        """Return which requests have a true total within 20 % of a threshold."""
        return np.abs((self.actual + self.output) / threshold - 1) <= NEAR

    def misroutes(self, threshold: int) -> Mask:
        """Return which requests are sent to a pool of `threshold` tokens that does not hold them."""
        return (self.actual + self.output > threshold) & (self.bound + self.output <= threshold)

    def detours(self, threshold: int, headroom: float = 0.0) -> Mask:
        """Return which requests are sent to a larger pool although a pool of `threshold` tokens would hold them.

        With head-room, the pool's context is longer than the threshold by that share: the likeliest total is
        compared with the threshold, and the bound with the context. Without, the bound is compared with the
        threshold.
        """
        fits = self.actual + self.output <= threshold
        if headroom:
            bound_fits = self.bound + self.output <= threshold * (1 + headroom)
            return fits & ~((self.likely + self.output <= threshold) & bound_fits)
        return fits & (self.bound + self.output > threshold)


@dataclass(frozen=True, slots=True)
class Near:
    """The figures of the requests within 20 % of a threshold, as shares of these requests.

    `detoured`, `of_fitting` and `low` have a share for each of HEADROOMS: `of_fitting` is the share of detours
    among those of these requests that fit, and `low` among all requests whose total is below .9 of the threshold.
    """

    under_counted: float
    detoured: tuple[float, ...]
    of_fitting: tuple[float, ...]
    low: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of one run, as shares, not percentages. All but the first two leave out the warm-up.

    `bands` are the under-counts in each of BANDS, `tenants` those of each tenant with at least 5 % of the
    requests, and `near` has one entry for each of THRESHOLDS. `kinds` has the numbers of under-counts and of
    requests for each kind of text.
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
    contestant: Contestant, stream: Sequence[Request], reported: Sequence[int] | None = None, in_flight: int = 0
) -> Run:
    """Run a contestant through a stream; `reported` is the usage that it learns, if not the true one.

    It learns the usage of a request after it has predicted `in_flight` more, as responses come late.
    """
    usage = [request.tokens for request in stream] if reported is None else reported
    predicted = []
    for position, request in enumerate(stream):
        predicted.append(contestant.predict(request))
        if position >= in_flight:
            contestant.learn(usage[position - in_flight])
    likely, bound = np.array(predicted).T
    actual = np.array([request.tokens for request in stream], np.float64)
    return Run(likely, bound, actual, np.array([request.output_tokens for request in stream], np.float64))


def figures(result: Run, stream: Sequence[Request], warm_up: int, only: Mask | None = None) -> Figures:
    """Return the figures of a run after `warm_up` requests; if given, only of those chosen by `only`."""
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
    """Return the share of `what` among some requests; NaN if there are none."""
    return float(what[among].mean()) if among.any() else nan
