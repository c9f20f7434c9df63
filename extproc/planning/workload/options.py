"""Where the workload comes from, as the command line asks for it."""

from dataclasses import dataclass, replace

import numpy as np

from extproc.core.errors import ConfigurationError
from extproc.planning.workload.inputs import lengths_of_means, live_input, load_traces
from extproc.planning.workload.lengths import Lengths

__all__ = ["WorkloadOptions", "workload_of"]

MAX_RATE = 1e9
BLOCK_TOKENS = 16  # a cached prefix is whole blocks of vLLM


@dataclass(frozen=True, slots=True)
class WorkloadOptions:
    """One of `trace` (files), `metrics` (addresses or files of scrapes, `scrape_interval` seconds apart) and
    `mean_tokens` (`INPUT,OUTPUT`); `rate` in requests per second, where the scrapes do not tell it. `prefix_cache`
    is `none`, `trace` (what the trace's hash_ids say) or the share of prompt tokens that are found there.
    `metrics_model` names the one model of the scrapes that is planned.
    """

    trace: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    mean_tokens: str | None = None
    rate: float | None = None
    scrape_interval: float | None = None
    prefix_cache: str = "none"
    metrics_model: str | None = None


def workload_of(options: WorkloadOptions) -> tuple[Lengths, float]:
    """Read the lengths, from wherever they come, and the rate in requests per second.

    Raises ConfigurationError for options that do not go together, and for what cannot be read.
    """
    if sum(map(bool, (options.trace, options.metrics, options.mean_tokens is not None))) != 1:
        raise ConfigurationError("one of --trace, --metrics and --mean-tokens is needed")
    if options.scrape_interval is not None and not options.metrics:
        raise ConfigurationError(f"--scrape-interval {options.scrape_interval:g}: is only used with --metrics")
    if options.metrics_model is not None and not options.metrics:
        raise ConfigurationError(f"--metrics-model {options.metrics_model}: is only used with --metrics")
    rate = options.rate
    if options.trace:
        lengths = load_traces(options.trace)
    elif options.metrics:
        live = live_input(options.metrics, options.scrape_interval, options.metrics_model)
        lengths, rate = live.lengths, rate if rate is not None else live.rate
    else:
        lengths = lengths_of_means(options.mean_tokens or "")
    if rate is None:
        raise ConfigurationError("--rate is needed: requests per second (or two scrapes and --scrape-interval)")
    if not 0 < rate <= MAX_RATE:
        raise ConfigurationError(f"rate {rate:g}: requests per second must be positive and at most {MAX_RATE:g}")
    return _with_cache(lengths, options.prefix_cache), rate


def _with_cache(lengths: Lengths, asked: str) -> Lengths:
    """Return the lengths with what a prefix cache holds of each prompt."""
    if asked == "none":
        return replace(lengths, cached=None)
    if asked == "trace":
        if lengths.cached is None:
            raise ConfigurationError(f"--prefix-cache trace: {lengths.source} has no hash_ids")
        return lengths
    try:
        share = float(asked)
    except ValueError as error:
        raise ConfigurationError(f"--prefix-cache {asked!r}: none, trace or a share is needed") from error
    if not 0 <= share < 1:
        raise ConfigurationError(f"--prefix-cache {asked}: a share from 0 to below 1 is needed")
    blocks = np.minimum(lengths.prompt * share, np.maximum(lengths.prompt - 1, 0)) // BLOCK_TOKENS
    return replace(lengths, cached=(blocks * BLOCK_TOKENS).astype(np.int64))
