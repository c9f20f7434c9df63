"""The paper's evaluation, replayed beside its own tables (arXiv 2604.08075); nothing is fitted to them.

Its setting: Llama-3-70B on A100, 1,000 req/s, 100,000 requests, Poisson; objective P99 TTFT 2 s and TPOT 80 ms;
one
pool of 65,536 tokens with 16 sequences against 8,192 tokens with 128 sequences beside it. Replayed twice:

- with the paper's numbers: its rates per instance in the cost model, its slot counts in the simulator;
- physically: rates from the roofline, vLLM's own limits.

An instance is 8 x A100: the paper does not say, and no smaller one holds 16 sequences of 65,536 tokens in BF16.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from extproc.planning.analytic import Analysis, analyse, right_sized_context
from extproc.planning.cache import ResultCache
from extproc.planning.capacity import Instance, smallest_tensor_parallel
from extproc.planning.catalogue import Catalogue, built_in
from extproc.planning.declared import DeclaredRule
from extproc.planning.lengths import Lengths, from_means
from extproc.planning.runner import FleetEstimate, search_all
from extproc.planning.search import Design, SearchTask
from extproc.planning.setup import MeasuredRates, Objective, Setup

__all__ = ["MI300X", "Replay", "WorkloadReplay", "replay"]

RATE = 1_000.0
LONG, SHORT = 65_536, 8_192
PAPER_RATES = MeasuredRates(homogeneous=2.8, short=11.2, long=2.8)
PAPER_SLOTS = (16, 128)
SWEEP = (2_048, 4_608, 8_192)
# LMSYS-Chat-1M, table 1 of arXiv 2309.11998: mean tokens of a prompt and of a response. Quoted from the paper as
# it is widely cited; no copy of the table could be checked. A multi-turn prompt is longer than that mean.
LMSYS_MEANS = (69.5, 214.5)
# What the closed forms of 60.0 % and 51.0 % imply for alpha when rho is 11.2 / 2.8.
IMPLIED_ALPHA = {"Azure": 0.80, "LMSYS": 0.68}
NEARLY_ALL = 0.99
MI300X_RATE = 10_000.0
MI300X_CONTEXT = 32_768


@dataclass(frozen=True, slots=True)
class WorkloadReplay:
    """One workload under both sets of numbers. `alpha` is the share of requests that really fit the short pool.

    `formula_sizes` are the one-pool and two-pool fleets of the cost model with the paper's rates at the real
    alpha,
    `implied_sizes` at the alpha that its closed form implies.
    """

    name: str
    alpha: float
    formula_sizes: tuple[int, int]
    implied_sizes: tuple[int, int]
    paper_slots: tuple[FleetEstimate, ...]
    physical: tuple[FleetEstimate, ...]
    analysis: Analysis


@dataclass(frozen=True, slots=True)
class MI300X:
    """The projection for Qwen3-235B on MI300X: GPUs and dollars a year of one pool and of the best split."""

    gpus_per_instance: int
    one_pool_gpus: int
    two_pool_gpus: int
    one_pool_usd: float
    two_pool_usd: float
    threshold: int


@dataclass(frozen=True, slots=True)
class Replay:
    """All that `dualpool plan paper` prints."""

    requests: int
    seeds: int
    workloads: tuple[WorkloadReplay, ...]
    mi300x: MI300X


def replay(
    azure: Lengths,
    requests: int,
    seeds: int,
    *,
    jobs: int,
    cache: ResultCache,
    progress: Callable[[int, int, str], None],
) -> Replay:
    """Run everything; `azure` holds the 2023 trace (conversations and code together)."""
    catalogue = built_in()
    lmsys = from_means(*LMSYS_MEANS, requests=100_000, rng=np.random.default_rng(0))
    lengths = {"Azure": azure, "LMSYS": lmsys}
    tasks = [task for work in lengths.values() for task in _tasks(catalogue, work, requests, seeds)]
    fleets = search_all(tasks, jobs, cache, lambda done, what: progress(done, len(tasks), what))
    of = [
        [fleet for fleet, task in zip(fleets, tasks, strict=True) if task.lengths is work]
        for work in lengths.values()
    ]
    workloads = tuple(
        _workload(name, work, tuple(mine), _setup(catalogue, None))
        for (name, work), mine in zip(lengths.items(), of, strict=True)
    )
    return Replay(requests, seeds, workloads, _mi300x(catalogue, azure))


def _setup(catalogue: Catalogue, max_num_seqs: tuple[int, int] | None) -> Setup:
    instance = Instance(catalogue.model("llama-3-70b"), catalogue.gpu("a100-80g"), 8)
    return Setup(
        "llama-3-70b",
        "a100-80g",
        instance,
        LONG,
        Objective(),
        spare=0,
        price_usd_h=2.21,
        max_num_seqs=max_num_seqs,
    )


def _tasks(catalogue: Catalogue, lengths: Lengths, requests: int, seeds: int) -> list[SearchTask]:
    """Return SLOT_DESIGNS searches with the paper's slots, then the physical ones."""
    right = right_sized_context(lengths, DeclaredRule.TRUTH, LONG)
    # Where nearly everything is short every threshold is the same fleet, so only the last one is simulated.
    thresholds = SWEEP if float(np.mean(lengths.total <= SWEEP[0])) < NEARLY_ALL else SWEEP[-1:]
    slots, physical = _setup(catalogue, PAPER_SLOTS), _setup(catalogue, None)
    as_many = PAPER_SLOTS[0] * LONG // right  # the same reservation, in shorter sequences
    one, split = Design(f"one pool of {LONG:,}", (LONG,)), Design(f"two pools at {SHORT:,}", (SHORT, LONG))
    designs = [
        (slots, one),
        (_setup(catalogue, (as_many, as_many)), Design(f"one pool of {right:,}", (right,))),
        (slots, split),
        (physical, one),
        *((physical, Design(f"two pools at {t:,}", (t, LONG))) for t in thresholds),
    ]
    return [
        SearchTask(design, setup, lengths, DeclaredRule.TRUTH, RATE, requests, seeds, "ema")
        for setup, design in designs
    ]


