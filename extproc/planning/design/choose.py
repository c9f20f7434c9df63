"""Search of the best design with one pool and with several, at every threshold worth trying."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from extproc.planning.design.pool import PoolChoice, PoolTask, Tuning, best_pool
from extproc.planning.model.objective import LATE, LengthClass, Objective
from extproc.planning.model.setup import Setup
from extproc.planning.simulation.balancing import Balancing
from extproc.planning.simulation.cache import ResultCache
from extproc.planning.simulation.processes import processes
from extproc.planning.simulation.task import Design
from extproc.planning.workload.declared import DeclaredRule, budgets
from extproc.planning.workload.lengths import Lengths

__all__ = ["Question", "Sized", "omitted_notes", "sized_designs"]

BLOCK = 16
FEWEST_OF_A_POOL = 20  # requests in the sample: too few to size a pool if below


@dataclass(frozen=True, slots=True)
class Question:
    """The problem that every design must solve. `head_room` is max_model_len divided by the routing threshold."""

    lengths: Lengths
    rate: float
    setup: Setup
    rule: DeclaredRule
    balancing: Balancing
    tuning: Tuning
    head_room: float = 1.0

    def model_len(self, threshold: int) -> int:
        """Return the max_model_len of a pool that takes budgets up to `threshold`."""
        return min(self.setup.long_context, -(-round(threshold * self.head_room) // BLOCK) * BLOCK)


@dataclass(frozen=True, slots=True)
class Sized:
    """A design whose pools were searched one by one: instances, GPUs and cost without spares.

    `balancing` is None if only one rule was requested.
    """

    limits: tuple[int, ...]
    pools: tuple[PoolChoice, ...]
    balancing: Balancing | None = None

    @property
    def cost(self) -> float:
        """Cost per hour (the number of GPUs if prices are not known)."""
        return sum(pool.cost for pool in self.pools)

    @property
    def gpus(self) -> int:
        """GPUs of all pools."""
        return sum(pool.gpus for pool in self.pools)

    def design(self, name: str, question: Question) -> Design:
        """Return the design to simulate, with all pools together."""
        setups = tuple(replace(pool.setup, objective=question.setup.objective) for pool in self.pools)
        lens = tuple(question.model_len(limit) for limit in self.limits)
        return Design(name, self.limits, setups, lens, self.balancing)


def sized_designs(
    question: Question,
    limits: Sequence[tuple[int, ...]],
    jobs: int,
    cache: ResultCache,
    progress: Callable[[int, int, str], None],
) -> list[Sized]:
    """Search the best pools of each design; omit designs with a pool that meets its objective with no fleet."""
    fits = _fits(question)
    wanted = {part: None for each in limits for part in _parts(each)}
    tasks = {part: _task(question, fits, *part) for part in wanted}
    known = {part: task for part, task in tasks.items() if task is not None}
    found = _search(known, jobs, cache, progress)
    sized = []
    for each in limits:
        pools = [found.get(part) for part in _parts(each)]
        if all(pool is not None for pool in pools):
            sized.append(Sized(each, tuple(pool for pool in pools if pool is not None)))
    return sized


def omitted_notes(asked: Sequence[int], designs: Sequence[Design]) -> list[str]:
    """Name the thresholds that were asked for and that no two pools have: `sized_designs` omitted them."""
    kept = {design.contexts[0] for design in designs if len(design.contexts) == 2}  # noqa: PLR2004  (two pools)
    omitted = ", ".join(f"{each:,}" for each in asked if each not in kept)
    text = (
        f"Two pools at {omitted} are not simulated: one of them gets fewer than {FEWEST_OF_A_POOL} of the "
        "requests, or no number of the instances that are tried serves them in time."
    )
    return [text] if omitted else []


@dataclass(frozen=True, slots=True)
class _Kept:
    """A pool's choice as it is cached: what the search changed; 0 instances if nothing meets the objective."""

    instances: int
    gpu: str = ""
    tensor_parallel: int = 1
    data_parallel: int = 1
    batched_tokens: int | None = None
    best_batch_tokens: int | None = None
    long_prefill_tokens: int = 0
    max_num_seqs: tuple[int, int] | None = None

    @classmethod
    def of(cls, choice: PoolChoice | None) -> "_Kept":
        if choice is None:
            return cls(0)
        setup = choice.setup
        return cls(
            choice.instances,
            setup.gpu_name,
            setup.instance.tensor_parallel,
            setup.instance.data_parallel,
            setup.batched_tokens,
            setup.best_batch_tokens,
            setup.long_prefill_tokens,
            setup.max_num_seqs,
        )

    def choice(self, task: PoolTask) -> PoolChoice | None:
        if self.instances == 0:
            return None
        known = {name: (gpu, price) for name, gpu, price in task.tuning.gpus}
        base = task.setup
        gpu, price = known.get(self.gpu, (base.instance.gpu, base.price_usd_h))
        setup = replace(
            base,
            objective=task.objective,
            long_context=task.context,
            gpu_name=self.gpu,
            price_usd_h=price,
            instance=replace(
                base.instance, gpu=gpu, tensor_parallel=self.tensor_parallel, data_parallel=self.data_parallel
            ),
            batched_tokens=self.batched_tokens,
            best_batch_tokens=self.best_batch_tokens,
            long_prefill_tokens=self.long_prefill_tokens,
            max_num_seqs=self.max_num_seqs,
        )
        return PoolChoice(setup, self.instances, self.instances * setup.instance_cost)


