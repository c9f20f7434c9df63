"""Learning from responses: which of them are read, by which reader, and what the estimator learns from them."""

from collections import defaultdict

from extproc.core.apis import FAMILIES
from extproc.core.apis.response import reader_for
from extproc.core.errors import ResponseFault, ResponseNotUnderstood
from extproc.core.estimator.categories import CappedMap
from extproc.core.estimator.counting import Counting
from extproc.core.estimator.protocol import Estimate, Estimator, Source
from extproc.core.facts import Api, ResponseHead
from extproc.core.listener import Listener, Observation
from extproc.core.placing.budget import TokenBudget
from extproc.core.placing.decision import Decision
from extproc.core.placing.policy import Pool, Pools
from extproc.core.placing.stratum import Stratum
from extproc.core.reading.reader import UsageReader
from extproc.core.router.learning_budget import JSON_MESSAGES, LearningBudget
from extproc.core.router.unasked import MAX_MODELS, UnaskedUsage, UsageInStreams
from extproc.core.usage import Overflow, Usage

__all__ = ["Learner"]


class Learner:
    """Learns from as many responses as its budget allows; `max_response_bytes` bounds what is read of each.

    `serving` knows the context length of each pool for each model; it may be replaced at any time. Without
    `reads_responses` no response is read: usage comes from another source. Responses to requests whose text was
    counted with a tokenizer also train `counting`.
    """

    def __init__(
        self,
        pools: Pools,
        estimator: Estimator,
        budget: LearningBudget,
        listener: Listener,
        max_response_bytes: int,
        *,
        usage_in_streams: UsageInStreams = UsageInStreams.ASKED,
        reads_responses: bool = True,
        counting: Counting | None = None,
    ) -> None:
        self._default = pools.default
        self.serving = pools.fleet.serving
        self._estimator = estimator
        self.budget = budget
        self.unasked = UnaskedUsage(usage_in_streams)
        self.listener = listener
        self.max_response_bytes = max_response_bytes
        self._reads_responses = reads_responses
        self._counting = counting
        # Per stratum: requests since the last one whose usage was used to judge its estimate.
        self.unjudged: defaultdict[Stratum | None, int] = defaultdict(int)
        # Per model whose embeddings were too long to be read: the fewest prompts per request that were too many.
        self.too_many_prompts: CappedMap[str, int] = CappedMap(MAX_MODELS, lambda _: 0)

    def continue_from(self, before: "Learner") -> None:
        """Take over what another learner knows about models, as far as the settings involved are the same."""
        if before.unasked.policy is self.unasked.policy:
            self.unasked = before.unasked
        if before.max_response_bytes == self.max_response_bytes:
            self.too_many_prompts = before.too_many_prompts

    def keeps(self, decision: Decision, now_s: float) -> bool:
        """Return whether to keep the stream open, to learn from the response."""
        estimate = decision.estimate
        if estimate is None or not self._reads_responses:
            return False
        may_report_unasked = FAMILIES[decision.api].events is not None  # others' streams are not read
        if not (decision.learnable or (may_report_unasked and self.unasked.is_expected(decision.model))):
            return False
        if self._would_be_too_large(decision):
            return False
        young = estimate.source in (Source.PRIOR, Source.YOUNG)
        kept = self.budget.admit(
            _usual_messages(decision), key=_key(decision), stratum=decision.stratum, young=young, now_s=now_s
        )
        if kept:
            self.listener.kept(decision)
        elif not self.budget.has_slot(_key(decision), decision.stratum):
            self.listener.no_slot(decision)
        return kept

    def reader(self, decision: Decision, head: ResponseHead) -> UsageReader | None:
        """Return the reader for the response of a kept stream; None (reported) if it teaches nothing."""
        self.responded(decision, head)
        try:
            return reader_for(
                decision.api,
                head,
                self.max_response_bytes,
                may_fill_context=not head.succeeded and self._may_fill_context(decision, head),
            )
        except ResponseNotUnderstood as error:
            self.not_learned(decision, error.fault)
            return None

    def responded(self, decision: Decision, head: ResponseHead, served_by: Pool | None = None) -> None:
        """Report a response's head: which pool responds, and whether the request was served by a later attempt.

        `served_by` is the pool that responds, if known.
        """
        self.listener.responded(decision, head, served_by or self._served_by(decision, head))
        if head.attempts > 1 and decision.routed and head.succeeded:
            self.listener.retried(decision)

    def learn(self, decision: Decision, head: ResponseHead, said: Usage | Overflow) -> None:
        """Learn from a complete response, and report it."""
        if isinstance(said, Usage):
            self.listener.observed(self.observe(decision, head, said))
            return
        self._estimator.observe_overflow(_estimate(decision), said)
        self.listener.overflowed(decision, said, self._served_by(decision, head))

    def observe(
        self, decision: Decision, head: ResponseHead, usage: Usage, served_by: Pool | None = None
    ) -> Observation:
        """Learn from the usage of a complete response; return what the listener is to be told.

        `served_by` is the pool that sent the response, if known.
        """
        if not decision.learnable:
            self.unasked.saw(decision.model, usage=True)
        estimate, served_by = _estimate(decision), served_by or self._served_by(decision, head)
        context_tokens = self.serving.ladder(decision.model).context_tokens(served_by)
        learning = self._estimator.observe(estimate, usage, context_tokens)
        if self._counting is not None and decision.counted is not None and learning.refused is None:
            self._counting.observe(estimate, decision.counted, usage.prompt_tokens)
        if learning.under_counted and learning.is_judged:
            self.budget.missed(decision.stratum)
        stands_for = self.unjudged.pop(decision.stratum, 0) if learning.is_judged else 0
        return Observation(decision, served_by, usage, learning, stands_for)

    def not_learned(self, decision: Decision, why: ResponseFault) -> None:
        """Count a response from which nothing could be learned."""
        if why is ResponseFault.NO_USAGE and not decision.learnable:
            self.unasked.saw(decision.model, usage=False)
        if why is ResponseFault.TOO_LARGE and decision.api is Api.EMBEDDINGS:
            prompts = _budget(decision).sequences
            self.too_many_prompts.put(
                decision.model, min(prompts, self.too_many_prompts.get(decision.model) or prompts)
            )
        self.listener.not_learned(why)

    def settle(self, decision: Decision, messages: int) -> None:
        """Charge the budget for the actual number of response messages of a kept stream."""
        self.budget.pay_back(_usual_messages(decision), messages, key=_key(decision), stratum=decision.stratum)

    def _would_be_too_large(self, decision: Decision) -> bool:
        """Return whether embeddings would be too long to read; those of all prompts have the same length."""
        if decision.api is not Api.EMBEDDINGS:
            return False
        too_many = self.too_many_prompts.get(decision.model)
        return too_many is not None and _budget(decision).sequences >= too_many

    def _may_fill_context(self, decision: Decision, head: ResponseHead) -> bool:
        """Return whether the prompt may be as long as the context of the pool that responds.

        A prompt that was placed in this pool was believed to fit, so that its bound was below; half of the context
        tells it from a short prompt with a limit of 0. A completion of 0 tokens is what the client asked for.
        """
        budget, pool = _budget(decision), self._served_by(decision, head)
        context_tokens = self.serving.ladder(decision.model).context_tokens(pool)
        return budget.output_tokens > 0 and 2 * budget.prompt_bound >= context_tokens

    def _served_by(self, decision: Decision, head: ResponseHead) -> Pool:
        """Return the pool that responded, assuming that the gateway retries on the model's default pool."""
        if not decision.routed:
            return self._default
        if head.attempts <= 1:
            return decision.pool
        default = self.serving.ladder(decision.model).default.pool
        return self._default if default is decision.pool else default


def _usual_messages(decision: Decision) -> float:
    """Return the expected number of response messages of a decision: one per token if it is streamed.

    This is the mean of similar responses, not the limit that the client declares: limits are many times the real
    length, and a budget based on them would learn only from requests that declare a small one.
    """
    if not decision.stream:
        return JSON_MESSAGES
    budget, mean = _budget(decision), _estimate(decision).mean_output_tokens
    most = budget.all_outputs_tokens
    return JSON_MESSAGES + (most if mean is None else min(mean * budget.sequences, most))


def _key(decision: Decision) -> str:
    """Return the key that a stream's reserve is charged to: its model, or "" before anything was learned."""
    return "" if _estimate(decision).source is Source.PRIOR else decision.model


def _budget(decision: Decision) -> TokenBudget:
    assert decision.budget is not None, "only decisions with a budget are kept"
    return decision.budget


def _estimate(decision: Decision) -> Estimate:
    assert decision.estimate is not None, "only decisions with an estimate are kept"
    return decision.estimate