SLOT_DESIGNS = 3


def _workload(name: str, lengths: Lengths, fleets: tuple[FleetEstimate, ...], setup: Setup) -> WorkloadReplay:
    alpha = float(np.mean(lengths.total <= SHORT))
    return WorkloadReplay(
        name=name,
        alpha=alpha,
        formula_sizes=_formula_sizes(alpha),
        implied_sizes=_formula_sizes(IMPLIED_ALPHA[name]),
        paper_slots=fleets[:SLOT_DESIGNS],
        physical=fleets[SLOT_DESIGNS:],
        analysis=analyse(lengths, RATE, setup, DeclaredRule.TRUTH, SWEEP),
    )


def _formula_sizes(alpha: float) -> tuple[int, int]:
    """Return G_homo and G_dual with the paper's rates."""
    one, short, long = PAPER_RATES.homogeneous, PAPER_RATES.short, PAPER_RATES.long
    return _ceil(RATE / one), _ceil(alpha * RATE / short) + _ceil((1 - alpha) * RATE / long)


def _ceil(value: float) -> int:
    return int(np.ceil(round(value, 9)))


def _mi300x(catalogue: Catalogue, azure: Lengths) -> MI300X:
    model, gpu = catalogue.model("qwen3-235b-a22b"), catalogue.gpu("mi300x")
    instance = smallest_tensor_parallel(Instance(model, gpu, 1), MI300X_CONTEXT, "qwen3-235b-a22b on mi300x")
    setup = Setup(
        "qwen3-235b-a22b", "mi300x", instance, MI300X_CONTEXT, Objective(), spare=0, price_usd_h=gpu.price_usd_h
    )
    analysis = analyse(azure, MI300X_RATE, setup, DeclaredRule.TRUTH, SWEEP)
    gpus = instance.tensor_parallel
    return MI300X(
        gpus_per_instance=gpus,
        one_pool_gpus=analysis.long.instances * gpus,
        two_pool_gpus=analysis.best.instances * gpus,
        one_pool_usd=analysis.long.usd_per_year or 0.0,
        two_pool_usd=analysis.best.usd_per_year or 0.0,
        threshold=analysis.best.threshold,
    )
