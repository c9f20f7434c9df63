"""The router's metrics by subject: their names, help texts, labels and buckets.

A new metric is declared here and counted in metrics.py; docs/metrics.md is generated from the declarations.
"""

from collections.abc import Iterable
from enum import StrEnum
from itertools import product
from math import nan
from typing import Any, TypeVar

from prometheus_client import Metric
from prometheus_client.registry import Collector

from extproc.access_log.teacher import Outcome
from extproc.core.errors import BodyFault, ResponseFault
from extproc.core.estimator.protocol import Refused
from extproc.core.listener import Misconfiguration
from extproc.core.placing.stratum import Stratum
from extproc.telemetry.labels import CountOutcome, PromptSize, Undecided, Verdict
from extproc.telemetry.tallies import PLAIN, Counters, Gauges, Histograms, Tally

__all__ = ["Series"]

STRATUM = Stratum._fields

T = TypeVar("T", Counters, Gauges, Histograms)

TOKEN_BUCKETS = (
    *(64, 128, 256, 512, 1024, 2048, 3072, 4096, 6144, 8192, 12288, 16384),
    *(24576, 32768, 49152, 65536, 98304, 131072),
)
# Narrow around 1, where the estimators differ.
RATIO_BUCKETS = (0.25, 0.5, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 1.0, 1.02, 1.05, 1.1, 1.15, 1.2, 1.3, 1.5, 2.0, 4.0)
SECONDS_BUCKETS = (5e-5, 1e-4, 1.5e-4, 2e-4, 3e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 5e-2, 0.2, 1.0)


