"""vLLM V1's scheduling rules (vllm/v1/core/sched/scheduler.py, kv_cache_manager.py), without a clock.

Before each iteration:

1. Running sequences come first, in order of admission: one token each while decoding, the next chunk of the prompt
   while prefilling (at most long_prefill_token_threshold, if that is set and the sequence is not alone), within
   max_num_batched_tokens. Sequences that this budget does not reach wait for the next iteration. If a sequence
   needs a block and none is free, the sequence admitted last is preempted: its blocks are freed, and it goes to
   the head of the queue and computes everything again.
2. If nothing was preempted, waiting sequences are admitted first come, first served, while there are tokens in the
   budget, places (max_num_seqs) and blocks: enough for the whole prompt if the engine requires that
   (scheduler_reserve_full_isl, the default since vLLM 0.19), otherwise for the first chunk. Blocks of 16 tokens
   are allocated on demand, never reserved.
3. A prefill that completes yields a token. A sequence ends with its last token and frees its blocks.

`bench/planner_vllm.py` compares this scheduler with vLLM's own class, step by step.
"""

from extproc.planning.hardware.instance import BLOCK_TOKENS
from extproc.planning.model.throughput import InstanceLimits
from extproc.planning.simulation.scheduler import Scheduler
from extproc.planning.simulation.sequence import Batch, Sequence, blocks

__all__ = ["VllmScheduler"]


