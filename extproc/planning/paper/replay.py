"""A replay of the paper's evaluation, next to its own tables (arXiv 2604.08075); nothing is fitted to them.

Its setting: Llama-3-70B on A100, 1,000 req/s, 100,000 requests, Poisson arrivals; objective P99 TTFT 2 s and TPOT
80 ms; one pool of 65,536 tokens with 16 sequences, against that pool plus one of 8,192 tokens with 128 sequences.
It is replayed twice:

- with the paper's numbers: its rates per instance in its formula, its slot counts in the simulator;
- physically: rates from the roofline, vLLM's default max_num_seqs, and the planner's max_num_batched_tokens.

An instance is 8 x A100: the paper does not state its size, and no smaller one holds 16 sequences of
65,536 tokens in BF16.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from extproc.planning.hardware.catalogue import built_in
from extproc.planning.hardware.instance import Instance
from extproc.planning.hardware.profiles import Catalogue
from extproc.planning.hardware.roofline import iteration_cost
from extproc.planning.model.analytic import analyse, right_sized_context
from extproc.planning.model.costs import Costs
from extproc.planning.model.objective import Objective
from extproc.planning.model.setup import MeasuredRates, Setup
from extproc.planning.model.splits import Analysis
from extproc.planning.paper.figures import PAPER, PAPER_SLOTS, PaperFigures
from extproc.planning.paper.mi300x import MI300X, project, round_up
from extproc.planning.simulation.balancing import Balance, Balancing
from extproc.planning.simulation.cache import ResultCache
from extproc.planning.simulation.runner import FleetEstimate, search_all
from extproc.planning.simulation.task import Design, SearchTask
from extproc.planning.workload.declared import DeclaredRule
from extproc.planning.workload.lengths import Lengths, from_means

__all__ = [
    "BALANCING",
    "LONG",
    "PAPER_COSTS",
    "PAPER_RATES",
    "RATE",
    "SHORT",
    "SWEEP",
    "FormulaSplit",
    "Replay",
    "WorkloadReplay",
    "replay",
]

RATE = 1_000.0
LONG, SHORT = 65_536, 8_192
PAPER_COSTS = Costs(gpus_per_instance=8, spare=0, usd_per_gpu_hour=2.21)
PAPER_RATES = MeasuredRates(homogeneous=2.8, short=11.2, long=2.8)
SWEEP = (2_048, 4_096, 8_192, 16_384)  # the paper: 4K to 16K keep 80 % of the benefit
# LMSYS-Chat-1M, table 1 of arXiv 2309.11998: mean tokens of a prompt and of a response. These are the figures that
# others cite; the table itself could not be checked. A multi-turn prompt is longer than that mean.
LMSYS_MEANS = (69.5, 214.5)
NEARLY_ALL = 0.99


@dataclass(frozen=True, slots=True)
class FormulaSplit:
    """Instances of one pool and of two by the paper's formula and rates, at a threshold and the trace's alpha."""

    threshold: int
    alpha: float
    one: int
    two: int

    @property
    def saving(self) -> float:
        """Share of the one pool's instances that two pools save."""
        return 1 - self.two / self.one


@dataclass(frozen=True, slots=True)
class WorkloadReplay:
    """One workload, replayed with both sets of numbers.

    `implied_tokens` is the length within which the share of requests is the paper's implied alpha; `implied_sizes`
    are the formula's one-pool and two-pool fleets at that alpha. `prefill_share` is the share of an instance's
    usable time that prefill takes in one pool of the long context. Lengths are in tokens.
    """

    name: str
    paper: PaperFigures
    mean_prompt: float
    max_total: int
    implied_tokens: int
    implied_sizes: tuple[int, int]
    formula: tuple[FormulaSplit, ...]
    paper_slots: tuple[FleetEstimate, ...]
    physical: tuple[FleetEstimate, ...]
    analysis: Analysis
    prefill_share: float


@dataclass(frozen=True, slots=True)
class BatchLimit:
    """max_num_batched_tokens: the planner's choice and vLLM's default, each with the seconds of a full batch."""

    chosen: int
    chosen_s: float
    default: int
    default_s: float


