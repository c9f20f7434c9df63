"""One request inside an instance, and what a scheduler lets run next."""

from dataclasses import dataclass
from math import inf

from extproc.planning.hardware.capacity import BLOCK_TOKENS

__all__ = ["Batch", "Sequence", "blocks"]


@dataclass(slots=True, eq=False)
class Sequence:
    """One request inside an instance. Times are in seconds, lengths in tokens.

    `declared` is the output that the client asks for at most, 0 where it says nothing. `cached` is the part of the
    prompt that a prefix cache holds. `computed` is what is in the KV cache while prefilling; a decoding sequence
    has `offset` + iterations instead.
    """

    index: int
    prompt: int
    output: int
    arrived_s: float
    cached: int = 0
    declared: int = 0
    generated: int = 0
    computed: int = 0
    offset: int = 0
    finish_iteration: int = -1
    first_token_s: float = inf
    preemptions: int = 0

    @property
    def to_compute(self) -> int:
        """Tokens that a prefill must compute: the prompt, and after a preemption what was generated, too."""
        return self.prompt + self.generated


@dataclass(slots=True)
class Batch:
    """What runs next: `iterations` at most; sequences that decode and the context that they hold; tokens of
    prefill (then there is one iteration) and for each of them the tokens that it attends to.
    """

    iterations: int
    decodes: int
    context: int
    tokens: int = 0
    pairs: float = 0.0


def blocks(tokens: int) -> int:
    """Return the blocks of KV cache that so many tokens take."""
    return -(-tokens // BLOCK_TOKENS)
