"""A fleet of pools under a workload: one event loop over the arrivals and the runs of all instances.

Pools are in ascending order of context. The router chooses the pool of each request, the balancer the instance. An
instance refuses a request that exceeds its context, as its engine does (HTTP 400). If a smaller pool refuses, the
request is retried on the next larger one, as the gateway would (a misroute); a refusal by the largest pool is
final. An output that is cut at a pool's context is an answer, which no gateway repairs. An instance may die: its
requests start over on another instance of the same pool, as if their clients had retried.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from math import inf, nan

import numpy as np
import numpy.typing as npt

from extproc.planning.simulation.balancing import ENVOYS_DEFAULT, Balancing
from extproc.planning.simulation.pool import PoolSpec, SimulatedPool
from extproc.planning.simulation.routers import Router
from extproc.planning.simulation.sequence import Sequence
from extproc.planning.simulation.watch import Watch
from extproc.planning.workload.arrivals import Workload
from extproc.planning.workload.lengths import Floats, Tokens

__all__ = ["FleetRun", "PoolUse", "simulate"]

PROGRESS_EVERY = 1_000


@dataclass(frozen=True, slots=True)
class PoolUse:
    """How full one pool was while requests arrived: the mean sequences per instance and the used share of the KV
    cache. `preemptions` are counted up to the last response.
    """

    name: str
    instances: int
    mean_sequences: float
    kv_fill: float
    preemptions: int


@dataclass(frozen=True, slots=True, eq=False)
class FleetRun:
    """The outcome of each request, as arrays of shape (requests,); nan if a request has no such time.

    `total` is the prompt plus the output before truncation, in tokens. `pool` is the index of the pool that
    answered, -1 for a rejected request. `restarted` counts the requests that were on an instance that died.
    `stopped` marks a run that was ended early: the only thing it shows is that the fleet fails.
    """

    arrival_s: Floats
    finish_s: Floats
    ttft_s: Floats
    tpot_s: Floats
    total: Tokens
    pool: npt.NDArray[np.int64]
    misrouted: npt.NDArray[np.bool_]
    truncated: npt.NDArray[np.bool_]
    pools: tuple[PoolUse, ...]
    under_counted: int
    restarted: int = 0
    stopped: bool = False


class _Simulation:
    """The event loop's state."""

    def __init__(
        self,
        workload: Workload,
        specs: tuple[PoolSpec, ...],
        router: Router,
        balancing: Balancing,
        watch: Watch | None,
    ) -> None:
        self._workload = workload
        self._watch = watch
        self._router = router
        self._pools = [SimulatedPool(spec, balancing, seed) for seed, spec in enumerate(specs)]
        self._events: list[tuple[float, int, int, int]] = []
        size = len(workload)
        self.first_token_s = np.full(size, np.nan)
        self.last_token_s = np.full(size, np.nan)
        self.output = np.zeros(size, np.int64)
        self.pool = np.full(size, -1)
        self.misrouted = np.zeros(size, np.bool_)
        self.truncated = np.zeros(size, np.bool_)
        self.restarted = 0
        self._cached = [0] * size if workload.cached is None else workload.cached.tolist()

    def run(
        self, progress: Callable[[int], None] | None, fails_at: int | None = None, *, check: bool = False
    ) -> FleetRun:
        """Let all requests arrive, then let the fleet finish them."""
        workload = self._workload
        declared = [None] * len(workload) if workload.declared is None else workload.declared.tolist()
        rows = zip(
            workload.arrival_s.tolist(), workload.prompt.tolist(), workload.output.tolist(), declared, strict=True
        )
        use: tuple[PoolUse, ...] = ()
        for index, (at_s, prompt, output, limit) in enumerate(rows):
            self._until(at_s, check=check)
            if index == fails_at:
                self._fail(at_s)
            self._arrive(index, at_s, prompt, output, limit)
            if index % PROGRESS_EVERY == 0:
                if progress is not None:
                    progress(index)
                if self._watch is not None and self._watch.hopeless:
                    return replace(self._result(()), stopped=True)
        use = tuple(self._use(pool, float(workload.arrival_s[-1])) for pool in self._pools)
        self._until(inf, check=check)
        return self._result(tuple(map(self._with_all_preemptions, use, self._pools)))

    def _arrive(self, index: int, now_s: float, prompt: int, output: int, declared: int | None) -> None:
        spill = self._router.spill
        if spill is not None and spill.is_due(now_s):
            spill.observe(now_s, [pool.busy() for pool in self._pools])
        chosen = self._router.place(index)
        while not self._pools[chosen].accepts(prompt, declared):
            chosen += 1
            if chosen == len(self._pools):
                return
            self.misrouted[index] = True
        room = self._pools[chosen].spec.limits.context_tokens - prompt
        self.truncated[index] = output > room
        self.pool[index] = chosen
        self.output[index] = min(output, room)
        sequence = Sequence(index, prompt, min(output, room), now_s, self._cached[index], declared or 0)
        self._admit(chosen, sequence, now_s)

    def _admit(self, chosen: int, sequence: Sequence, now_s: float) -> None:
        pool = self._pools[chosen]
        which = pool.pick()
        instance = pool.instances[which]
        epoch = instance.epoch
        instance.arrive(sequence, now_s)
        pool.touched(which)
        if instance.epoch != epoch:
            heappush(self._events, (instance.until_s, instance.epoch, chosen, which))

    def _fail(self, now_s: float) -> None:
        """Kill the busiest instance of each pool and restart its requests."""
        for chosen, pool in enumerate(self._pools):
            for old in pool.fail_busiest():
                restarted = Sequence(old.index, old.prompt, old.output, old.arrived_s, old.cached, old.declared)
                self._admit(chosen, restarted, now_s)
                self.restarted += 1

    def _until(self, now_s: float, *, check: bool) -> None:
        """Finish every run that ends by `now_s`."""
        events = self._events
        while events and events[0][0] <= now_s:
            at_s, epoch, chosen, which = heappop(events)
            pool = self._pools[chosen]
            instance = pool.instances[which]
            if instance.epoch != epoch:
                continue
            unanswered = instance.unanswered_tokens
            finished = instance.finish_run()
            if instance.until_s < inf:
                heappush(events, (instance.until_s, instance.epoch, chosen, which))
            if finished or instance.unanswered_tokens != unanswered:
                pool.touched(which)
            if finished:
                self._record(finished, at_s)
            if check:
                instance.check()

    def _record(self, finished: list[Sequence], now_s: float) -> None:
        for sequence in finished:
            self.first_token_s[sequence.index] = sequence.first_token_s
            self.last_token_s[sequence.index] = now_s
            self._router.learn(sequence.index, sequence.output)
            if self._watch is not None:
                self._report(self._watch, sequence, now_s)

    def _report(self, watch: Watch, sequence: Sequence, now_s: float) -> None:
        """Report to the watch the same figures that the result will contain."""
        index, after_first = sequence.index, sequence.output - 1
        tpot_s = (now_s - sequence.first_token_s) / after_first if after_first > 0 else nan
        ttft_s = sequence.first_token_s - sequence.arrived_s
        watch.note(int(self.pool[index]), index, ttft_s, tpot_s)

    def _result(self, use: tuple[PoolUse, ...]) -> FleetRun:
        after_first = self.output - 1
        spent_s = self.last_token_s - self.first_token_s
        tpot_s = np.divide(spent_s, after_first, out=np.full(len(spent_s), np.nan), where=after_first > 0)
        return FleetRun(
            arrival_s=self._workload.arrival_s,
            finish_s=self.last_token_s,
            total=self._workload.prompt + self._workload.output,
            ttft_s=self.first_token_s - self._workload.arrival_s,
            tpot_s=tpot_s,
            pool=self.pool,
            misrouted=self.misrouted,
            truncated=self.truncated,
            pools=use,
            under_counted=self._router.under_counted,
            restarted=self.restarted,
        )

    @staticmethod
    def _use(pool: SimulatedPool, seconds: float) -> PoolUse:
        size = len(pool.instances) * seconds
        held = pool.spec.limits.data_parallel * pool.spec.limits.kv_tokens
        return PoolUse(
            name=pool.spec.name,
            instances=len(pool.instances),
            mean_sequences=sum(i.sequence_s for i in pool.instances) / size,
            kv_fill=sum(i.kv_token_s for i in pool.instances) / size / held,
            preemptions=0,
        )

    @staticmethod
    def _with_all_preemptions(use: PoolUse, pool: SimulatedPool) -> PoolUse:
        """Add the pool's preemptions, including those after the last arrival."""
        return replace(use, preemptions=sum(instance.preemptions for instance in pool.instances))


def simulate(
    workload: Workload,
    pools: tuple[PoolSpec, ...],
    router: Router,
    balancing: Balancing = ENVOYS_DEFAULT,
    progress: Callable[[int], None] | None = None,
    *,
    watch: Watch | None = None,
    fails_at: int | None = None,
    check: bool = False,
) -> FleetRun:
    """Run a workload through a fleet; `check` asserts every instance's invariants after each event (slow).

    With a `watch`, the run ends early if every pool is certain to miss the objective. When request number
    `fails_at` arrives, the busiest instance of each pool dies for good.
    """
    return _Simulation(workload, pools, router, balancing, watch).run(progress, fails_at, check=check)
