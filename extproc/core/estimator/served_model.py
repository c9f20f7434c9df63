"""What is learned of one served model: prices, bound, the residual its categories start from, and counters."""

from collections.abc import Iterable

import numpy as np

from extproc.core.errors import ConfigurationError
from extproc.core.estimator.bound import START, AdaptiveBound
from extproc.core.estimator.least_squares import RelativeLeastSquares, Sums
from extproc.core.estimator.prices import Prior
from extproc.core.estimator.protocol import ModelState
from extproc.core.estimator.residual import Residual
from extproc.core.estimator.scale import SCALE_FACTORS, LogVariance
from extproc.core.estimator.settings import ByteClassSettings

__all__ = ["ServedModel", "need_finite"]

MOST = 0.5
# A fresh start has to be given time; but one made on broken usage must not stand for good.
RESPONSES_BETWEEN_STARTS = 20


class ServedModel:
    """The byte-class model of one served model name."""

    def __init__(self, prior: Prior, settings: ByteClassSettings, residual: Residual) -> None:
        self.prices = RelativeLeastSquares(prior, settings.forgetting)
        self.bound = AdaptiveBound(settings.epsilon)
        self.scale = LogVariance()
        self.residual = residual
        self.clipped = 0
        self.truncated_by_pool = 0
        self._clipped_share = 0.0
        self._responses_since_start = RESPONSES_BETWEEN_STARTS

    @property
    def is_wrong(self) -> bool:
        """Whether most of the last ten responses or so were beyond belief.

        Then it is not the responses that are broken: the tokenizer or the template behind the name has changed.
        """
        return self._clipped_share > MOST

    def observe(self, *, clipped: bool) -> bool:
        """Take in whether a response was beyond belief; return whether it is time to start anew."""
        self._clipped_share += (clipped - self._clipped_share) / 10
        self._responses_since_start += 1
        return self.is_wrong and self._responses_since_start > RESPONSES_BETWEEN_STARTS

    def start_anew(self) -> None:
        """Drop what was learned: sums over two tokenizers would fit neither."""
        self.prices.forget()
        self.bound.q = START
        self.scale = LogVariance()
        self.residual = Residual()
        self._responses_since_start = 0

    def state(self, name: str) -> ModelState:
        """Return all of it, exactly."""
        sums = self.prices.sums
        return ModelState(
            model=name,
            observations=self.prices.responses,
            sums_a=tuple(sums.a[np.triu_indices(sums.b.size)].tolist()),
            sums_b=tuple(sums.b.tolist()),
            scale_a=tuple(self.scale.a.ravel().tolist()),
            scale_b=tuple(self.scale.b.tolist()),
            q=self.bound.q,
            residual=self.residual.mean,
            spread=self.residual.spread,
            clipped=self.clipped,
            refused=self.prices.refused,
            truncated_by_pool=self.truncated_by_pool,
        )

    def load(self, state: ModelState) -> None:
        """Take all of it over, or nothing.

        Raises ConfigurationError when the sums are of another size, or numbers are not finite.
        """
        size = self.prices.weights.size
        of_prices, of_scale = (size * (size + 1) // 2, size), (SCALE_FACTORS**2, SCALE_FACTORS)
        if (len(state.sums_a), len(state.sums_b)) != of_prices:
            raise ConfigurationError(f"learned sums of model {state.model!r} are not over {size} features")
        if (len(state.scale_a), len(state.scale_b)) != of_scale:
            raise ConfigurationError(f"learned scale of model {state.model!r} is not over {SCALE_FACTORS} factors")
        numbers = (*state.sums_a, *state.sums_b, *state.scale_a, *state.scale_b)
        need_finite(state.model, (*numbers, state.q, state.residual, state.spread))
        a = np.zeros((size, size))
        a[np.triu_indices(size)] = state.sums_a
        sums = Sums(a + np.triu(a, 1).T, np.array(state.sums_b))
        self.prices.load(sums, state.observations, state.refused)
        self.scale.load(np.array(state.scale_a), np.array(state.scale_b))
        self.bound.q = state.q
        self.residual = Residual(state.residual, state.spread, responses=state.observations)
        self.clipped = state.clipped
        self.truncated_by_pool = state.truncated_by_pool


def need_finite(model: str, numbers: Iterable[float]) -> None:
    """Raise ConfigurationError when what was learned of a model holds a number that is none."""
    if not np.isfinite(tuple(numbers)).all():
        raise ConfigurationError(f"learned state of model {model!r} holds numbers that are not finite")
