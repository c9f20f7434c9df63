"""One source beside all others: what its text or its usage does to their estimates.

A stream is *mixed* without odd prompts, and SHARE of it come from one more client. Its prompts begin with a system
prompt of its own, which is what it is known by where no tenant is told. *gibberish*: they are odd text of
GIBBERISH_BYTES. *doubled*: they are as others', and usage says twice the tokens that they cost, as where a server
sums up two calls. What is measured is all others', with it and without.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from extproc.evaluation.chats import Chat, Turn
from extproc.evaluation.mixes import Material, Source
from extproc.evaluation.odd import ODD_KINDS
from extproc.evaluation.requests import Request
from extproc.evaluation.texts import window
from extproc.evaluation.tokenizers import Tokenizer

__all__ = ["HOSTILE", "SHARES", "beside_doubled", "beside_gibberish"]

SHARES = (0.1, 0.3)
HOSTILE = "hostile"
HEAD = (
    "You are the assistant of Example Corporation. Respond in the language of the question, and cite the document "
    "that a fact comes from. Say so where nothing is known. Never name prices or dates that are in no document."
)
GIBBERISH_BYTES = (500, 12_000)


def beside_gibberish(
    material: Material, tokenizer: Tokenizer, count: int, seed: int, share: float
) -> Iterator[Request]:
    """Yield *gibberish*; the client's requests are of the group HOSTILE."""
    source, rng = Source(material, tokenizer, np.random.default_rng(seed)), np.random.default_rng(seed + 1)
    kinds, texts = sorted(set(material.texts) & ODD_KINDS), material.texts
    low, high = np.log(GIBBERISH_BYTES)
    for _ in range(count):
        if rng.random() >= share:
            yield source.request(0.0)
            continue
        kind, size = kinds[int(rng.integers(len(kinds)))], int(np.exp(rng.uniform(low, high)))
        yield source.made(kind, _of_client(window(texts[kind], size, rng)), HOSTILE, HOSTILE)


def beside_doubled(
    material: Material, tokenizer: Tokenizer, count: int, seed: int, share: float
) -> Iterator[Request]:
    """Yield *doubled*; of the client's requests the tokens are those that usage tells."""
    source, rng = Source(material, tokenizer, np.random.default_rng(seed)), np.random.default_rng(seed + 1)
    for _ in range(count):
        if rng.random() >= share:
            yield source.request(0.0)
            continue
        kind, chat = source.chat(source.tenant(), 0.0)
        text = "\n\n".join(turn.content for turn in chat.turns)
        made = source.made(kind, _of_client(text), HOSTILE, HOSTILE)
        yield replace(made, tokens=2 * made.tokens)


def _of_client(text: str) -> Chat:
    return Chat((Turn("system", HEAD), Turn("user", text)))
