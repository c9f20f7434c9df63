"""The scenarios, each for several seeds: all contestants on the mix, and this project's own on harder streams."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from extproc.evaluation.cases import Case, Plan, Streams, figures_of, ours, with_and_without
from extproc.evaluation.contestants import CONTESTANTS, OURS
from extproc.evaluation.disturbed import flipped, halved, poisoned, with_added
from extproc.evaluation.exact import EXACT, Counts, exact_near_limits
from extproc.evaluation.hostile import hostile_cases
from extproc.evaluation.measure import Figures, Run, run
from extproc.evaluation.mixes import Material, first_sight, mixed, sessions, with_media, with_reasoning_in_history
from extproc.evaluation.odd import ODD_KINDS
from extproc.evaluation.requests import Request
from extproc.evaluation.tokenizers import Tokenizer

__all__ = ["Comparison", "compare", "on_the_mix"]

IN_FLIGHT = 100  # requests that a pool of a few replicas runs at a time
SIGHTS = 3  # prompts of each kind at first sight


@dataclass(frozen=True, slots=True)
class Comparison:
    """All figures of one tokenizer.

    `mixed` has those of every contestant on the mix, by seed. `sights` has the lowest bound / truth of the prompts
    of each kind never seen before. `counts` is the cost of exact counts. `curves` are the runs of the first seed.
    """

    tokenizer: str
    mixed: dict[str, tuple[Figures, ...]]
    cases: dict[str, Case]
    sights: dict[str, float]
    counts: Counts
    curves: dict[str, Run]


def compare(
    material: Material, tokenizer: Tokenizer, others: Sequence[Tokenizer], plan: Plan, say: Callable[[str], None]
) -> Comparison:
    """Run everything for one tokenizer; `say` is called with progress messages."""
    plan = replace(plan, left_out=tokenizer.name)
    contestants = CONTESTANTS | {OURS: plan.contestant}
    say(f"{tokenizer.name}: making streams")

    def made(mix: Callable[[Material, Tokenizer, int, int], Iterable[Request]]) -> Streams:
        return [list(mix(material, tokenizer, plan.requests, seed)) for seed in plan.seeds]

    streams, turns = made(mixed), made(sessions)
    reasoned, illustrated = made(with_reasoning_in_history), made(with_media)
    split = [halved(material, tokenizer, plan, seed) for seed in plan.seeds]
    tokenizer.save()
    say(f"{tokenizer.name}: running {len(streams) * plan.requests:,} requests of the mix, and the rest")
    cases = [
        Case("learned from the first half of every text, measured on the second", ours(split, plan)),
        Case("kinds of text 9:1, reversed halfway", ours([flipped(s) for s in streams], plan)),
        Case(
            "1 % of usages wrong by a factor of ten",
            tuple(figures_of(plan.contestant(), s, plan, reported=poisoned(s)) for s in streams),
        ),
        Case("100 responses in flight", ours(streams, plan, in_flight=IN_FLIGHT)),
        Case("with tenants", ours(streams, plan, with_tenants=True)),
        *with_added(streams, plan),
        Case("sessions", ours(turns, plan)),
        Case("sessions, without memory of prefixes", ours(turns, plan, memory=False)),
        Case("the mix, without memory of prefixes", ours(streams, plan, memory=False)),
        with_and_without("ordinary requests next to 35 % with reasoning and 10 % odd ones", reasoned, plan),
        with_and_without("text requests next to 5 % with images and 1 % with video", illustrated, plan),
        *hostile_cases(material, tokenizer, others, plan),
        Case("only the requests with images or video", ours(illustrated, plan, only=("media",))),
    ]
    exactly, counts = exact_near_limits(tokenizer, streams, plan.warm_up)
    cases.append(Case(EXACT, exactly))
    cases.append(Case("a prior that includes this vocabulary", ours(streams, replace(plan, left_out=""))))
    return Comparison(
        tokenizer=tokenizer.name,
        mixed={
            name: tuple(figures_of(make(), stream, plan) for stream in streams)
            for name, make in contestants.items()
        },
        cases={case.name: case for case in cases},
        sights=_sights(material, tokenizer, streams[0], plan),
        counts=counts,
        curves={name: run(make(), streams[0]) for name, make in contestants.items()},
    )


def on_the_mix(
    material: Material, tokenizer: Tokenizer, plan: Plan, say: Callable[[str], None]
) -> tuple[Figures, ...]:
    """Run only this project's estimator, only on the mix; return the figures by seed."""
    say(f"{tokenizer.name}: the mix")
    streams = [list(mixed(material, tokenizer, plan.requests, seed)) for seed in plan.seeds]
    tokenizer.save()
    return ours(streams, replace(plan, left_out=tokenizer.name))


def _sights(material: Material, tokenizer: Tokenizer, stream: Sequence[Request], plan: Plan) -> dict[str, float]:
    """Return the lowest bound / truth of each odd or unseen kind's prompts, by a model that saw none of them."""
    contestant = plan.contestant()
    run(contestant, [request for request in stream if request.kind not in ODD_KINDS][: 2 * plan.warm_up])
    texts = {kind: text for kind, text in material.texts.items() if kind in ODD_KINDS} | dict(material.unseen)
    sights = {kind: first_sight(texts, kind, tokenizer, SIGHTS, plan.seeds[0]) for kind in sorted(texts)}
    return {
        kind: min(contestant.predict(request)[1] / request.tokens for request in requests)
        for kind, requests in sights.items()
    }
