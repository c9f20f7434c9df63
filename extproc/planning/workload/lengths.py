"""Request lengths, the starting point of the planner."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from extproc.core.errors import ConfigurationError

__all__ = ["MAX_TOKENS", "Floats", "LeftOut", "Lengths", "Tokens", "from_means", "from_quantiles"]

Tokens = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

MAX_TOKENS = 10_000_000  # no model has a context this long; a larger number is bytes, milliseconds or a mistake


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Requests whose lengths the sources of a workload do not contain, of all `requests` that a router counted.

    The router sent `early` ones to the largest pool because of their size, before it had read them; `undecided`
    ones it did not estimate for other reasons, or never saw.
    """

    early: int = 0
    undecided: int = 0
    requests: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Lengths:
    """Requests of a workload: prompt and output tokens, each an int64 array of shape (requests,).

    `arrival_s` holds the trace's arrival times, counted from its first request, or is None; `start_s` is that
    request's time by the trace's own clock. `note` is a sentence on what the source does not contain. `budget`
    holds the tokens that a router really budgeted for each request, or is None if that was not measured; `cached`
    holds the prompt tokens in a prefix cache, None for none. `left_out` counts requests that the source had
    without their lengths.

    Raises ConfigurationError for lengths that no request can have.
    """

    prompt: Tokens
    output: Tokens
    source: str
    arrival_s: Floats | None = None
    note: str = ""
    budget: Tokens | None = None
    cached: Tokens | None = None
    start_s: float = 0.0
    left_out: LeftOut = LeftOut()

    def __post_init__(self) -> None:
        if len(self.prompt) == 0:
            raise ConfigurationError(f"{self.source}: it has no requests")
        for name, tokens in (("input", self.prompt), ("output", self.output)):
            low, high = int(tokens.min()), int(tokens.max())
            if low < 0:
                raise ConfigurationError(f"{self.source}: {name} tokens {low} are negative")
            if high > MAX_TOKENS:
                raise ConfigurationError(f"{self.source}: {name} tokens {high:,} are beyond {MAX_TOKENS:,}")

    @property
    def total(self) -> Tokens:
        """Prompt plus output tokens (the paper's L_total)."""
        return self.prompt + self.output

    def __len__(self) -> int:
        return len(self.prompt)

    def subset(self, chosen: npt.NDArray[np.bool_]) -> "Lengths":
        """Return the chosen requests, without arrival times; `chosen` is bool of shape (requests,)."""
        return self._taken(chosen)

    def drawn(self, requests: int, rng: np.random.Generator) -> "Lengths":
        """Draw requests with replacement; prompt and output of one request stay together."""
        return self._taken(rng.integers(0, len(self), requests))

    def _taken(self, index: npt.NDArray[np.bool_] | Tokens) -> "Lengths":
        budget = None if self.budget is None else self.budget[index]
        cached = None if self.cached is None else self.cached[index]
        return Lengths(self.prompt[index], self.output[index], self.source, None, self.note, budget, cached)

    def with_prompts(self) -> "Lengths":
        """Return the same lengths; raises ConfigurationError if all prompts are empty. Only whole workloads are
        asked: the part of one that a pool gets may have no other requests.
        """
        if int(self.prompt.max()) == 0:
            raise ConfigurationError(f"{self.source}: all prompts are empty")
        return self

    def noted(self, note: str) -> "Lengths":
        """Return the same lengths with another note."""
        return replace(self, note=note)

    @property
    def computed(self) -> Tokens:
        """Prompt tokens that must be computed because no prefix cache holds them."""
        return self.prompt if self.cached is None else self.prompt - self.cached


def from_means(mean_prompt: float, mean_output: float, requests: int, rng: np.random.Generator) -> Lengths:
    """Make lengths from their means alone.

    They are geometric: the distribution over whole numbers from 1 that assumes only its mean (maximum entropy).
    Real tails are heavier, so the share of long requests comes out too small.
    """
    if not all(1 <= mean <= MAX_TOKENS for mean in (mean_prompt, mean_output)):
        raise ConfigurationError(
            f"--mean-tokens {mean_prompt:g},{mean_output:g}: both must be from 1 to {MAX_TOKENS:,} tokens"
        )
    prompt = rng.geometric(1 / mean_prompt, requests)
    output = rng.geometric(1 / mean_output, requests)
    note = "Only the means are given: lengths are geometric and independent, and real tails are heavier."
    return Lengths(prompt, output, f"means of {mean_prompt:g} input and {mean_output:g} output tokens", None, note)


def from_quantiles(fraction: Floats, prompt: Floats, output: Floats, source: str, requests: int) -> Lengths:
    """Make lengths from points of their two distribution functions, interpolated linearly.

    The points do not say which prompt belongs to which output, so they are paired at random, with a fixed seed.
    Raises ConfigurationError if fractions or tokens are not finite or do not ascend.
    """
    for name, points in (("fraction", fraction), ("input", prompt), ("output", output)):
        if not bool(np.isfinite(points).all()):
            raise ConfigurationError(f"{source}: the {name} column of a CDF must hold finite numbers")
        if bool((np.abs(points) > MAX_TOKENS).any()):
            raise ConfigurationError(f"{source}: the {name} column of a CDF is beyond {MAX_TOKENS:,}")
        if len(points) == 0 or bool(np.any(np.diff(points) < 0)):
            raise ConfigurationError(f"{source}: the {name} column of a CDF must ascend and hold points")
    if fraction[0] < 0 or fraction[-1] != 1:
        raise ConfigurationError(f"{source}: CDF fractions must lie in 0..1 and end at 1, not at {fraction[-1]:g}")
    at = (np.arange(requests) + 0.5) / requests
    drawn = [np.interp(at, fraction, points).round().astype(np.int64) for points in (prompt, output)]
    np.random.default_rng(0).shuffle(drawn[1])
    note = "Input and output lengths come from separate distributions: they are paired at random."
    return Lengths(drawn[0], drawn[1], source, None, note)
