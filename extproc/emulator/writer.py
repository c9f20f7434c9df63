"""The emulated model's output: varied text of a random length.

Text and length are drawn with the prompt's hash and the index of the choice as seed, so that a repeated request
gets the same response, and two prompts rarely get responses of the same length. The words are common English ones
and some of the prompt's. The tokenizer splits blocks of that text into tokens, so that completion tokens are
counted, not made up.
"""

import codecs
import re
from collections.abc import Iterator
from itertools import islice
from random import Random

from extproc.emulator.tokenizers import Tokenizer
from extproc.emulator.work import Prompt, Sequence, Work

__all__ = ["write_sequences"]

_COMMON_WORDS = """
the of and a to in is that it for as with on by this are be at from or an which has not but all their more when one
can if each other about out than then into only some time very after also did many before must through years where
much your way well down should because long just state people those how too little world good make water light
number part response question example result value list table first second
"""
WORDS = _COMMON_WORDS.split()
OWN_WORDS = 64
BLOCK_WORDS = 32
LENGTH_SPREAD = 0.9  # sigma of the lognormal lengths: nine in ten within a factor of 4.4 of the median


def write_sequences(work: Work, room: int, median_tokens: int, tokenizer: Tokenizer) -> tuple[Sequence, ...]:
    """Write all outputs of a request; `room` is the number of tokens that the context leaves for each."""
    limit = room if work.max_tokens is None else min(work.max_tokens, room)

    def written(index: int, prompt: Prompt) -> Sequence:
        random = Random(prompt.digest() + index.to_bytes(4))  # noqa: S311  (not a secret; it must be repeatable)
        wanted = max(round(median_tokens * random.lognormvariate(0, LENGTH_SPREAD)), work.min_tokens, 1)
        cut = work.ignore_eos or wanted > limit
        tokens = islice(_tokens(random, _vocabulary(prompt), tokenizer), limit if cut else wanted)
        return Sequence(index, tuple(_texts(tokens)), "length" if cut else "stop")

    prompts = (prompt for prompt in work.prompts for _ in range(work.n))
    return tuple(written(index, prompt) for index, prompt in enumerate(prompts))


def _tokens(random: Random, words: list[str], tokenizer: Tokenizer) -> Iterator[bytes]:
    while True:
        yield from tokenizer.split(" " + " ".join(random.choices(words, k=BLOCK_WORDS)) + ".")


def _texts(tokens: Iterator[bytes]) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    return (decoder.decode(token) for token in tokens)


def _vocabulary(prompt: Prompt) -> list[str]:
    text = max(prompt.texts, key=len, default="")
    own = islice(_WORD.finditer(text), OWN_WORDS)
    return WORDS + [word.group() for word in own]


_WORD = re.compile(r"\w{1,12}")