@dataclass(frozen=True, slots=True)
class Replay:
    """The result of `dualpool plan paper`; `max_num_seqs` is that of the physical runs."""

    requests: int
    seeds: int
    max_num_seqs: int
    batch: BatchLimit
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
    """Run the replay; `azure` holds the 2023 trace (conversations and code together).

    `progress` is called with the number of finished searches, the number of all searches, and a description.
    """
    catalogue = built_in()
    lmsys = from_means(*LMSYS_MEANS, requests=100_000, rng=np.random.default_rng(0))
    lengths = {"Azure": azure, "LMSYS": lmsys}
    tasks = [task for work in lengths.values() for task in _tasks(catalogue, work, requests, seeds)]
    fleets = search_all(tasks, jobs, cache, lambda done, what: progress(done, len(tasks), what))
    by_workload = [
        [fleet for fleet, task in zip(fleets, tasks, strict=True) if task.lengths is work]
        for work in lengths.values()
    ]
    workloads = tuple(
        _workload(name, work, tuple(estimates), _setup(catalogue, None))
        for (name, work), estimates in zip(lengths.items(), by_workload, strict=True)
    )
    setup = _setup(catalogue, None)
    seqs = setup.limits(LONG).max_num_seqs
    return Replay(requests, seeds, seqs, _batch_limit(setup), workloads, project(catalogue, azure, SWEEP, SHORT))


def _batch_limit(setup: Setup) -> BatchLimit:
    chosen, default = setup.max_batched_tokens, setup.largest_batch_tokens
    seconds = iteration_cost(setup.instance, max(chosen, default)).linear_s
    return BatchLimit(chosen, float(seconds[chosen]), default, float(seconds[default]))


def _setup(catalogue: Catalogue, max_num_seqs: tuple[int, int] | None) -> Setup:
    instance = Instance(catalogue.model("llama-3-70b"), catalogue.gpu("a100-80g"), PAPER_COSTS.gpus_per_instance)
    return Setup(
        "llama-3-70b",
        "a100-80g",
        instance,
        LONG,
        Objective(),
        spare=PAPER_COSTS.spare,
        price_usd_h=PAPER_COSTS.usd_per_gpu_hour,
        max_num_seqs=max_num_seqs,
        refuses_outputs=True,  # as vLLM did when the paper was written
    )


def _tasks(catalogue: Catalogue, lengths: Lengths, requests: int, seeds: int) -> list[SearchTask]:
    """Return the searches: first SLOT_DESIGNS of them with the paper's slots, then the physical ones."""
    right = right_sized_context(lengths, DeclaredRule.TRUTH, LONG)
    # If nearly everything is short, every threshold gives the same fleet, so only the paper's is simulated.
    thresholds = SWEEP if float(np.mean(lengths.total <= SWEEP[0])) < NEARLY_ALL else (SHORT,)
    slots, physical = _setup(catalogue, PAPER_SLOTS), _setup(catalogue, None)
    right_slots = PAPER_SLOTS[0] * LONG // right  # the same reserved memory, in shorter sequences
    one, split = Design(f"one pool of {LONG:,}", (LONG,)), Design(f"two pools at {SHORT:,}", (SHORT, LONG))
    designs = [
        (slots, one),
        (_setup(catalogue, (right_slots, right_slots)), Design(f"one pool of {right:,}", (right,))),
        (slots, split),
        (physical, one),
        *((physical, Design(f"two pools at {t:,}", (t, LONG))) for t in thresholds),
    ]
    return [
        SearchTask(design, setup, lengths, DeclaredRule.TRUTH, RATE, requests, seeds, "ema", BALANCING)
        for setup, design in designs
    ]


SLOT_DESIGNS = 3
BALANCING = Balancing(Balance.FULL_SCAN)  # the paper names none; this one favours large pools most


def _workload(name: str, lengths: Lengths, fleets: tuple[FleetEstimate, ...], setup: Setup) -> WorkloadReplay:
    implied = PAPER[name].implied_alpha
    analysis = analyse(lengths, RATE, setup, DeclaredRule.TRUTH, SWEEP)
    mean_prompt, chunk = float(lengths.prompt.mean()), setup.max_batched_tokens
    prefill_s = mean_prompt * float(setup.cost.linear_s[chunk]) / chunk
    return WorkloadReplay(
        name=name,
        paper=PAPER[name],
        mean_prompt=mean_prompt,
        max_total=int(lengths.total.max()),
        implied_tokens=int(np.quantile(lengths.total, implied)),
        implied_sizes=_formula_sizes(implied),
        formula=tuple(_formula_split(lengths, threshold) for threshold in SWEEP),
        paper_slots=fleets[:SLOT_DESIGNS],
        physical=fleets[SLOT_DESIGNS:],
        analysis=analysis,
        prefill_share=prefill_s * analysis.long.rate_per_instance,
    )


def _formula_split(lengths: Lengths, threshold: int) -> FormulaSplit:
    alpha = float(np.mean(lengths.total <= threshold))
    return FormulaSplit(threshold, alpha, *_formula_sizes(alpha))


def _formula_sizes(alpha: float) -> tuple[int, int]:
    """Return G_homo and G_dual with the paper's rates."""
    one, short, long = PAPER_RATES.homogeneous, PAPER_RATES.short, PAPER_RATES.long
    return round_up(RATE / one), round_up(alpha * RATE / short) + round_up((1 - alpha) * RATE / long)
