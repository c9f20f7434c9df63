"""The metrics of estimates: lengths, how good the estimates and their upper bounds were, and what was learned."""

from extproc.core.placing.stratum import Stratum
from extproc.telemetry.tally_set import RATIO_BUCKETS, SECONDS_BUCKETS, TOKEN_BUCKETS, TallySet

__all__ = ["EstimateSeries"]

STRATUM = Stratum._fields


class EstimateSeries(TallySet):
    """Metrics of the estimates by subject; a subclass calls the methods that declare them."""

    def _of_lengths(self) -> None:
        """Declare the metrics of lengths, and of how far estimates and bounds were off."""
        self.prompt = self._histogram(
            "actual_prompt_tokens",
            "Prompt tokens reported as usage; each response counts for the requests of its stratum since the "
            "previous one",
            TOKEN_BUCKETS,
            "model",
        )
        self.completion = self._histogram(
            "actual_completion_tokens",
            "Output tokens reported as usage, counted in the same way",
            TOKEN_BUCKETS,
            "model",
        )
        self.total = self._histogram(
            "actual_total_tokens",
            "Prompt and output tokens reported as usage, counted in the same way",
            TOKEN_BUCKETS,
            "model",
        )
        self.ratio = self._histogram(
            "estimate_ratio", "Estimated / actual prompt tokens, before learning", RATIO_BUCKETS, "model"
        )
        self.bound_ratio = self._histogram(
            "bound_ratio", "Upper bound / actual prompt tokens, before learning", RATIO_BUCKETS, "model"
        )

    def _of_bounds(self) -> None:
        """Declare the metrics of how often upper bounds held, in all and by part of the traffic."""
        self.under_counted = self._counter(
            "under_counted_total", "Prompts that exceeded their upper bound", "model"
        )
        self.bounds = self._counter(
            "bounds_total",
            "Upper bounds compared with the prompt's actual length, by that length",
            "size",
            "verdict",
        )
        self.bound_epsilon = self._gauge(
            "bound_epsilon",
            "Share of prompts that may exceed their bound (estimator.byteclass.epsilon); NaN if none is promised",
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

    def _of_estimates(self) -> None:
        """Declare the metrics of where estimates come from, and of exact counts."""
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
        """Declare the metrics of learning: what was learned from, and what was not."""
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
        self.responses_read = self._counter(
            "responses_read_total",
            "Responses whose head was read, from a kept stream or the access log, by the pool that sent them",
            "pool",
        )
        self.truncated = self._counter(
            "truncated_by_pool_total", "Responses cut off at the end of the pool's context", "pool", "model"
        )
        self.not_learned_responses = self._counter(
            "responses_not_learned_total",
            "Responses of kept streams from which nothing was learned, by cause",
            "cause",
        )
