"""Command-line options that describe the workload, and the lengths and rate that follow from them."""

from dataclasses import dataclass, replace

import numpy as np

from extproc.core.errors import ConfigurationError
from extproc.planning.workload.inputs import lengths_of_means, live_input, load_traces
from extproc.planning.workload.lengths import Lengths

__all__ = ["WorkloadOptions", "workload_of"]

MAX_RATE = 1e9
BLOCK_TOKENS = 16  # vLLM caches prefixes in whole blocks


@dataclass(frozen=True, slots=True)
class WorkloadOptions:
    """Options that describe the workload; exactly one of `trace`, `metrics` and `mean_tokens` is given.

    `trace` holds files; `metrics` holds addresses, or files of scrapes `scrape_interval` seconds apart;
    `mean_tokens` is `INPUT,OUTPUT`. `rate` is in requests per second; if it is None, two scrapes give it.
    `prefix_cache` is `none`, `trace` (by the trace's hash_ids) or the share of prompt tokens in the cache.
    `metrics_model` is the only model of the scrapes to plan for.
    """

    trace: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    mean_tokens: str | None = None
    rate: float | None = None
    scrape_interval: float | None = None
    prefix_cache: str = "none"
    metrics_model: str | None = None


def workload_of(options: WorkloadOptions) -> tuple[Lengths, float]:
    """Read the lengths from the chosen source, and the rate in requests per second.

    Raises ConfigurationError if options conflict or a source cannot be read.
    """
    if sum(map(bool, (options.trace, options.metrics, options.mean_tokens is not None))) != 1:
        raise ConfigurationError("exactly one of --trace, --metrics and --mean-tokens is needed")
    rate = options.rate
    if rate is not None and not 0 < rate <= MAX_RATE:
        raise ConfigurationError(f"--rate {rate:g}: requests per second must be positive and at most {MAX_RATE:g}")
    if options.trace:
        lengths = load_traces(options.trace)
    elif options.metrics:
        live = live_input(options.metrics, options.scrape_interval, options.metrics_model, needs_rate=rate is None)
        lengths, rate = live.lengths.with_prompts(), rate if rate is not None else live.rate
    else:
        lengths = lengths_of_means(options.mean_tokens or "")
    if rate is None:
        more = "the seconds between the two scrapes, with --scrape-interval, give it, too"
        more = more if len(options.metrics) > 1 else "or two scrapes and --scrape-interval"
        raise ConfigurationError(f"--rate is needed: requests per second ({more})")
    return _with_cache(lengths, options.prefix_cache), rate


def _with_cache(lengths: Lengths, asked: str) -> Lengths:
    """Return the lengths with the tokens of each prompt that a prefix cache holds."""
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
