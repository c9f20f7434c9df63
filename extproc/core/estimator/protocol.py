"""The port behind which every estimator stands, and the frozen objects that cross it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from extproc.core.facts import RequestFacts
from extproc.core.usage import Overflow, Usage

__all__ = ["CategoryKey", "CategoryState", "Estimate", "Estimator", "LearnedState", "Learning", "Source"]


class Source(StrEnum):
    """Where an estimate comes from; a metric label."""

    EXACT = "exact"  # the prompt came as token ids
    LEARNED = "learned"
    YOUNG = "young"  # learned, from few observations
    PRIOR = "prior"  # nothing learned yet


@dataclass(frozen=True, slots=True)
class CategoryKey:
    """What an estimate is learned by: the served model, and a tenant or else the kind of text."""

    model: str
    key: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """Prompt and output tokens of one request, before it ran.

    `prompt_tokens` is the likeliest count, `prompt_bound` the one to route on (never below it); both hold media.
    `output_tokens` is per sequence: declared by the client, or expected. `evidence` is the estimator's own memory
    of what it looked at; it comes back unread in `observe`, so that no text is kept while the answer runs.
    """

    prompt_tokens: float
    prompt_bound: float
    output_tokens: int
    output_declared: bool
    source: Source
    category: CategoryKey
    evidence: object = None


@dataclass(frozen=True, slots=True)
class Learning:
    """What one answer taught: the error before the update, and what came of the update.

    `ratio` is estimated / actual prompt tokens (before learning), `under_counted` whether the bound was below the
    truth. `refused` names why the estimator took nothing from it (None when it learned).
    """

    ratio: float
    under_counted: bool
    bytes_per_token: float
    clipped: bool = False
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class CategoryState:
    """What is learned of one category."""

    category: CategoryKey
    bytes_per_token: float
    deviation: float
    observations: int


@dataclass(frozen=True, slots=True)
class LearnedState:
    """Everything an estimator has learned, for `/state` and for loading into another one of the same kind."""

    estimator_kind: str
    categories: tuple[CategoryState, ...] = ()


class Estimator(Protocol):
    """Estimates requests, and learns from their answers. Not thread-safe: one event loop owns it."""

    def estimate(self, facts: RequestFacts, tenant: str) -> Estimate:
        """Estimate one request; `tenant` is the value of the configured header or ""."""
        ...

    def observe(self, estimate: Estimate, usage: Usage) -> Learning:
        """Learn from the complete answer to the request that `estimate` was made for."""
        ...

    def observe_overflow(self, estimate: Estimate, overflow: Overflow) -> None:
        """Learn from a refusal: the prompt was at least so long."""
        ...

    def state(self) -> LearnedState:
        """Return what is learned so far."""
        ...

    def load(self, state: LearnedState) -> None:
        """Start from what another estimator of the same kind learned; a state of another kind is refused.

        Raises ConfigurationError when `state.estimator_kind` is another one.
        """
        ...
