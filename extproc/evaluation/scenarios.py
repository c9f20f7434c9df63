"""What is run: streams for several seeds, every contestant on each, and ours again where it is hard."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from extproc.evaluation.contestants import CONTESTANTS, byte_class
from extproc.evaluation.measure import Figures, Run, figures, run
from extproc.evaluation.prices import fitted_prices
from extproc.evaluation.requests import Lengths, Request, fixed_stream, traffic_stream
from extproc.evaluation.texts import Texts, halves
from extproc.evaluation.tokenizers import Tokenizer

__all__ = ["IN_FLIGHT", "OURS", "Comparison", "Material", "Plan", "compare"]

OURS = "byte classes"
POISONED_SHARE = 0.01
POISON_FACTORS = (10.0, 0.1)
FLIPPED_SHARE = 0.9
IN_FLIGHT = 100  # what a pool of a few replicas has running at a time


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is run: requests of each stream, the seeds, and where the short pool ends (tokens)."""

    fixed_requests: int = 1_500
    traffic_requests: int = 3_000
    warm_up: int = 500
    seeds: tuple[int, ...] = (1, 2, 3, 4, 5)
    threshold: int = 4_096


@dataclass(frozen=True, slots=True)
class Comparison:
    """All figures of one tokenizer, a tuple of them over the seeds; curves are of the first seed's traffic."""

    tokenizer: str
    fixed: dict[str, tuple[Figures, ...]]
    traffic: dict[str, tuple[Figures, ...]]
    unseen: tuple[Figures, ...]
    flipped: tuple[Figures, ...]
    poisoned: tuple[Figures, ...]
    late: tuple[Figures, ...]
    late_flipped: tuple[Figures, ...]
    foreign_prior: tuple[Figures, ...]  # cold start from prices fitted to the other tokenizers; () without any
    rare: Figures
    rare_flipped: Figures
    rare_requests: int
    curves: dict[str, Run]


@dataclass(frozen=True, slots=True)
class Material:
    """What streams are made of."""

    texts: Texts
    lengths: Lengths


def compare(
    material: Material, tokenizer: Tokenizer, others: Sequence[Tokenizer], plan: Plan, say: Callable[[str], None]
) -> Comparison:
    """Run everything for one tokenizer; `say` hears of the progress."""
    say(f"{tokenizer.name}: making streams")
    texts = material.texts
    fixed = [list(fixed_stream(texts, tokenizer, plan.fixed_requests, seed)) for seed in plan.seeds]
    traffic = [
        list(traffic_stream(texts, tokenizer, material.lengths, plan.traffic_requests, seed))
        for seed in plan.seeds
    ]
    unseen = [_unseen(texts, tokenizer, plan, seed) for seed in plan.seeds]
    tokenizer.save()
    everything = list(chain.from_iterable(traffic))
    say(f"{tokenizer.name}: running {len(everything):,} requests of traffic, and the rest")
    seeded = list(zip(plan.seeds, fixed, traffic, strict=True))
    return Comparison(
        tokenizer=tokenizer.name,
        fixed=_contest(fixed, plan),
        traffic=_contest(traffic, plan),
        unseen=tuple(_ours(stream, plan) for stream in unseen),
        flipped=tuple(_ours(_flip(stream, seed), plan) for seed, _, stream in seeded),
        poisoned=tuple(_ours(stream, plan, told=_poison(stream, seed)) for seed, stream, _ in seeded),
        late=tuple(_ours(stream, plan, in_flight=IN_FLIGHT) for stream in traffic),
        late_flipped=tuple(_ours(_flip(stream, seed), plan, in_flight=IN_FLIGHT) for seed, _, stream in seeded),
        foreign_prior=_foreign_prior(texts, others, fixed, plan),
        rare=_ours(everything, plan, epsilon=0.001),
        rare_flipped=_ours(_flip(everything, 0), plan, epsilon=0.001),
        rare_requests=len(everything),
        curves={name: run(make(), traffic[0]) for name, make in CONTESTANTS.items()},
    )


def _contest(streams: Sequence[Sequence[Request]], plan: Plan) -> dict[str, tuple[Figures, ...]]:
    """Run every contestant through every stream."""
    return {
        name: tuple(figures(run(make(), stream), plan.warm_up, plan.threshold) for stream in streams)
        for name, make in CONTESTANTS.items()
    }


def _ours(
    stream: Sequence[Request],
    plan: Plan,
    told: Sequence[int] | None = None,
    epsilon: float = 0.01,
    in_flight: int = 0,
) -> Figures:
    return figures(run(byte_class(epsilon), stream, told, in_flight), plan.warm_up, plan.threshold)


def _foreign_prior(
    texts: Texts, others: Sequence[Tokenizer], streams: Sequence[Sequence[Request]], plan: Plan
) -> tuple[Figures, ...]:
    """Run from prior prices that were fitted to the other tokenizers only; () when there are none."""
    if not others:
        return ()
    seed = plan.seeds[0]
    prices = fitted_prices([list(fixed_stream(texts, other, plan.fixed_requests, seed)) for other in others])
    for other in others:
        other.save()
    contestants = (byte_class(text_prices=prices) for _ in streams)
    return tuple(
        figures(run(contestant, stream), plan.warm_up, plan.threshold)
        for contestant, stream in zip(contestants, streams, strict=True)
    )


def _unseen(texts: Texts, tokenizer: Tokenizer, plan: Plan, seed: int) -> list[Request]:
    """Return a fixed stream that draws from the first half of every text in the warm-up, then from the second."""
    known, unknown = halves(texts)
    later = plan.fixed_requests - plan.warm_up
    return [
        *fixed_stream(known, tokenizer, plan.warm_up, seed),
        *fixed_stream(unknown, tokenizer, later, seed + 1_000),
    ]


def _flip(stream: Sequence[Request], seed: int) -> list[Request]:
    """Reorder a stream: 90 % of the first half are of every other kind of text, 90 % of the second of the rest."""
    rng = np.random.default_rng(seed)
    early_kinds = set(sorted({request.kind for request in stream})[::2])
    early = rng.random(len(stream)) < FLIPPED_SHARE
    first = [early[i] == (request.kind in early_kinds) for i, request in enumerate(stream)]
    return [
        *(request for request, is_first in zip(stream, first, strict=True) if is_first),
        *(request for request, is_first in zip(stream, first, strict=True) if not is_first),
    ]


def _poison(stream: Sequence[Request], seed: int) -> list[int]:
    """Return the usage of a stream with 1 % of the responses ten times too high or too low."""
    rng = np.random.default_rng(seed)
    factors = np.where(rng.random(len(stream)) < POISONED_SHARE, rng.choice(POISON_FACTORS, len(stream)), 1.0)
    return [max(1, round(request.tokens * factor)) for request, factor in zip(stream, factors, strict=True)]
