"""The router's metrics by subject: their names, help texts, labels and buckets.

A new metric is declared here, or in estimate_series.py, and counted in metrics.py; docs/metrics.md is generated
from the declarations.
"""

from enum import StrEnum
from itertools import product
from math import nan

from extproc.access_log.teacher import Outcome
from extproc.core.errors import BodyFault, ResponseFault
from extproc.core.estimator.protocol import Refused
from extproc.core.listener import Misconfiguration
from extproc.telemetry.estimate_series import EstimateSeries
from extproc.telemetry.labels import Attempt, CountOutcome, FollowedFiles, PromptSize, Undecided, Verdict
from extproc.telemetry.tallies import PLAIN, Counters
from extproc.telemetry.tally_set import SECONDS_BUCKETS, TOKEN_BUCKETS

__all__ = ["Series"]


class Series(EstimateSeries):
    """All metrics of requests, streams and pools; those with a closed set of labels start at 0."""

    def __init__(self) -> None:
        super().__init__()
        self._of_placing()
        self._of_lengths()
        self._of_bounds()
        self._of_estimates()
        self._of_learning()
        self._of_faults()
        self._of_streams()
        self._of_pools()
        self._of_state()
        self._start_at_zero()

    def _of_placing(self) -> None:
        """Where requests went."""
        self.requests = self._counter(
            "requests_total", "Requests for which a pool was chosen", "pool", "reason", "api", "model"
        )
        self.passed_requests = self._counter("passed_requests_total", "Requests that the router does not read")
        self.budget = self._histogram(
            "budget_tokens", "Upper bound of the token budget; it must fit the pool", TOKEN_BUCKETS, "model"
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
            "misconfigured_total",
            "Requests that could not be routed, or not reliably, or whose response could not be read, by cause",
            "cause",
        )
        self.exceptions = self._counter("exceptions_total", "Exceptions in the router's own code, by type", "kind")
        self.access_log_entries = self._counter(
            "access_log_entries_total", "Entries of the gateway's access log, by outcome", "outcome"
        )
        self.evidence_sent = self._counter(
            "evidence_sent_total",
            "Decisions sent with evidence for the gateway's access log; each should come back in an entry",
        )
        self.evidence_left_out = self._counter(
            "evidence_left_out_total",
            "Decisions that did not fit into the gateway's access log, because names are long; they teach nothing",
        )

    def _of_streams(self) -> None:
        """The gateway's streams, and how the process copes with them."""
        self.kept_streams = self._counter("streams_kept_total", "Streams that were kept open for their response")
        self.released_streams = self._counter(
            "streams_released_total", "Streams that were closed with their decision"
        )
        self.streams_without_slot = self._counter(
            "streams_without_slot_total",
            "Streams that were not kept because too many others were being read (learning.max_streams)",
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
        self.drain_ends_at = self._gauge(
            "drain_ends_timestamp_seconds",
            "Unix time when a drain has ended at the latest, if nothing hangs; NaN before it begins",
        )
        self.info = self._gauge(
            "info", "Always 1; the labels identify what is running", "version", "mode", "config_hash"
        )
        self.files_not_in_force = self._gauge(
            "files_not_in_force",
            "1 while the renewed files of a setting cannot be used and the ones read before stay in use",
            "setting",
        )
        self.certificate_from = self._gauge(
            "certificate_valid_from_timestamp_seconds",
            "Unix time from which the certificate of `listen.tls` in use is valid; NaN without one",
        )
        self.certificate_until = self._gauge(
            "certificate_valid_until_timestamp_seconds",
            "Unix time until which the certificate of `listen.tls` in use is valid; NaN without one",
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
            "pool_endpoints_answered",
            "Servers of a pool that responded in the last round; with `spill.enabled`, with their load",
            "pool",
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
        self.saving_failed = self._gauge(
            "state_saving_failed", "1 if the last attempt to save learned state failed; NaN before the first one"
        )
        self.sharing_failed = self._gauge(
            "state_sharing_failed", "1 if the last attempt to share learned state failed; NaN before the first one"
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
            (self.snapshots, Attempt),
            (self.exchanges, Attempt),
        )
        for setting in FollowedFiles:
            self.files_not_in_force[setting,] = 0.0
        for gauge in (
            self.certificate_from,
            self.certificate_until,
            self.drain_ends_at,
            self.saved_at,
            self.exchanged_at,
            self.saving_failed,
            self.sharing_failed,
        ):
            gauge[PLAIN] = nan
        for counter, values in closed:
            for value in values:
                counter[value,] = 0
        for size, verdict in product(PromptSize, Verdict):
            self.bounds[size, verdict] = self.bounds_of_traffic[size, verdict] = 0