class Series(Collector):
    """All metrics, to count in and for a registry to collect; those with a closed set of labels start at 0."""

    def __init__(self) -> None:
        self.tallies: list[Tally[Any]] = []
        self._of_placing()
        self._of_lengths()
        self._of_learning()
        self._of_faults()
        self._of_streams()
        self._of_pools()
        self._of_state()
        self._start_at_zero()

    def collect(self) -> Iterable[Metric]:
        """Called at each scrape, on another thread."""
        return [tally.collect() for tally in self.tallies]

    def _of_placing(self) -> None:
        """Where requests went."""
        self.requests = self._counter(
            "requests_total", "Requests for which a pool was chosen", "pool", "reason", "api", "model"
        )
        self.passed_requests = self._counter("passed_requests_total", "Requests that the router does not read")
        self.budget = self._histogram(
            "budget_tokens", "Upper bound of the token budget; it must fit the pool", TOKEN_BUCKETS, "model"
        )

    def _of_lengths(self) -> None:
        """How long prompts and outputs were, and how good the estimates were."""
        self.prompt = self._histogram(
            "actual_prompt_tokens", "Prompt tokens reported as usage", TOKEN_BUCKETS, "model"
        )
        self.completion = self._histogram(
            "actual_completion_tokens", "Output tokens reported as usage", TOKEN_BUCKETS, "model"
        )
        self.total = self._histogram(
            "actual_total_tokens", "Prompt and output tokens reported as usage", TOKEN_BUCKETS, "model"
        )
        self.ratio = self._histogram(
            "estimate_ratio", "Estimated / actual prompt tokens, before learning", RATIO_BUCKETS, "model"
        )
        self.bound_ratio = self._histogram(
            "bound_ratio", "Upper bound / actual prompt tokens, before learning", RATIO_BUCKETS, "model"
        )
        self.under_counted = self._counter(
            "under_counted_total", "Prompts that exceeded their upper bound", "model"
        )
        self.bounds = self._counter(
            "bounds_total",
            "Upper bounds compared with the prompt's actual length, by that length",
            "size",
            "verdict",
        )
        self.bounds_of_traffic = self._counter(
            "bounds_of_traffic_total",
            "Upper bounds compared with usage, each counted as the requests of its stratum since the previous one",
            "size",
            "verdict",
        )
        self.bounds_by_category = self._counter(
            "bounds_by_category_total",
            "Upper bounds compared with usage, by tenant or kind of text",
            "category",
            "verdict",
        )
        self.stratum_requests = self._counter(
            "stratum_requests_total",
            "Requests that were estimated, by declared output limit, estimated prompt and kind of response",
            *STRATUM,
        )
        self.stratum_judged = self._counter(
            "stratum_judged_total",
            "Estimated requests whose upper bound was compared with usage, by the same labels",
            *STRATUM,
            "verdict",
        )
        self.bounds_near = self._counter(
            "bounds_near_total",
            "Upper bounds of requests whose actual prompt plus budgeted output is within 20 % of a pool's budget",
            "pool",
            "verdict",
        )
        self.bytes_per_token = self._gauge(
            "bytes_per_token",
            "Prompt text bytes per prompt token, in the last response of the category",
            "model",
            "category",
        )
        self.estimates = self._counter("estimates_total", "Estimates, by source", "model", "source")
        self.counts = self._counter(
            "exact_counts_total", "Exact token counts of requests near a limit, by outcome", "outcome"
        )
        self.count_seconds = self._histogram(
            "exact_count_seconds", "Duration of an exact count, finished or not", SECONDS_BUCKETS
        )

    def _of_learning(self) -> None:
        """What was learned from and what was not."""
        self.refused = self._counter(
            "refused_observations_total", "Usage reports not learned from, by cause", "cause"
        )
        self.clipped = self._counter(
            "clipped_observations_total", "Usage reports that were clipped before learning", "model"
        )
        self.started_anew = self._counter(
            "models_started_anew_total",
            "Replacements of a model's prices by new ones, which predict its usage better",
            "model",
        )
        self.returned = self._counter(
            "models_returned_total",
            "Restorations of a model's previous prices, which predict its usage better than the new ones",
            "model",
        )
        self.truncated = self._counter(
            "truncated_by_pool_total", "Responses cut off at the end of the pool's context", "pool", "model"
        )
        self.not_learned_responses = self._counter(
            "responses_not_learned_total",
            "Responses of kept streams from which nothing was learned, by cause",
            "cause",
        )

    def _of_faults(self) -> None:
        """What went wrong, and by whose fault."""
        self.overflows = self._counter(
            "context_overflows_total", "Requests that a pool refused as too long", "pool", "model"
        )
        self.retries = self._counter(
            "retried_total",
            "Requests for a smaller pool whose response was read and came from a later attempt, at any pool",
            "pool",
        )
        self.bodies = self._counter(
            "bodies_not_understood_total", "Request bodies that were not understood, by cause", "cause"
        )
        self.misconfigurations = self._counter(
            "misconfigured_total", "Requests that could not be routed, or not reliably, by cause", "cause"
        )
        self.exceptions = self._counter("exceptions_total", "Exceptions in the router's own code, by type", "kind")
        self.access_log_entries = self._counter(
            "access_log_entries_total", "Entries of the gateway's access log, by outcome", "outcome"
        )

    def _of_streams(self) -> None:
        """The gateway's streams, and how the process copes with them."""
        self.kept_streams = self._counter("streams_kept_total", "Streams that were kept open for their response")
        self.released_streams = self._counter(
            "streams_released_total", "Streams that were closed with their decision"
        )
        self.open_streams = self._gauge("streams_open", "Open streams")
        self.streams = self._counter("streams_total", "Streams that have ended")
        self.undecided = self._counter(
            "streams_undecided_total", "Streams that ended before a decision, by cause", "cause"
        )
        self.shed_requests = self._counter(
            "shed_requests_total", "Requests sent to the default pool without a decision, because too many arrived"
        )
        self.queue_seconds = self._histogram(
            "queue_seconds",
            "Time that a message waits in the process before it is handled, sampled",
            SECONDS_BUCKETS,
        )
        self.decision_seconds = self._histogram(
            "decision_seconds", "Time from the request's arrival to its decision", SECONDS_BUCKETS
        )
        self.loop_lag = self._gauge("loop_lag_seconds", "Time that the last sampled message waited")
        self.ready = self._gauge("ready", "1 while the router is ready")
        self.draining = self._gauge("draining", "1 after SIGTERM")
        self.info = self._gauge(
            "info", "Always 1; the labels identify what is running", "version", "mode", "config_hash"
        )
        self.processing_seconds = self._histogram(
            "processing_seconds", "The router's own processing time per stream, without waiting", SECONDS_BUCKETS
        )

    def _of_pools(self) -> None:
        """What is known of the pools."""
        self.pool_endpoints = self._gauge(
            "pool_endpoints", "Servers of a pool that were polled in the last round", "pool"
        )
        self.pool_answered = self._gauge(
            "pool_endpoints_answered", "Servers of a pool that responded in the last round", "pool"
        )
        self.pool_models = self._gauge("pool_models", "Models that a pool is known to serve; 0 if unknown", "pool")
        self.pool_pressure = self._gauge(
            "pool_pressure", "How full a pool is: 1 at the limits of `spill`, NaN while unknown", "pool"
        )
        self.pool_spill_share = self._gauge(
            "pool_spill_share", "Share of a pool's requests that spill over to other pools", "pool"
        )
        self.pool_preemptions = self._gauge(
            "pool_preemptions", "Preemptions that a pool's servers have reported, in total", "pool"
        )

    def _of_state(self) -> None:
        """Saving and sharing of what is learned."""
        self.snapshots = self._counter(
            "state_snapshots_total", "Attempts to save learned state, by outcome", "outcome"
        )
        self.exchanges = self._counter(
            "state_exchanges_total", "Attempts to share learned state, by outcome", "outcome"
        )
        self.replicas = self._gauge("state_replicas", "Other replicas whose learned state is in use")
        self.saved_at = self._gauge(
            "state_saved_timestamp_seconds",
            "Unix time when learned state was last saved; NaN before the first time",
        )
        self.exchanged_at = self._gauge(
            "state_exchanged_timestamp_seconds",
            "Unix time when learned state was last shared; NaN before the first time",
        )

    def _start_at_zero(self) -> None:
        """Create every series of a closed set: Prometheus sees no increase when a series first appears with 1."""
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
            self.bounds[size, verdict] = self.bounds_of_traffic[size, verdict] = 0

    def _counter(self, name: str, text: str, *labels: str) -> Counters:
        return self._add(Counters(f"dualpool_{name.removesuffix('_total')}", text, labels))

    def _gauge(self, name: str, text: str, *labels: str) -> Gauges:
        return self._add(Gauges(f"dualpool_{name}", text, labels))

    def _histogram(self, name: str, text: str, bounds: tuple[float, ...], *labels: str) -> Histograms:
        return self._add(Histograms(f"dualpool_{name}", text, bounds, labels))

    def _add(self, tally: T) -> T:
        self.tallies.append(tally)
        return tally
