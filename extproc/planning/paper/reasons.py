"""One sentence per difference from the paper, built from this run's figures; omitted if they do not support it."""

from collections.abc import Iterator, Sequence

from extproc.planning.paper.figures import PAPER_SLOTS
from extproc.planning.paper.mi300x import MI300X
from extproc.planning.paper.replay import LONG, PAPER_RATES, SHORT, Replay, WorkloadReplay
from extproc.planning.simulation.runner import FleetEstimate

__all__ = ["reasons"]

MOSTLY = 0.5  # of an instance's usable time
SAME = 0.05  # fleet sizes and alphas that differ by less count as equal
KEEP = 0.8  # share of the best saving, as in the paper
TPOT_MS = 80


def reasons(replay: Replay) -> tuple[str, ...]:
    """Return all sentences for a replay."""
    sentences = [sentence for work in replay.workloads for sentence in _of_workload(work)]
    return (*sentences, *_of_all(replay), *_of_mi300x(replay.mi300x))


def _of_workload(work: WorkloadReplay) -> Iterator[str]:
    yield from _rates(work)
    yield from _slots(work)
    yield from _alpha(work)
    yield from _thresholds(work)


def _rates(work: WorkloadReplay) -> Iterator[str]:
    rho = next(split.rho for split in work.analysis.splits if split.threshold == SHORT)
    paper_rho = PAPER_RATES.short / PAPER_RATES.homogeneous
    if rho >= paper_rho:
        return
    sentence = (
        f"{work.name}, instances: rho is {rho:.2f} by the roofline; the paper states 2.8 and 11.2 req/s, that is "
        f"rho = {paper_rho:.0f}, and does not derive them"
    )
    if work.prefill_share > MOSTLY:
        sentence += (
            f". Prefill of {work.mean_prompt:,.0f} tokens per request takes {work.prefill_share:.0%} of an "
            "instance's usable time, and no number of slots changes that"
        )
    yield sentence + "."


def _slots(work: WorkloadReplay) -> Iterator[str]:
    one, right, two = work.paper_slots
    if two.instances < (1 - SAME) * one.instances:
        sentence = (
            f"{work.name}, the paper's slots: one pool with {PAPER_SLOTS[0]} sequences per instance needs "
            f"{one.instances:.0f} instances, two pools need {two.instances:.0f}"
        )
        if one.instances - right.instances >= KEEP * (one.instances - two.instances):
            sentence += (
                f"; but {right.design.name} that reserves the same memory needs {right.instances:.0f}: the saving "
                "comes from max_num_seqs, not from a second pool"
            )
        yield sentence + "."
    elif abs(one.instances - work.physical[0].instances) <= SAME * one.instances:
        running = one.typical.summary.pools[0].mean_sequences
        yield (
            f"{work.name}, the paper's slots: on average an instance uses {running:.0f} of {PAPER_SLOTS[0]}, so "
            "more of them change nothing."
        )


def _alpha(work: WorkloadReplay) -> Iterator[str]:
    at_short = next(split for split in work.formula if split.threshold == SHORT)
    implied = work.paper.implied_alpha
    if abs(at_short.alpha - implied) > SAME:
        yield (
            f"{work.name}, alpha: {at_short.alpha:.3%} of the requests are within {SHORT:,} tokens; the paper's "
            f"closed form needs alpha = {implied:.2f}, here the share within {work.implied_tokens:,} tokens."
        )
    one, two = work.implied_sizes
    if two < work.paper.two < one:
        yield (
            f"{work.name}, the paper's {work.paper.two} instances lie between its own formula at that alpha "
            f"({two}) and one pool ({one}); no input of it that we know leads to that number."
        )


