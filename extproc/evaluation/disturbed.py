"""Streams made hard by other means than hostile clients: changing kinds of text, wrong usage, added tokens."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from extproc.evaluation.cases import ORDINARY, Case, Plan, Streams, ours
from extproc.evaluation.mixes import Material, mixed
from extproc.evaluation.requests import Request
from extproc.evaluation.texts import halves
from extproc.evaluation.tokenizers import Tokenizer

__all__ = ["flipped", "halved", "poisoned", "with_added"]

POISONED_SHARE = 0.01
POISON_FACTORS = (10.0, 0.1)
FLIPPED_SHARE = 0.9
ADDED_TENANT, ADDED_TOKENS = "d", 1_500  # the tenant with 10 % of the requests


def halved(material: Material, tokenizer: Tokenizer, plan: Plan, seed: int) -> list[Request]:
    """Return a stream that draws from the first half of every text during the warm-up, then from the second."""
    known, unknown = halves(material.texts)
    later = plan.requests - plan.warm_up
    return [
        *mixed(Material(known, material.lengths), tokenizer, plan.warm_up, seed),
        *mixed(Material(unknown, material.lengths), tokenizer, later, seed + 1_000),
    ]


def flipped(stream: Sequence[Request]) -> list[Request]:
    """Reorder a stream: of every other kind of text, 90 % of the requests come early; of the rest, 10 %."""
    rng = np.random.default_rng(0)
    early_kinds = set(sorted({request.kind for request in stream})[::2])
    early = rng.random(len(stream)) < FLIPPED_SHARE
    first = [early[i] == (request.kind in early_kinds) for i, request in enumerate(stream)]
    return [
        *(request for request, is_first in zip(stream, first, strict=True) if is_first),
        *(request for request, is_first in zip(stream, first, strict=True) if not is_first),
    ]


def poisoned(stream: Sequence[Request]) -> list[int]:
    """Return the usage of each request of a stream; 1 % are ten times too high or too low."""
    rng = np.random.default_rng(0)
    factors = np.where(rng.random(len(stream)) < POISONED_SHARE, rng.choice(POISON_FACTORS, len(stream)), 1.0)
    return [max(1, round(request.tokens * factor)) for request, factor in zip(stream, factors, strict=True)]


def with_added(streams: Streams, plan: Plan) -> list[Case]:
    """Return the figures of a tenant to whose prompts the server adds tokens, and of the other tenants."""
    added, plain = ([_added(stream, tokens) for stream in streams] for tokens in (ADDED_TOKENS, 0))
    whose = {
        f"a tenant with {ADDED_TOKENS:,} tokens added to each prompt": ("added",),
        "the other tenants next to it": ORDINARY,
    }
    return [
        Case(name, *(ours(each, plan, with_tenants=True, only=groups) for each in (added, plain)))
        for name, groups in whose.items()
    ]


def _added(stream: Sequence[Request], tokens: int) -> list[Request]:
    return [
        replace(request, tokens=request.tokens + tokens, group="added")
        if request.tenant == ADDED_TENANT
        else request
        for request in stream
    ]