Part = tuple[int, int, bool]  # budgets above this many tokens, up to this many; whether a larger pool follows


def _parts(limits: tuple[int, ...]) -> Iterator[Part]:
    for index, limit in enumerate(limits):
        yield (0 if index == 0 else limits[index - 1]), limit, index < len(limits) - 1


Fits = Callable[[int], npt.NDArray[np.bool_]]


def _fits(question: Question) -> Fits:
    """Return a function that marks the requests sent to a pool with a given threshold, or to a smaller pool.

    Those are the requests whose likeliest total is within the threshold and whose bound is within max_model_len.
    """
    bound = budgets(question.lengths, question.rule)
    total = bound if question.lengths.budget is not None else budgets(question.lengths, question.rule, 1.0)

    def fits(limit: int) -> npt.NDArray[np.bool_]:
        inside: npt.NDArray[np.bool_] = (total <= limit) & (bound <= question.model_len(limit))
        return inside

    return fits


def _task(question: Question, fits: Fits, above: int, limit: int, short: bool) -> PoolTask | None:  # noqa: FBT001
    """Return the search task of one pool, or None if almost nothing is routed to it.

    The largest pool takes what fits no other pool, whatever its budget.
    """
    mine = np.ones(len(question.lengths), np.bool_) if above == 0 else ~fits(above)
    if short:
        mine &= fits(limit)
    if int(mine.sum()) < FEWEST_OF_A_POOL:
        return None
    return PoolTask(
        lengths=question.lengths.subset(mine),
        rate=question.rate * float(mine.mean()),
        context=question.model_len(limit),
        setup=question.setup,
        objective=_part_of(question.setup.objective, question.lengths, mine),
        rule=question.rule,
        balancing=question.balancing,
        tuning=question.tuning,
        short=short,
    )


def _part_of(objective: Objective, lengths: Lengths, mine: npt.NDArray[np.bool_]) -> Objective:
    """Return the objective of a pool that serves a part of each class.

    The pool may be late for as many requests of a class as the fleet may for the whole class.
    """
    index = objective.of(lengths.prompt + np.maximum(lengths.output, 1))
    parts = []
    for place, each in enumerate(objective.classes):
        share = float(mine[index == place].mean()) if (index == place).any() else 1.0
        parts.append(LengthClass(each.limit, each.ttft_s, each.tpot_s, min(1.0, LATE / max(share, LATE))))
    if not objective.shorter:  # all requests share one objective: each pool must meet it on its own
        parts = [replace(parts[0], late=LATE)]
    last = parts.pop()
    return Objective(last.ttft_s, last.tpot_s, 0.0, tuple(parts), last.late)


def _search(
    tasks: dict[Part, PoolTask], jobs: int, cache: ResultCache, progress: Callable[[int, int, str], None]
) -> dict[Part, PoolChoice | None]:
    found: dict[Part, PoolChoice | None] = {}
    for part, task in tasks.items():
        kept = cache.get(task, _Kept)
        if kept is not None:
            found[part] = kept.choice(task)
    missing = [part for part in tasks if part not in found]
    if missing:  # the first takes minutes where there are thousands of requests per second
        progress(len(found), len(tasks), "the best pool for each range of tokens")
    for part, choice in _searched(tasks, missing, jobs):
        found[part] = choice
        cache.put(tasks[part], _Kept.of(choice))
        above, limit, _ = part
        progress(len(found), len(tasks), f"best pool for {above:,} to {limit:,} tokens")
    return found


def _searched(
    tasks: dict[Part, PoolTask], missing: list[Part], jobs: int
) -> Iterator[tuple[Part, PoolChoice | None]]:
    if jobs == 1 or len(missing) <= 1:
        for part in missing:
            yield part, best_pool(tasks[part])
        return
    with processes(jobs) as pool:
        futures = {pool.submit(best_pool, tasks[part]): part for part in missing}
        for future in as_completed(futures):
            yield futures[future], future.result()
