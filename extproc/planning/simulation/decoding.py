"""The decoding sequences of one scheduler: each gains a token per iteration, without being updated.

An iteration without prefill only changes counters, so a run of many of them is one event. Each sequence's context
is stored relative to the iteration counter (`Sequence.offset`): finish times are then a heap of iteration numbers,
the demand for blocks is a count of offsets modulo 16, and a run costs the same whatever its length. This module
counts blocks; the scheduler allocates them.
"""

from heapq import heappop, heappush

from extproc.planning.hardware.instance import BLOCK_TOKENS
from extproc.planning.simulation.sequence import Sequence, blocks

__all__ = ["Decoding"]


class Decoding:
    """The decoding sequences by index, and the context tokens that they hold in total."""

    def __init__(self) -> None:
        self.sequences: dict[int, Sequence] = {}
        self.context = 0
        self._iteration = 0
        self._residues = [0] * BLOCK_TOKENS
        self._finishing: list[tuple[int, int, Sequence]] = []

    def __len__(self) -> int:
        return len(self.sequences)

    def context_of(self, sequence: Sequence) -> int:
        """Return the context tokens that a decoding sequence holds."""
        return sequence.offset + self._iteration

    def enter(self, sequence: Sequence) -> None:
        """Add a sequence whose prefill is complete and that needs at least one more token."""
        sequence.offset = sequence.computed - self._iteration
        sequence.finish_iteration = self._iteration + sequence.output - sequence.generated
        self.sequences[sequence.index] = sequence
        self._residues[sequence.offset % BLOCK_TOKENS] += 1
        self.context += sequence.computed
        heappush(self._finishing, (sequence.finish_iteration, sequence.index, sequence))

    def generated_by(self, sequence: Sequence) -> int:
        """Return the tokens that a decoding sequence has generated."""
        return sequence.output - (sequence.finish_iteration - self._iteration)

    def leave(self, sequence: Sequence) -> int:
        """Remove a sequence, store how many tokens it has generated, and return the tokens that it held."""
        context = sequence.offset + self._iteration
        sequence.generated = self.generated_by(sequence)
        sequence.finish_iteration = -1
        del self.sequences[sequence.index]
        self._residues[sequence.offset % BLOCK_TOKENS] -= 1
        self.context -= context
        return context

    def advance(self, iterations: int) -> None:
        """Advance by a number of iterations."""
        self._iteration += iterations
        self.context += len(self.sequences) * iterations

    def due(self) -> list[Sequence]:
        """Return the sequences that have their last token; the caller must `leave` each of them."""
        found = []
        while self._finishing and self._finishing[0][0] <= self._iteration:
            iteration, _, sequence = heappop(self._finishing)
            if sequence.finish_iteration == iteration and sequence.index in self.sequences:
                found.append(sequence)
        return found

    def blocks_for(self, iterations: int) -> int:
        """Return the number of new blocks that these iterations take."""
        if iterations == 1:
            return self._residues[-self._iteration % BLOCK_TOKENS]
        cycles, rest = divmod(iterations, BLOCK_TOKENS)
        needed = cycles * len(self.sequences)
        # A context that is a multiple of 16 needs a block for its next token.
        for step in range(rest):
            needed += self._residues[-(self._iteration + step) % BLOCK_TOKENS]
        return needed

    def until_finish(self) -> int:
        """Return the number of iterations until a sequence finishes."""
        while True:
            iteration, _, sequence = self._finishing[0]
            if sequence.finish_iteration == iteration and sequence.index in self.sequences:
                return iteration - self._iteration
            heappop(self._finishing)

    def longest_run(self, free: int) -> int:
        """Return the number of iterations until a sequence finishes or `free` blocks no longer suffice."""
        to_finish = self.until_finish()
        if self.blocks_for(to_finish) <= free:
            return to_finish
        cycles = free // len(self.sequences)
        run = cycles * BLOCK_TOKENS
        left = free - cycles * len(self.sequences)
        while (needed := self._residues[-(self._iteration + run) % BLOCK_TOKENS]) <= left:
            left -= needed
            run += 1
        return run

    def hold_back(self, sequence: Sequence) -> int:
        """Exclude a sequence from the next iteration, which advances all others by a token; return the number of
        blocks that this saves.
        """
        context = sequence.offset + self._iteration
        self._residues[sequence.offset % BLOCK_TOKENS] -= 1
        sequence.offset -= 1
        self._residues[sequence.offset % BLOCK_TOKENS] += 1
        self.context -= 1
        sequence.finish_iteration += 1
        heappush(self._finishing, (sequence.finish_iteration, sequence.index, sequence))
        return blocks(context) - blocks(context - 1)

    def clear(self) -> None:
        """Remove all sequences."""
        self.sequences, self._finishing = {}, []
        self._residues = [0] * BLOCK_TOKENS
        self.context = 0

    def check(self) -> None:
        """Assert that the counters match the sequences."""
        assert self.context == sum(map(self.context_of, self.sequences.values()))
        assert sum(self._residues) == len(self.sequences)
