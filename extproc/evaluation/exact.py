"""Byte classes with exact counts near the thresholds, run as in the router.

The router's own rule places the requests in pools of 4,096 and 8,192 tokens, whose two limits are equal, and two
far larger ones. It counts those that may fit a smaller pool than their bound says. Outputs are declared, because
the figures assume that they are known. Tokens are counted with the tokenizer under test, by the library that
tokenizers.py loads for it; that is the router's library (fastokens) for deepseek and for tokenizer.json files, so
only for these do the times match the router's.
"""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from extproc.core.estimator.byteclass import ByteClassEstimator
from extproc.core.estimator.counting import Count, Counting
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.placing.decision import Decision, Mode
from extproc.core.placing.policy import Pool, Pools
from extproc.core.router.placer import Placer
from extproc.core.usage import Usage
from extproc.evaluation.measure import THRESHOLDS, Figures, figures, run
from extproc.evaluation.requests import Request
from extproc.evaluation.tokenizers import Tokenizer

__all__ = ["EXACT", "Counts", "ExactNearLimits", "exact_near_limits"]

EXACT = "exact counts near the thresholds"
# A pool for all longer requests, so that none is placed without an estimate; and the default pool.
LONGER = (1 << 20, 1 << 24)


@dataclass(slots=True)
class Counts:
    """How many requests were placed, how many of these were counted, the bytes counted, and the CPU time taken."""

    placed: int = 0
    counted: int = 0
    text_bytes: int = 0
    seconds: float = 0.0

    @property
    def share(self) -> float:
        """The share of the requests that were counted."""
        return self.counted / max(self.placed, 1)

    @property
    def mean_ms(self) -> float:
        """The mean CPU time of a count, in milliseconds."""
        return 1e3 * self.seconds / max(self.counted, 1)


class _Counter:
    """A Counter that uses a tokenizer of the evaluation, without its cache, so that counting itself is timed."""

    def __init__(self, tokenizer: Tokenizer, counts: Counts) -> None:
        self._tokenizer = tokenizer
        self._counts = counts

    def tokenizer_of(self, model: str) -> str | None:
        return model

    def count(self, tokenizer: str, texts: Sequence[bytes]) -> Count:  # noqa: ARG002  (there is only one)
        decoded = [text.decode(errors="replace") for text in texts]
        began_s = time.thread_time()
        tokens = tuple(map(self._tokenizer.count_uncached, decoded))
        self._counts.seconds += time.thread_time() - began_s
        self._counts.counted += 1
        self._counts.text_bytes += sum(map(len, texts))
        return Count(tokens, 0.0)


def exact_near_limits(
    tokenizer: Tokenizer, streams: Sequence[Sequence[Request]], warm_up: int
) -> tuple[tuple[Figures, ...], Counts]:
    """Return the figures of each stream, and the cost of all counts together."""
    counts = Counts()
    return tuple(
        figures(run(ExactNearLimits(tokenizer, counts), stream), stream, warm_up) for stream in streams
    ), counts


class ExactNearLimits:
    """A Contestant: this project's estimator with exact counts, whose cost is added to `counts`."""

    def __init__(self, tokenizer: Tokenizer, counts: Counts) -> None:
        settings = EstimatorSettings()
        self.counts = counts
        self._estimator = ByteClassEstimator(settings, tokenizer.name)
        epsilon = settings.byteclass.epsilon
        self._counting = Counting(_Counter(tokenizer, counts), epsilon, settings.max_categories)
        pools = [Pool(f"p{limit}", limit) for limit in (*THRESHOLDS, *LONGER)]
        self._placer = Placer(Mode.ENFORCE, Pools(pools), self._estimator, LONGER[1], counting=self._counting)
        self._waiting: deque[Decision] = deque()

    def predict(self, request: Request) -> tuple[float, float]:
        """Place the request; it is counted if that may change its pool."""
        facts = replace(request.facts, max_output_tokens=request.output_tokens)
        decision = self._placer.place(facts, "")
        self._waiting.append(decision)
        self.counts.placed += 1
        assert decision.estimate is not None, "the pools are large enough that every request is estimated"
        return decision.estimate.prompt_tokens, decision.estimate.prompt_bound

    def learn(self, reported_tokens: int) -> None:
        """Observe the usage, as the router's learner does."""
        decision = self._waiting.popleft()
        assert decision.estimate is not None, "as above"
        learning = self._estimator.observe(decision.estimate, Usage(reported_tokens))
        if decision.counted is not None and learning.refused is None:
            self._counting.observe(decision.estimate, decision.counted, reported_tokens)
