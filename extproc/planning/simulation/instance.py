"""One vLLM instance, iteration by iteration in what happens, but not in what it costs to simulate.

The scheduler is that of vLLM V1 (vllm/v1/core/sched/scheduler.py, kv_cache_manager.py). Before each iteration:

1. Running sequences come first, in order of admission: one token each while decoding, the next chunk of the prompt
   while prefilling (at most long_prefill_token_threshold, where that is set), within max_num_batched_tokens. Those
   that the budget does not reach wait for the next iteration. A sequence that needs a block when none is free
   preempts the sequence admitted last: its blocks are freed, it goes to the head of the queue and computes
   everything again.
2. If nothing was preempted, waiting sequences are admitted first come, first served, while there are tokens in the
   budget, places (max_num_seqs) and blocks: for the whole prompt where the engine asks for that
   (scheduler_reserve_full_isl, the default since vLLM 0.19), otherwise for the first chunk. Blocks of 16 tokens
   are taken on demand, never reserved.
3. A prefill that completes yields a token. A sequence ends with its last token and frees its blocks.

The idea that makes it fast: an iteration without prefill changes nothing but counters, so a whole run of them is
one event. A run ends at the first of: a sequence finishes, the free blocks run out, a request arrives that can be
admitted. Every sequence's place is kept relative to the iteration counter (`Sequence.offset`), so that no run
touches a sequence: finishing is a heap of iteration numbers, block demand a count of offsets modulo 16, time the
closed form of `roofline.py`. Cost is O(log sequences) for each admission, chunk and end, whatever the lengths.
Stepping through iterations was rejected (150 iterations of 100 sequences for each request), as was a fluid model
(no preemption, no tail).

Left out: blocks that sequences share (a cached prefix is not computed again, but is held by each of them),
speculative decoding, swapping, pipeline parallelism.
"""

from collections import deque
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf

from extproc.planning.hardware.capacity import BLOCK_TOKENS
from extproc.planning.hardware.roofline import IterationCost
from extproc.planning.model.throughput import InstanceLimits

__all__ = ["Sequence", "VllmInstance"]


@dataclass(slots=True, eq=False)
class Sequence:
    """One request inside an instance. Times are in seconds, lengths in tokens.

    `cached` is the part of the prompt that a prefix cache holds. `computed` is what is in the KV cache while
    prefilling; a decoding sequence has `offset` + iterations instead.
    """

    index: int
    prompt: int
    output: int
    arrived_s: float
    cached: int = 0
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


