"""A request to a pool and the pool's output, in a form that is the same for all APIs."""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

__all__ = ["Event", "Job", "Prompt", "Sequence", "Step", "Usage", "Work"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt after the chat template.

    `texts` are tokenised separately because special tokens separate them; `special_tokens` counts those tokens and
    the ones that media cost. `token_ids` is the number of ids if the client sent ids instead of text.
    """

    texts: tuple[str, ...] = ()
    special_tokens: int = 0
    token_ids: int | None = None
    seed: str = ""  # distinguishes prompts by their images or token ids

    @property
    def characters(self) -> int:
        """The number of characters of all texts."""
        return sum(map(len, self.texts))

    def digest(self) -> bytes:
        """Return the digest that seeds the response to this prompt."""
        digest = sha256(self.seed.encode(errors="surrogatepass"))
        for text in self.texts:
            digest.update(text.encode(errors="surrogatepass"))
        return digest.digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One request: `max_tokens` limits each of the `n` outputs per prompt; None means up to the context."""

    prompts: tuple[Prompt, ...]
    model: str | None = None
    max_tokens: int | None = None
    limit_param: str = "max_tokens"  # the API's name for max_tokens
    n: int = 1
    min_tokens: int = 0
    ignore_eos: bool = False
    truncate_prompt_tokens: int | None = None
    stream: bool = False
    include_usage: bool = False
    generates: bool = True  # False for embeddings
    base64: bool = False  # embeddings are returned as base64


@dataclass(frozen=True, slots=True)
class Sequence:
    """One output: a piece of text per token (empty if the token leaves a character incomplete)."""

    index: int
    pieces: tuple[str, ...]
    finish_reason: str  # "stop" or "length"

    @property
    def text(self) -> str:
        """The complete text."""
        return "".join(self.pieces)


@dataclass(frozen=True, slots=True)
class Usage:
    """The usage that a response reports, in tokens."""

    prompt_tokens: int
    completion_tokens: int

    @property
    def total_tokens(self) -> int:
        """Prompt plus completion tokens."""
        return self.prompt_tokens + self.completion_tokens


class Step(NamedTuple):
    """One token of one sequence; `first` marks the first of its decode step, `last` the last of its sequence."""

    sequence: Sequence
    piece: str
    first: bool
    last: bool


class Event(NamedTuple):
    """One write to a stream; `decodes` is true if a decode step precedes it."""

    data: bytes
    decodes: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """A request and all data of its response: `sequences` is the output, `usage` what is reported."""

    work: Work
    model: str
    request_id: str
    created_s: int
    sequences: tuple[Sequence, ...]
    usage: Usage

    def steps(self) -> Iterator[Step]:
        """Yield the tokens in the order a batch decodes them: per step, one of each unfinished sequence."""
        for at in range(max((len(each.pieces) for each in self.sequences), default=0)):
            first = True
            for sequence in self.sequences:
                if at < len(sequence.pieces):
                    last = at + 1 == len(sequence.pieces)
                    yield Step(sequence, sequence.pieces[at], first, last)
                    first = False
