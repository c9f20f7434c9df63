"""The paper's figures and ours, side by side, and one sentence for each difference."""

from collections.abc import Iterator

from rich.console import RenderableType
from rich.text import Text

from extproc.planning.paper import SWEEP, Replay, WorkloadReplay
from extproc.planning.runner import FleetEstimate
from extproc.planning.tables import fleet_row, text_table

__all__ = ["comparison_rows", "replay_renderables"]

GPUS = 8
COLUMNS = ("", "paper", "its rates and slots", "physical")

PAPER = {
    "Azure": {"one": 358, "two": 208, "preempt_one": "47.3", "preempt_two": "8.7", "success": "99.69 / 99.95 %",
              "ttft_one": ".42 / 1.82", "ttft_two": ".28 / 1.71", "tpot_one": "28 / 67", "tpot_two": "25 / 62"},
    "LMSYS": {"one": 358, "two": 246},
}  # fmt: skip

WHY = (
    "Instances: 2.8 and 11.2 req/s are given in the paper, not derived; on 8 x A100 most of an Azure request's cost is "
    "the prefill of its 1,434 tokens, which no slot count changes, so rho is near 1 instead of 4.",
    "alpha: the public Azure trace has one request in 28,185 over 8,192 tokens; the paper's closed form of 60 % "
    "needs alpha = .80, which is its share under 2,048. Lengths with LMSYS's published means all fit 8,192, too.",
    "The paper's 208 and 246 lie between its own formula at the implied alpha (144 and 178) and one pool (358), and "
    "no input that it states leads there.",
    "Preemptions: vLLM pages the cache, and requests of the trace's lengths fill a few per cent of it: there is "
    "nothing to preempt for, with 16 sequences or with 256; the paper reserves max_model_len for each sequence.",
    "Success: nothing in the trace is longer than 65,536 tokens and nothing is lost for memory, so all requests "
    "succeed; the paper's failures are memory errors of its reservation model (2.1 an hour), which vLLM turns into "
    "preemption.",
    "TTFT and TPOT: ours are those of the smallest fleet that meets the objective, so the P99 TTFT sits just under "
    "2 s by construction; the paper reports a fleet at 90 % load.",
    "MI300X: the paper's projection applies its formula to a stated alpha and rho; ours derives the rates, and a "
    "shorter context brings no more sequences into a batch that the objective already limits.",
)


def replay_renderables(replay: Replay) -> Iterator[RenderableType]:
    """Yield the tables of the replay."""
    yield Text(
        f"Llama-3-70B on {GPUS} x A100-80G, 1,000 req/s, {replay.requests:,} requests, Poisson, {replay.seeds} seed(s); "
        "P99 TTFT 2 s, P99 TPOT 80 ms"
    )
    for work in replay.workloads:
        yield text_table(f"{work.name}: one pool of 65,536 / two pools at 8,192", COLUMNS, comparison_rows(work))
        columns = ("fleet", "instances", "95 % CI", "GPUs", "GPU-h/year", "busy", "TTFT s", "TPOT ms", "preempt/1000", "misrouted", "rejected", "truncated")
        rows = [(f"its slots: {row[0]}", *row[1:]) for row in (fleet_row(f, GPUS) for f in work.paper_slots)]
        rows += [fleet_row(f, GPUS) for f in work.physical]
        yield text_table(f"{work.name}: simulated fleets and threshold sweep", columns, rows)
        yield _sweep_table(work)
    yield _mi300x_table(replay)
    for sentence in WHY:
        yield Text("- " + sentence)