def _thresholds(work: WorkloadReplay) -> Iterator[str]:
    one = work.physical[0].instances
    savings = {
        "by the paper's rates": {split.threshold: split.saving for split in work.formula},
        "by the roofline": {split.threshold: split.saving_long for split in work.analysis.splits},
        "simulated": {fleet.design.contexts[0]: 1 - fleet.instances / one for fleet in work.physical[1:]},
    }
    parts = [f"{how} {_keeping(at)}" for how, at in savings.items() if len(at) > 1]
    yield f"{work.name}, thresholds (the paper: 4K to 16K keep 80 % of the best saving): {'; '.join(parts)}."


def _keeping(savings: dict[int, float]) -> str:
    best = max(savings.values())
    if best <= 0:
        return "none saves instances"
    kept = [f"{threshold:,}" for threshold, saving in savings.items() if saving >= KEEP * best]
    keep = "keeps" if len(kept) == 1 else "keep"
    return f"{', '.join(kept)} {keep} it, of {len(savings)} thresholds (best saving: {best:.1%})"


def _of_all(replay: Replay) -> Iterator[str]:
    fleets = [fleet for work in replay.workloads for fleet in (*work.paper_slots, *work.physical)]
    yield from _not_steady(replay)
    batch = replay.batch
    yield (
        f"max_num_batched_tokens {batch.chosen:,} is the planner's choice, in both simulations; vLLM's default "
        f"for this GPU is {batch.default:,}. A full batch takes {batch.chosen_s * 1e3:.0f} ms of the {TPOT_MS} ms "
        f"that the objective allows between two tokens, one of the default size {batch.default_s * 1e3:.0f} ms. "
        "So the fleet sizes are those of tuned instances; `dualpool plan --batched-tokens` gives those of others."
    )
    yield _preemptions(fleets)
    longest = max(work.max_total for work in replay.workloads)
    if longest <= LONG:
        failed = 1 - min(fleet.typical.summary.success for fleet in fleets)
        yield f"Success: the longest request has {longest:,} of {LONG:,} tokens; at most {failed:.3%} fail."
    yield (
        "Out of memory: not simulated. vLLM allocates its cache when it starts and preempts when blocks run out; "
        "the paper's failures (2.1 per hour in one pool, .4 in two) come from its own memory model."
    )
    tails = [fleet.typical.summary.all.ttft_p99_s for fleet in fleets]
    yield (
        f"TTFT and TPOT: ours are for the smallest fleet that meets the objective, hence a P99 TTFT of "
        f"{min(tails):.2f} to {max(tails):.2f} s with 2 s allowed; the paper reports fleets at 90 % load."
    )


def _not_steady(replay: Replay) -> Iterator[str]:
    """Name the sizes that come from runs too short to be meaningful."""
    too_short = [
        f"{work.name}, {fleet.design.name}"
        for work in replay.workloads
        for fleet in (*work.paper_slots, *work.physical)
        if fleet.not_steady
    ]
    if too_short:
        yield (
            f"Too short: runs of {replay.requests:,} requests end before a steady state, so these sizes are not "
            f"those of real fleets: {'; '.join(dict.fromkeys(too_short))}. Use longer runs (--requests)."
        )


def _preemptions(fleets: Sequence[FleetEstimate]) -> str:
    most = max(fleet.typical.summary.preemptions_per_1000 for fleet in fleets)
    fill = max(use.kv_fill for fleet in fleets for use in fleet.typical.summary.pools)
    return (
        f"Preemptions: at most {most:.1f} per 1,000. vLLM allocates blocks on demand, and the fullest cache is "
        f"{fill:.0%} full on average; the paper reserves max_model_len for each sequence."
    )


def _of_mi300x(ours: MI300X) -> Iterator[str]:
    yield (
        f"MI300X: the paper gives GPUs, but no rates that we know; its saving implies rho = "
        f"{ours.implied_rho:.2f} at alpha = .80."
    )
    if ours.rho < ours.implied_rho:
        yield (
            f"MI300X, physical: rho is {ours.rho:.2f} at {ours.threshold:,}. Both pools run the same max_num_seqs "
            f"({ours.max_num_seqs}), as paged memory allows, whereas the paper's short pool runs more."
        )
