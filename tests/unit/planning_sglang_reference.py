"""SGLang's scheduler in the simplest form: one loop that steps through every batch and reads like the rules.

The rules are those of SGLang 0.5.23 (PrefillAdder in schedule_policy.py, retract_decode in schedule_batch.py,
get_next_batch_to_run in scheduler.py), with defaults and page size 1. Nothing is shared with the simulator but the
cost of an iteration.
"""

from dataclasses import dataclass, field

from extproc.planning.hardware.roofline import IterationCost
from extproc.planning.model.throughput import InstanceLimits

__all__ = ["Request", "Schedule", "schedule"]

CLIP = 4_096


@dataclass
class Request:
    """A request: prompt, output and declared output in tokens; what was generated, and what is in the cache."""

    index: int
    prompt: int
    output: int
    arrival_s: float
    declared: int
    generated: int = 0
    computed: int = 0


@dataclass
class Schedule:
    """The result: times by request, and retractions."""

    first_token_s: dict[int, float] = field(default_factory=dict)
    finish_s: dict[int, float] = field(default_factory=dict)
    retracted: int = 0


class _Scheduler:
    def __init__(self, bounds: InstanceLimits) -> None:
        self.bounds = bounds
        self.waiting: list[Request] = []
        self.running: list[Request] = []
        self.cut: Request | None = None
        self.ratio = 0.7
        self.full = False
        self.done = Schedule()

    @property
    def available(self) -> int:
        """Tokens of memory that are free."""
        held = sum(request.computed for request in self.running)
        return self.bounds.kv_tokens - held - (self.cut.computed if self.cut else 0)

    def prompts(self) -> list[tuple[Request, int]]:
        """Return the next batch of prompts, empty if none can run."""
        if (self.full or not self.waiting) and self.cut is None:
            return []
        batch: list[tuple[Request, int]] = []
        offset = sum(min(r.declared - r.generated, CLIP) for r in self.running) * self.ratio
        remaining = self.available - offset
        budget = self.bounds.max_num_batched_tokens
        if self.cut is not None:
            request, self.cut = self.cut, None
            left = request.prompt + request.generated - request.computed
            chunk = min(left, budget, int(remaining)) if int(remaining) > 0 else min(left, budget)
            batch.append((request, chunk))
            if chunk < left:
                self.cut = request
            budget -= chunk
            remaining -= chunk + 1 + (min(request.declared, CLIP) if chunk == left else 0)
        while self.waiting and budget > 0:
            request = self.waiting[0]
            if len(self.running) + len(batch) >= self.bounds.max_num_seqs:
                self.full = True
                break
            left = request.prompt + request.generated
            output = min(max(request.declared - request.generated, 0), CLIP)
            if left + output + 1 >= remaining and (batch or self.running):
                self.full = True
                break
            self.waiting.pop(0)
            chunk = min(left, budget)
            batch.append((request, chunk))
            if chunk < left:
                self.cut = request
            budget -= chunk
            remaining -= chunk + 1 + (min(request.declared, CLIP) if chunk == left else 0)
            if remaining <= 0:
                self.full = True
                break
        return batch

    def make_room(self) -> None:
        """Retract running requests until each of the others has room for one more token."""
        order = sorted(self.running, key=lambda r: (r.generated, -r.prompt), reverse=True)
        while len(order) > 1:
            request = order.pop()
            self.running.remove(request)
            request.computed = 0
            self.waiting.append(request)
            self.done.retracted += 1
            if self.available >= len(self.running):
                break
        generated, declared = sum(r.generated for r in order), sum(r.declared for r in order)
        self.ratio = min(1.0, (generated + 20 * len(order)) / (declared + 1))
        self.full = False

    def answer(self, request: Request, now_s: float) -> bool:
        """Generate a token for a request; return whether it was the last one."""
        request.generated += 1
        self.done.first_token_s.setdefault(request.index, now_s)
        if request.generated < request.output:
            return False
        self.done.finish_s[request.index] = now_s
        self.full = False
        return True


def schedule(costs: IterationCost, bounds: InstanceLimits, requests: list[Request]) -> Schedule:
    """Run requests (in order of arrival) to their end."""
    state, pending, now_s = _Scheduler(bounds), list(requests), 0.0
    while pending or state.waiting or state.running or state.cut:
        if not state.waiting and not state.running and not state.cut:
            now_s = max(now_s, pending[0].arrival_s)
            state.waiting.append(pending.pop(0))
        while pending and pending[0].arrival_s < now_s:
            state.waiting.append(pending.pop(0))
        batch = state.prompts()
        if batch:
            pairs = sum(chunk * (request.computed + (chunk + 1) / 2) for request, chunk in batch)
            now_s += costs.mixed_s(0, 0, sum(chunk for _, chunk in batch), pairs)
            for request, chunk in batch:
                request.computed += chunk
                whole = request.computed == request.prompt + request.generated
                if whole and not state.answer(request, now_s):
                    state.running.append(request)
            continue
        if state.available < len(state.running):
            state.make_room()
        else:
            state.ratio = max(0.7 * 0.14, state.ratio - (0.7 - 0.7 * 0.14) / 600)
        now_s += costs.decode_run_s(len(state.running), sum(r.computed for r in state.running), 1)
        for request in list(state.running):
            request.computed += 1
            if state.answer(request, now_s):
                state.running.remove(request)
    return state.done
