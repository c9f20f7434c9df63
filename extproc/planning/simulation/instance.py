"""One inference server: the behaviour of a simulation iteration by iteration, at a fraction of its cost.

Schedulers without a clock decide what runs (`vllm_scheduler.py`, `sglang_scheduler.py`); this module adds the
times. A run of decode-only iterations is one event: it ends when a sequence finishes, when free memory runs out,
or when a request arrives that can be admitted, whichever is first. Its duration is the closed form of
`roofline.py`. Each admission, chunk and end of a sequence costs O(log sequences), whatever the lengths. Rejected:
stepping through the iterations (150 iterations of 100 sequences per request), and a fluid model (no preemption, no
tail).

With data parallelism a server has several schedulers, each with its own KV cache. Expert layers are computed by
all of them together, so they step together: an iteration lasts as long as the slowest scheduler's batch, computed
as if the other schedulers sent as many tokens to the experts. A request goes to the scheduler with the fewest
requests; ties are broken in rotation (DPLBAsyncMPClient in vllm/v1/engine/core_client.py, without its penalty for
full caches).

Not modelled: blocks shared between sequences (a cached prefix is not computed again, but each sequence holds a
copy of it), speculative decoding, swapping, pipeline parallelism, and planning an iteration while the previous one
runs (with which a request waits up to one iteration longer, `bench/planner_vllm.py`).
"""

from math import inf

from extproc.planning.hardware.roofline import IterationCost
from extproc.planning.model.throughput import InstanceLimits
from extproc.planning.simulation.scheduler import Scheduler
from extproc.planning.simulation.sequence import Batch, Sequence
from extproc.planning.simulation.sglang_scheduler import SglangScheduler
from extproc.planning.simulation.vllm_scheduler import VllmScheduler

__all__ = ["VllmInstance"]

SCHEDULERS: dict[str, type[Scheduler]] = {"vllm": VllmScheduler, "sglang": SglangScheduler}


class VllmInstance:
    """The state machine. Its only inputs are `arrive`, `finish_run` and `fail`; the caller keeps the clock.

    `until_s` is the time at which the run in flight ends (inf when idle). `epoch` changes whenever that time does.
    """

    def __init__(self, cost: IterationCost, limits: InstanceLimits) -> None:
        self._cost = cost
        scheduler = SCHEDULERS[limits.scheduler]
        self._ranks: list[Scheduler] = [scheduler(limits) for _ in range(limits.data_parallel)]
        self._next = 0
        self._run = 0
        self._slowest = Batch(0, 0, 0)
        self._prefills = False
        self._started_s = 0.0
        self.until_s = inf
        self.epoch = 0
        self.outstanding = 0
        self.unanswered_tokens = 0  # prompt tokens of requests without a first token
        self.sequence_s = 0.0
        self.kv_token_s = 0.0

    @property
    def waiting(self) -> int:
        """The number of queued requests, new and preempted."""
        return sum(rank.waiting for rank in self._ranks)

    @property
    def preemptions(self) -> int:
        """Preemptions so far."""
        return sum(rank.preemptions for rank in self._ranks)

    @property
    def kv_usage(self) -> float:
        """Share of the KV cache that is in use."""
        return sum(rank.kv_usage for rank in self._ranks) / len(self._ranks)

    def arrive(self, sequence: Sequence, now_s: float) -> None:
        """Accept a request. It cannot be admitted before the iteration in flight ends."""
        self.outstanding += 1
        self.unanswered_tokens += sequence.prompt
        has_place = self._least_loaded().arrive(sequence)
        if self.until_s == inf:
            self._plan(now_s)
        elif has_place and not self._prefills:
            self._cut_run(now_s)

    def finish_run(self) -> list[Sequence]:
        """End the run in flight at `until_s`, start the next one, and return the sequences that finished."""
        now_s = self.until_s
        self._account(now_s - self._started_s)
        finished: list[Sequence] = []
        self.unanswered_tokens = 0
        for rank in self._ranks:
            finished += rank.finish(self._run, now_s)
            self.unanswered_tokens += rank.unanswered_tokens
        self.outstanding -= len(finished)
        self._plan(now_s)
        return finished

    def fail(self) -> list[Sequence]:
        """Stop for good, and return the unfinished requests."""
        unfinished = [sequence for rank in self._ranks for sequence in rank.fail()]
        self.outstanding = self.unanswered_tokens = 0
        self.until_s = inf
        self.epoch += 1
        return unfinished

    def check(self) -> None:
        """Check the invariants; for debugging and tests. Raises AssertionError."""
        for rank in self._ranks:
            rank.check()
        assert self.outstanding == sum(rank.outstanding for rank in self._ranks)

    def _least_loaded(self) -> Scheduler:
        ranks = self._ranks
        if len(ranks) == 1:
            return ranks[0]
        turn = [*ranks[self._next :], *ranks[: self._next]]
        self._next = (self._next + 1) % len(ranks)
        return min(turn, key=lambda rank: rank.outstanding)

    def _plan(self, now_s: float) -> None:
        """Start the next run: as many iterations as all schedulers can do without a new decision."""
        self._started_s = now_s
        self.epoch += 1
        batch = self._ranks[0].plan()
        self._run, self._slowest, self._prefills = batch.iterations, batch, batch.tokens > 0
        if len(self._ranks) > 1:
            self._plan_together(batch)
        seconds = self._seconds(self._slowest, self._run) if self._run else inf
        self.until_s = now_s + seconds

    def _plan_together(self, first: Batch) -> None:
        """Plan the other ranks as well; take the shortest run and the slowest batch of all ranks."""
        batches = [first, *(rank.plan() for rank in self._ranks[1:])]
        busy = [batch for batch in batches if batch.iterations]
        if not busy:
            return
        self._run = run = min(batch.iterations for batch in busy)
        self._slowest = max(busy, key=lambda batch: self._seconds(batch, run))
        self._prefills = any(batch.tokens for batch in busy)

    def _seconds(self, batch: Batch, iterations: int) -> float:
        if batch.tokens:
            return self._cost.mixed_s(batch.decodes, batch.context, batch.tokens, batch.pairs)
        return self._cost.decode_run_s(batch.decodes, batch.context, iterations)

    def _cut_run(self, now_s: float) -> None:
        """Shorten the decode run so that it ends with the iteration in flight."""
        elapsed, batch = now_s - self._started_s, self._slowest
        run = min(self._run, self._cost.iterations_to_reach(batch.decodes, batch.context, elapsed))
        if run < self._run:
            self._run = run
            self.until_s = self._started_s + self._cost.decode_run_s(batch.decodes, batch.context, run)
            self.epoch += 1

    def _account(self, seconds: float) -> None:
        for rank in self._ranks:
            decoding = rank.decoding
            self.sequence_s += seconds * rank.running
            self.kv_token_s += seconds * (decoding.context + len(decoding) * self._run / 2)
