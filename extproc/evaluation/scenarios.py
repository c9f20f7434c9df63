"""What is run: streams for several seeds, every contestant on the mix, and ours again where it is hard."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from extproc.evaluation.contestants import CONTESTANTS, Contestant, byte_class
from extproc.evaluation.exact import EXACT, Counts, exact_near_limits
from extproc.evaluation.hostile import (
    HOSTILE,
    IN_ROWS,
    SHARES,
    beside_doubled,
    beside_gibberish,
    changed,
    interrupted,
)
from extproc.evaluation.measure import Figures, Mask, Run, figures, run
from extproc.evaluation.mixes import Material, first_sight, mixed, sessions, with_media, with_reasoning_in_history
from extproc.evaluation.odd import ODD_KINDS
from extproc.evaluation.prices import fitted_prices
from extproc.evaluation.requests import Request
from extproc.evaluation.texts import halves
from extproc.evaluation.tokenizers import Tokenizer

__all__ = ["Case", "Comparison", "Plan", "compare"]

POISONED_SHARE = 0.01
POISON_FACTORS = (10.0, 0.1)
FLIPPED_SHARE = 0.9
IN_FLIGHT = 100  # what a pool of a few replicas has running at a time
SIGHTS = 3  # prompts of each kind at first sight
ORDINARY = ("", "session")
WITH_ADDED, ADDED_TOKENS = "d", 1_500  # a tenant of 10 %


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is run: requests of each stream, those not counted at its start, and the seeds."""

    requests: int = 2_000
    warm_up: int = 500
    seeds: tuple[int, ...] = (1,)


