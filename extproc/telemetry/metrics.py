"""Prometheus metrics of the router. Labels are bounded: closed sets, or the first so many values of clients."""

import time
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from enum import StrEnum
from itertools import product
from math import nan
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import Collector

from extproc.access_log.teacher import Outcome
from extproc.core.errors import BodyFault, ResponseFault
from extproc.core.estimator.counting import Counted
from extproc.core.estimator.protocol import Estimate, Learning, Refused
from extproc.core.listener import Listener, Misconfiguration, Observation
from extproc.core.placing.decision import Decision
from extproc.core.placing.fleet import PoolWatched
from extproc.core.placing.policy import Pool
from extproc.core.usage import Overflow, Usage
from extproc.telemetry.labels import BoundedLabels
from extproc.telemetry.tallies import PLAIN, Counters, Gauges, Histograms, Tally

__all__ = ["CountOutcome", "Metrics", "PromptSize", "Undecided", "Verdict"]

T = TypeVar("T", Counters, Gauges, Histograms)

TOKEN_BUCKETS = (
    *(64, 128, 256, 512, 1024, 2048, 3072, 4096, 6144, 8192, 12288, 16384),
    *(24576, 32768, 49152, 65536, 98304, 131072),
)
# Narrow around 1, where the estimators differ.
RATIO_BUCKETS = (0.25, 0.5, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 1.0, 1.02, 1.05, 1.1, 1.15, 1.2, 1.3, 1.5, 2.0, 4.0)
NEAR = 0.2  # share of a pool's budget: where a bound decides
SIZE_EDGES = (256, 1024, 4096, 16384)
SECONDS_BUCKETS = (5e-5, 1e-4, 1.5e-4, 2e-4, 3e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 5e-2, 0.2, 1.0)


class Undecided(StrEnum):
    """Why a stream ended before its request was decided or given up."""

    GATEWAY_LEFT = "gateway_left"  # the client did, as a rule
    IDLE = "idle"
    NOT_UNDERSTOOD = "not_understood"  # the first message
    ENDED_BY_US = "ended_by_us"  # a drain


class PromptSize(StrEnum):
    """How long a prompt was, in tokens; few enough that an under-count's share has a meaning in each."""

    UP_TO_256 = "to_256"
    UP_TO_1K = "to_1k"
    UP_TO_4K = "to_4k"
    UP_TO_16K = "to_16k"
    ABOVE_16K = "above_16k"

    @classmethod
    def of(cls, prompt_tokens: int) -> "PromptSize":
        """Return the size that a prompt of so many tokens has."""
        sizes = tuple(cls)
        return sizes[bisect_left(SIZE_EDGES, prompt_tokens)]


class Verdict(StrEnum):
    """Whether a prompt was within its upper bound."""

    HELD = "held"
    EXCEEDED = "exceeded"


class CountOutcome(StrEnum):
    """What came of counting a request's text exactly."""

    DONE = "done"
    GIVEN_UP = "given_up"  # for the time that it takes: the estimate stands


