"""From a request to a decision: facts, estimate, budget, policy. Router, tools and planner share this code."""

from typing import Final

from msgspec.structs import replace

from extproc.core.apis import deployment_of, read_request
from extproc.core.apis.bodies import model_key
from extproc.core.errors import BodyFault, BodyNotUnderstood
from extproc.core.estimator.counting import Counting
from extproc.core.estimator.protocol import Estimator
from extproc.core.facts import Api, RequestFacts, RequestHead
from extproc.core.placing.budget import token_budget
from extproc.core.placing.decision import NO_HEAD, Decision, Mode
from extproc.core.placing.early import EarlyRule
from extproc.core.placing.fleet import Fleet
from extproc.core.placing.policy import Pool, Pools, Reason
from extproc.core.placing.spill import Spillover
from extproc.core.placing.stratum import stratum_of
from extproc.core.reading.encoded import decoded_body

__all__ = ["Placer"]


class Placer:
    """Places requests in pools, using its estimator. The Decision records everything about the result.

    With a `spillover`, requests leave overloaded pools; with `counting`, the text of requests near a limit is
    counted with a tokenizer.
    """

    def __init__(
        self,
        mode: Mode,
        pools: Pools,
        estimator: Estimator,
        max_held_bytes: int,
        spillover: Spillover | None = None,
        *,
        counting: Counting | None = None,
    ) -> None:
        self.early = EarlyRule(pools.largest_optional_tokens, max_held_bytes)
        self.estimator = estimator
        self._mode = mode
        self._pools = pools
        self.spillover = spillover
        self.counting = counting

    def decide(self, api: Api, head: RequestHead, body: bytes, fleet: Fleet | None = None) -> Decision:
        """Place a request whose complete body has arrived."""
        if self.early.is_enough(api, body):
            return self.unsure(api, Reason.EARLY, len(body), head)
        try:
            decoded = decoded_body(head.content_encoding, body) if head.content_encoding else body
            if decoded is not body and self.early.is_enough(api, decoded):
                return self.unsure(api, Reason.EARLY, len(body), head)
            facts = read_request(api, decoded)
            if not facts.model:
                facts = replace(facts, model=model_key(deployment_of(head.path)))
        except BodyNotUnderstood as error:
            return self.unsure(api, Reason.NOT_UNDERSTOOD, len(body), head, error.fault)
        return self.place(facts, head.tenant, fleet, len(body), head)

    def place(
        self,
        facts: RequestFacts,
        tenant: str,
        fleet: Fleet | None = None,
        body_bytes: int = 0,
        head: RequestHead = NO_HEAD,
    ) -> Decision:
        """Place a request by its facts; `tenant` is the value of the configured header or "".

        A request whose text alone exceeds the early limit is decided like its body would be: without an estimate.
        """
        if self.early.is_beyond(facts):
            return self.unsure(facts.api, Reason.EARLY, body_bytes, head)
        estimate = self.estimator.estimate(facts, tenant)
        budget, counted = token_budget(facts, estimate), None
        if self.counting is not None and self._pools.in_doubt(facts, estimate, budget, fleet):
            estimate, counted = self.counting.narrow(facts, estimate)
            budget = token_budget(facts, estimate)
        pool, reason = self._pools.place(facts, budget, fleet)
        if self.spillover is not None:
            home = pool
            if fleet is not None and reason in _MOVABLE:
                pool = self.spillover.move(facts, tenant, budget, home, fleet)
                reason = reason if pool is home else Reason.SPILLED
            self._count(pool, budget.load_tokens)
        return Decision(
            pool=pool,
            reason=reason,
            mode=self._mode,
            routed=pool is not self._pools.default and self._mode is Mode.ENFORCE,
            api=facts.api,
            model=facts.model,
            estimate=estimate,
            budget=budget,
            stream=facts.stream,
            learnable=facts.usage_in_response,
            body_bytes=body_bytes,
            head=head,
            counted=counted,
            stratum=stratum_of(facts.max_output_tokens, estimate.prompt_tokens, stream=facts.stream),
        )

    def unsure(
        self,
        api: Api,
        reason: Reason,
        body_bytes: int,
        head: RequestHead = NO_HEAD,
        fault: BodyFault | None = None,
    ) -> Decision:
        """Place a request that was not read completely, or not understood, in the default pool."""
        self._count(self._pools.default, 0)
        return Decision(
            self._pools.default,
            reason,
            self._mode,
            routed=False,
            api=api,
            fault=fault,
            body_bytes=body_bytes,
            head=head,
        )

    def _count(self, pool: Pool, tokens: int) -> None:
        """Record where a request actually goes: without a header, to the default pool."""
        if self.spillover is not None:
            placed = pool if self._mode is Mode.ENFORCE else self._pools.default
            self.spillover.count(placed.name, tokens)


# Requests placed for any other reason must stay: they are not known to fit another pool.
_MOVABLE: Final = frozenset({Reason.FITS, Reason.TOO_LONG})
