"""How estimates of the new parts of known conversations err (prefixes.py): residual, scale and q of their own."""

from math import log

from extproc.core.estimator.belief import Belief
from extproc.core.estimator.bound import AdaptiveBound
from extproc.core.estimator.least_squares import RelativeLeastSquares
from extproc.core.estimator.residual import Residual
from extproc.core.estimator.scale import LogVariance

__all__ = ["Continued"]

WILD = log(4)
MAX_CLIP = log(2)
START = 6.0  # of q: new parts are short, and of one kind of text; below it, the first hundreds were missed by 2 %


class Continued:
    """What is learned of new parts of one model's conversations; priced at the model's prices."""

    def __init__(self, prices: RelativeLeastSquares, epsilon: float) -> None:
        self.prices = prices
        self.scale = LogVariance()
        self.bound = AdaptiveBound(epsilon, START)
        self.residual: Residual | None = None  # that of the model, until there is one

    def learn(self, now: Belief, error: float, bytes_per_token: float, of_model: Residual) -> None:
        """Take in the log error of what is believed now; `of_model` is what a new residual starts from."""
        if abs(error) <= WILD:
            self.bound.observe(error / now.scale)
        believed = min(max(error, -MAX_CLIP), MAX_CLIP)
        self.residual = self.residual or of_model.child()
        self.residual.learn(believed + now.residual, now.doubt, bytes_per_token, move_mean=True)
        self.scale.learn(now.variance, now.factors, believed)