class VllmScheduler(Scheduler):
    """The free blocks of the KV cache, and the sequences that hold the others."""

    def __init__(self, limits: InstanceLimits) -> None:
        super().__init__(limits)
        self._blocks = limits.kv_tokens // BLOCK_TOKENS
        self._fixed_blocks = blocks(limits.sequence_tokens)  # held by each sequence from its admission on
        self._free = self._blocks
        self._running: dict[int, Sequence] = {}  # in order of admission
        self._prefilling: dict[int, Sequence] = {}  # the chunk of each is in _chunks

    @property
    def running(self) -> int:
        """The number of admitted requests."""
        return len(self._running)

    @property
    def kv_usage(self) -> float:
        """Share of the KV cache that is in use."""
        return 1 - self._free / self._blocks

    def plan(self) -> Batch:
        """Decide what runs next: one iteration if it contains prefill, otherwise decoding up to the next event.
        Nothing runs if the batch is empty.
        """
        before = self.preemptions
        skipped = self._schedule_running()
        if self.preemptions == before:
            self._admit(len(self.decoding) - len(skipped))
        decodes, context = len(self.decoding) - len(skipped), self.decoding.context
        if self._chunks:
            context -= sum(map(self.decoding.context_of, skipped))
            tokens, pairs = self._prefill()
            for sequence in skipped:  # `finish` takes these blocks again
                self._free += self.decoding.hold_back(sequence)
            return Batch(1, decodes, context, tokens, pairs)
        if decodes:
            # A preemption stops admission for one iteration only; after that the queue's head may fit.
            once = self.preemptions > before
            return Batch(1 if once else self.decoding.longest_run(self._free), decodes, context)
        assert not self._waiting, "an empty instance admits the head of its queue"
        return Batch(0, 0, 0)

    def finish(self, iterations: int, now_s: float) -> list[Sequence]:
        """End the batch after `iterations` iterations, and return the sequences that finished."""
        self._free -= self.decoding.blocks_for(iterations)
        self.decoding.advance(iterations)
        finished = self._complete_chunks(now_s)
        for sequence in self.decoding.due():
            del self._running[sequence.index]
            self._free += self._fixed_blocks + blocks(self.decoding.leave(sequence))
            finished.append(sequence)
        self.outstanding -= len(finished)
        return finished

    def check(self) -> None:
        """Assert the invariants; for debugging and tests."""
        decoding = self.decoding.sequences
        held = self._fixed_blocks * len(self._running)
        held += sum(blocks(self.decoding.context_of(s)) for s in decoding.values())
        chunks = {s.index: chunk for s, chunk in self._chunks}
        held += sum(blocks(s.computed + chunks.get(s.index, 0)) for s in self._prefilling.values())
        assert held + self._free == self._blocks, "blocks are conserved"
        assert self._free >= 0, "no block is given twice"
        self.decoding.check()
        assert len(self._running) == len(decoding) + len(self._prefilling)
        assert len(self._running) <= self._limits.max_num_seqs
        assert self.outstanding == len(self._running) + len(self._waiting)

    def _admitted(self) -> list[Sequence]:
        return list(self._running.values())

    def _reset(self) -> None:
        self._running, self._prefilling = {}, {}
        self._free = self._blocks

    def _has_place(self, sequence: Sequence) -> bool:
        if len(self._waiting) > 1:  # first come, first served
            return False
        budget = self._limits.max_num_batched_tokens - len(self.decoding)
        if len(self._running) >= self._limits.max_num_seqs or budget <= 0:
            return False
        return self._blocks_to_admit(sequence, min(self._full_chunk(sequence), budget)) <= self._free

    def _full_chunk(self, sequence: Sequence) -> int:
        """Return the prefill tokens that a sequence would take if the budget were unlimited."""
        left = sequence.to_compute - (sequence.computed or sequence.cached)
        threshold = self._limits.long_prefill_token_threshold
        if threshold and (self.outstanding > 1 or self._limits.cap_lone_prompt):
            return min(left, threshold)
        return left

    def _blocks_to_admit(self, sequence: Sequence, chunk: int) -> int:
        """Return the free blocks that are required to admit a waiting sequence."""
        whole = self._limits.reserve_full_prompt
        return self._fixed_blocks + blocks(sequence.to_compute if whole else sequence.cached + chunk)

    def _prompt_computed(self, sequence: Sequence) -> None:
        del self._prefilling[sequence.index]

    def _free_prompt(self, sequence: Sequence) -> None:
        del self._running[sequence.index]
        self._free += self._fixed_blocks + blocks(sequence.computed)

    def _schedule_running(self) -> list[Sequence]:
        """Choose the chunks of running prefills and allocate their blocks; return the decoding sequences that the
        budget does not reach. Sequences are preempted from the end until there are enough blocks for the others.
        """
        chunks, skipped = self._running_chunks()
        while self._running:
            wanted = sum(blocks(s.computed + chunk) - blocks(s.computed) for s, chunk in chunks)
            idle = sum(self.decoding.context_of(s) % BLOCK_TOKENS == 0 for s in skipped)
            if wanted + self.decoding.blocks_for(1) - idle <= self._free:
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
        full = [(sequence, self._full_chunk(sequence)) for sequence in prefilling]
        if len(self.decoding) + sum(chunk for _, chunk in full) <= budget:
            return full, []
        if len(prefilling) == 1 and prefilling[0] is next(reversed(self._running.values())):
            chunk = min(full[0][1], budget - len(self.decoding))
            return ([(prefilling[0], chunk)] if chunk > 0 else []), []
        chunks, skipped = [], []
        decoding = self.decoding.sequences
        for sequence in self._running.values():
            tokens = 1 if sequence.index in decoding else min(self._full_chunk(sequence), budget)
            if budget == 0 and sequence.index in decoding:
                skipped.append(sequence)
            elif budget > 0:
                budget -= tokens
                if sequence.index in self._prefilling:
                    chunks.append((sequence, tokens))
        return chunks, skipped

    def _preempt(self, sequence: Sequence) -> None:
        """Free the blocks of the sequence that was admitted last, and move it to the head of the queue."""
        del self._running[sequence.index]
        prefilled = self._prefilling.pop(sequence.index, None) is not None
        held = sequence.computed if prefilled else self.decoding.leave(sequence)
        self._free += self._fixed_blocks + blocks(held)
        self._preempted(sequence)
        self._waiting.appendleft(sequence)

    def _admit(self, decodes: int) -> None:
        """Admit waiting sequences in order, while there are tokens, places and blocks for the head."""
        budget = self._limits.max_num_batched_tokens - decodes - sum(chunk for _, chunk in self._chunks)
        reserved = self.decoding.blocks_for(1)  # for the decoding sequences, which take them when the run ends
        while self._waiting and budget > 0 and len(self._running) < self._limits.max_num_seqs:
            sequence = self._waiting[0]
            chunk = min(self._full_chunk(sequence), budget)
            if self._blocks_to_admit(sequence, chunk) > self._free - reserved:
                return
            self._waiting.popleft()
            sequence.computed = sequence.cached
            self._free -= self._fixed_blocks + blocks(sequence.cached + chunk)
            budget -= chunk
            self._running[sequence.index] = self._prefilling[sequence.index] = sequence
            self._chunks.append((sequence, chunk))
