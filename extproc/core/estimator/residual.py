"""What is left after the prices: the error of one category, its mean and its spread.

A category (a tenant, or a kind of text) is never quite what its bytes say. The mean r is exponential, of
log(actual / priced), and multiplies the estimate by exp(r). The spread is the root mean square distance from
it, less what was in doubt of this request anyway, and scales the bound. A new category starts from its
parent: the model, and for that all models. r waits until the model is taught, or it would learn errors that the
prices are about to fix.

The more of an error was in doubt, the less it says of the category (the gain of Kalman, 1960): a response to odd
text, whose prices nobody knew, would otherwise widen the bounds of all of its category for fifty responses.
"""

from dataclasses import dataclass
from math import sqrt
from typing import Final

__all__ = ["TAUGHT_RESPONSES", "Residual", "faded", "natural_weight"]

TAUGHT_RESPONSES: Final = 100
"""The prices of a model are taught after so many responses; until then residuals keep their mean."""
SLOWEST_STEP = 0.02
FIRST_STEPS = 10  # as many responses' worth of trust in the parent
MIN_SPREAD = 0.01  # chat templates alone differ by this much


@dataclass(slots=True)
class Residual:
    """Mean and spread of log errors, and the exponential mean of bytes per token for people to look at."""

    mean: float = 0.0
    spread: float = 0.1
    bytes_per_token: float = 0.0
    responses: int = 0

    def child(self) -> "Residual":
        """Return a new one that starts from this one."""
        return Residual(self.mean, self.spread)

    def learn(
        self, error: float, doubt: float, bytes_per_token: float, *, move_mean: bool, weight: float = 1.0
    ) -> None:
        """Take in one log(actual / priced).

        Of less weight it counts as a response of which the rest said what is believed already: so the means fade
        as of any other.
        """
        spread = self.spread * self.spread
        step = max(SLOWEST_STEP, 1 / (self.responses + FIRST_STEPS)) * spread / (spread + doubt)
        distance = error - self.mean
        if move_mean:
            self.mean += step * weight * distance
        variance = max(distance * distance - doubt, MIN_SPREAD * MIN_SPREAD)
        self.spread = sqrt(spread + step * weight * (variance - spread))
        start = self.responses == 0
        self.bytes_per_token += (1 if start else step) * (bytes_per_token - self.bytes_per_token)
        self.responses += 1

    def shift(self, mean: float, variance: float, bytes_per_token: float, responses: int, since: int) -> None:
        """Move by what others have learned, in so many responses; it is as old as the response number `since`."""
        kept = faded(since, self.responses) * natural_weight(since) / natural_weight(self.responses)
        self.mean += kept * mean
        self.spread = sqrt(max(self.spread * self.spread + kept * variance, MIN_SPREAD * MIN_SPREAD))
        self.bytes_per_token = max(self.bytes_per_token + kept * bytes_per_token, 0.0)
        self.responses = max(self.responses + responses, 0)


def natural_weight(responses: int) -> float:
    """Return what the means count after so many responses: one for each, and the trust in the parent, faded."""
    return min(responses + FIRST_STEPS - 1.0, 1 / SLOWEST_STEP)


def faded(before: int, now: int) -> float:
    """Return what is kept of mean x weight from the response number `before` to the number `now`."""
    return (1 - SLOWEST_STEP) ** (max(now, STEADY_FROM) - max(before, STEADY_FROM))


STEADY_FROM = round(1 / SLOWEST_STEP) - FIRST_STEPS + 1
