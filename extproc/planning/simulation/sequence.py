"""One request in an instance, and the batch that a scheduler runs next."""

from dataclasses import dataclass
from math import inf

from extproc.planning.hardware.instance import BLOCK_TOKENS

__all__ = ["Batch", "Sequence", "blocks"]


@dataclass(slots=True, eq=False)
class Sequence:
    """One request in an instance. Times are in seconds, lengths in tokens.

    `declared` is the largest output that the client requests, 0 if it declares none. `cached` is the part of the
    prompt that the prefix cache holds. `computed` is the number of tokens in the KV cache during prefill; for a
    decoding sequence that number is `offset` + iterations.
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
        """Tokens that a prefill must compute: the prompt and, after a preemption, also what was generated."""
        return self.prompt + self.generated


@dataclass(slots=True)
class Batch:
    """What runs next: at most `iterations`; the number of decoding sequences and their context in total; `tokens`
    of prefill (then there is one iteration), and in `pairs` how many tokens they attend to in total.
    """

    iterations: int
    decodes: int
    context: int
    tokens: int = 0
    pairs: float = 0.0


def blocks(tokens: int) -> int:
    """Return the blocks of KV cache that this many tokens take."""
    return -(-tokens // BLOCK_TOKENS)
