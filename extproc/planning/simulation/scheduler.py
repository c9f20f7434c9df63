"""The common base of the engines' schedulers: a queue, chunks of prompts that yield first tokens, and counters."""

from abc import ABC, abstractmethod
from collections import deque
from math import inf

from extproc.planning.model.throughput import InstanceLimits
from extproc.planning.simulation.decoding import Decoding
from extproc.planning.simulation.sequence import Batch, Sequence

__all__ = ["Scheduler"]


class Scheduler(ABC):
    """The state of one scheduler: `arrive`, `plan` the next batch, and `finish` it."""

    def __init__(self, limits: InstanceLimits) -> None:
        self._limits = limits
        self._waiting: deque[Sequence] = deque()
        self.decoding = Decoding()
        self._chunks: list[tuple[Sequence, int]] = []  # of the batch in flight
        self.outstanding = 0
        self.unanswered_tokens = 0  # prompt tokens of requests without a first token
        self.preemptions = 0

    @property
    def waiting(self) -> int:
        """The number of queued requests, new and preempted."""
        return len(self._waiting)

    @property
    @abstractmethod
    def running(self) -> int:
        """The number of admitted requests."""

    @property
    @abstractmethod
    def kv_usage(self) -> float:
        """Share of the KV cache that is in use."""

    def arrive(self, sequence: Sequence) -> bool:
        """Queue a request; return whether it could be admitted before the run in flight ends."""
        self.outstanding += 1
        self.unanswered_tokens += sequence.prompt
        self._waiting.append(sequence)
        return self._has_place(sequence)

    @abstractmethod
    def plan(self) -> Batch:
        """Decide what runs next; nothing runs if the batch has neither prompts nor decoding sequences."""

    @abstractmethod
    def finish(self, iterations: int, now_s: float) -> list[Sequence]:
        """End the batch after `iterations` iterations, and return the sequences that finished."""

    def fail(self) -> list[Sequence]:
        """Drop all state, and return the unfinished requests."""
        unfinished = [*self._admitted(), *self._waiting]
        self.decoding.clear()
        self._waiting.clear()
        self._chunks = []
        self.outstanding = self.unanswered_tokens = 0
        self._reset()
        return unfinished

    @abstractmethod
    def check(self) -> None:
        """Assert the invariants; for debugging and tests."""

    @abstractmethod
    def _has_place(self, sequence: Sequence) -> bool:
        """Return whether a request that just arrived could be admitted next."""

    @abstractmethod
    def _admitted(self) -> list[Sequence]:
        """Return the admitted requests."""

    @abstractmethod
    def _reset(self) -> None:
        """Forget the admitted requests and the memory that they held."""

    @abstractmethod
    def _prompt_computed(self, sequence: Sequence) -> None:
        """Note that a prompt is fully computed."""

    @abstractmethod
    def _free_prompt(self, sequence: Sequence) -> None:
        """Free the memory of a request that is finished by its first token."""

    def _prefill(self) -> tuple[int, float]:
        """Return the tokens of the chunks, and how many tokens they attend to in total."""
        tokens = sum(chunk for _, chunk in self._chunks)
        return tokens, sum(chunk * (s.computed + (chunk + 1) / 2) for s, chunk in self._chunks)

    def _complete_chunks(self, now_s: float) -> list[Sequence]:
        """Record the prefill of the batch that just ended; return the sequences that needed no further token."""
        finished: list[Sequence] = []
        for sequence, chunk in self._chunks:
            sequence.computed += chunk
            if sequence.computed < sequence.to_compute:
                continue
            self._prompt_computed(sequence)
            sequence.generated += 1
            if sequence.first_token_s == inf:
                sequence.first_token_s = now_s
                self.unanswered_tokens -= sequence.prompt
            if sequence.generated >= sequence.output:
                self._free_prompt(sequence)
                finished.append(sequence)
            else:
                self.decoding.enter(sequence)
        self._chunks = []
        return finished

    def _preempted(self, sequence: Sequence) -> None:
        """Record that a sequence was preempted: all of its tokens have to be computed again."""
        sequence.computed = 0
        sequence.preemptions += 1
        self.preemptions += 1
