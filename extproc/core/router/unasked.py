"""Detection of the models whose streams report usage even if the client did not ask for it.

OpenAI's streams report usage on request; servers can be configured to always report it (vLLM's
--enable-force-include-usage), which cannot be seen from a request. So a few streams of each model are read to
their end, and the result is remembered.
"""

from enum import StrEnum

from extproc.core.estimator.categories import CappedMap

__all__ = ["UnaskedUsage", "UsageInStreams"]

TRIES = 3
REPORTS = -1
MAX_MODELS = 256


class UsageInStreams(StrEnum):
    """Which streams are expected to report usage."""

    ASKED = "asked"  # those whose client asked for it
    ALWAYS = "always"  # all
    AUTO = "auto"  # those whose client asked, and all streams of a model that was seen to report it unasked


class UnaskedUsage:
    """What is known about each model, for at most MAX_MODELS of them, since names come from clients."""

    def __init__(self, policy: UsageInStreams) -> None:
        self.policy = policy
        # Per model: how many more streams to try, or REPORTS.
        self._tries_left: CappedMap[str, int] = CappedMap(MAX_MODELS, lambda _: TRIES)

    def is_expected(self, model: str) -> bool:
        """Return whether to read a stream of the model if the client did not ask for usage."""
        if self.policy is not UsageInStreams.AUTO:
            return self.policy is UsageInStreams.ALWAYS
        return self._tries_left.use(model) != 0

    def saw(self, model: str, *, usage: bool) -> None:
        """Record whether a complete stream reported usage although the client did not ask for it."""
        left = self._tries_left.use(model)
        if usage:
            self._tries_left.put(model, REPORTS)
        elif left > 0:
            self._tries_left.put(model, left - 1)
