"""The notes printed next to a plan's figures, one sentence each."""

from collections.abc import Sequence

from extproc.planning.hardware.published import LARGEST_GAP_GIB
from extproc.planning.model.engine import Engine
from extproc.planning.model.setup import Setup
from extproc.planning.model.splits import Analysis
from extproc.planning.simulation.runner import FleetEstimate
from extproc.planning.simulation.task import FailureRun
from extproc.planning.workload.lengths import Lengths

__all__ = ["failure_notes", "memory_notes", "steady_notes", "workload_notes"]

LITTLE_GIB = 2 * LARGEST_GAP_GIB  # free per GPU: if less, memory that is not counted may take most of it


def memory_notes(setups: Sequence[Setup]) -> tuple[str, ...]:
    """Name the instances whose KV cache may be much smaller than planned because weights nearly fill the GPU."""
    little: dict[str, float] = {}
    for each in setups:
        held_gib = each.capacity.kv_tokens * each.instance.kv_bytes_per_token_and_gpu / 2**30
        if each.engine is not Engine.SGLANG and held_gib < LITTLE_GIB:
            little[each.name] = held_gib
    return tuple(
        f"{name}: weights leave {held_gib:.1f} GiB of a GPU for the KV cache, and activations are not counted; "
        f"servers that were as full logged up to {LARGEST_GAP_GIB:g} GiB less. Look at vLLM's 'Available KV cache "
        "memory' before you build it."
        for name, held_gib in little.items()
    )


def steady_notes(fleets: tuple[FleetEstimate, ...]) -> tuple[str, ...]:
    """Name the fleets that are not known to be in steady state."""
    return tuple(
        f"{fleet.design.name}: not known to be steady ({fleet.not_steady}); it is not recommended. More with "
        "--requests."
        for fleet in fleets
        if fleet.not_steady
    )


def failure_notes(failure: FailureRun | None) -> tuple[str, ...]:
    """Describe how the recommended fleet behaves when instances die."""
    if failure is None:
        return ()
    kept = f"missed: {', '.join(failure.misses)}" if failure.misses else "kept"
    text = (
        "The recommended fleet with its spares, one instance of each pool killed in the middle of "
        f"{failure.requests:,} requests: {failure.restarted:,} begin again, the objective is {kept}."
    )
    return (text,)


def workload_notes(lengths: Lengths, setup: Setup, analysis: Analysis) -> tuple[str, ...]:
    """Return the caveats about the lengths, the instances and the cost model."""
    notes = [lengths.note] if lengths.note else []
    if (ranks := setup.instance.data_parallel) > 1:
        notes.append(
            f"The attention is replicated: KV cache and max_num_seqs are those of each of {ranks} replicas, which "
            "step together and share the experts."
        )
    if setup.engine is Engine.SGLANG:
        notes.append(
            "SGLang's rules decide what runs in simulated fleets; the cost model knows vLLM's batches only. What "
            "clients declare decides whom SGLang admits: see --declared."
        )
    if lengths.cached is not None:
        share = float(lengths.cached.sum() / lengths.prompt.sum())
        notes.append(
            f"Prefix caching: {share:.1%} of the prompt tokens are taken as cached, in every instance alike; "
            "instances that do not share a cache, or are not chosen by prefix, find less."
        )
    if analysis.out_of_reach:
        thresholds = ", ".join(f"{t:,}" for t in analysis.out_of_reach)
        notes.append(f"At these thresholds one of two pools cannot meet the TPOT with its requests: {thresholds}.")
    if setup.measured is not None:
        notes.append("Measured rates are used at every threshold; they hold at the one they were measured with.")
    if setup.price_usd_h is None:
        notes.append("No price is known for this GPU: give one with --price to see money.")
    return tuple(notes)
