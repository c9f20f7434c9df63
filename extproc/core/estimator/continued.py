"""Errors of the estimates for new parts of known conversations (prefixes.py): a separate residual, scale and q."""

from extproc.core.estimator.belief import Belief
from extproc.core.estimator.bound import AdaptiveBound
from extproc.core.estimator.clipping import MAX_CLIP, WILD
from extproc.core.estimator.features import Views
from extproc.core.estimator.least_squares import RelativeLeastSquares
from extproc.core.estimator.residual import Residual
from extproc.core.estimator.scale import LogVariance
from extproc.core.estimator.voices import Voice

__all__ = ["Continued"]

# The initial q. New parts are short and of one kind of text; with a smaller q, 2 % of the first hundreds exceeded
# their bound.
START = 6.0


class Continued:
    """What is learned about the new parts of one model's conversations, which are priced at the model's prices."""

    def __init__(self, prices: RelativeLeastSquares, views: Views, epsilon: float) -> None:
        self.prices = prices
        self.views = views
        self.scale = LogVariance()
        self.bound = self.media_bound = AdaptiveBound(epsilon, START)  # conversations with media are not known
        self.residual: Residual | None = None  # None: the model's residual applies

    def learn(self, now: Belief, error: float, bytes_per_token: float, of_model: Residual, voice: Voice) -> None:
        """Learn from the log error of the current belief; `of_model` is the residual that a new one starts from.

        Responses of a source that sends a large share of the traffic weigh less (voices.py).
        """
        if abs(error) <= WILD:
            voice.score(self.bound, error / now.scale)
        believed = min(max(error, -MAX_CLIP), MAX_CLIP)
        self.residual = self.residual or of_model.child()
        error = believed + now.residual - voice.deviation
        self.residual.learn(error, now.doubt, bytes_per_token, move_mean=True, weight=voice.weight)
        self.scale.learn(now.variance, now.factors, believed, voice.weight)
