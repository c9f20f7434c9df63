"""Tables of the paper's figures next to ours, and one sentence for each difference."""

from collections.abc import Callable, Iterator

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from extproc.planning.output.fleet_tables import fleet_tables, text_table
from extproc.planning.paper.figures import PAPER_SLOTS
from extproc.planning.paper.reasons import reasons
from extproc.planning.paper.replay import (
    BALANCING,
    LONG,
    PAPER_COSTS,
    PAPER_RATES,
    RATE,
    SHORT,
    Replay,
    WorkloadReplay,
)
from extproc.planning.simulation.runner import FleetEstimate

__all__ = ["comparison_rows", "replay_renderables"]

STEADY_S = 60.0
WHERE_FROM = (
    "The paper's savings of 31 to 42 % can come from max_num_seqs, if one pool runs only as many sequences as fit "
    "at full length and two pools do not; and from short requests that no longer wait behind long prefills, if "
    "they have a TTFT objective of their own. They cannot come from max_model_len itself, because vLLM allocates "
    "blocks on demand and reserves nothing; nor from this trace with one objective for all requests, because most "
    "of an instance's time is prefill, which takes as long in any split."
)
COLUMNS = ("", "paper", "with its numbers", "physical")


def replay_renderables(replay: Replay) -> Iterator[RenderableType]:
    """Yield the tables of the replay, followed by the sentences that explain the differences."""
    yield Text(
        f"Llama-3-70B on {PAPER_COSTS.gpus_per_instance} x A100-80G, 1,000 req/s, {replay.requests:,} requests, "
        f"Poisson, {replay.seeds} seed(s); P99 TTFT 2 s, P99 TPOT 80 ms. "
        "With its numbers: the paper's formula with its rates "
        f"({PAPER_RATES.homogeneous:g} and {PAPER_RATES.short:g} req/s, at every threshold); "
        f"simulations with its slots ({PAPER_SLOTS[0]} and {PAPER_SLOTS[1]} sequences), which use no rates. "
        f"Physical: the cost model with the roofline's rates; simulations with vLLM's default "
        f"max_num_seqs ({replay.max_num_seqs}) and max_num_batched_tokens {replay.batch.chosen:,}, the "
        f"planner's choice. Pools are balanced by {BALANCING}. "
        f"Each run is {replay.requests / RATE:,.0f} s of traffic"
        + (", too short for a steady state: sizes are too small." if replay.requests / RATE < STEADY_S else ".")
    )
    yield Text(WHERE_FROM)
    for work in replay.workloads:
        yield text_table(
            f"{work.name}: one pool of {LONG:,} / two pools at {SHORT:,}", COLUMNS, comparison_rows(work)
        )
        yield from fleet_tables(
            f"{work.name}: simulated with the paper's slots", work.paper_slots, PAPER_COSTS, full=True
        )
        yield from fleet_tables(f"{work.name}: simulated physically", work.physical, PAPER_COSTS, full=True)
        yield _formula_table(work)
        yield _sweep_table(work)
    yield _mi300x_table(replay)
    for sentence in reasons(replay):
        yield Text("- " + sentence)


def comparison_rows(work: WorkloadReplay) -> list[tuple[str, str, str, str]]:
    """Return the paper's table next to ours for one workload."""
    paper = work.paper
    pairs = _one_and_two(work.paper_slots), _one_and_two(work.physical)

    def row(
        label: str, reported: str, show: Callable[[FleetEstimate, FleetEstimate], str]
    ) -> tuple[str, str, str, str]:
        return label, reported, show(*pairs[0]), show(*pairs[1])

    formula = next(split for split in work.formula if split.threshold == SHORT)
    budgets = next(split for split in work.analysis.splits if split.threshold == SHORT)
    implied = f"{work.implied_sizes[0]} / {work.implied_sizes[1]}"
    return [
        ("alpha at 8,192", f"implied {paper.implied_alpha:.2f}", f"{formula.alpha:.4f}", f"{budgets.alpha:.4f}"),
        (
            "instances, formula / cost model",
            implied,
            f"{formula.one} / {formula.two}",
            f"{work.analysis.long.instances} / {budgets.instances}",
        ),
        row(
            "instances simulated",
            f"{paper.one} / {paper.two}",
            lambda a, b: f"{a.instances:.0f} / {b.instances:.0f}",
        ),
        row(
            "saving simulated",
            f"{1 - paper.two / paper.one:.1%}",
            lambda a, b: f"{1 - b.instances / a.instances:.1%}",
        ),
        row("preemptions per 1,000", paper.preemptions, lambda a, b: f"{_preemptions(a)} / {_preemptions(b)}"),
        ("out of memory per hour", paper.out_of_memory, "not simulated", "not simulated"),
        row("success", paper.success, lambda a, b: f"{_success(a)} / {_success(b)}"),
        row("TTFT P50 / P99 s, one pool", paper.ttft_one, lambda a, _: _ttft(a)),
        row("TTFT P50 / P99 s, two pools", paper.ttft_two, lambda _, b: _ttft(b)),
        row("TPOT P50 / P99 ms, one pool", paper.tpot_one, lambda a, _: _tpot(a)),
        row("TPOT P50 / P99 ms, two pools", paper.tpot_two, lambda _, b: _tpot(b)),
    ]


