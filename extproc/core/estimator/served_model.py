"""What is learned of one served model: prices, bound, the residual its categories start from, and counters."""

import numpy as np

from extproc.core.errors import ConfigurationError
from extproc.core.estimator.bound import AdaptiveBound
from extproc.core.estimator.features import Prior
from extproc.core.estimator.least_squares import RelativeLeastSquares, Sums
from extproc.core.estimator.protocol import ModelState
from extproc.core.estimator.residual import Residual
from extproc.core.estimator.settings import ByteClassSettings

__all__ = ["ServedModel"]


MOST = 0.5


class ServedModel:
    """The byte-class model of one served model name."""

    def __init__(self, prior: Prior, settings: ByteClassSettings, residual: Residual) -> None:
        self.prices = RelativeLeastSquares(prior, settings.forgetting)
        self.bound = AdaptiveBound(settings.epsilon)
        self.residual = residual
        self.clipped = 0
        self.truncated_by_pool = 0
        self._clipped_share = 0.0

    def is_wrong(self, *, clipped: bool) -> bool:
        """Take in whether an answer was beyond belief; return whether most of the last ten or so were.

        Then it is not the answers that are broken: the tokenizer or the template behind the name has changed. What
        was learned of the old one is dropped, since sums of both would fit neither.
        """
        was_wrong = self._clipped_share > MOST
        self._clipped_share += (clipped - self._clipped_share) / 10
        is_wrong = self._clipped_share > MOST
        if is_wrong and not was_wrong:
            self.prices.forget()
        return is_wrong

    def state(self, name: str) -> ModelState:
        """Return all of it, exactly."""
        sums = self.prices.sums
        return ModelState(
            model=name,
            observations=self.prices.answers,
            sums_a=tuple(sums.a.ravel().tolist()),
            sums_b=tuple(sums.b.tolist()),
            q=self.bound.q,
            residual=self.residual.mean,
            spread=self.residual.spread,
            clipped=self.clipped,
            refused=self.prices.refused,
            truncated_by_pool=self.truncated_by_pool,
        )

    def load(self, state: ModelState) -> None:
        """Take all of it over. Raises ConfigurationError when the sums are of another size."""
        size = self.prices.weights.size
        if len(state.sums_a) != size * size or len(state.sums_b) != size:
            raise ConfigurationError(f"learned sums of model {state.model!r} are not over {size} features")
        sums = Sums(np.array(state.sums_a).reshape(size, size), np.array(state.sums_b))
        self.prices.load(sums, state.observations, state.refused)
        self.bound.q = state.q
        self.residual = Residual(state.residual, state.spread, answers=state.observations)
        self.clipped = state.clipped
        self.truncated_by_pool = state.truncated_by_pool
