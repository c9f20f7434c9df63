"""What is learned about one served model: prices, bound, the residual that categories start from, and counters."""

import numpy as np

from extproc.core.errors import ConfigurationError
from extproc.core.estimator.bound import AdaptiveBound
from extproc.core.estimator.change import ModelChange
from extproc.core.estimator.continued import Continued
from extproc.core.estimator.features import Views
from extproc.core.estimator.least_squares import RelativeLeastSquares, Sums
from extproc.core.estimator.misses import ModelMisses
from extproc.core.estimator.packing import DOUBLE_BYTES, Numbers, all_finite, packed, unpacked
from extproc.core.estimator.prices import Prior
from extproc.core.estimator.protocol import ModelState
from extproc.core.estimator.residual import Residual, loaded
from extproc.core.estimator.scale import SCALE_FACTORS, LogVariance
from extproc.core.estimator.settings import ByteClassSettings
from extproc.core.estimator.sources import Sources
from extproc.core.estimator.unused_tools import UnusedTools
from extproc.core.estimator.voices import Voices
from extproc.core.placing.stratum import declared_class

__all__ = ["ServedModel", "need_finite", "symmetric"]

MOST = 0.5


class ServedModel:
    """The byte-class model of one served model name."""

    def __init__(self, prior: Prior, settings: ByteClassSettings, residual: Residual) -> None:
        self.prices = RelativeLeastSquares(prior, settings.forgetting)
        self.bound = AdaptiveBound(settings.epsilon)
        self.media_bound = AdaptiveBound(settings.epsilon)  # belongs to this process, as `continued` does
        self._epsilon = settings.epsilon
        self.scale = LogVariance()
        self.residual = residual
        self.views = Views(prior.mean)
        self.continued = Continued(self.prices, self.views, settings.epsilon)
        self.clipped = 0
        self.truncated_by_pool = 0
        self.used_at = 0  # aliases.py
        self.generation = 0
        self._surprised_share = 0.0
        self.voices = Voices()
        self._sources = Sources()
        self.misses = ModelMisses()
        self.unused_tools = UnusedTools()

    def miss(self, source: int, limit: int | None, error: float, *, missed: bool) -> None:
        """Take in the log error of a request that was routed on its bound, and whether it exceeded the bound."""
        self.misses.observe(source, self._sources, declared_class(limit), error, missed=missed)

    def observe(self, source: int, *, surprised: bool) -> bool:
        """Take in whether a response was a surprise; return whether most of the last ten or so were.

        Most sources must have surprised, too: then the tokenizer or the template behind the name may have changed.
        """
        self._sources.observe(source, held=surprised)
        self._surprised_share += (surprised - self._surprised_share) / 10
        return self._surprised_share > MOST and self._sources.share > MOST

    def follow(self, former: "ServedModel") -> None:
        """Take another model's place, with what does not depend on its tokenizer; reset surprises and misses."""
        self.voices = former.voices
        self.voices.forget()
        self.clipped, self.truncated_by_pool, self.used_at = (
            former.clipped,
            former.truncated_by_pool,
            former.used_at,
        )
        self._surprised_share = 0.0
        self._sources = Sources()
        self.misses = ModelMisses()

    def state(self, name: str) -> ModelState:
        """Return the state that is saved and shared, without loss of precision."""
        sums, (scale_a, scale_b) = self.prices.sums, self.scale.sums
        return ModelState(
            model=name,
            observations=self.prices.responses,
            sums_a=packed(sums.a[np.triu_indices(sums.b.size)]),
            sums_b=packed(sums.b),
            scale_a=packed(scale_a),
            scale_b=packed(scale_b),
            q=self.bound.q,
            residual=self.residual.mean,
            spread=self.residual.spread,
            weight=self.prices.weight,
            generation=self.generation,
            q_began=self.bound.past[0][0] if self.bound.past else self.bound.q,
            scores=packed([score for _, score in self.bound.past]),
            scored=self.bound.scored,
            clipped=self.clipped,
            refused=self.prices.refused,
            truncated_by_pool=self.truncated_by_pool,
        )

    def load(self, state: ModelState) -> None:
        """Load all of a state, or nothing.

        Raises ConfigurationError if the sums are of another size, or for numbers that no responses make.
        """
        size = self.prices.weights.size
        of_prices, of_scale = (size * (size + 1) // 2, size), (SCALE_FACTORS**2, SCALE_FACTORS)
        if (len(state.sums_a) / DOUBLE_BYTES, len(state.sums_b) / DOUBLE_BYTES) != of_prices:
            raise ConfigurationError(f"learned sums of model {state.model!r} are not over {size} features")
        if (len(state.scale_a) / DOUBLE_BYTES, len(state.scale_b) / DOUBLE_BYTES) != of_scale:
            raise ConfigurationError(f"learned scale of model {state.model!r} is not over {SCALE_FACTORS} factors")
        sums_a, sums_b = unpacked(state.sums_a), unpacked(state.sums_b)
        scale_a, scale_b = unpacked(state.scale_a), unpacked(state.scale_b)
        scores = unpacked(state.scores)
        need_finite(state.model, sums_a, sums_b, scale_a, scale_b, scores)
        need_finite(state.model, state.q, state.q_began, state.residual, state.spread, state.weight)
        if state.weight < 0:
            raise ConfigurationError(
                f"learned sums of model {state.model!r} have a weight of {state.weight:g}; allowed: 0 or more"
            )
        residual = loaded(state.model, state.residual, state.spread, 0.0, state.observations)
        sums = Sums(symmetric(sums_a, size), sums_b)
        self.prices.load(sums, state.observations, state.weight, state.refused)
        self.scale.load(scale_a, scale_b)
        self.bound = AdaptiveBound(self._epsilon)
        self.bound.load(state.q, state.q_began, scores.tolist(), state.scored)
        self.residual = residual
        self.generation = state.generation
        self.clipped = state.clipped
        self.truncated_by_pool = state.truncated_by_pool

    def shift(self, change: ModelChange) -> None:
        """Add what others learned about it."""
        size = self.prices.weights.size
        triangle = size * (size + 1) // 2
        sums_a, sums_b, scale_a, scale_b = np.split(
            change.values, np.cumsum([triangle, size, SCALE_FACTORS * SCALE_FACTORS])
        )
        self.scale.shift(scale_a, scale_b, self.prices.responses - change.since)
        sums = Sums(symmetric(sums_a, size), sums_b)
        self.prices.shift(sums, change.responses, change.weight, change.since)
        self.bound.q = max(self.bound.q + change.q, 0.0)
        if self.generation != change.generation:
            self.bound = AdaptiveBound(self._epsilon, self.bound.q)
            self.media_bound = AdaptiveBound(self._epsilon)
            self.continued = Continued(self.prices, self.views, self._epsilon)
        self.generation = change.generation


def symmetric(upper: Numbers, size: int) -> Numbers:
    """Return the matrix, shape (size, size), whose upper triangle by rows is `upper`."""
    matrix = np.zeros((size, size))
    matrix[np.triu_indices(size)] = upper
    return matrix + np.triu(matrix, 1).T


def need_finite(model: str, *numbers: float | Numbers) -> None:
    """Raise ConfigurationError if a model's learned state contains a number that is not finite."""
    if not all_finite(*numbers):
        raise ConfigurationError(f"learned state of model {model!r} holds numbers that are not finite")
