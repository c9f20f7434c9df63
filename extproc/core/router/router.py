"""From facts to a decision, and from a response to learning: what one router knows, for all its exchanges."""

from dataclasses import dataclass

from extproc.core.apis import api_of, read_request
from extproc.core.errors import BodyFault, BodyNotUnderstood
from extproc.core.estimator.protocol import Estimate, Estimator, Source
from extproc.core.facts import Api, RequestFacts, RequestHead
from extproc.core.listener import Listener, Observation
from extproc.core.placing.budget import TokenBudget, token_budget
from extproc.core.placing.decision import Decision, Mode, Reason
from extproc.core.placing.early import EarlyRule
from extproc.core.placing.policy import Pool, Pools
from extproc.core.router.learning_budget import JSON_MESSAGES, LearningBudget
from extproc.core.usage import Overflow, Usage

__all__ = ["Router", "RouterSettings"]

_NO_ENCODING = ("", "identity")


@dataclass(frozen=True, slots=True)
class RouterSettings:
    """What an exchange may do and how long it may hold a request.

    `deadline_ms` must be below the gateway's message_timeout (200 ms unless set there), `max_held_bytes` below its
    buffer limit (1 MiB unless set there). `max_response_bytes` bounds what is read of one response.
    """

    mode: Mode = Mode.ENFORCE
    deadline_ms: int = 150
    max_held_bytes: int = 768 * 1024
    max_response_bytes: int = 4 * 1024 * 1024


class Router:
    """Decides and learns; owned by one event loop."""

    def __init__(
        self,
        settings: RouterSettings,
        pools: Pools,
        estimator: Estimator,
        learning: LearningBudget,
        listener: Listener,
    ) -> None:
        self.settings = settings
        self.listener = listener
        self.estimator = estimator
        self.early = EarlyRule(pools.largest_optional_tokens, settings.max_held_bytes)
        self._pools = pools
        self._learning = learning

    def api_of(self, head: RequestHead) -> Api | None:
        """Return the API that a request belongs to; None when it is none of ours."""
        return None if self.settings.mode is Mode.OFF else api_of(head.method, head.path)

    def decide(self, api: Api, head: RequestHead, body: bytes) -> Decision:
        """Place a request whose body is there as a whole."""
        if self.early.next_look(api, body) == 0:
            return self.unsure(api, Reason.EARLY, len(body))
        if head.content_encoding not in _NO_ENCODING:
            return self.unsure(api, Reason.NOT_UNDERSTOOD, len(body), BodyFault.ENCODED)
        try:
            facts = read_request(api, body)
        except BodyNotUnderstood as error:
            return self.unsure(api, Reason.NOT_UNDERSTOOD, len(body), error.fault)
        estimate = self.estimator.estimate(facts, head.tenant)
        budget = token_budget(facts, estimate)
        pool, reason = self._place(facts, budget)
        decision = Decision(
            pool=pool,
            reason=reason,
            mode=self.settings.mode,
            routed=pool is not self._pools.default and self.settings.mode is Mode.ENFORCE,
            api=api,
            model=facts.model,
            estimate=estimate,
            budget=budget,
            stream=facts.stream,
            learnable=facts.usage_in_response,
            body_bytes=len(body),
            text_bytes=facts.text_bytes,
        )
        self.listener.decided(decision)
        return decision

    def unsure(self, api: Api, reason: Reason, body_bytes: int, fault: BodyFault | None = None) -> Decision:
        """Place a request that was not seen whole, or not understood: in the default pool."""
        decision = Decision(
            self._pools.default,
            reason,
            self.settings.mode,
            routed=False,
            api=api,
            fault=fault,
            body_bytes=body_bytes,
        )
        self.listener.decided(decision)
        return decision

    def keeps(self, decision: Decision, now_s: float) -> bool:
        """Say whether the stream stays open, to learn from the response."""
        if decision.estimate is None or not decision.learnable:
            return False
        young = decision.estimate.source in (Source.PRIOR, Source.YOUNG)
        kept = self._learning.admit(_most_messages(decision), young=young, now_s=now_s)
        if kept:
            self.listener.kept(decision)
        return kept

    def settle(self, decision: Decision, messages: int) -> None:
        """Called with the number of response messages that a kept stream really took."""
        self._learning.pay_back(_most_messages(decision), messages)

    def served_by(self, decision: Decision, attempts: int) -> Pool:
        """Return the pool that answered: the gateway sends a second attempt to the default one."""
        return decision.pool if decision.routed and attempts <= 1 else self._pools.default

    def learn(self, decision: Decision, usage: Usage, served_by: Pool) -> None:
        """Learn from a complete response of a pool."""
        learning = self.estimator.observe(_estimate(decision), usage, served_by.max_budget_tokens)
        self.listener.observed(Observation(decision, served_by, usage, learning))

    def learn_overflow(self, decision: Decision, overflow: Overflow, served_by: Pool) -> None:
        """Learn from a pool's refusal for length."""
        self.estimator.observe_overflow(_estimate(decision), overflow)
        self.listener.overflowed(decision, overflow, served_by)

    def _place(self, facts: RequestFacts, budget: TokenBudget) -> tuple[Pool, Reason]:
        if facts.unseen_history:
            return self._pools.default, Reason.UNSEEN_HISTORY
        pool = self._pools.place(budget)
        return pool, Reason.TOO_LONG if pool is self._pools.default else Reason.FITS


def _most_messages(decision: Decision) -> int:
    """Return the most response messages of a decision's response: one for each token when it is streamed."""
    budget = decision.budget
    assert budget is not None, "only decisions with a budget are kept"
    return JSON_MESSAGES + (budget.output_tokens * budget.sequences if decision.stream else 0)


def _estimate(decision: Decision) -> Estimate:
    assert decision.estimate is not None, "only decisions with an estimate are kept"
    return decision.estimate
