"""One client among many: the effect of its text or its usage on the estimates of all other clients.

A stream is *mixed* without odd prompts, but a share of it (SHARES) comes from one more client. The prompts of this
client begin with its own system prompt, by which it can be recognised if tenants are not given. *gibberish*: its
prompts are odd text of GIBBERISH_BYTES. *doubled*: its prompts are like all others, but usage reports twice their
tokens, as if a server added up two calls. The figures are those of the other clients, with it and without.

*interrupted*: *mixed* without odd prompts, except for some in a row in its middle, each from another client.
*changed*: a stream whose second half is counted by another tokenizer under the same model name.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from msgspec.structs import replace as replaced

from extproc.evaluation.cases import Case, Plan, figures_from, with_and_without
from extproc.evaluation.chats import Chat, Turn
from extproc.evaluation.mixes import Material, Source, first_sight, mixed
from extproc.evaluation.odd import ODD_KINDS
from extproc.evaluation.requests import Request
from extproc.evaluation.texts import window
from extproc.evaluation.tokenizers import Tokenizer

__all__ = ["changed", "hostile_cases", "interrupted", "with_doubled", "with_gibberish"]

SHARES = (0.1, 0.3)
ROW_LENGTHS = (7, 25)
ROW_KIND = "combining marks"
HOSTILE = "hostile"
SYSTEM_PROMPT = (
    "You are the assistant of Example Corporation. Respond in the language of the question, and cite the document "
    "that a fact comes from. Say so where nothing is known. Never name prices or dates that are in no document."
)
GIBBERISH_BYTES = (500, 12_000)


def hostile_cases(material: Material, tokenizer: Tokenizer, others: Sequence[Tokenizer], plan: Plan) -> list[Case]:
    """Return the figures of the other requests in each of these streams, with and without the disturbance."""
    return [
        *_with_source(material, tokenizer, plan),
        *(_interrupted(material, tokenizer, odd, plan) for odd in ROW_LENGTHS),
        *(_changed(material, tokenizer, other, plan) for other in others[:1]),
    ]


def with_gibberish(
    material: Material, tokenizer: Tokenizer, count: int, seed: int, share: float
) -> Iterator[Request]:
    """Yield the stream *gibberish*; the client's requests form the group HOSTILE."""
    source, rng = Source(material, tokenizer, np.random.default_rng(seed)), np.random.default_rng(seed + 1)
    kinds, texts = sorted(set(material.texts) & ODD_KINDS), material.texts
    low, high = np.log(GIBBERISH_BYTES)
    for _ in range(count):
        if rng.random() >= share:
            yield source.request(0.0)
            continue
        kind, size = kinds[int(rng.integers(len(kinds)))], int(np.exp(rng.uniform(low, high)))
        yield source.made(kind, _client_chat(window(texts[kind], size, rng)), HOSTILE, HOSTILE)


def with_doubled(
    material: Material, tokenizer: Tokenizer, count: int, seed: int, share: float
) -> Iterator[Request]:
    """Yield the stream *doubled*; `tokens` of the client's requests are what usage reports."""
    source, rng = Source(material, tokenizer, np.random.default_rng(seed)), np.random.default_rng(seed + 1)
    for _ in range(count):
        if rng.random() >= share:
            yield source.request(0.0)
            continue
        kind, chat = source.chat(source.tenant(), 0.0)
        text = "\n\n".join(turn.content for turn in chat.turns)
        made = source.made(kind, _client_chat(text), HOSTILE, HOSTILE)
        yield replace(made, tokens=2 * made.tokens)


def interrupted(material: Material, tokenizer: Tokenizer, count: int, seed: int, odd: int) -> list[Request]:
    """Return the stream *interrupted* with `odd` odd prompts, which form the group HOSTILE."""
    source, texts = Source(material, tokenizer, np.random.default_rng(seed)), material.texts
    ordinary = [source.request(0.0) for _ in range(count)]
    kind = ROW_KIND if ROW_KIND in texts else min(texts)
    row = [replace(each, group=HOSTILE) for each in first_sight(texts, kind, tokenizer, odd, seed)]
    return [*ordinary[: count // 2], *row, *ordinary[count // 2 :]]


def changed(material: Material, tokenizer: Tokenizer, other: Tokenizer, count: int, seed: int) -> list[Request]:
    """Return the stream *changed*; the requests of its second half form the group HOSTILE."""
    before = list(mixed(material, tokenizer, count // 2, seed))
    return before + [
        replace(each, group=HOSTILE, facts=replaced(each.facts, model=tokenizer.name))
        for each in mixed(material, other, count - count // 2, seed + 1)
    ]


def _with_source(material: Material, tokenizer: Tokenizer, plan: Plan) -> list[Case]:
    """Return the figures of all others next to a client that sends gibberish, and to one with doubled usage."""
    cases = []
    for what, mix in {"gibberish": with_gibberish, "doubled usage": with_doubled}.items():
        for share in SHARES:
            streams = [list(mix(material, tokenizer, plan.requests, seed, share)) for seed in plan.seeds]
            cases.append(with_and_without(f"others next to one source of {what}, {share:.0%}", streams, plan))
    return cases


def _interrupted(material: Material, tokenizer: Tokenizer, odd: int, plan: Plan) -> Case:
    """Return the figures of the requests after odd prompts in a row, with and without those prompts."""
    streams = [interrupted(material, tokenizer, plan.requests, seed, odd) for seed in plan.seeds]
    alone = [[request for request in stream if request.group != HOSTILE] for stream in streams]
    half = plan.requests // 2
    figures = (
        tuple(figures_from(stream, half + more, plan, 0) for stream in each)
        for each, more in ((streams, odd), (alone, 0))
    )
    return Case(f"after {odd} odd prompts in a row, each from another client", *figures)


def _changed(material: Material, tokenizer: Tokenizer, other: Tokenizer, plan: Plan) -> Case:
    """Return the figures after the tokenizer of a model changes, and those of a model that is new by then."""
    streams = [changed(material, tokenizer, other, plan.requests, seed) for seed in plan.seeds]
    half, warm_up = plan.requests // 2, plan.warm_up // 5
    after = tuple(figures_from(stream, half, plan, warm_up) for stream in streams)
    new = tuple(figures_from(stream[half:], 0, plan, warm_up) for stream in streams)
    return Case(f"after {other.name} replaces it under the same name", after, new)


def _client_chat(text: str) -> Chat:
    return Chat((Turn("system", SYSTEM_PROMPT), Turn("user", text)))
