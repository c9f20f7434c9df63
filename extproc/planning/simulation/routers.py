"""Routers of the simulated fleet: the real one (`core`'s estimator and policy) and two for comparison."""

from dataclasses import dataclass
from math import ceil
from typing import Protocol

import numpy as np

from extproc.core.estimator.protocol import Estimate, Estimator
from extproc.core.exchange.settings import ExchangeSettings
from extproc.core.facts import Api, RequestFacts, ResponseHead
from extproc.core.listener import Listener
from extproc.core.placing.budget import TokenBudget
from extproc.core.placing.decision import Decision, Mode
from extproc.core.placing.policy import Pools
from extproc.core.router.learner import Learner
from extproc.core.router.learning_budget import JSON_MESSAGES, LearningBudget, LearningSettings
from extproc.core.router.placer import Placer
from extproc.core.usage import Usage
from extproc.planning.simulation.spilling import SimulatedSpill
from extproc.planning.workload.arrivals import Workload
from extproc.planning.workload.texts import KINDS

__all__ = ["LearningRouter", "OnePoolRouter", "OracleRouter", "Router"]

MODEL = "simulated"
SAMPLE = 3_000  # requests per run whose text is read
MOST_RESPONSE_BYTES = 1  # no response is read here: its usage is known
ANSWERED = ResponseHead(200)
LEARN_ALL = LearningSettings(messages_per_s=1e12, burst_messages=1e12)
NO_TEXT = RequestFacts(api=Api.CHAT, model=MODEL, text=b"", messages=1)


class Router(Protocol):
    """Chooses a pool for each request, and learns from its response."""

    under_counted: int
    spill: SimulatedSpill | None

    def place(self, request: int) -> int:
        """Return the index of the pool (smallest first) for a request of the workload."""
        ...

    def learn(self, request: int, output_tokens: int) -> None:
        """Learn from a request's complete response."""
        ...


class OnePoolRouter:
    """No routing: a homogeneous fleet."""

    under_counted = 0
    spill: SimulatedSpill | None = None

    def place(self, request: int) -> int:  # noqa: ARG002  (there is no choice)
        """Return the only pool."""
        return 0

    def learn(self, request: int, output_tokens: int) -> None:
        """Learn nothing."""


class OracleRouter:
    """Knows the prompt tokens of every request, and the output that clients declare (or the true output if the
    workload declares none).
    """

    under_counted = 0
    spill: SimulatedSpill | None = None

    def __init__(self, workload: Workload, pools: Pools) -> None:
        output = workload.output if workload.declared is None else workload.declared
        limits = [pool.max_budget_tokens for pool in pools.ascending[:-1]]
        self._place = np.searchsorted(limits, workload.prompt + output).tolist()

    def place(self, request: int) -> int:
        """Return the first pool that holds the true budget."""
        return int(self._place[request])

    def learn(self, request: int, output_tokens: int) -> None:
        """Learn nothing: the oracle estimates nothing."""


class LearningRouter:
    """The core of the real router: placer and learner, given each request's text and its response's usage.

    Reading bytes dominates the cost of a run, so only the first `sample` requests are read and learned from. A
    later request takes its ratio of bound to prompt tokens from a request with the same kind of text that was read
    in the second half of the sample, after most of the learning. Its budget then goes through the same policy.
    """

    def __init__(
        self,
        workload: Workload,
        pools: Pools,
        estimator: Estimator,
        learning: LearningBudget | None = None,
        *,
        sample: int = SAMPLE,
        spill: SimulatedSpill | None = None,
    ) -> None:
        self._workload = workload
        self._pools = pools
        self.spill = spill
        spillover = None if spill is None else spill.spillover
        self._placer = Placer(Mode.ENFORCE, pools, estimator, ExchangeSettings().max_held_bytes, spillover)
        budget = learning or LearningBudget(LEARN_ALL)
        self._learner = Learner(pools, estimator, budget, Listener(), MOST_RESPONSE_BYTES)
        self._index = {pool.name: index for index, pool in enumerate(pools.ascending)}
        self._kept: dict[int, Decision] = {}
        self._sample = sample
        self._seen: list[list[_Seen]] = [[] for _ in KINDS]
        self.under_counted = 0

    def place(self, request: int) -> int:
        """Place the request as the router would, and return the pool's index."""
        if request >= self._sample and (seen := self._seen[int(self._workload.texts.kind[request])]):
            return self._like(request, seen[request % len(seen)])
        facts = self._facts(request)
        # Passing the kind of text as the tenant yields the same categories without reading the bytes in each run.
        fleet = None if self.spill is None else self.spill.fleet
        decision = self._placer.place(facts, self._workload.texts.category(request), fleet)
        if decision.estimate is not None:
            self._note(request, decision.estimate)
        if self._learner.keeps(decision, float(self._workload.arrival_s[request])):
            self._kept[request] = decision
            # Settled at once: the number of streams open at a time is not simulated.
            self._learner.settle(decision, JSON_MESSAGES)
        return self._index[decision.pool.name]

    def learn(self, request: int, output_tokens: int) -> None:
        """Pass the usage to the learner if the response was kept for learning."""
        decision = self._kept.pop(request, None)
        if decision is None:
            return
        usage = Usage(
            prompt_tokens=int(self._workload.prompt[request]),
            completion_tokens=output_tokens,
            cut_by_length=output_tokens < int(self._workload.output[request]),
        )
        self._learner.learn(decision, ANSWERED, usage)

    def _note(self, request: int, estimate: Estimate) -> None:
        prompt = int(self._workload.prompt[request])
        self.under_counted += prompt > estimate.prompt_bound
        if request >= self._sample // 2:
            kind = self._seen[int(self._workload.texts.kind[request])]
            kind.append(
                _Seen(estimate.prompt_tokens / prompt, estimate.prompt_bound / prompt, estimate.output_tokens)
            )

    def _like(self, request: int, seen: "_Seen") -> int:
        """Place a request with the estimate of a similar one."""
        declared = self._workload.declared
        output = seen.output_tokens if declared is None else int(declared[request])
        prompt = int(self._workload.prompt[request])
        bound = ceil(prompt * seen.bound_per_token)
        self.under_counted += prompt > bound
        likely = ceil(prompt * seen.likeliest_per_token)
        budget = TokenBudget(likely, bound, output, 1, likely)
        pool, _ = self._pools.place(NO_TEXT, budget)
        if self.spill is not None:
            pool = self.spill.spillover.move(NO_TEXT, "", budget, pool, self.spill.fleet)
            self.spill.spillover.count(pool.name, budget.load_tokens)
        return self._index[pool.name]

    def _facts(self, request: int) -> RequestFacts:
        declared = self._workload.declared
        return RequestFacts(
            api=Api.CHAT,
            model=MODEL,
            text=self._workload.texts.text(request),
            messages=1,
            max_output_tokens=None if declared is None else int(declared[request]),
        )


@dataclass(frozen=True, slots=True)
class _Seen:
    """The estimate of one request: likeliest count and bound, both divided by the true prompt tokens, and the
    budgeted output.
    """

    likeliest_per_token: float
    bound_per_token: float
    output_tokens: int
