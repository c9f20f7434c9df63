"""The router in the simulated fleet: the real one, `core`'s estimator and policy, and two to compare it with."""

from typing import Protocol

import numpy as np

from extproc.core.estimator.protocol import Estimate, Estimator, Source
from extproc.core.exchange.settings import ExchangeSettings
from extproc.core.facts import Api, RequestFacts
from extproc.core.placing.decision import Mode
from extproc.core.placing.policy import Pools
from extproc.core.router.learning_budget import JSON_MESSAGES, LearningBudget
from extproc.core.router.placer import Placer
from extproc.core.usage import Usage
from extproc.planning.workload.arrivals import Workload

__all__ = ["LearningRouter", "OnePoolRouter", "OracleRouter", "Router"]

MODEL = "simulated"


class Router(Protocol):
    """Chooses a pool for each request, and learns from its answer."""

    under_counted: int

    def place(self, request: int) -> int:
        """Return the index of the pool (smallest first) for a request of the workload."""
        ...

    def learn(self, request: int, output_tokens: int) -> None:
        """Learn from a request's complete answer."""
        ...


class OnePoolRouter:
    """No routing: a homogeneous fleet."""

    under_counted = 0

    def place(self, request: int) -> int:  # noqa: ARG002  (there is no choice)
        """Return the only pool."""
        return 0

    def learn(self, request: int, output_tokens: int) -> None:
        """Learn nothing."""


class OracleRouter:
    """Knows every prompt's tokens; of the outputs it knows what clients declare (or the truth when they do
    not).
    """

    under_counted = 0

    def __init__(self, workload: Workload, pools: Pools) -> None:
        output = workload.output if workload.declared is None else workload.declared
        limits = [pool.max_budget_tokens for pool in pools.ascending[:-1]]
        self._place = np.searchsorted(limits, workload.prompt + output).tolist()

    def place(self, request: int) -> int:
        """Return the first pool that holds the true budget."""
        return int(self._place[request])

    def learn(self, request: int, output_tokens: int) -> None:
        """Learn nothing: it knows."""


class LearningRouter:
    """The real router's core: facts, estimate, budget, policy; and usage back to the estimator.

    `learning` is the router's own budget for learning, at the price of answers in JSON; None learns from each.
    """

    def __init__(
        self, workload: Workload, pools: Pools, estimator: Estimator, learning: LearningBudget | None = None
    ) -> None:
        self._workload = workload
        self._placer = Placer(Mode.ENFORCE, pools, estimator, ExchangeSettings().max_held_bytes)
        self._index = {pool.name: index for index, pool in enumerate(pools.ascending)}
        self._estimator = estimator
        self._learning = learning
        self._kept: dict[int, Estimate] = {}
        self.under_counted = 0

    def place(self, request: int) -> int:
        """Estimate the request and return the pool that the policy chooses."""
        facts = self._facts(request)
        # Given as the tenant the kind of text makes the same category, without a look at the bytes in each run.
        decision = self._placer.place(facts, self._workload.texts.category(request))
        estimate = decision.estimate
        if estimate is not None:
            self.under_counted += int(self._workload.prompt[request]) > estimate.prompt_bound
            if self._keeps(request, estimate):
                self._kept[request] = estimate
        return self._index[decision.pool.name]

    def learn(self, request: int, output_tokens: int) -> None:
        """Hand the usage to the estimator, if the answer is among those that are learned from."""
        estimate = self._kept.pop(request, None)
        if estimate is None:
            return
        usage = Usage(
            prompt_tokens=int(self._workload.prompt[request]),
            completion_tokens=output_tokens,
            cut_by_length=output_tokens < int(self._workload.output[request]),
        )
        self._estimator.observe(estimate, usage)

    def _keeps(self, request: int, estimate: Estimate) -> bool:
        if self._learning is None:
            return True
        young = estimate.source in (Source.PRIOR, Source.YOUNG)
        now_s = float(self._workload.arrival_s[request])
        return self._learning.admit(JSON_MESSAGES, young=young, now_s=now_s)

    def _facts(self, request: int) -> RequestFacts:
        declared = self._workload.declared
        return RequestFacts(
            api=Api.CHAT,
            model=MODEL,
            text=self._workload.texts.text(request),
            messages=1,
            max_output_tokens=None if declared is None else int(declared[request]),
        )
