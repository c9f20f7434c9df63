"""The protocol that every estimator implements, and the immutable objects that cross it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

import msgspec

from extproc.core.estimator.change import CategoryKey, Change
from extproc.core.facts import RequestFacts
from extproc.core.usage import Overflow, Usage

__all__ = [
    "CategoryKey",
    "CategoryState",
    "Estimate",
    "Estimator",
    "LearnedState",
    "Learning",
    "ModelState",
    "OutputState",
    "Refused",
    "Source",
]


class Source(StrEnum):
    """Where an estimate comes from; a metric label."""

    EXACT = "exact"  # the prompt came as token ids
    LEARNED = "learned"
    YOUNG = "young"  # learned, from few observations
    PRIOR = "prior"  # nothing learned yet


class Refused(StrEnum):
    """Why the estimator did not learn from a usage; a metric label."""

    EXACT = "exact"  # the prompt came as token ids: there is nothing to learn
    TRUNCATED = "truncated"  # the server cut the prompt, or left tools out: usage counts the part that is left
    TOOLS = "tools"  # the prompt has the tools that it was estimated without
    UNSEEN_HISTORY = "unseen_history"  # part of the prompt is not in the body
    IMPLAUSIBLE = "implausible"  # no tokenizer makes that many tokens, or that few, of the text
    NO_TEXT = "no_text"  # media alone explain the tokens
    NUMBERS = "numbers"  # with this usage included, the prices could not be solved for


_JUDGED: Final = (None, Refused.EXACT, Refused.TOOLS)


class Estimate(msgspec.Struct, frozen=True, gc=False):
    """Prompt and output tokens of one request, before it ran.

    `prompt_tokens` is the most likely count, `prompt_bound` the one to route on (never below it); both include
    media. `output_tokens` is per sequence: declared by the client, or the length that few responses exceed;
    `mean_output_tokens` is the average for such requests (None: not known). `evidence` is the estimator's private
    record of the request; it is passed back unread to `observe`, so no text is kept during the response.
    """

    prompt_tokens: float
    prompt_bound: float
    output_tokens: int
    output_declared: bool
    source: Source
    category: CategoryKey
    evidence: object = None
    mean_output_tokens: float | None = None


class Learning(msgspec.Struct, frozen=True, gc=False):
    """What one response taught: the error before the update, and the result of the update.

    `ratio` is estimated / actual prompt tokens (before learning); `under_counted` says that the actual tokens
    exceeded the bound. `refused` says why the estimator did not learn from it (None if it did). `clipped` says
    that the usage was so far off that only part of the error was believed. `truncated_by_pool` says that the
    output ended where the pool's context did: the response was cut silently, and would have been longer in a
    larger pool. `started_anew` says that new prices replaced the model's because they predicted better; `returned`
    says that previously replaced prices were restored for the same reason.
    """

    ratio: float
    under_counted: bool
    bytes_per_token: float
    clipped: bool = False
    refused: Refused | None = None
    truncated_by_pool: bool = False
    started_anew: bool = False
    returned: bool = False

    @property
    def is_judged(self) -> bool:
        """Whether the usage shows how good the estimate was: not if it was refused, except as EXACT or TOOLS."""
        return self.refused in _JUDGED


@dataclass(frozen=True, slots=True)
class CategoryState:
    """What is learned about one category.

    The paper's EMA has a mean and a deviation, in bytes per token. The byte-class model has the residual of its
    prices: mean and spread of log(actual / priced); its bytes per token are only for display. `weight` is the
    row's weight in a merge (merging.py); 0 means the weight that follows from its observations.
    """

    category: CategoryKey
    bytes_per_token: float
    deviation: float
    observations: int
    residual: float = 0.0
    spread: float = 0.0
    weight: float = 0.0


@dataclass(frozen=True, slots=True)
class ModelState:
    """What the byte-class estimator has learned about one served model; see its modules for the terms.

    `sums_a` is the upper triangle of A by rows, `sums_b` is b, in the order of the state's features; `scale_a` is
    the scale's A by rows, `scale_b` its b (packed numbers, as in packing.py); `q` is the bound's multiple.
    `weight` is the faded number of responses in the sums; `generation` counts how often the model's prices were
    replaced. For replicas that share (sharing.py): `scores` are the last scores that moved q (packed), `q_began`
    is q before the first of them, and `scored` counts all scores since the router has known the model.
    """

    model: str
    observations: int
    sums_a: bytes
    sums_b: bytes
    scale_a: bytes
    scale_b: bytes
    q: float
    residual: float
    spread: float
    weight: float = 0.0
    generation: int = 0
    q_began: float = 0.0
    scores: bytes = b""
    scored: int = 0
    clipped: int = 0
    refused: int = 0
    truncated_by_pool: int = 0


@dataclass(frozen=True, slots=True)
class OutputState:
    """Output lengths of one category (key "" is the whole model): fading counts in bins of quarter octaves.

    `ended` and `cut` are packed numbers (packing.py); `observations` is the number of responses counted.
    """

    category: CategoryKey
    ended: bytes
    cut: bytes
    observations: int = 0


@dataclass(frozen=True, slots=True)
class LearnedState:
    """Everything an estimator has learned, for `/state` and for loading into another one of the same kind.

    `features` names the features that the sums in `models` are over; sums over other features cannot be loaded.
    """

    estimator_kind: str
    categories: tuple[CategoryState, ...] = ()
    features: tuple[str, ...] = ()
    models: tuple[ModelState, ...] = ()
    outputs: tuple[OutputState, ...] = ()

    @classmethod
    def joined(cls, parts: Sequence["LearnedState"]) -> "LearnedState":
        """Return all rows of the parts of one estimator's state."""
        return cls(
            parts[0].estimator_kind,
            tuple(row for part in parts for row in part.categories),
            parts[0].features,
            tuple(row for part in parts for row in part.models),
            tuple(row for part in parts for row in part.outputs),
        )


class Estimator(Protocol):
    """Estimates requests, and learns from their responses. Not thread-safe: owned by one event loop."""

    def estimate(self, facts: RequestFacts, tenant: str) -> Estimate:
        """Estimate one request; `tenant` is the value of the configured header or ""."""
        ...

    def observe(self, estimate: Estimate, usage: Usage, pool_tokens: int | None = None) -> Learning:
        """Learn from the complete response to the request that `estimate` was made for.

        `pool_tokens` is the context of the pool that answered, if known.
        """
        ...

    def observe_overflow(self, estimate: Estimate, overflow: Overflow) -> None:
        """Learn from a refusal: the prompt was at least that long."""
        ...

    def know_parents(self, parents: Mapping[str, str]) -> None:
        """Store the base models of adapters, as pools report them; may be called on any thread."""
        ...

    def undo(self, model: str) -> bool:
        """Restore the prices that a model had before they were replaced; return False if they never were."""
        ...

    def state(self) -> LearnedState:
        """Return what is learned so far."""
        ...

    def parts(self) -> Sequence[Callable[[], LearnedState]]:
        """Return functions that each build a part of `state`, so quickly that requests can wait for one."""
        ...

    def shift(self, change: Change) -> Change:
        """Add what others learned; return the changes that could not be applied because their rows changed."""
        ...

    def load(self, state: LearnedState) -> None:
        """Start from what another estimator of the same kind learned.

        Raises ConfigurationError if `state.estimator_kind` or the features differ.
        """
        ...
