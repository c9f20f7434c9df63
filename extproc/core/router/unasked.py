"""Streams whose client asked for no usage: which models' servers report it all the same.

OpenAI's streams report usage when they are asked to; servers may be set to report it always (vLLM's
--enable-force-include-usage). A request does not say which. So a few streams of each model are read to their end,
and what they said is remembered.
"""

from enum import StrEnum

from extproc.core.estimator.categories import CappedMap

__all__ = ["UnaskedUsage", "UsageInStreams"]

TRIES = 3
REPORTS = -1
MAX_MODELS = 256


class UsageInStreams(StrEnum):
    """Which streams are taken to report their usage."""

    ASKED = "asked"  # those whose client asked for it
    ALWAYS = "always"  # all
    AUTO = "auto"  # those asked, and all of a model that was seen to report unasked


class UnaskedUsage:
    """What is known of each model; names are clients', so that only so many are remembered."""

    def __init__(self, policy: UsageInStreams) -> None:
        self.policy = policy
        # How many more streams of each model are tried, or REPORTS.
        self._tries_left: CappedMap[str, int] = CappedMap(MAX_MODELS, lambda _: TRIES)

    def is_expected(self, model: str) -> bool:
        """Tell whether a stream of the model that asked for no usage is worth reading."""
        if self.policy is not UsageInStreams.AUTO:
            return self.policy is UsageInStreams.ALWAYS
        return self._tries_left.use(model) != 0

    def saw(self, model: str, *, usage: bool) -> None:
        """Remember whether a whole stream that asked for no usage reported it."""
        left = self._tries_left.use(model)
        if usage:
            self._tries_left.put(model, REPORTS)
        elif left > 0:
            self._tries_left.put(model, left - 1)
