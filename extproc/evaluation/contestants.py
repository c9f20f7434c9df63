"""The estimators that are compared, behind one small interface."""

from collections import deque
from collections.abc import Callable
from typing import Protocol

from extproc.core.estimator.byteclass import ByteClassEstimator
from extproc.core.estimator.ema import EmaEstimator
from extproc.core.estimator.protocol import Estimate, Estimator
from extproc.core.estimator.settings import ByteClassSettings, EstimatorSettings
from extproc.core.usage import Usage
from extproc.evaluation.requests import Request

__all__ = ["CONTESTANTS", "OURS", "Contestant", "byte_class"]


class Contestant(Protocol):
    """Predicts the tokens of requests and learns from their usage, in the order of its predictions."""

    def predict(self, request: Request) -> tuple[float, float]:
        """Return the likeliest prompt tokens, and the prompt tokens that the request is routed on."""
        ...

    def learn(self, reported_tokens: int) -> None:
        """Learn the usage of the earliest predicted request whose usage is still outstanding."""
        ...


class StaticRatio:
    """Four bytes of body per token, as most gateways assume."""

    def predict(self, request: Request) -> tuple[float, float]:
        """Return a quarter of the body's bytes."""
        return request.body_bytes / 4, request.body_bytes / 4

    def learn(self, reported_tokens: int) -> None:
        """Learn nothing."""


class SemanticRouter:
    """The rule of the production router by the paper's authors, as far as it is known.

    One ratio for all requests (decay .995, used from 10 samples on) and a second, cautious one, which moves 90 %
    of the way to a lower sample. It never predicts less than a token per four bytes, and does not learn from
    requests with tools.
    """

    def __init__(self) -> None:
        self._ratio = self._cautious = 4.0
        self._samples = 0
        self._waiting: deque[Request] = deque()

    def predict(self, request: Request) -> tuple[float, float]:
        """Return max(calibrated, bytes / 4) for both ratios."""
        self._waiting.append(request)
        text_bytes = request.facts.text_bytes
        if self._samples < 10:  # noqa: PLR2004  (as in the rule)
            return text_bytes / 4, text_bytes / 4
        return max(text_bytes / self._ratio, text_bytes / 4), max(text_bytes / self._cautious, text_bytes / 4)

    def learn(self, reported_tokens: int) -> None:
        """Update both ratios."""
        facts = self._waiting.popleft().facts
        if facts.tools:
            return
        sample = facts.text_bytes / reported_tokens
        self._ratio += 0.005 * (sample - self._ratio)
        self._cautious += (0.9 if sample < self._cautious else 0.005) * (sample - self._cautious)
        self._samples += 1


class Ours:
    """An estimator of this project, run as in the router, with or without the tenant of each request."""

    def __init__(self, estimator: Estimator, *, with_tenants: bool = False) -> None:
        self._estimator = estimator
        self._with_tenants = with_tenants
        self._waiting: deque[Estimate] = deque()

    def predict(self, request: Request) -> tuple[float, float]:
        """Estimate; the kind of text is not passed."""
        return self._predict(request, tenant=request.tenant if self._with_tenants else "")

    def learn(self, reported_tokens: int) -> None:
        """Observe the usage."""
        self._estimator.observe(self._waiting.popleft(), Usage(reported_tokens))

    def _predict(self, request: Request, tenant: str) -> tuple[float, float]:
        estimate = self._estimator.estimate(request.facts, tenant)
        self._waiting.append(estimate)
        return estimate.prompt_tokens, estimate.prompt_bound


class PaperEma(Ours):
    """The paper's EMA, given the kind of each text (a perfect category) or using the router's categories."""

    def __init__(self, *, with_kinds: bool) -> None:
        super().__init__(EmaEstimator(EstimatorSettings(kind="ema")))
        self._with_kinds = with_kinds

    def predict(self, request: Request) -> tuple[float, float]:
        """Estimate, by the kind of text if it is given."""
        return self._predict(request, tenant=request.kind if self._with_kinds else "")


def byte_class(*, left_out: str = "", with_tenants: bool = False, memory: bool = True) -> Contestant:
    """Return this project's estimator, with its usual settings.

    Its prior omits the vocabulary `left_out`, if one is given; without `memory` it remembers no prefixes.
    """
    prefixes = ByteClassSettings().max_prefixes if memory else 0
    settings = EstimatorSettings(kind="byteclass", byteclass=ByteClassSettings(max_prefixes=prefixes))
    return Ours(ByteClassEstimator(settings, left_out), with_tenants=with_tenants)


OURS = "byte classes"
CONTESTANTS: dict[str, Callable[[], Contestant]] = {
    "static 4.0 on body bytes": StaticRatio,
    "semantic-router's rule": SemanticRouter,
    "paper's EMA, router's categories": lambda: PaperEma(with_kinds=False),
    "paper's EMA, perfect categories": lambda: PaperEma(with_kinds=True),
    OURS: byte_class,
}
