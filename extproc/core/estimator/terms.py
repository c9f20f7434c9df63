"""How sums fade and how much means weigh, by an estimator's settings: what merging must know about learning."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from extproc.core.estimator.length_counts import FADING
from extproc.core.estimator.packing import Numbers
from extproc.core.estimator.residual import faded, natural_weight
from extproc.core.estimator.scale import FORGETTING, SCALE_FACTORS
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.estimator.tables import Table

__all__ = ["Terms", "kept_within"]


@dataclass(frozen=True, slots=True)
class Terms:
    """How sums fade and how much means weigh, by the settings of an estimator."""

    kind: str
    forgetting: float
    ema_decay: float
    epsilon: float

    @classmethod
    def of(cls, settings: EstimatorSettings) -> "Terms":
        """Return the terms of an estimator with these settings."""
        byteclass = settings.byteclass
        return cls(settings.kind, byteclass.forgetting, settings.ema.decay, byteclass.epsilon)

    @property
    def model_memory(self) -> float:
        """The greatest weight of a model's sums: what one router remembers."""
        return 1 / (1 - self.forgetting)

    def kept_of_own_models(self, everything: Table[str]) -> Numbers:
        """Return the share kept of sums of models, by column: those of all replicas stay within one's memory.

        Prices and scale forget at different rates. The scale's weight is the first of its sums, that of its
        constant.
        """
        columns = everything.values.shape[1]
        of_scale = SCALE_FACTORS * (SCALE_FACTORS + 1)
        prices = kept_within(self.model_memory, everything.weights)
        scale = kept_within(1 / (1 - FORGETTING), everything.values[:, columns - of_scale])
        return np.concatenate([prices.repeat(columns - of_scale, axis=1), scale.repeat(of_scale, axis=1)], axis=1)

    @property
    def category_memory(self) -> float:
        """The greatest weight of a category's means."""
        return 1 / (1 - self.ema_decay) if self.kind == "ema" else natural_weight(1 << 40)

    @property
    def output_memory(self) -> float:
        """The greatest sum of counts of output lengths."""
        return 1 / (1 - FADING)

    def category_weights(self, counts: npt.NDArray[np.int64]) -> Numbers:
        """Return the weight of means that one router made from so many responses."""
        if self.kind == "ema":
            return np.where(counts > 0, self.category_memory, 0.0)
        return np.array([natural_weight(count) for count in counts.tolist()], np.float64)

    def kept_of_categories(self, at: npt.NDArray[np.int64], since: Numbers) -> Numbers:
        """Return the share kept of categories' sums, shape (n, 1), from `at` to `since` responses later."""
        more = since[:, 0]
        if self.kind == "ema":
            return np.asarray(np.power(self.ema_decay, more))[:, None]
        pairs = zip(at.tolist(), (at + more.astype(np.int64)).tolist(), strict=True)
        return np.array([faded(start, end) for start, end in pairs], np.float64)[:, None]

    def kept_of_outputs(self, _at: npt.NDArray[np.int64], since: Numbers) -> Numbers:
        """Return the share kept of counts of output lengths, shape (n, 1), after `since` more responses."""
        return np.asarray(np.power(FADING, since))

    def kept_of_models(self, _at: npt.NDArray[np.int64], since: Numbers) -> Numbers:
        """Return the share kept of the sums of prices and of the scale, shape (n, 2), after `since` responses."""
        return np.asarray(np.power((self.forgetting, FORGETTING), since))

    @property
    def model_memories(self) -> tuple[float, float]:
        """How many responses prices and scale remember."""
        return self.model_memory, 1 / (1 - FORGETTING)

    @staticmethod
    def prices_and_scale(columns: int) -> tuple[int, int]:
        """Return how many of the columns belong to the prices and to the scale."""
        of_scale = min(SCALE_FACTORS * (SCALE_FACTORS + 1), columns)
        return columns - of_scale, of_scale


def kept_within(memory: float, weights: Numbers) -> Numbers:
    """Return the factor, shape (n, 1), that limits these weights to `memory`."""
    return np.minimum(1.0, memory / np.maximum(weights, 1e-300))[:, None]