@dataclass(frozen=True, slots=True)
class Case:
    """Ours on one stream, by seed; `without` is the same without what makes it hard, or ()."""

    name: str
    figures: tuple[Figures, ...]
    without: tuple[Figures, ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """All figures of one tokenizer.

    `mixed` has those of every contestant on the mix, by seed. `sights` are the least bound / truth of prompts of a
    kind that was never seen before. `counts` is what exact counts took. `curves` are the runs of the first seed.
    """

    tokenizer: str
    mixed: dict[str, tuple[Figures, ...]]
    cases: dict[str, Case]
    sights: dict[str, float]
    counts: Counts
    curves: dict[str, Run]


Streams = Sequence[Sequence[Request]]


def compare(
    material: Material, tokenizer: Tokenizer, others: Sequence[Tokenizer], plan: Plan, say: Callable[[str], None]
) -> Comparison:
    """Run everything for one tokenizer; `say` is called with the progress."""
    say(f"{tokenizer.name}: making streams")

    def made(mix: Callable[[Material, Tokenizer, int, int], Iterable[Request]]) -> Streams:
        return [list(mix(material, tokenizer, plan.requests, seed)) for seed in plan.seeds]

    streams, talks = made(mixed), made(sessions)
    thoughtful, pictured = made(with_reasoning_in_history), made(with_media)
    halved = [_halved(material, tokenizer, plan, seed) for seed in plan.seeds]
    tokenizer.save()
    say(f"{tokenizer.name}: running {len(streams) * plan.requests:,} requests of the mix, and the rest")
    cases = [
        Case("first half of every text, measured on the second", _ours(halved, plan)),
        Case("kinds of text 9:1, reversed halfway", _ours([_flip(s, 0) for s in streams], plan)),
        Case(
            "1 % of usages off by ten times",
            tuple(_figures(byte_class(), s, plan, told=_poison(s, 0)) for s in streams),
        ),
        Case("100 responses on their way", _ours(streams, plan, in_flight=IN_FLIGHT)),
        Case("tenants told", _ours(streams, plan, told_tenants=True)),
        *_with_added(streams, plan),
        Case("sessions", _ours(talks, plan)),
        Case("sessions, without memory of prefixes", _ours(talks, plan, memory=False)),
        Case("the mix, without memory of prefixes", _ours(streams, plan, memory=False)),
        _beside("ordinary requests beside 35 % with reasoning and 10 % odd ones", thoughtful, ORDINARY, plan),
        _beside("text beside 5 % images and 1 % video", pictured, ORDINARY, plan),
        *_beside_hostile(material, tokenizer, plan),
        *(_interrupted(material, tokenizer, odd, plan) for odd in IN_ROWS),
        *(_changed(material, tokenizer, other, plan) for other in others[:1]),
        Case("those with images and video themselves", _ours(pictured, plan, only=("media",))),
    ]
    exactly, counts = exact_near_limits(tokenizer, streams, plan.warm_up)
    cases.append(Case(EXACT, exactly))
    foreign = _foreign_prior(material, others, streams, plan)
    cases += [Case("prior prices of the other tokenizers", foreign)] if foreign else []
    return Comparison(
        tokenizer=tokenizer.name,
        mixed={
            name: tuple(_figures(make(), stream, plan) for stream in streams) for name, make in CONTESTANTS.items()
        },
        cases={case.name: case for case in cases},
        sights=_sights(material, tokenizer, streams[0], plan),
        counts=counts,
        curves={name: run(make(), streams[0]) for name, make in CONTESTANTS.items()},
    )


def _figures(
    contestant: Contestant,
    stream: Sequence[Request],
    plan: Plan,
    *,
    told: Sequence[int] | None = None,
    in_flight: int = 0,
    only: Mask | None = None,
) -> Figures:
    return figures(run(contestant, stream, told, in_flight), stream, plan.warm_up, only)


def _ours(
    streams: Streams,
    plan: Plan,
    *,
    in_flight: int = 0,
    told_tenants: bool = False,
    only: Sequence[str] = (),
    memory: bool = True,
) -> tuple[Figures, ...]:
    return tuple(
        _figures(
            byte_class(told_tenants=told_tenants, memory=memory),
            stream,
            plan,
            in_flight=in_flight,
            only=_of_groups(stream, only) if only else None,
        )
        for stream in streams
    )


def _beside(name: str, streams: Streams, groups: Sequence[str], plan: Plan) -> Case:
    """Return the figures of some groups in a stream, and of the same requests in a stream without all others."""
    without = []
    for stream in streams:
        chosen = _of_groups(stream, groups)
        alone = [request for request, is_chosen in zip(stream, chosen, strict=True) if is_chosen]
        warm_up = int(chosen[: plan.warm_up].sum())  # those that are not counted beside the others, either
        without.append(_figures(byte_class(), alone, replace(plan, warm_up=warm_up)))
    return Case(name, _ours(streams, plan, only=groups), tuple(without))


def _beside_hostile(material: Material, tokenizer: Tokenizer, plan: Plan) -> list[Case]:
    """Return the figures of others beside one source of gibberish, and beside one with doubled usage."""
    cases = []
    for what, mix in {"gibberish": beside_gibberish, "doubled usage": beside_doubled}.items():
        for share in SHARES:
            streams = [list(mix(material, tokenizer, plan.requests, seed, share)) for seed in plan.seeds]
            cases.append(_beside(f"others beside one source of {what}, {share:.0%}", streams, ORDINARY, plan))
    return cases


def _interrupted(material: Material, tokenizer: Tokenizer, odd: int, plan: Plan) -> Case:
    """Return the figures of what comes after odd prompts in a row, with and without those."""
    streams = [interrupted(material, tokenizer, plan.requests, seed, odd) for seed in plan.seeds]
    alone = [[request for request in stream if request.group != HOSTILE] for stream in streams]
    half = plan.requests // 2
    figures = (
        tuple(_from(stream, half + more, 0) for stream in each) for each, more in ((streams, odd), (alone, 0))
    )
    return Case(f"after {odd} odd prompts of as many clients in a row", *figures)


def _changed(material: Material, tokenizer: Tokenizer, other: Tokenizer, plan: Plan) -> Case:
    """Return the figures from when another tokenizer counts under the name, and of a model new by then."""
    streams = [changed(material, tokenizer, other, plan.requests, seed) for seed in plan.seeds]
    half, warm_up = plan.requests // 2, plan.warm_up // 5
    after = tuple(_from(stream, half, warm_up) for stream in streams)
    new = tuple(_from(stream[half:], 0, warm_up) for stream in streams)
    return Case(f"from when {other.name} counts under the same name", after, new)


def _from(stream: Sequence[Request], start: int, warm_up: int) -> Figures:
    """Return figures as if a run had begun at the request `start`, with what was learned by then."""
    result = run(byte_class(), stream)
    return figures(result.of(np.arange(len(stream)) >= start), stream[start:], warm_up)


def _with_added(streams: Streams, plan: Plan) -> list[Case]:
    """Return the figures of a tenant to each of whose prompts the server adds tokens, and of the others."""
    added, plain = ([_added(stream, tokens) for stream in streams] for tokens in (ADDED_TOKENS, 0))
    whose = {
        f"a tenant with {ADDED_TOKENS:,} tokens added to each prompt": ("added",),
        "others beside it": ORDINARY,
    }
    return [
        Case(name, *(_ours(each, plan, told_tenants=True, only=groups) for each in (added, plain)))
        for name, groups in whose.items()
    ]


def _added(stream: Sequence[Request], tokens: int) -> list[Request]:
    return [
        replace(request, tokens=request.tokens + tokens, group="added")
        if request.tenant == WITH_ADDED
        else request
        for request in stream
    ]


def _of_groups(stream: Sequence[Request], groups: Sequence[str]) -> Mask:
    return np.array([request.group in groups for request in stream])


def _halved(material: Material, tokenizer: Tokenizer, plan: Plan, seed: int) -> list[Request]:
    """Return a stream that draws from the first half of every text in the warm-up, then from the second."""
    known, unknown = halves(material.texts)
    later = plan.requests - plan.warm_up
    return [
        *mixed(Material(known, material.lengths), tokenizer, plan.warm_up, seed),
        *mixed(Material(unknown, material.lengths), tokenizer, later, seed + 1_000),
    ]


def _sights(material: Material, tokenizer: Tokenizer, stream: Sequence[Request], plan: Plan) -> dict[str, float]:
    """Return the least bound / truth of prompts of each odd or unseen kind, by a model that saw none of them."""
    contestant = byte_class()
    run(contestant, [request for request in stream if request.kind not in ODD_KINDS][: 2 * plan.warm_up])
    texts = {kind: text for kind, text in material.texts.items() if kind in ODD_KINDS} | dict(material.unseen)
    sights = {kind: first_sight(texts, kind, tokenizer, SIGHTS, plan.seeds[0]) for kind in sorted(texts)}
    return {
        kind: min(contestant.predict(request)[1] / request.tokens for request in requests)
        for kind, requests in sights.items()
    }


def _foreign_prior(
    material: Material, others: Sequence[Tokenizer], streams: Streams, plan: Plan
) -> tuple[Figures, ...]:
    """Run from prior prices that were fitted to the other tokenizers only; () when there are none."""
    if not others:
        return ()
    seed = plan.seeds[0] + 10_000
    prices = fitted_prices([list(mixed(material, other, plan.requests, seed)) for other in others])
    for other in others:
        other.save()
    return tuple(_figures(byte_class(text_prices=prices), stream, plan) for stream in streams)


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
