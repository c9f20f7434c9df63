"""Metrics of requests. Labels are bounded: closed sets, or the first N values that come from clients."""

import time
from collections.abc import Collection, Sequence
from itertools import product
from math import nan

from prometheus_client import CollectorRegistry

from extproc.core.errors import ResponseFault
from extproc.core.estimator.counting import Counted
from extproc.core.estimator.protocol import Estimate, Refused
from extproc.core.facts import ResponseHead
from extproc.core.listener import Listener, Misconfiguration, Observation
from extproc.core.placing.decision import Decision
from extproc.core.placing.fleet import PoolWatched
from extproc.core.placing.policy import Pool
from extproc.core.placing.stratum import Stratum
from extproc.core.usage import Overflow
from extproc.telemetry.labels import (
    OTHER,
    Attempt,
    BoundedLabels,
    CountOutcome,
    FollowedFiles,
    PromptSize,
    Verdict,
)
from extproc.telemetry.series import Series
from extproc.telemetry.tallies import PLAIN

__all__ = ["Metrics"]

# A response counts once at least, so those that end together count for more requests than there were: so many are
# set off against later ones.
MOST_AHEAD = 100
NEAR = 0.2  # share of a pool's budget: if a request is closer to the budget, its bound affects the decision


class Metrics(Series, Listener):
    """A Listener that counts, and a collector for a registry."""

    def __init__(self, registry: CollectorRegistry, max_models: int, max_categories: int) -> None:
        super().__init__()
        self._models = BoundedLabels(max_models)
        self._categories = BoundedLabels(max_categories)
        self._thresholds: tuple[tuple[str, int], ...] = ()
        self._represented: dict[Stratum, int] = {}
        registry.register(self)

    def about(
        self, version: str, mode: str, config_hash: str, pools: Sequence[Pool], epsilon: float | None
    ) -> None:
        """Publish version and configuration, at the start and after each change; set new pools' counters to 0.

        `epsilon` is the share of prompts that may exceed their upper bound, None if nothing is promised.
        """
        self.info.clear()
        self.info[version, mode, config_hash] = 1
        self.bound_epsilon[PLAIN] = nan if epsilon is None else epsilon
        for pool in pools:
            for counter in (self.retries, self.responses_read):
                counter.setdefault((pool.name,), 0)
        self._thresholds = tuple((pool.name, pool.max_budget_tokens) for pool in pools[:-1])
        for (pool_name, _), verdict in product(self._thresholds, Verdict):
            self.bounds_near.setdefault((pool_name, verdict), 0)

    def drains(self, at_most_s: float) -> None:
        """Show when a drain that begins now should have ended."""
        self.drain_ends_at[PLAIN] = time.time() + at_most_s

    def state_saved(self, *, done: bool) -> None:
        """Count an attempt to save what was learned."""
        self.snapshots[Attempt.DONE if done else Attempt.FAILED,] += 1
        self.saving_failed[PLAIN] = float(not done)
        if done:
            self.saved_at[PLAIN] = time.time()

    def state_exchanged(self, *, done: bool, replicas: int) -> None:
        """Count an attempt to share what was learned."""
        self.exchanges[Attempt.DONE if done else Attempt.FAILED,] += 1
        self.sharing_failed[PLAIN] = float(not done)
        self.replicas[PLAIN] = replicas
        if done:
            self.exchanged_at[PLAIN] = time.time()

    def file_followed(self, setting: FollowedFiles, *, unusable: bool) -> None:
        """Show whether a setting's files can be used; called by the threads that follow them."""
        self.files_not_in_force[setting,] = float(unusable)

    def decided(self, decision: Decision) -> None:
        """Count the request by pool, reason, API and model; a body that could not be read also by its fault."""
        model = self._models.known.get(decision.model, OTHER)
        self.requests[decision.pool.name, decision.reason, decision.api, model] += 1
        if decision.budget is not None:
            self.budget.observe(decision.budget.bound, (model,))
        if decision.estimate is not None:
            self.estimates[model, decision.estimate.source] += 1
        if decision.stratum is not None:
            self.stratum_requests[decision.stratum] += 1
        if decision.fault is not None:
            self.bodies[decision.fault,] += 1
        if decision.counted is not None:
            self._counted(decision.counted)

    def _counted(self, counted: Counted) -> None:
        self.counts[CountOutcome.DONE if counted.features else CountOutcome.GIVEN_UP,] += 1
        if counted.seconds:
            self.count_seconds.observe(counted.seconds)

    def watching(self, pools: Collection[str]) -> None:
        """Remove the series of other pools; called by the polling thread before it polls these pools' servers."""
        shown = (self.pool_endpoints, self.pool_answered, self.pool_models, self.pool_pressure)
        for gauge in (*shown, self.pool_spill_share, self.pool_preemptions):
            for labels in [labels for labels in gauge if labels[0] not in pools]:
                del gauge[labels]

    def watched(self, pool: PoolWatched) -> None:
        """Set a pool's gauges; called by the thread that polls its servers."""
        self.pool_endpoints[pool.pool,] = pool.asked
        self.pool_answered[pool.pool,] = pool.answered
        self.pool_models[pool.pool,] = pool.models
        self.pool_pressure[pool.pool,] = pool.pressure
        self.pool_spill_share[pool.pool,] = pool.share
        self.pool_preemptions[pool.pool,] = pool.preemptions

    def passed(self) -> None:
        """Count a request that the router does not read."""
        self.passed_requests[PLAIN] += 1

    def kept(self, decision: Decision) -> None:  # noqa: ARG002  (Listener's signature)
        """Count a stream that stays open."""
        self.kept_streams[PLAIN] += 1

    def released(self, decision: Decision) -> None:  # noqa: ARG002  (Listener's signature)
        """Count a stream that ends with its decision."""
        self.released_streams[PLAIN] += 1

    def no_slot(self, decision: Decision) -> None:  # noqa: ARG002  (Listener's signature)
        """Count a stream that could not be kept for want of a slot."""
        self.streams_without_slot[PLAIN] += 1

    def observed(self, observation: Observation) -> None:
        """Record the error before learning, and the true lengths; implausible usage is only counted."""
        decision, usage, learning = observation.decision, observation.usage, observation.learning
        if learning.refused is not None:
            self.refused[learning.refused,] += 1
        if learning.refused is Refused.IMPLAUSIBLE:
            return
        model = self._models.label(decision.model)
        times = 1 if decision.stratum is None else self._represents(decision.stratum)
        labels = (model,)
        self.prompt.observe(usage.prompt_tokens, labels, times)
        self.completion.observe(usage.completion_tokens, labels, times)
        self.total.observe(usage.prompt_tokens + usage.completion_tokens, labels, times)
        if learning.clipped:
            self.clipped[model,] += 1
        if learning.started_anew:
            self.started_anew[model,] += 1
        if learning.returned:
            self.returned[model,] += 1
        if learning.truncated_by_pool:
            self.truncated[observation.served_by.name, model] += 1
        # If a prompt was cut, or is partly not in the body, its usage says nothing about the estimate of the body.
        if decision.estimate is not None and learning.is_judged:
            self._judge(observation, decision.estimate, model)

    def _represents(self, stratum: Stratum) -> int:
        """Return the requests of the stratum that no earlier response stood for, at least 1.

        Strata are read at different rates (learning_budget.py): counted once each, what is cheap to read or rare
        would pass for most of the traffic.
        """
        asked, represented = self.stratum_requests[stratum], self._represented.get(stratum, 0)
        times = max(1, asked - represented)
        self._represented[stratum] = min(represented + times, asked + MOST_AHEAD)
        return times

    def _judge(self, observation: Observation, estimate: Estimate, model: str) -> None:
        decision, usage, learning = observation.decision, observation.usage, observation.learning
        self.ratio.observe(learning.ratio, (model,))
        self.bound_ratio.observe(estimate.prompt_bound / usage.prompt_tokens, (model,))
        verdict = Verdict.EXCEEDED if learning.under_counted else Verdict.HELD
        size = PromptSize.of(usage.prompt_tokens)
        self.bounds[size, verdict] += 1
        self.bounds_of_traffic[size, verdict] += observation.stands_for
        if decision.stratum is not None:
            self.stratum_judged[(*decision.stratum, verdict)] += 1
        total = usage.prompt_tokens + (decision.budget.output_tokens if decision.budget is not None else 0)
        for pool_name, threshold in self._thresholds:
            if abs(total - threshold) <= NEAR * threshold:
                self.bounds_near[pool_name, verdict] += 1
        if learning.under_counted:
            self.under_counted[model,] += 1
        if learning.refused is None:
            key = self._categories.label(estimate.category.key)
            self.bounds_by_category[key, verdict] += 1
            self.bytes_per_token[model, key] = learning.bytes_per_token

    def sealed(self, decision: Decision) -> None:  # noqa: ARG002  (Listener's signature)
        """Count a decision whose evidence the gateway's log should bring back."""
        self.evidence_sent[PLAIN] += 1

    def left_out(self, decision: Decision) -> None:  # noqa: ARG002  (Listener's signature)
        """Count a decision that the gateway's log has no room for."""
        self.evidence_left_out[PLAIN] += 1

    def responded(self, decision: Decision, head: ResponseHead, served_by: Pool) -> None:
        """Count the response by pool; if it is a success, give the model its own label: a pool knows it."""
        self.responses_read[served_by.name,] += 1
        if head.succeeded:
            self._models.label(decision.model)

    def not_learned(self, why: ResponseFault) -> None:
        """Count a response from which nothing was learned."""
        self.not_learned_responses[why,] += 1

    def overflowed(self, decision: Decision, overflow: Overflow, served_by: Pool) -> None:  # noqa: ARG002  (as above)
        """Count a refusal for length."""
        self.overflows[served_by.name, self._models.known.get(decision.model, OTHER)] += 1

    def retried(self, decision: Decision) -> None:
        """Count a request that was served by a later attempt."""
        self.retries[decision.pool.name,] += 1

    def misconfigured(self, what: Misconfiguration) -> None:
        """Count an exchange that could not be routed."""
        self.misconfigurations[what,] += 1

    def failed(self, error: Exception) -> None:
        """Count an exception by its type, which clients cannot invent."""
        self.exceptions[type(error).__name__,] += 1
