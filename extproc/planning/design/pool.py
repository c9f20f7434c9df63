"""Search of the cheapest way to serve one pool's requests: parallelism, GPU, batch size, long-prefill threshold.

Pools do not influence each other, and Poisson arrivals split by length are again Poisson. So each pool of each
design is optimised on its own, with placement by the router's usual bound, and designs are assembled from the best
pools. This makes the search affordable: the candidates of a design's pools are added, not multiplied. The
recommended fleets are simulated again afterwards, all pools together, with the router in the loop.

Candidates: each tensor and data parallelism (and GPU) that holds the model and the context, with the batch that is
best for these requests by the cost model, cheapest by that model first; those whose modelled cost is above
HOPELESS times the best simulated cost are skipped. With the largest batch that keeps the TPOT the wrong
parallelism may win, of which no knob finds the way back; it is tried where the best one misses the objective.
Starting from the best candidate, the scheduler's knobs are tried one at a time, and a change is kept if it needs
fewer instances. A full grid was rejected: the knobs hardly interact, and it costs ten times as much.

Runs last a minute, as the first ones of whole fleets do, and longer if that leaves in doubt whether smaller pools
only seem to grow (`steady.py`); knobs are tried in runs of the length that sufficed. The length counts in seconds,
because it must be long beside the time that a request stays, whatever the rate. Rejected: a limit of 12,000
requests, which are 7.5 s at 1,600 req/s, so that no pool had filled; and simulating a share of the instances with
a share of the load, because it rounds: of 66 instances one is 1.5 %, of the eight at 200 req/s one is an eighth of
the pool.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from extproc.core.errors import ConfigurationError
from extproc.planning.hardware.capacity import TENSOR_PARALLEL_SIZES
from extproc.planning.hardware.profiles import GpuProfile
from extproc.planning.model.engine import Engine
from extproc.planning.model.objective import Objective
from extproc.planning.model.reach import with_best_batch
from extproc.planning.model.setup import Setup
from extproc.planning.model.throughput import throughput
from extproc.planning.simulation.balancing import Balancing
from extproc.planning.simulation.options import DEFAULT_SECONDS, LONGEST, MAX_REQUESTS
from extproc.planning.simulation.search import ObjectiveNotMet, rough_fleet
from extproc.planning.simulation.task import Design, SearchTask, make_workload, run_unless_hopeless
from extproc.planning.simulation.verdict import verdict
from extproc.planning.workload.declared import DeclaredRule
from extproc.planning.workload.lengths import Lengths

__all__ = ["PoolChoice", "PoolTask", "Tuning", "best_pool"]

MOST_GPUS = 8  # per instance: parallelism across servers is not proposed
HOPELESS = 1.7  # modelled cost over the best simulated cost, from which candidates are skipped
LONG_PREFILL_THRESHOLDS = (256, 1024)
FEWER_SEQUENCES = (128, 64, 32)  # max_num_seqs: fewer keep the TPOT low and leave room for cached prefixes
FEWER = 0.04  # share of the instances removed per step while a knob is tried
FEWEST_REQUESTS = 3_000


@dataclass(frozen=True, slots=True)
class Tuning:
    """What the search may change: parallelism, GPU, and the scheduler's knobs."""

    parallelism: bool = True
    knobs: bool = True
    gpus: tuple[tuple[str, GpuProfile, float | None], ...] = ()  # name, profile, USD per hour

    @property
    def batches(self) -> bool:
        """Whether each instance has a batch of its own, instead of the plan's."""
        return self.knobs or self.parallelism


@dataclass(frozen=True, slots=True)
class PoolTask:
    """One pool to search: its requests (`rate` per second), the context it must hold, and its objective."""

    lengths: Lengths
    rate: float
    context: int
    setup: Setup
    objective: Objective
    rule: DeclaredRule
    balancing: Balancing
    tuning: Tuning
    short: bool = False


@dataclass(frozen=True, slots=True)
class PoolChoice:
    """The best configuration of a pool: how instances are run, how many are needed, and their cost.

    The cost is per hour, or the number of GPUs if a price is not known.
    """

    setup: Setup
    instances: int
    cost: float

    @property
    def gpus(self) -> int:
        """GPUs of the pool."""
        return self.instances * self.setup.instance.gpus


def best_pool(task: PoolTask) -> PoolChoice | None:
    """Return the cheapest pool, or None if no candidate meets the objective."""
    best: PoolChoice | None = None
    requests = 0
    for setup, least_cost in _candidates(task):
        if best is not None and least_cost > HOPELESS * best.cost:
            break
        for each in _starts(task, setup):
            try:
                found = rough_fleet(_search(task, each))
            except ObjectiveNotMet:
                continue
            choice = PoolChoice(each, found.total, found.total * each.instance_cost)
            if best is None or choice.cost < best.cost:
                best, requests = choice, found.requests
            break
    if best is None or not task.tuning.knobs:
        return best
    for knob in _knobs(best.setup):
        best = _with(task, best, knob, requests)
    return _with_smaller_batch(task, best, requests)


