"""What a request asks of a pool, and what the pool made of it, whichever API it came by."""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

__all__ = ["Event", "Job", "Prompt", "Sequence", "Step", "Usage", "Work"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt after the chat template.

    `texts` are tokenised apart from each other, because special tokens stand between them; `special_tokens` are
    those, and what images cost. `token_ids` is the number of ids when the client sent ids instead of text.
    """

    texts: tuple[str, ...] = ()
    special_tokens: int = 0
    token_ids: int | None = None
    seed: str = ""  # of prompts without text

    @property
    def characters(self) -> int:
        """Characters of all texts."""
        return sum(map(len, self.texts))

    def digest(self) -> bytes:
        """Return what a response to this prompt is drawn from."""
        digest = sha256(self.seed.encode())
        for text in self.texts:
            digest.update(text.encode(errors="surrogatepass"))
        return digest.digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One request: `max_tokens` bounds each of the `n` outputs of each prompt; None means up to the context."""

    prompts: tuple[Prompt, ...]
    model: str | None = None
    max_tokens: int | None = None
    limit_param: str = "max_tokens"  # what the API calls it
    n: int = 1
    min_tokens: int = 0
    ignore_eos: bool = False
    truncate_prompt_tokens: int | None = None
    stream: bool = False
    include_usage: bool = False
    generates: bool = True  # False for embeddings
    base64: bool = False  # how embeddings are written


@dataclass(frozen=True, slots=True)
class Sequence:
    """One output: a piece of text per token (empty where a character is not complete yet)."""

    index: int
    pieces: tuple[str, ...]
    finish_reason: str  # "stop" or "length"

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.pieces)


@dataclass(frozen=True, slots=True)
class Usage:
    """What a response says that it used, in tokens."""

    prompt_tokens: int
    completion_tokens: int

    @property
    def total_tokens(self) -> int:
        """Both together."""
        return self.prompt_tokens + self.completion_tokens


class Step(NamedTuple):
    """One token of one sequence; `first` when it is the first of its decode step, `last` of its sequence."""

    sequence: Sequence
    piece: str
    first: bool
    last: bool


class Event(NamedTuple):
    """One write of a stream; `decodes` when a decode step comes before it."""

    data: bytes
    decodes: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """A request with all that its response is made of. `usage` is what is told, `sequences` what was produced."""

    work: Work
    model: str
    request_id: str
    created_s: int
    sequences: tuple[Sequence, ...]
    usage: Usage

    def steps(self) -> Iterator[Step]:
        """Go through the tokens as a batch decodes them: a token of every sequence that still runs, then on."""
        for at in range(max((len(each.pieces) for each in self.sequences), default=0)):
            first = True
            for sequence in self.sequences:
                if at < len(sequence.pieces):
                    last = at + 1 == len(sequence.pieces)
                    yield Step(sequence, sequence.pieces[at], first, last)
                    first = False