class VllmInstance:
    """The state machine; `arrive` and `finish_run` are its only inputs, and the caller keeps the clock.

    `until_s` is when the run in flight ends (inf when idle). `epoch` changes whenever that time does.
    """

    def __init__(self, cost: IterationCost, limits: InstanceLimits) -> None:
        self._cost = cost
        self._limits = limits
        self._blocks = limits.kv_tokens // BLOCK_TOKENS
        self._besides = _blocks(limits.sequence_tokens)  # held by each sequence from its admission on
        self._free = self._blocks
        self._waiting: deque[Sequence] = deque()
        self._running: dict[int, Sequence] = {}  # in order of admission
        self._decoding: dict[int, Sequence] = {}
        self._prefilling: dict[int, Sequence] = {}  # the chunk of each is in _chunks
        self._chunks: list[tuple[Sequence, int]] = []
        self._finishing: list[tuple[int, int, Sequence]] = []
        self._residues = [0] * BLOCK_TOKENS
        self._iteration = 0
        self._context = 0
        self._run = 0
        self._started_s = 0.0
        self.until_s = inf
        self.epoch = 0
        self.outstanding = 0
        self.unanswered_tokens = 0  # prompt tokens of the requests inside that have no first token yet
        self.sequence_s = 0.0
        self.kv_token_s = 0.0
        self.preemptions = 0

    @property
    def waiting(self) -> int:
        """Requests that have no place yet, or no longer."""
        return len(self._waiting)

    @property
    def kv_usage(self) -> float:
        """Share of the KV cache that is in use."""
        return 1 - self._free / self._blocks

    def arrive(self, sequence: Sequence, now_s: float) -> None:
        """Take a request in. The iteration in flight ends before it can be admitted."""
        self.outstanding += 1
        self.unanswered_tokens += sequence.prompt
        self._waiting.append(sequence)
        if self.until_s == inf:
            self._plan(now_s)
        elif not self._chunks and len(self._waiting) == 1 and self._has_place(sequence):
            self._cut_run(now_s)

    def finish_run(self) -> list[Sequence]:
        """End the run in flight at `until_s`, start the next one, and return the sequences that finished."""
        now_s = self.until_s
        self._account(now_s - self._started_s)
        self._advance()
        finished = self._complete_chunks(now_s)
        while self._finishing and self._finishing[0][0] <= self._iteration:
            iteration, _, sequence = heappop(self._finishing)
            if sequence.finish_iteration == iteration and sequence.index in self._decoding:
                del self._running[sequence.index]
                self._leave_decoding(sequence)
                sequence.generated = sequence.output
                finished.append(sequence)
        self.outstanding -= len(finished)
        self._plan(now_s)
        return finished

    def fail(self) -> list[Sequence]:
        """Die: end for good, and return the requests inside, finished by nobody."""
        inside = [*self._running.values(), *self._waiting]
        self._running, self._decoding, self._prefilling = {}, {}, {}
        self._waiting.clear()
        self._chunks, self._finishing = [], []
        self._free, self._context = self._blocks, 0
        self._residues = [0] * BLOCK_TOKENS
        self.outstanding = self.unanswered_tokens = 0
        self.until_s = inf
        self.epoch += 1
        return inside

    def check(self) -> None:
        """Check the invariants; for debugging and tests. Raises AssertionError."""
        held = self._besides * len(self._running)
        held += sum(_blocks(s.offset + self._iteration) for s in self._decoding.values())
        chunks = {s.index: chunk for s, chunk in self._chunks}
        held += sum(_blocks(s.computed + chunks.get(s.index, 0)) for s in self._prefilling.values())
        assert held + self._free == self._blocks, "blocks are conserved"
        assert self._free >= 0, "no block is given twice"
        assert self._context == sum(s.offset + self._iteration for s in self._decoding.values())
        assert sum(self._residues) == len(self._decoding)
        assert len(self._running) == len(self._decoding) + len(self._prefilling)
        assert len(self._running) <= self._limits.max_num_seqs
        assert self.outstanding == len(self._decoding) + len(self._prefilling) + len(self._waiting)

    def _has_place(self, sequence: Sequence) -> bool:
        budget = self._limits.max_num_batched_tokens - len(self._decoding)
        if len(self._running) >= self._limits.max_num_seqs or budget <= 0:
            return False
        return self._blocks_to_admit(sequence, min(self._wish(sequence), budget)) <= self._free

    def _wish(self, sequence: Sequence) -> int:
        """Return the tokens of prefill that a sequence would take if the budget had no end."""
        left = sequence.to_compute - (sequence.computed or sequence.cached)
        threshold = self._limits.long_prefill_token_threshold
        return min(left, threshold) if threshold else left

    def _blocks_to_admit(self, sequence: Sequence, chunk: int) -> int:
        """Return the free blocks without which a waiting sequence is not admitted."""
        whole = self._limits.reserve_full_prompt
        return self._besides + _blocks(sequence.to_compute if whole else sequence.cached + chunk)

    def _cut_run(self, now_s: float) -> None:
        """Shorten the decode run to the iteration in flight."""
        elapsed = now_s - self._started_s
        decodes = len(self._decoding)
        run = min(self._run, self._cost.iterations_to_reach(decodes, self._context, elapsed))
        if run < self._run:
            self._run = run
            self.until_s = self._started_s + self._cost.decode_run_s(decodes, self._context, run)
            self.epoch += 1

    def _account(self, seconds: float) -> None:
        decodes = len(self._decoding)
        self.sequence_s += seconds * (decodes + len(self._prefilling))
        self.kv_token_s += seconds * (self._context + decodes * self._run / 2)

    def _advance(self) -> None:
        """Let `_run` iterations pass for the decoding sequences."""
        self._free -= self._blocks_for(self._run)
        self._iteration += self._run
        self._context += len(self._decoding) * self._run

    def _blocks_for(self, iterations: int) -> int:
        """Return how many new blocks the decoding sequences take in so many iterations."""
        if iterations == 1:
            return self._residues[-self._iteration % BLOCK_TOKENS]
        cycles, rest = divmod(iterations, BLOCK_TOKENS)
        needed = cycles * len(self._decoding)
        # A context that is a multiple of 16 needs a block for its next token.
        for step in range(rest):
            needed += self._residues[-(self._iteration + step) % BLOCK_TOKENS]
        return needed

    def _complete_chunks(self, now_s: float) -> list[Sequence]:
        """Book the prefill of the iteration that just ended; return the sequences that needed one token only."""
        finished: list[Sequence] = []
        for sequence, chunk in self._chunks:
            sequence.computed += chunk
            if sequence.computed < sequence.to_compute:
                continue
            del self._prefilling[sequence.index]
            sequence.generated += 1
            if sequence.first_token_s == inf:
                sequence.first_token_s = now_s
                self.unanswered_tokens -= sequence.prompt
            if sequence.generated >= sequence.output:
                del self._running[sequence.index]
                self._free += self._besides + _blocks(sequence.computed)
                finished.append(sequence)
            else:
                self._enter_decoding(sequence)
        self._chunks = []
        return finished

    def _enter_decoding(self, sequence: Sequence) -> None:
        sequence.offset = sequence.computed - self._iteration
        sequence.finish_iteration = self._iteration + sequence.output - sequence.generated
        self._decoding[sequence.index] = sequence
        self._residues[sequence.offset % BLOCK_TOKENS] += 1
        self._context += sequence.computed
        heappush(self._finishing, (sequence.finish_iteration, sequence.index, sequence))

    def _leave_decoding(self, sequence: Sequence) -> None:
        context = sequence.offset + self._iteration
        del self._decoding[sequence.index]
        self._residues[sequence.offset % BLOCK_TOKENS] -= 1
        self._context -= context
        self._free += self._besides + _blocks(context)

    def _plan(self, now_s: float) -> None:
        """Decide the next run: one iteration when there is prefill in it, else decoding up to the next event."""
        self._started_s = now_s
        self.epoch += 1
        before = self.preemptions
        skipped = self._schedule_running()
        if self.preemptions == before:
            self._admit(len(self._decoding) - len(skipped))
        decodes, context = len(self._decoding) - len(skipped), self._context
        if self._chunks:
            context -= sum(sequence.offset + self._iteration for sequence in skipped)
            tokens = sum(chunk for _, chunk in self._chunks)
            pairs = sum(chunk * (s.computed + (chunk + 1) / 2) for s, chunk in self._chunks)
            self._hold_back(skipped)
            self._run = 1
            self.until_s = now_s + self._cost.mixed_s(decodes, context, tokens, pairs)
        elif decodes:
            # After a preemption nothing is admitted for one iteration only; then the queue's head may fit.
            self._run = 1 if self.preemptions > before else self._decode_run()
            self.until_s = now_s + self._cost.decode_run_s(decodes, context, self._run)
        else:
            assert not self._waiting, "an empty instance admits the head of its queue"
            self._run = 0
            self.until_s = inf

    def _schedule_running(self) -> list[Sequence]:
        """Choose the chunks of running prefills and take their blocks; return the decoding sequences that the
        budget does not reach. Sequences are preempted from the end until the others have their blocks.
        """
        chunks, skipped = self._running_chunks()
        while self._running:
            wanted = sum(_blocks(s.computed + chunk) - _blocks(s.computed) for s, chunk in chunks)
            idle = sum((s.offset + self._iteration) % BLOCK_TOKENS == 0 for s in skipped)
            if wanted + self._blocks_for(1) - idle <= self._free:
                self._free -= wanted
                break
            last = next(reversed(self._running.values()))
            chunks = [entry for entry in chunks if entry[0] is not last]
            skipped = [sequence for sequence in skipped if sequence is not last]
            self._preempt(last)
        self._chunks = chunks
        return skipped

    def _running_chunks(self) -> tuple[list[tuple[Sequence, int]], list[Sequence]]:
        """Share the budget among running sequences, in order of admission."""
        budget = self._limits.max_num_batched_tokens
        prefilling = list(self._prefilling.values())
        if not prefilling:
            return [], []
        wishes = [(sequence, self._wish(sequence)) for sequence in prefilling]
        if len(self._decoding) + sum(wish for _, wish in wishes) <= budget:
            return wishes, []
        if len(prefilling) == 1 and prefilling[0] is next(reversed(self._running.values())):
            chunk = min(wishes[0][1], budget - len(self._decoding))
            return ([(prefilling[0], chunk)] if chunk > 0 else []), []
        chunks, skipped = [], []
        for sequence in self._running.values():
            tokens = 1 if sequence.index in self._decoding else min(self._wish(sequence), budget)
            if budget == 0 and sequence.index in self._decoding:
                skipped.append(sequence)
            elif budget > 0:
                budget -= tokens
                if sequence.index in self._prefilling:
                    chunks.append((sequence, tokens))
        return chunks, skipped

    def _preempt(self, sequence: Sequence) -> None:
        """Take the blocks of the sequence that was admitted last, and put it at the head of the queue."""
        del self._running[sequence.index]
        if self._prefilling.pop(sequence.index, None) is not None:
            self._free += self._besides + _blocks(sequence.computed)
        else:
            sequence.generated = sequence.output - (sequence.finish_iteration - self._iteration)
            self._leave_decoding(sequence)
            sequence.finish_iteration = -1
        sequence.computed = 0
        sequence.preemptions += 1
        self.preemptions += 1
        self._waiting.appendleft(sequence)

    def _admit(self, decodes: int) -> None:
        """Admit waiting sequences in order, as long as there are tokens, places and blocks for the head."""
        budget = self._limits.max_num_batched_tokens - decodes - sum(chunk for _, chunk in self._chunks)
        reserved = self._blocks_for(1)  # the decoding sequences' own, taken when the run ends
        while self._waiting and budget > 0 and len(self._running) < self._limits.max_num_seqs:
            sequence = self._waiting[0]
            chunk = min(self._wish(sequence), budget)
            if self._blocks_to_admit(sequence, chunk) > self._free - reserved:
                return
            self._waiting.popleft()
            sequence.computed = sequence.cached
            self._free -= self._besides + _blocks(sequence.cached + chunk)
            budget -= chunk
            self._running[sequence.index] = self._prefilling[sequence.index] = sequence
            self._chunks.append((sequence, chunk))

    def _hold_back(self, skipped: list[Sequence]) -> None:
        """Let sequences not take part in the iteration that begins: it moves all decoding ones on by a token."""
        for sequence in skipped:
            context = sequence.offset + self._iteration
            self._free += _blocks(context) - _blocks(context - 1)  # the iteration takes it again
            self._residues[sequence.offset % BLOCK_TOKENS] -= 1
            sequence.offset -= 1
            self._residues[sequence.offset % BLOCK_TOKENS] += 1
            self._context -= 1
            sequence.finish_iteration += 1
            heappush(self._finishing, (sequence.finish_iteration, sequence.index, sequence))

    def _decode_run(self) -> int:
        """Return the number of iterations until a sequence finishes or the blocks no longer last."""
        while True:
            iteration, _, sequence = self._finishing[0]
            if sequence.finish_iteration == iteration and sequence.index in self._decoding:
                break
            heappop(self._finishing)
        to_finish = iteration - self._iteration
        if self._blocks_for(to_finish) <= self._free:
            return to_finish
        cycles = self._free // len(self._decoding)
        run = cycles * BLOCK_TOKENS
        left = self._free - cycles * len(self._decoding)
        while (needed := self._residues[-(self._iteration + run) % BLOCK_TOKENS]) <= left:
            left -= needed
            run += 1
        return run


def _blocks(tokens: int) -> int:
    return -(-tokens // BLOCK_TOKENS)