def _one_and_two(fleets: tuple[FleetEstimate, ...]) -> tuple[FleetEstimate, FleetEstimate]:
    return fleets[0], next(fleet for fleet in fleets if fleet.design.contexts[0] == SHORT)


def _preemptions(fleet: FleetEstimate) -> str:
    return f"{fleet.typical.summary.preemptions_per_1000:.1f}"


def _success(fleet: FleetEstimate) -> str:
    return f"{fleet.typical.summary.success:.2%}"


def _ttft(fleet: FleetEstimate) -> str:
    latency = fleet.typical.summary.all
    return f"{latency.ttft_p50_s:.2f} / {latency.ttft_p99_s:.2f}"


def _tpot(fleet: FleetEstimate) -> str:
    latency = fleet.typical.summary.all
    return f"{latency.tpot_p50_s * 1e3:.0f} / {latency.tpot_p99_s * 1e3:.0f}"


def _formula_table(work: WorkloadReplay) -> Table:
    rows = [(f"{s.threshold:,}", f"{s.alpha:.4f}", f"{s.one} / {s.two}", f"{s.saving:+.1%}") for s in work.formula]
    title = f"{work.name}: thresholds, its formula"
    return text_table(title, ("threshold", "alpha", "one / two", "saving"), rows)


def _sweep_table(work: WorkloadReplay) -> Table:
    one = work.physical[0].instances
    simulated = {fleet.design.contexts[0]: fleet.instances for fleet in work.physical[1:]}
    rows = [
        (
            f"{s.threshold:,}",
            f"{s.alpha:.4f}",
            f"{s.rho:.2f}",
            f"{s.closed_form:+.1%}",
            f"{s.honest_form:+.1%}",
            f"{work.analysis.long.instances} / {s.instances}",
            f"{s.saving_long:+.1%}",
            f"{one:.0f} / {simulated[s.threshold]:.0f}" if s.threshold in simulated else "-",
            f"{1 - simulated[s.threshold] / one:+.1%}" if s.threshold in simulated else "-",
        )
        for s in work.analysis.splits
    ]
    columns = ("threshold", "alpha", "rho", "closed", "honest", "model", "saving", "simulated", "saving")
    return text_table(f"{work.name}: thresholds, physical (cost model, simulated)", columns, rows)


def _mi300x_table(replay: Replay) -> Table:
    ours, paper = replay.mi300x, replay.mi300x.paper
    usd_per_gpu = ours.one_pool_usd / ours.one_pool_gpus
    one, two = ours.formula_gpus
    rows = [
        ("GPUs, one pool of 32,768", f"{paper.one_gpus:,}", f"{one:,}", f"{ours.one_pool_gpus:,}"),
        ("GPUs, two pools", f"{paper.two_gpus:,}", f"{two:,}", f"{ours.two_pool_gpus:,}"),
        ("at threshold", "-", f"{SHORT:,}", f"{ours.threshold:,}"),
        ("a year, one pool", f"${paper.one_musd}M", _musd(one * usd_per_gpu), _musd(ours.one_pool_usd)),
        ("a year, two pools", f"${paper.two_musd}M", _musd(two * usd_per_gpu), _musd(ours.two_pool_usd)),
    ]
    title = (
        f"Qwen3-235B on MI300X, 10,000 req/s; with its numbers: its one pool and implied rho at the trace's "
        f"alpha; physical: cost model, {ours.gpus_per_instance} GPUs per instance"
    )
    return text_table(title, COLUMNS, rows)


def _musd(usd: float) -> str:
    return f"${usd / 1e6:.1f}M"
