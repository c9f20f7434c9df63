"""The port behind which every estimator stands, and the frozen objects that cross it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

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
    """Why the estimator took nothing from a usage; a metric label."""

    EXACT = "exact"  # the prompt came as token ids: there is nothing to learn
    TRUNCATED = "truncated"  # the client asked for the prompt to be cut: usage is of the part that is left
    UNSEEN_HISTORY = "unseen_history"  # the prompt is not in the body as a whole
    IMPLAUSIBLE = "implausible"  # no tokenizer makes so many tokens, or so few, of the text
    NO_TEXT = "no_text"  # media alone explain the tokens
    NUMBERS = "numbers"  # prices could not be solved for with it


class Estimate(msgspec.Struct, frozen=True, gc=False):
    """Prompt and output tokens of one request, before it ran.

    `prompt_tokens` is the likeliest count, `prompt_bound` the one to route on (never below it); both hold media.
    `output_tokens` is per sequence: declared by the client, or the length that few exceed; `mean_output_tokens` is
    what such requests come to on average (None: not known). `evidence` is the estimator's own memory of what it
    looked at; it comes back unread in `observe`, so that no text is kept while the response runs.
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
    """What one response taught: the error before the update, and what came of the update.

    `ratio` is estimated / actual prompt tokens (before learning), `under_counted` whether the bound was below the
    truth. `refused` names why the estimator took nothing from it (None when it learned). `clipped` says that the
    usage was so far off that only part of the error was believed. `truncated_by_pool` says that the output ended
    where the pool's context did: the response was cut silently, and a larger pool would have said more.
    `started_anew` says that new prices took the place of the model's, since they predicted better; `returned` that
    those they had replaced came back.
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
        """Whether the usage tells how good the estimate was: not where a part was cut, or not in the body."""
        return self.refused is None or self.refused is Refused.EXACT


@dataclass(frozen=True, slots=True)
class CategoryState:
    """What is learned of one category.

    The paper's EMA has a mean and a deviation, in bytes per token. The byte-class model has the residual of its
    prices: mean and spread of log(actual / priced); its bytes per token are for people to look at. `weight` is
    what the row counts when it is merged (merging.py); 0 is what its observations come to.
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
    """What the byte-class estimator has learned of one served model; see its modules for the terms.

    `sums_a` is the upper triangle of A in rows, `sums_b` is b, in the order of the state's features; `scale_a` is
    the scale's A in rows, `scale_b` its b (packed numbers, as in packing.py); `q` is the bound's multiple.
    `weight` is how many responses the sums hold, faded; `generation` how often the model was started anew.
    `scores` are the last of those that moved q (packed), `q_began` q before the first of them, and `heard` how
    many have since the router has known the model: for replicas that share (sharing.py).
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
    heard: int = 0
    clipped: int = 0
    refused: int = 0
    truncated_by_pool: int = 0


@dataclass(frozen=True, slots=True)
class OutputState:
    """Output lengths of one category (key "" is the whole model): fading counts in bins of quarter octaves.

    `ended` and `cut` are packed numbers (packing.py), `observations` how many responses made them.
    """

    category: CategoryKey
    ended: bytes
    cut: bytes
    observations: int = 0


@dataclass(frozen=True, slots=True)
class LearnedState:
    """Everything an estimator has learned, for `/state` and for loading into another one of the same kind.

    `features` names what the sums of `models` are over; sums over other features cannot be loaded.
    """

    estimator_kind: str
    categories: tuple[CategoryState, ...] = ()
    features: tuple[str, ...] = ()
    models: tuple[ModelState, ...] = ()
    outputs: tuple[OutputState, ...] = ()

    @classmethod
    def joined(cls, parts: Sequence["LearnedState"]) -> "LearnedState":
        """Return the rows of all parts of one estimator's state together."""
        return cls(
            parts[0].estimator_kind,
            tuple(row for part in parts for row in part.categories),
            parts[0].features,
            tuple(row for part in parts for row in part.models),
            tuple(row for part in parts for row in part.outputs),
        )


class Estimator(Protocol):
    """Estimates requests, and learns from their responses. Not thread-safe: one event loop owns it."""

    def estimate(self, facts: RequestFacts, tenant: str) -> Estimate:
        """Estimate one request; `tenant` is the value of the configured header or ""."""
        ...

    def observe(self, estimate: Estimate, usage: Usage, pool_tokens: int | None = None) -> Learning:
        """Learn from the complete response to the request that `estimate` was made for.

        `pool_tokens` is the context of the pool that answered, when known.
        """
        ...

    def observe_overflow(self, estimate: Estimate, overflow: Overflow) -> None:
        """Learn from a refusal: the prompt was at least so long."""
        ...

    def know_parents(self, parents: Mapping[str, str]) -> None:
        """Take in the base models of adapters, as pools report them; may be called on any thread."""
        ...

    def undo(self, model: str) -> bool:
        """Put back what new prices of a model have replaced; False where nothing was, or nothing ever is."""
        ...

    def state(self) -> LearnedState:
        """Return what is learned so far."""
        ...

    def parts(self) -> Sequence[Callable[[], LearnedState]]:
        """Return calls that each make a part of `state`, so short that requests may wait for it."""
        ...

    def shift(self, change: Change) -> Change:
        """Add what others have learned; return what of it could not be, because its row is another by now."""
        ...

    def load(self, state: LearnedState) -> None:
        """Start from what another estimator of the same kind learned; a state of another kind is refused.

        Raises ConfigurationError when `state.estimator_kind` or the features are others.
        """
        ...
