"""Prometheus metrics of the router. Labels are bounded: closed sets, or the first so many values of clients."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from extproc.core.errors import BodyFault, ResponseFault
from extproc.core.estimator.protocol import Estimate, Learning, Refused
from extproc.core.listener import Listener, Misconfiguration, Observation
from extproc.core.placing.decision import Decision
from extproc.core.placing.policy import Pool
from extproc.core.usage import Overflow, Usage
from extproc.telemetry.labels import BoundedLabels

__all__ = ["Metrics", "Undecided"]

TOKEN_BUCKETS = (
    *(64, 128, 256, 512, 1024, 2048, 3072, 4096, 6144, 8192, 12288, 16384),
    *(24576, 32768, 49152, 65536, 98304, 131072),
)
# Narrow around 1, where the estimators differ.
RATIO_BUCKETS = (0.25, 0.5, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 1.0, 1.02, 1.05, 1.1, 1.15, 1.2, 1.3, 1.5, 2.0, 4.0)
SECONDS_BUCKETS = (5e-5, 1e-4, 1.5e-4, 2e-4, 3e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 5e-2, 0.2, 1.0)


M = TypeVar("M", Counter, Gauge, Histogram)


class _Children(Generic[M]):
    """A metric whose child for each set of labels is looked up in one dictionary, without the library's lock.

    Labels are bounded, so the dictionary is.
    """

    def __init__(self, metric: M) -> None:
        self._metric: M = metric
        self._children: dict[tuple[str, ...], M] = {}

    def __call__(self, *labels: str) -> M:
        child = self._children.get(labels)
        if child is None:
            child = self._metric.labels(*labels) if labels else self._metric
            self._children[labels] = child
        return child


class Undecided(StrEnum):
    """Why a stream ended before its request was decided or given up."""

    GATEWAY_LEFT = "gateway_left"  # the client did, as a rule
    IDLE = "idle"
    NOT_UNDERSTOOD = "not_understood"  # the first message
    ENDED_BY_US = "ended_by_us"  # a drain


class Metrics(Listener):
    """A Listener that counts; owns no registry of its own."""

    def __init__(self, registry: CollectorRegistry, max_models: int, max_categories: int) -> None:
        self._models = BoundedLabels(max_models)
        self._categories = BoundedLabels(max_categories)

        def counter(name: str, text: str, *labels: str) -> _Children[Counter]:
            return _Children(Counter(f"dualpool_{name}", text, labels, registry=registry))

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> _Children[Histogram]:
            return _Children(Histogram(f"dualpool_{name}", text, labels, buckets=buckets, registry=registry))

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
        self.bytes_per_token = _Children(
            Gauge(
                "dualpool_bytes_per_token",
                "Prompt text bytes per prompt token, last response of the category",
                ("model", "category"),
                registry=registry,
            )
        )
        self.estimates = counter("estimates_total", "Estimates, by where they come from", "model", "source")
        self.refused = counter("refused_observations_total", "Usages not learned from, by cause", "cause")
        self.clipped = counter("clipped_observations_total", "Usages of which only a part was believed", "model")
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
        self.kept_streams = counter("streams_kept_total", "Streams that were kept open for their response")
        self.released_streams = counter("streams_released_total", "Streams that were closed with their decision")
        self.open_streams = Gauge("dualpool_streams_open", "Streams open now", registry=registry)
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
        self.loop_lag = Gauge(
            "dualpool_loop_lag_seconds", "How long the last sampled message has waited", registry=registry
        )
        self.ready = Gauge("dualpool_ready", "1 while gateways are told to ask", registry=registry)
        self.draining = Gauge("dualpool_draining", "1 after SIGTERM", registry=registry)
        self._info = Gauge(
            "dualpool_info", "1, labelled by what runs", ("version", "mode", "config_hash"), registry=registry
        )
        self.processing_seconds = histogram(
            "processing_seconds", "The router's own work for one stream, without waiting", SECONDS_BUCKETS
        )

        self._start_at_zero()

    def about(self, version: str, mode: str, config_hash: str, pools: Iterable[str]) -> None:
        """Say what runs here; what is counted by pool starts at 0."""
        self._info.labels(version, mode, config_hash).set(1)
        for pool in pools:
            self.retries(pool)

    def _start_at_zero(self) -> None:
        """Make every series of a closed set: an increase from nothing to 1 is none to Prometheus."""
        closed: tuple[tuple[_Children[Counter], type[StrEnum]], ...] = (
            (self.refused, Refused),
            (self.not_learned_responses, ResponseFault),
            (self.bodies, BodyFault),
            (self.misconfigurations, Misconfiguration),
            (self.undecided, Undecided),
        )
        for counter, values in closed:
            for value in values:
                counter(value)

    def decided(self, decision: Decision) -> None:
        """Count the request by pool, reason, API and model; a body without facts by its cause too."""
        model = self._models.known(decision.model)
        self.requests(decision.pool.name, decision.reason, decision.api, model).inc()
        if decision.budget is not None:
            self.budget(model).observe(decision.budget.bound)
        if decision.estimate is not None:
            self.estimates(model, decision.estimate.source).inc()
        if decision.fault is not None:
            self.bodies(decision.fault).inc()

    def passed(self) -> None:
        """Count a request that is none of ours."""
        self.passed_requests().inc()

    def kept(self, decision: Decision) -> None:  # noqa: ARG002  (the port's signature)
        """Count a stream that stays open."""
        self.kept_streams().inc()

    def released(self, decision: Decision) -> None:  # noqa: ARG002  (the port's signature)
        """Count a stream that is over with its decision."""
        self.released_streams().inc()

    def observed(self, observation: Observation) -> None:
        """Record the error before learning, and the true lengths; usage that is not believed is only counted."""
        decision, usage, learning = observation.decision, observation.usage, observation.learning
        if learning.refused is not None:
            self.refused(learning.refused).inc()
        if learning.refused is Refused.IMPLAUSIBLE:
            return
        model = self._models.label(decision.model)
        self.prompt(model).observe(usage.prompt_tokens)
        self.completion(model).observe(usage.completion_tokens)
        self.total(model).observe(usage.prompt_tokens + usage.completion_tokens)
        if learning.clipped:
            self.clipped(model).inc()
        if learning.truncated_by_pool:
            self.truncated(observation.served_by.name, model).inc()
        # Usage of what was cut, or not in the body, says nothing about the estimate of what was.
        if decision.estimate is not None and learning.refused in {None, Refused.EXACT}:
            self._judge(decision.estimate, usage, learning, model)

    def _judge(self, estimate: Estimate, usage: Usage, learning: Learning, model: str) -> None:
        self.ratio(model).observe(learning.ratio)
        self.bound_ratio(model).observe(estimate.prompt_bound / usage.prompt_tokens)
        if learning.under_counted:
            self.under_counted(model).inc()
        if learning.refused is None:
            key = self._categories.label(estimate.category.key)
            self.bytes_per_token(model, key).set(learning.bytes_per_token)

    def succeeded(self, decision: Decision) -> None:
        """Let the model have a label of its own: a pool knows it."""
        self._models.label(decision.model)

    def not_learned(self, why: ResponseFault) -> None:
        """Count a response that taught nothing."""
        self.not_learned_responses(why).inc()

    def overflowed(self, decision: Decision, overflow: Overflow, served_by: Pool) -> None:  # noqa: ARG002  (as above)
        """Count a refusal for length."""
        self.overflows(served_by.name, self._models.known(decision.model)).inc()

    def retried(self, decision: Decision) -> None:
        """Count a request that was served by a later attempt."""
        self.retries(decision.pool.name).inc()

    def misconfigured(self, what: Misconfiguration) -> None:
        """Count an exchange that could not be routed."""
        self.misconfigurations(what).inc()

    def failed(self, error: Exception) -> None:
        """Count an exception by its type; types are code's, not clients'."""
        self.exceptions(type(error).__name__).inc()