def comparison_rows(work: WorkloadReplay) -> list[tuple[str, ...]]:
    """Return the paper's table beside ours for one workload."""
    paper = PAPER[work.name]
    slots, physical = (_one_and_two(fleets) for fleets in (work.paper_slots, work.physical))
    one, two = work.formula_sizes
    implied = work.implied_sizes
    rows = [
        ("alpha at 8,192", "implied .80" if work.name == "Azure" else "implied .68", f"{work.alpha:.4f}", f"{work.alpha:.4f}"),
        ("instances by the formula", f"{implied[0]} / {implied[1]}", f"{one} / {two}", f"{work.analysis.long.instances} / {_split_at_8k(work)}"),
        ("instances simulated", f"{paper['one']} / {paper['two']}", _sizes(slots), _sizes(physical)),
        ("saving simulated", f"{1 - int(paper['two']) / int(paper['one']):.1%}", _saving(slots), _saving(physical)),
    ]
    for label, key, show in (
        ("preemptions per 1,000", "preempt", lambda f: f"{f.typical.summary.preemptions_per_1000:.1f}"),
        ("TTFT P50 / P99 s, one pool", "ttft_one", _ttft),
        ("TTFT P50 / P99 s, two pools", "ttft_two", _ttft),
        ("TPOT P50 / P99 ms, one pool", "tpot_one", _tpot),
        ("TPOT P50 / P99 ms, two pools", "tpot_two", _tpot),
    ):
        which = 1 if key.endswith("two") else 0
        if key == "preempt":
            said = f"{paper.get('preempt_one', '-')} / {paper.get('preempt_two', '-')}"
            rows.append((label, said, *(f"{show(pair[0])} / {show(pair[1])}" for pair in (slots, physical))))
        else:
            rows.append((label, str(paper.get(key, "-")), show(slots[which]), show(physical[which])))
    success = (f"{pair[0].typical.summary.success:.2%} / {pair[1].typical.summary.success:.2%}" for pair in (slots, physical))
    rows.append(("success", str(paper.get("success", "-")), *success))
    return rows


def _one_and_two(fleets: tuple[FleetEstimate, ...]) -> tuple[FleetEstimate, FleetEstimate]:
    return fleets[0], next(fleet for fleet in fleets if fleet.design.contexts[0] == SWEEP[-1])


def _split_at_8k(work: WorkloadReplay) -> int:
    return next(split.instances for split in work.analysis.splits if split.threshold == SWEEP[-1])


def _sizes(pair: tuple[FleetEstimate, FleetEstimate]) -> str:
    return f"{pair[0].instances:.0f} / {pair[1].instances:.0f}"


def _saving(pair: tuple[FleetEstimate, FleetEstimate]) -> str:
    return f"{1 - pair[1].instances / pair[0].instances:.1%}"


def _ttft(fleet: FleetEstimate) -> str:
    did = fleet.typical.summary.all
    return f"{did.ttft_p50_s:.2f} / {did.ttft_p99_s:.2f}"


def _tpot(fleet: FleetEstimate) -> str:
    did = fleet.typical.summary.all
    return f"{did.tpot_p50_s * 1e3:.0f} / {did.tpot_p99_s * 1e3:.0f}"


def _sweep_table(work: WorkloadReplay) -> RenderableType:
    rows = [
        (f"{s.threshold:,}", f"{s.alpha:.3f}", f"{s.rho:.2f}", f"{s.closed_form:+.1%}", f"{s.honest_form:+.1%}", f"{s.instances}")
        for s in work.analysis.splits
    ]
    return text_table(f"{work.name}: cost model, physical rates", ("threshold", "alpha", "rho", "closed form", "honest form", "instances"), rows)


def _mi300x_table(replay: Replay) -> RenderableType:
    ours = replay.mi300x
    rows = [
        ("GPUs, one pool of 32,768", "1,576", f"{ours.one_pool_gpus:,}"),
        ("GPUs, two pools", "1,096", f"{ours.two_pool_gpus:,} (at {ours.threshold:,})"),
        ("a year, one pool", "$50.6M", f"${ours.one_pool_usd / 1e6:.1f}M"),
        ("a year, two pools", "$35.2M", f"${ours.two_pool_usd / 1e6:.1f}M"),
    ]
    title = f"Qwen3-235B on MI300X, 10,000 req/s ({ours.gpus_per_instance} GPUs an instance; cost model)"
    return text_table(title, ("", "paper", "ours"), rows)
