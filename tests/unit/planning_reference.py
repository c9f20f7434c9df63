"""vLLM's scheduler in the simplest form: one loop that steps through every iteration and reads like the rules.

The rules are those of vllm/v1/core/sched/scheduler.py and kv_cache_manager.py (allocate_slots), in the versions
that have scheduler_reserve_full_isl. Nothing is shared with the simulator but the cost of an iteration.
"""

from dataclasses import dataclass, field

from extproc.planning.hardware.roofline import IterationCost
from extproc.planning.model.throughput import InstanceLimits

__all__ = ["Request", "Schedule", "schedule"]


@dataclass
class Request:
    """A request: tokens to compute so far, tokens in the cache, and how much output is left."""

    index: int
    tokens: int
    left: int
    arrival_s: float
    cached: int = 0
    computed: int = 0
    blocks: int = 0
    decoding: bool = False


@dataclass
class Schedule:
    """The result: times by request, preemptions, and the number of iterations."""

    first_token_s: dict[int, float] = field(default_factory=dict)
    finish_s: dict[int, float] = field(default_factory=dict)
    preemptions: int = 0
    iterations: int = 0


class _Scheduler:
    def __init__(self, costs: IterationCost, bounds: InstanceLimits) -> None:
        self.costs, self.bounds = costs, bounds
        self.waiting: list[Request] = []
        self.running: list[Request] = []
        self.blocks = bounds.kv_tokens // 16
        self.own_blocks = -(-bounds.sequence_tokens // 16)
        self.done = Schedule()

    def chunk(self, request: Request, budget: int) -> int:
        """Return the tokens that a request gets: what it lacks, limited by the threshold and the budget."""
        new = request.tokens - request.computed
        alone = len(self.running) + len(self.waiting) == 1
        if 0 < self.bounds.long_prefill_token_threshold < new and (not alone or self.bounds.cap_lone_prompt):
            new = self.bounds.long_prefill_token_threshold
        return min(new, budget)

    def run_running(self, plan: list[tuple[Request, int]]) -> tuple[int, bool]:
        """Schedule running requests in order; preempt from the end.

        Return the budget left, and whether any was preempted.
        """
        budget, preempted, at = self.bounds.max_num_batched_tokens, False, 0
        while at < len(self.running) and budget > 0:
            request = self.running[at]
            new = self.chunk(request, budget)
            needed = -(-(request.computed + new) // 16) + self.own_blocks - request.blocks
            while needed > self.blocks:
                victim = self.running.pop()
                self.blocks += victim.blocks
                victim.computed = victim.blocks = 0
                victim.decoding = False
                self.waiting.insert(0, victim)
                self.done.preemptions += 1
                preempted = True
                if victim is request:
                    return budget, preempted
            self.blocks -= needed
            request.blocks += needed
            budget -= new
            plan.append((request, new))
            at += 1
        return budget, preempted

    def admit(self, plan: list[tuple[Request, int]], budget: int) -> None:
        """Admit the head of the queue as long as budget, seats and blocks allow."""
        while self.waiting and budget > 0 and len(self.running) < self.bounds.max_num_seqs:
            request = self.waiting[0]
            request.computed = request.cached
            new = self.chunk(request, budget)
            whole = -(-request.tokens // 16) + self.own_blocks
            needed = -(-(request.computed + new) // 16) + self.own_blocks
            if (whole if self.bounds.reserve_full_prompt else needed) > self.blocks:
                request.computed = 0
                return
            self.blocks -= needed
            request.blocks = needed
            self.running.append(self.waiting.pop(0))
            budget -= new
            plan.append((request, new))

    def finish(self, plan: list[tuple[Request, int]], now_s: float) -> None:
        """Record the end of an iteration."""
        for request, new in plan:
            request.computed += new
            if request.computed < request.tokens:
                continue
            self.done.first_token_s.setdefault(request.index, now_s)
            request.tokens += 1
            request.left -= 1
            request.decoding = True
            if request.left == 0:
                self.blocks += request.blocks
                self.running.remove(request)
                self.done.finish_s[request.index] = now_s

    def seconds(self, plan: list[tuple[Request, int]]) -> float:
        """Return the duration of an iteration."""
        decoding = [request for request, _ in plan if request.decoding]
        prefill = [(request, new) for request, new in plan if not request.decoding]
        pairs = sum(new * (request.computed + (new + 1) / 2) for request, new in prefill)
        context = sum(request.computed for request in decoding)
        if not prefill:
            return self.costs.decode_run_s(len(decoding), context, 1)
        return self.costs.mixed_s(len(decoding), context, sum(new for _, new in prefill), pairs)


def schedule(costs: IterationCost, bounds: InstanceLimits, requests: list[Request]) -> Schedule:
    """Run requests (in order of arrival) to their end."""
    state, pending, now_s = _Scheduler(costs, bounds), list(requests), 0.0
    while pending or state.waiting or state.running:
        if not state.waiting and not state.running:
            now_s = max(now_s, pending[0].arrival_s)
            state.waiting.append(pending.pop(0))
        while pending and pending[0].arrival_s < now_s:  # arrivals at the start of an iteration wait
            state.waiting.append(pending.pop(0))
        plan: list[tuple[Request, int]] = []
        budget, preempted = state.run_running(plan)
        if not preempted:
            state.admit(plan, budget)
        now_s += state.seconds(plan)
        state.done.iterations += 1
        state.finish(plan, now_s)
    return state.done
