"""SGLang's scheduling rules, without a clock, where they differ from vLLM's.

The rules are those of SGLang 0.5.23 (sglang/srt/managers: scheduler.py, schedule_policy.py, schedule_batch.py):

1. Prefill comes first and runs alone: while a waiting request can be admitted or a prompt is only partly computed,
   batches contain only prompts, up to chunked_prefill_size tokens, and nothing decodes. At most one prompt is cut
   at the end of a batch; the next batch begins with the rest of it.
2. A request is admitted if its prompt and its full declared output (at most 4,096 tokens) fit next to what running
   requests are expected to need: the rest of their declared output times a ratio. The ratio starts at .7 and falls
   to .098 within 600 decode steps. After a request that did not fit, nothing is admitted until one leaves.
3. If decoding runs out of memory, the requests with the least output (among these, with the longest prompts) are
   retracted: they go to the end of the queue and compute everything again. The ratio is then what the remaining
   requests have generated, plus 20 tokens each, divided by what they declared.

Memory is allocated by the token (page size 1). A request that declares nothing counts with the rest of the
context, as in SGLang. Not modelled: overlapped scheduling, the radix tree (a cached prefix is not computed, but
each request holds it), prefill_decode_interval, mixed chunks, DP attention, policies other than fcfs.
"""

from extproc.planning.model.throughput import InstanceLimits
from extproc.planning.simulation.scheduler import Scheduler
from extproc.planning.simulation.sequence import Batch, Sequence

__all__ = ["SglangScheduler"]

INIT_RATIO = 0.7  # SGLANG_INIT_NEW_TOKEN_RATIO; this one and the next three: sglang/srt/environ.py
LEAST_RATIO = 0.7 * 0.14
DECAY = (INIT_RATIO - LEAST_RATIO) / 600  # of the ratio per decode step
RETRACT_STEPS = 20
MOST_OUTPUT = 4_096  # tokens of a declared output that count
MOST_PREFILL_TOKENS = 16_384  # max_prefill_tokens


