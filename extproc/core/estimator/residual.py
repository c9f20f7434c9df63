"""The residual: mean and spread of the errors that the prices leave in one category.

A category (a tenant, or a kind of text) never costs exactly what its bytes suggest. The mean r is the exponential
mean of log(actual / priced); estimates are multiplied by exp(r). The spread is the root mean square distance from
r, less the variance that each request's doubt explains; it scales the bound. A new category starts from its
parent: the model, which itself starts from the residual of all models. r does not move until the model is trained;
otherwise it would learn errors that the prices are about to fix.

The more doubt there was about an estimate, the less its error says about the category (the gain of Kalman, 1960).
Otherwise a response to unusual text, whose prices were unknown, would widen the bounds of its whole category for
fifty responses.
"""

from dataclasses import dataclass
from math import sqrt
from typing import Final

from extproc.core.errors import ConfigurationError

__all__ = ["FIRST_SPREAD", "LIMIT", "TAUGHT_RESPONSES", "Residual", "faded", "loaded", "natural_weight"]

TAUGHT_RESPONSES: Final = 100
"""After so many responses the prices of a model are trained; until then residuals keep their mean."""
SLOWEST_STEP = 0.02
FIRST_STEPS = 10  # the weight of the parent, in responses
FIRST_SPREAD = 0.1
MIN_SPREAD = 0.01  # chat templates alone differ by this much
MIN_VARIANCE = MIN_SPREAD**2
LIMIT = 20.0  # of mean and spread: no text costs so much more or less than its price, and exp must not overflow


@dataclass(slots=True)
class Residual:
    """Mean and spread of log errors, and the exponential mean of bytes per token (for display only)."""

    mean: float = 0.0
    spread: float = FIRST_SPREAD
    bytes_per_token: float = 0.0
    responses: int = 0

    def child(self) -> "Residual":
        """Return a new residual that starts from this one."""
        return Residual(self.mean, self.spread)

    def learn(
        self, error: float, doubt: float, bytes_per_token: float, *, move_mean: bool, weight: float = 1.0
    ) -> None:
        """Take in one log(actual / priced).

        A response with less weight counts as one whose remaining weight confirms the current belief; so the means
        fade as after any other response.
        """
        spread, responses, distance = self.spread * self.spread, self.responses, error - self.mean
        step = 1 / (responses + FIRST_STEPS)
        step = (step if step > SLOWEST_STEP else SLOWEST_STEP) * spread / (spread + doubt)
        weighed = step * weight
        if move_mean:
            self.mean += weighed * distance
        square = distance * distance - doubt
        variance = square if square > MIN_VARIANCE else MIN_VARIANCE
        self.spread = sqrt(spread + weighed * (variance - spread))
        self.bytes_per_token += (step if responses else 1) * (bytes_per_token - self.bytes_per_token)
        self.responses = responses + 1

    def shift(self, mean: float, variance: float, bytes_per_token: float, responses: int, since: int) -> None:
        """Move by what others learned in `responses` responses; it is as old as our response number `since`."""
        kept = faded(since, self.responses) * natural_weight(since) / natural_weight(self.responses)
        self.mean = min(max(self.mean + kept * mean, -LIMIT), LIMIT)
        left = self.spread * self.spread + kept * variance
        # Nobody learns less than the least variance, so without half of it nobody's knowledge has any weight.
        self.spread = min(sqrt(max(left, MIN_VARIANCE)), LIMIT) if left > MIN_VARIANCE / 2 else FIRST_SPREAD
        self.bytes_per_token = max(self.bytes_per_token + kept * bytes_per_token, 0.0)
        self.responses = max(self.responses + responses, 0)
        if not self.responses:  # all of it was forgotten
            self.mean, self.spread = 0.0, FIRST_SPREAD


def loaded(model: str, mean: float, spread: float, bytes_per_token: float, responses: int) -> Residual:
    """Return a residual from elsewhere, with at least the least spread: one without any would stay so.

    Raises ConfigurationError for numbers that no responses make.
    """
    if not (abs(mean) <= LIMIT and 0 <= spread <= LIMIT and responses >= 0):
        raise ConfigurationError(
            f"learned residual of model {model!r} is {mean:g} with a spread of {spread:g}, from {responses} "
            f"responses; allowed are -{LIMIT:g} to {LIMIT:g}, 0 to {LIMIT:g}, and 0 or more"
        )
    return Residual(mean, max(spread, MIN_SPREAD), bytes_per_token, responses)


def natural_weight(responses: int) -> float:
    """Return the weight of the means after so many responses: one for each, plus the parent's, faded."""
    return min(responses + FIRST_STEPS - 1.0, 1 / SLOWEST_STEP)


def faded(before: int, now: int) -> float:
    """Return the share of mean x weight that is kept from response number `before` to number `now`."""
    return (1 - SLOWEST_STEP) ** (max(now, STEADY_FROM) - max(before, STEADY_FROM))


STEADY_FROM = round(1 / SLOWEST_STEP) - FIRST_STEPS + 1