def _candidates(task: PoolTask) -> list[tuple[Setup, float]]:
    """Return the setups that hold the context with their costs, cheapest by the cost model first."""
    found = []
    for setup in _parallel(task):
        limits = setup.limits(task.context, short=task.short)
        rate = throughput(task.lengths, setup.cost, limits, task.objective.tightest_tpot_s).requests_per_s
        if rate > 0:
            found.append((setup, task.rate / rate * setup.instance_cost))
    return sorted(found, key=lambda candidate: candidate[1])


def _parallel(task: PoolTask) -> Iterator[Setup]:
    tuning = task.tuning
    base = replace(task.setup, objective=task.objective)
    if tuning.batches:  # the plan's batch is that of another instance
        base = replace(base, best_batch_tokens=None)
    gpus = tuning.gpus or ((base.gpu_name, base.instance.gpu, base.price_usd_h),)
    for name, gpu, price in gpus:
        for size, ranks in _shapes(task):
            instance = replace(base.instance, gpu=gpu, tensor_parallel=size, data_parallel=ranks)
            try:
                setup = replace(
                    base, gpu_name=name, instance=instance, price_usd_h=price, long_context=task.context
                )
            except ConfigurationError:  # it does not fit
                continue
            yield with_best_batch(task.lengths, setup) if tuning.batches else setup


def _starts(task: PoolTask, setup: Setup) -> Iterator[Setup]:
    """Yield a candidate and, in case it misses the objective, the one with the largest batch that keeps the TPOT:
    the cost model does not know how long prompts wait for small chunks.
    """
    yield setup
    largest = replace(setup, best_batch_tokens=None)
    if task.tuning.batches and largest.max_batched_tokens > setup.max_batched_tokens:
        yield largest


def _shapes(task: PoolTask) -> list[tuple[int, int]]:
    """Return (tensor, data) parallelism to try: replicas of the attention only if there are experts to share."""
    instance = task.setup.instance
    if not task.tuning.parallelism:
        return [(instance.tensor_parallel, instance.data_parallel)]
    sizes = [size for size in TENSOR_PARALLEL_SIZES if size <= MOST_GPUS]
    shared = instance.model.routed is not None and task.setup.engine is not Engine.SGLANG
    replicas = sizes if shared else [1]
    return [(size, ranks) for ranks in replicas for size in sizes if size * ranks <= MOST_GPUS]


def _knobs(setup: Setup) -> Iterator[Setup]:
    """Yield variations of the best setup; each is tried on top of those before it that helped."""
    if setup.engine is not Engine.SGLANG:  # SGLang has no such threshold
        least = setup.instance.smallest_chunk_tokens
        yield from (replace(setup, long_prefill_tokens=t) for t in LONG_PREFILL_THRESHOLDS if t >= least)
    most_seqs = setup.limits(setup.long_context).max_num_seqs
    yield from (replace(setup, max_num_seqs=(seqs, seqs)) for seqs in FEWER_SEQUENCES if seqs < most_seqs)
    tokens = 2 * setup.max_batched_tokens
    while tokens <= setup.largest_batch_tokens:
        yield replace(setup, batched_tokens=tokens)
        tokens *= 2


def _with_smaller_batch(task: PoolTask, best: PoolChoice, requests: int) -> PoolChoice:
    """Return the choice with its batch halved for as long as each half needs fewer instances."""
    while (tokens := best.setup.max_batched_tokens // 2) >= best.setup.smallest_batch_tokens:
        smaller = _with(task, best, replace(best.setup, batched_tokens=tokens), requests)
        if smaller is best:
            break
        best = smaller
    return best


def _with(task: PoolTask, best: PoolChoice, setup: Setup, requests: int) -> PoolChoice:
    """Return the choice with a knob changed if that needs fewer instances in runs of `requests`, else the best
    choice unchanged.
    """
    changed = replace(
        best.setup,
        long_prefill_tokens=setup.long_prefill_tokens or best.setup.long_prefill_tokens,
        batched_tokens=setup.batched_tokens or best.setup.batched_tokens,
        max_num_seqs=setup.max_num_seqs or best.setup.max_num_seqs,
    )
    if changed == best.setup:
        return best
    search = replace(_search(task, changed), requests=requests)
    workload, size = make_workload(search, 1), best.instances
    step = max(1, round(FEWER * size))
    while size > step:
        summary = run_unless_hopeless(search, workload, (size - step,), None)
        if summary is None or not all(verdict(summary, task.objective).passed):
            break
        size -= step
    return best if size == best.instances else PoolChoice(changed, size, size * changed.instance_cost)


def _search(task: PoolTask, setup: Setup) -> SearchTask:
    requests = min(MAX_REQUESTS, max(FEWEST_REQUESTS, round(task.rate * DEFAULT_SECONDS)))
    return SearchTask(
        design=Design("pool", (task.context,), (setup,)),
        setup=setup,
        lengths=task.lengths,
        rule=task.rule,
        rate=task.rate,
        requests=requests,
        seeds=1,
        router="oracle",
        balancing=task.balancing,
        longest=min(MAX_REQUESTS, LONGEST * requests),
    )