class SglangScheduler(Scheduler):
    """Memory in tokens, and how much of it running requests are expected to need."""

    def __init__(self, limits: InstanceLimits) -> None:
        super().__init__(limits)
        self._fixed_tokens = limits.sequence_tokens  # held by each sequence from its admission on
        self._cut: Sequence | None = None  # the prompt that the last batch computed only in part
        self._held = 0  # tokens held by prompts that are being computed
        self._full = False
        self._retracted = False  # whether the current step retracted requests
        self._ratio = INIT_RATIO

    @property
    def running(self) -> int:
        """The number of admitted requests."""
        return self.outstanding - len(self._waiting)

    @property
    def kv_usage(self) -> float:
        """Share of the KV cache that is in use."""
        return 1 - self._free / self._limits.kv_tokens

    @property
    def _free(self) -> int:
        return self._limits.kv_tokens - self.decoding.context - self._held - self._fixed_tokens * self.running

    def plan(self) -> Batch:
        """Decide what runs next: a batch of prompts if there is one, otherwise decoding up to the next event."""
        self._admit()
        if self._chunks:
            tokens, pairs = self._prefill()
            return Batch(1, 0, 0, tokens, pairs)
        if not len(self.decoding):
            assert not self._waiting, "an empty instance admits the head of its queue"
            return Batch(0, 0, 0)
        self._retracted = self._free < len(self.decoding)
        if self._retracted:
            self._retract()
        decodes = len(self.decoding)
        # Retracted requests may be admitted again after one step.
        run = 1 if self._retracted else min(self.decoding.until_finish(), self._free // decodes)
        return Batch(run, decodes, self.decoding.context)

    def finish(self, iterations: int, now_s: float) -> list[Sequence]:
        """End the batch after `iterations` iterations, and return the sequences that finished."""
        if self._chunks:
            finished = self._complete_chunks(now_s)
        else:
            self.decoding.advance(iterations)
            if not self._retracted:
                self._ratio = max(LEAST_RATIO, self._ratio - iterations * DECAY)
            finished = self.decoding.due()
            for sequence in finished:
                self.decoding.leave(sequence)
        self.outstanding -= len(finished)
        if finished:
            self._full = False
        return finished

    def check(self) -> None:
        """Assert the invariants; for debugging and tests."""
        assert self._free >= 0, "no token is given twice"
        self.decoding.check()
        prefilling = self._prefilling()
        assert self._held == sum(sequence.computed + chunk for sequence, chunk in prefilling)
        assert self.running == len(self.decoding) + len(prefilling)
        assert self.running <= self._limits.max_num_seqs

    def _has_place(self, sequence: Sequence) -> bool:  # noqa: ARG002
        return not self._full

    def _admitted(self) -> list[Sequence]:
        return [*self.decoding.sequences.values(), *(each for each, _ in self._prefilling())]

    def _reset(self) -> None:
        self._cut, self._held, self._full = None, 0, False

    def _prefilling(self) -> list[tuple[Sequence, int]]:
        """Return the prompts that are being computed, each with its tokens in the batch in flight."""
        between = self._cut is not None and all(sequence is not self._cut for sequence, _ in self._chunks)
        return [*self._chunks, *([(self._cut, 0)] if between and self._cut is not None else [])]

    def _declared(self, sequence: Sequence) -> int:
        return sequence.declared or self._limits.context_tokens - sequence.prompt

    def _expected(self) -> float:
        """Return the tokens that decoding requests are still expected to need."""
        left = sum(
            min(self._declared(s) - self.decoding.generated_by(s), MOST_OUTPUT)
            for s in self.decoding.sequences.values()
        )
        return left * self._ratio

    def _admit(self) -> None:
        """Fill a batch with prompts: first the one that was cut, then waiting ones in order."""
        if (self._full or not self._waiting) and self._cut is None:
            return
        budget = min(self._limits.max_num_batched_tokens, MOST_PREFILL_TOKENS)
        remaining = self._free - self._expected()
        if self._cut is not None:
            cut = self._cut
            left = cut.to_compute - cut.computed
            # Its memory was granted at admission, but memory that others are expected to need shortens its chunk.
            chunk = min(left, budget, int(remaining) if remaining >= 1 else budget)
            self._cut = cut if chunk < left else None
            remaining -= self._take(cut, chunk)
            budget -= chunk
        while self._waiting and budget > 0:
            sequence = self._waiting[0]
            left = sequence.to_compute - sequence.cached
            output = min(max(self._declared(sequence) - sequence.generated, 0), MOST_OUTPUT)
            needed = sequence.to_compute + output + 1 + self._fixed_tokens
            if self.running >= self._limits.max_num_seqs or (needed >= remaining and self.running > 0):
                self._full = True
                return
            self._waiting.popleft()
            sequence.computed = sequence.cached
            self._held += sequence.cached
            chunk = min(left, budget)
            self._cut = sequence if chunk < left else None
            remaining -= self._take(sequence, chunk) + sequence.cached + self._fixed_tokens
            budget -= chunk
            if remaining <= 0:
                self._full = True
                return

    def _take(self, sequence: Sequence, chunk: int) -> int:
        """Add a chunk of a prompt to the batch; return how much of the remaining memory it takes."""
        self._chunks.append((sequence, chunk))
        self._held += chunk
        whole = sequence.computed + chunk == sequence.to_compute
        return chunk + 1 + (min(self._declared(sequence), MOST_OUTPUT) if whole else 0)

    def _prompt_computed(self, sequence: Sequence) -> None:
        self._held -= sequence.computed

    def _free_prompt(self, sequence: Sequence) -> None:
        """Do nothing: `_prompt_computed` has released the prompt, and nothing else was held."""

    def _retract(self) -> None:
        """Retract the requests with the least output until each of the others can decode a token; keep at least
        one.
        """
        order = sorted(
            self.decoding.sequences.values(),
            key=lambda s: (self.decoding.generated_by(s), -s.prompt),
            reverse=True,
        )
        first = True
        while len(order) > 1 and (first or self._free < len(self.decoding)):
            first = False
            sequence = order.pop()
            self.decoding.leave(sequence)
            self._preempted(sequence)
            self._waiting.append(sequence)
        generated = sum(self.decoding.generated_by(s) for s in order)
        declared = sum(self._declared(s) for s in order)
        self._ratio = min(1.0, (generated + RETRACT_STEPS * len(order)) / (declared + 1))
        self._full = False