class Metrics(Listener, Collector):
    """A Listener that counts, and what a registry collects; a metric more is a line more in `__init__`."""

    def __init__(  # noqa: PLR0915  (a line for each metric)
        self, registry: CollectorRegistry, max_models: int, max_categories: int
    ) -> None:
        self._models = BoundedLabels(max_models)
        self._categories = BoundedLabels(max_categories)

        self._thresholds: tuple[tuple[str, int], ...] = ()

        self.tallies: list[Tally[Any]] = []

        def counter(name: str, text: str, *labels: str) -> Counters:
            return self._add(Counters(f"dualpool_{name.removesuffix('_total')}", text, labels))

        def gauge(name: str, text: str, *labels: str) -> Gauges:
            return self._add(Gauges(f"dualpool_{name}", text, labels))

        def histogram(name: str, text: str, bounds: tuple[float, ...], *labels: str) -> Histograms:
            return self._add(Histograms(f"dualpool_{name}", text, bounds, labels))

        self.requests = counter("requests_total", "Requests that were placed", "pool", "reason", "api", "model")
        self.passed_requests = counter("passed_requests_total", "Requests that are none of ours")
        self.budget = histogram(
            "budget_tokens", "Upper bound of the token budget, which has to fit the pool", TOKEN_BUCKETS, "model"
        )
        self.prompt = histogram("actual_prompt_tokens", "Prompt tokens by usage", TOKEN_BUCKETS, "model")
        self.completion = histogram("actual_completion_tokens", "Output tokens by usage", TOKEN_BUCKETS, "model")
        self.total = histogram("actual_total_tokens", "Prompt and output tokens by usage", TOKEN_BUCKETS, "model")
        self.ratio = histogram(
            "estimate_ratio", "Estimated / actual prompt tokens, before learning", RATIO_BUCKETS, "model"
        )
        self.bound_ratio = histogram(
            "bound_ratio", "Upper bound / actual prompt tokens, before learning", RATIO_BUCKETS, "model"
        )
        self.under_counted = counter("under_counted_total", "Prompts that exceeded their upper bound", "model")
        self.bounds = counter(
            "bounds_total", "Upper bounds judged by the prompt's true length, by that length", "size", "verdict"
        )
        self.bounds_near = counter(
            "bounds_near_total",
            "Upper bounds of requests whose true prompt and budgeted output are within 20 % of a pool's budget",
            "pool",
            "verdict",
        )
        self.bytes_per_token = gauge(
            "bytes_per_token",
            "Prompt text bytes per prompt token, last response of the category",
            "model",
            "category",
        )
        self.estimates = counter("estimates_total", "Estimates, by where they come from", "model", "source")
        self.counts = counter(
            "exact_counts_total", "Requests near a limit whose text was counted, or given up", "outcome"
        )
        self.count_seconds = histogram(
            "exact_count_seconds", "How long a count took that was begun", SECONDS_BUCKETS
        )
        self.refused = counter("refused_observations_total", "Usages not learned from, by cause", "cause")
        self.clipped = counter("clipped_observations_total", "Usages of which only a part was believed", "model")
        self.started_anew = counter(
            "models_started_anew_total",
            "Models whose prices were dropped: most usages were beyond belief",
            "model",
        )
        self.truncated = counter(
            "truncated_by_pool_total", "Responses that ended where the pool's context did", "pool", "model"
        )
        self.not_learned_responses = counter(
            "responses_not_learned_total",
            "Responses of kept streams from which nothing was learned, by cause",
            "cause",
        )
        self.overflows = counter(
            "context_overflows_total", "Requests that a pool refused for their length", "pool", "model"
        )
        self.retries = counter(
            "retried_total",
            "Kept requests of a smaller pool that a later attempt served, by any pool",
            "pool",
        )
        self.bodies = counter("bodies_not_understood_total", "Request bodies without facts, by cause", "cause")
        self.misconfigurations = counter(
            "misconfigured_total", "Exchanges that could not be routed, or not reliably", "cause"
        )
        self.exceptions = counter("exceptions_total", "Exceptions in our own code", "kind")
        self.access_log_entries = counter(
            "access_log_entries_total", "Entries of the gateway's access log, by what became of them", "outcome"
        )
        self.kept_streams = counter("streams_kept_total", "Streams that were kept open for their response")
        self.released_streams = counter("streams_released_total", "Streams that were closed with their decision")
        self.open_streams = gauge("streams_open", "Streams open now")
        self.streams = counter("streams_total", "Streams that have ended")
        self.undecided = counter(
            "streams_undecided_total", "Streams that ended before a decision, by cause", "cause"
        )
        self.shed_requests = counter(
            "shed_requests_total", "Requests given up, to the default pool, because too many came"
        )
        self.queue_seconds = histogram(
            "queue_seconds",
            "How long a message waits in the process until it is handled, sampled",
            SECONDS_BUCKETS,
        )
        self.decision_seconds = histogram(
            "decision_seconds", "From the request's arrival to its decision", SECONDS_BUCKETS
        )
        self.loop_lag = gauge("loop_lag_seconds", "How long the last sampled message has waited")
        self.ready = gauge("ready", "1 while gateways are told to ask")
        self.draining = gauge("draining", "1 after SIGTERM")
        self._info = gauge("info", "1, labelled by what runs", "version", "mode", "config_hash")
        self.processing_seconds = histogram(
            "processing_seconds", "The router's own work for one stream, without waiting", SECONDS_BUCKETS
        )
        self.pool_endpoints = gauge("pool_endpoints", "Servers of a pool that were asked last", "pool")
        self.pool_answered = gauge("pool_endpoints_answered", "Servers of a pool that answered then", "pool")
        self.pool_models = gauge(
            "pool_models", "Models that a pool is known to serve; 0 when that is unknown", "pool"
        )
        self.pool_pressure = gauge(
            "pool_pressure", "How full a pool is, 1 at the limits of `spill`; NaN while that is unknown", "pool"
        )
        self.pool_spill_share = gauge("pool_spill_share", "Share of a pool's requests that leaves it", "pool")
        self.pool_preemptions = gauge(
            "pool_preemptions", "Preemptions that its servers have told, together", "pool"
        )

        self.snapshots = counter(
            "state_snapshots_total", "Attempts to save what was learned, by whether they were `done`", "outcome"
        )
        self.exchanges = counter(
            "state_exchanges_total", "Attempts to share what was learned, by whether they were `done`", "outcome"
        )
        self.replicas = gauge("state_replicas", "Other replicas whose knowledge is in use")
        self.saved_at = gauge(
            "state_saved_timestamp_seconds", "When what was learned was last saved, Unix time; NaN before"
        )
        self.exchanged_at = gauge(
            "state_exchanged_timestamp_seconds", "When what was learned was last shared, Unix time; NaN before"
        )
        self._start_at_zero()
        registry.register(self)

    def _add(self, tally: T) -> T:
        self.tallies.append(tally)
        return tally

    def collect(self) -> Iterable[Metric]:
        """Called at each scrape, on another thread."""
        return [tally.collect() for tally in self.tallies]

    def about(self, version: str, mode: str, config_hash: str, pools: Sequence[Pool]) -> None:
        """Say what runs here, also when it changes; what is counted by pool starts at 0."""
        self._info.clear()
        self._info[version, mode, config_hash] = 1
        for pool in pools:
            self.retries.setdefault((pool.name,), 0)
        self._thresholds = tuple((pool.name, pool.max_budget_tokens) for pool in pools[:-1])
        for (pool_name, _), verdict in product(self._thresholds, Verdict):
            self.bounds_near.setdefault((pool_name, verdict), 0)

    def _start_at_zero(self) -> None:
        """Make every series of a closed set: an increase from nothing to 1 is none to Prometheus."""
        closed: tuple[tuple[Counters, type[StrEnum]], ...] = (
            (self.refused, Refused),
            (self.not_learned_responses, ResponseFault),
            (self.bodies, BodyFault),
            (self.misconfigurations, Misconfiguration),
            (self.undecided, Undecided),
            (self.access_log_entries, Outcome),
            (self.counts, CountOutcome),
        )
        for kept in (self.snapshots, self.exchanges):
            for outcome in ("done", "failed"):
                kept[outcome,] = 0
        for at in (self.saved_at, self.exchanged_at):
            at[PLAIN] = nan
        for counter, values in closed:
            for value in values:
                counter[value,] = 0
        for size, verdict in product(PromptSize, Verdict):
            self.bounds[size, verdict] = 0

    def state_saved(self, *, done: bool) -> None:
        """Count an attempt to save what was learned."""
        self.snapshots["done" if done else "failed",] += 1
        if done:
            self.saved_at[PLAIN] = time.time()

    def state_exchanged(self, *, done: bool, replicas: int) -> None:
        """Count an attempt to share what was learned."""
        self.exchanges["done" if done else "failed",] += 1
        self.replicas[PLAIN] = replicas
        if done:
            self.exchanged_at[PLAIN] = time.time()

    def decided(self, decision: Decision) -> None:
        """Count the request by pool, reason, API and model; a body without facts by its cause too."""
        model = self._models.known(decision.model)
        self.requests[decision.pool.name, decision.reason, decision.api, model] += 1
        if decision.budget is not None:
            self.budget.observe(decision.budget.bound, (model,))
        if decision.estimate is not None:
            self.estimates[model, decision.estimate.source] += 1
        if decision.fault is not None:
            self.bodies[decision.fault,] += 1
        if decision.counted is not None:
            self._counted(decision.counted)

    def _counted(self, counted: Counted) -> None:
        self.counts[CountOutcome.DONE if counted.features else CountOutcome.GIVEN_UP,] += 1
        if counted.seconds:
            self.count_seconds.observe(counted.seconds)

    def watched(self, pool: PoolWatched) -> None:
        """Show what is known of a pool; called by the thread that asks its servers."""
        self.pool_endpoints[pool.pool,] = pool.asked
        self.pool_answered[pool.pool,] = pool.answered
        self.pool_models[pool.pool,] = pool.models
        self.pool_pressure[pool.pool,] = pool.pressure
        self.pool_spill_share[pool.pool,] = pool.share
        self.pool_preemptions[pool.pool,] = pool.preemptions

    def passed(self) -> None:
        """Count a request that is none of ours."""
        self.passed_requests[PLAIN] += 1

    def kept(self, decision: Decision) -> None:  # noqa: ARG002  (the port's signature)
        """Count a stream that stays open."""
        self.kept_streams[PLAIN] += 1

    def released(self, decision: Decision) -> None:  # noqa: ARG002  (the port's signature)
        """Count a stream that is over with its decision."""
        self.released_streams[PLAIN] += 1

    def observed(self, observation: Observation) -> None:
        """Record the error before learning, and the true lengths; usage that is not believed is only counted."""
        decision, usage, learning = observation.decision, observation.usage, observation.learning
        if learning.refused is not None:
            self.refused[learning.refused,] += 1
        if learning.refused is Refused.IMPLAUSIBLE:
            return
        model = self._models.label(decision.model)
        self.prompt.observe(usage.prompt_tokens, (model,))
        self.completion.observe(usage.completion_tokens, (model,))
        self.total.observe(usage.prompt_tokens + usage.completion_tokens, (model,))
        if learning.clipped:
            self.clipped[model,] += 1
        if learning.started_anew:
            self.started_anew[model,] += 1
        if learning.truncated_by_pool:
            self.truncated[observation.served_by.name, model] += 1
        # Usage of what was cut, or not in the body, says nothing about the estimate of what was.
        if decision.estimate is not None and learning.refused in {None, Refused.EXACT}:
            self._judge(decision, decision.estimate, usage, learning, model)

    def _judge(self, decision: Decision, estimate: Estimate, usage: Usage, learning: Learning, model: str) -> None:
        self.ratio.observe(learning.ratio, (model,))
        self.bound_ratio.observe(estimate.prompt_bound / usage.prompt_tokens, (model,))
        verdict = Verdict.EXCEEDED if learning.under_counted else Verdict.HELD
        self.bounds[PromptSize.of(usage.prompt_tokens), verdict] += 1
        total = usage.prompt_tokens + (decision.budget.output_tokens if decision.budget is not None else 0)
        for pool_name, threshold in self._thresholds:
            if abs(total - threshold) <= NEAR * threshold:
                self.bounds_near[pool_name, verdict] += 1
        if learning.under_counted:
            self.under_counted[model,] += 1
        if learning.refused is None:
            key = self._categories.label(estimate.category.key)
            self.bytes_per_token[model, key] = learning.bytes_per_token

    def succeeded(self, decision: Decision) -> None:
        """Let the model have a label of its own: a pool knows it."""
        self._models.label(decision.model)

    def not_learned(self, why: ResponseFault) -> None:
        """Count a response that taught nothing."""
        self.not_learned_responses[why,] += 1

    def overflowed(self, decision: Decision, overflow: Overflow, served_by: Pool) -> None:  # noqa: ARG002  (as above)
        """Count a refusal for length."""
        self.overflows[served_by.name, self._models.known(decision.model)] += 1

    def retried(self, decision: Decision) -> None:
        """Count a request that was served by a later attempt."""
        self.retries[decision.pool.name,] += 1

    def misconfigured(self, what: Misconfiguration) -> None:
        """Count an exchange that could not be routed."""
        self.misconfigurations[what,] += 1

    def failed(self, error: Exception) -> None:
        """Count an exception by its type; types are code's, not clients'."""
        self.exceptions[type(error).__name__,] += 1
