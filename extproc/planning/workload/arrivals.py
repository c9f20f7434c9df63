"""The requests of one simulation: arrival times, lengths, declared max_tokens, and texts."""

from dataclasses import dataclass

import numpy as np

from extproc.core.errors import ConfigurationError
from extproc.planning.workload.declared import DeclaredRule, declared_tokens
from extproc.planning.workload.lengths import Floats, Lengths, Tokens
from extproc.planning.workload.texts import Texts, draw_texts

__all__ = ["Workload", "check_arrivals", "check_gaps", "poisson_workload", "trace_workload"]

MOST_WITHOUT = 0.5  # of a trace's time
FEWEST_TO_TELL = 10


@dataclass(frozen=True, slots=True, eq=False)
class Workload:
    """Requests in order of arrival; all arrays have shape (requests,).

    `declared` is None if no client declares max_tokens; `cached` (prompt tokens) is None if nothing is cached.
    """

    arrival_s: Floats
    prompt: Tokens
    output: Tokens
    declared: Tokens | None
    texts: Texts
    cached: Tokens | None = None

    def __len__(self) -> int:
        return len(self.prompt)


def poisson_workload(
    lengths: Lengths, rate: float, requests: int, rule: DeclaredRule, rng: np.random.Generator
) -> Workload:
    """Draw requests with replacement, arriving as a Poisson process of `rate` per second."""
    _check_rate(rate)
    return _workload(lengths.drawn(requests, rng), np.cumsum(rng.exponential(1 / rate, requests)), rule, rng)


def trace_workload(lengths: Lengths, rate: float, rule: DeclaredRule, rng: np.random.Generator) -> Workload:
    """Take the trace's requests and the gaps between them, stretched or compressed to `rate` on average.

    Raises ConfigurationError if the trace has no arrival times or all are the same.
    """
    _check_rate(rate)
    arrival = _within_ticks(check_arrivals(lengths))
    return _workload(lengths, arrival * (len(lengths) / rate / arrival[-1]), rule, rng)


def check_arrivals(lengths: Lengths) -> Floats:
    """Return a trace's arrival times.

    Raises ConfigurationError if it has none, if all are the same, or if nothing arrives for most of the time, as
    in traces of different months: the requests would have to arrive at many times the rate.
    """
    arrival = lengths.arrival_s
    if arrival is None or arrival[-1] <= 0:
        raise ConfigurationError(
            f"{lengths.source}: it has no arrival times; only Poisson arrivals can be simulated"
        )
    check_gaps(arrival, lengths.source, "to simulate its arrival times")
    return arrival


def check_gaps(arrival_s: Floats, name: str, use: str) -> None:
    """Raise ConfigurationError if nothing arrives for most of a trace's time; `use` is what the times are for."""
    longest_s, all_s = float(np.diff(arrival_s).max()), float(arrival_s[-1])
    if longest_s > MOST_WITHOUT * all_s and len(arrival_s) >= FEWEST_TO_TELL:
        raise ConfigurationError(
            f"{name}: nothing arrives for {longest_s / 3600:.3g} of its {all_s / 3600:.3g} hours; "
            f"{use} it needs requests throughout"
        )


def _within_ticks(arrival_s: Floats) -> Floats:
    """Spread the requests that share a time over the tick of the trace's clock, at random but always alike.

    BurstGPT counts whole seconds and Mooncake steps of three: taken as they are, ten requests would arrive at the
    same moment. Where times are exact the tick is tiny, and nothing moves.
    """
    times, place = np.unique(arrival_s, return_inverse=True)
    tick_s = float(np.diff(times).min())
    within = np.random.default_rng(0).random(len(arrival_s)) * tick_s
    within[np.searchsorted(arrival_s, times)] = 0.0  # requests that are alone stay where they are
    spread: Floats = np.sort(times[place] + within)
    return spread


def _workload(lengths: Lengths, arrival_s: Floats, rule: DeclaredRule, rng: np.random.Generator) -> Workload:
    prompt, output = np.maximum(lengths.prompt, 1), np.maximum(lengths.output, 1)
    return Workload(
        arrival_s, prompt, output, declared_tokens(lengths, rule), draw_texts(prompt, rng), lengths.cached
    )


def _check_rate(rate: float) -> None:
    if not rate > 0 or rate == float("inf"):
        raise ConfigurationError(f"rate {rate:g}: requests per second must be positive")
