"""The notes printed next to a plan's figures, one sentence each."""

from collections.abc import Iterator, Sequence

from extproc.planning.hardware.published import LARGEST_GAP_GIB
from extproc.planning.model.engine import Engine
from extproc.planning.model.objective import FEWEST_JUDGED
from extproc.planning.model.reach import refused_share
from extproc.planning.model.setup import Setup
from extproc.planning.model.splits import Analysis
from extproc.planning.simulation.as_arrived import ArrivedRun
from extproc.planning.simulation.runner import FleetEstimate
from extproc.planning.simulation.task import FailureRun, RouterKind
from extproc.planning.workload.lengths import LeftOut, Lengths

__all__ = ["arrival_notes", "failure_notes", "fleet_notes", "memory_notes", "workload_notes"]

MODELS_KV_BYTES = 2  # bytes per KV element that servers use if no format is set
LITTLE_GIB = 2 * LARGEST_GAP_GIB  # free per GPU: if less, memory that is not counted may take most of it


def memory_notes(setups: Sequence[Setup]) -> tuple[str, ...]:
    """Name the instances whose KV cache may be much smaller than planned because weights nearly fill the GPU."""
    little: dict[str, float] = {}
    for each in setups:
        held_gib = each.capacity.kv_tokens * each.instance.kv_bytes_per_token_and_gpu / 2**30
        if each.engine is not Engine.SGLANG and held_gib < LITTLE_GIB:
            little[each.name] = held_gib
    return tuple(
        f"{name}: weights leave {held_gib:.1f} GiB per GPU for the KV cache, and activations are not counted; "
        f"servers as full as this one logged up to {LARGEST_GAP_GIB:g} GiB less. Check vLLM's 'Available KV cache "
        "memory' before you build it."
        for name, held_gib in little.items()
    )


def fleet_notes(fleets: tuple[FleetEstimate, ...], router: RouterKind = "byteclass") -> tuple[str, ...]:
    """Say what is not known about the simulated fleets."""
    return (*_steady_notes(fleets), *_judged_notes(fleets), *_router_notes(fleets, router))


def _router_notes(fleets: tuple[FleetEstimate, ...], router: RouterKind) -> tuple[str, ...]:
    """Say that no router knows what the oracle does; a fleet of one pool has no router."""
    if router != "oracle" or all(len(fleet.design.contexts) == 1 for fleet in fleets):
        return ()
    text = (
        "Fleets of several pools are those of a router that knows each prompt's tokens (--router oracle). The one "
        "in the files of --apply estimates them, and its pools may have to be larger: --router byteclass shows it."
    )
    return (text,)


def _steady_notes(fleets: tuple[FleetEstimate, ...]) -> tuple[str, ...]:
    """Name the fleets that are not known to be in steady state."""
    return tuple(
        f"{fleet.design.name}: not known to be steady ({fleet.not_steady}), so it is not recommended. Try longer "
        "runs (--requests), or a longer trace with --arrivals trace."
        for fleet in fleets
        if fleet.not_steady
    )


def _judged_notes(fleets: tuple[FleetEstimate, ...]) -> tuple[str, ...]:
    """Name the classes of the objective that runs had too few requests of."""
    return tuple(
        f"{fleet.design.name}: whether requests of the class '{name}' meet the objective is not known: runs of "
        f"{fleet.typical.requests:,} requests have fewer than {FEWEST_JUDGED} of them to judge. Try longer runs "
        "(--requests), or a longer trace with --arrivals trace."
        for fleet in fleets
        for name in fleet.not_judged
    )


def failure_notes(failure: FailureRun | None) -> tuple[str, ...]:
    """Describe how the recommended fleet behaves when instances die."""
    if failure is None:
        return ()
    text = (
        "If one instance of each pool of the recommended fleet, with its spares, is killed in the middle of "
        f"{failure.requests:,} requests, {failure.restarted:,} start again, and the objective is {_kept(failure)}."
    )
    return (text,)


def arrival_notes(arrived: ArrivedRun | None, *, stationary: bool) -> tuple[str, ...]:
    """Say when requests were taken to arrive, and what the trace's own times make of the recommended fleet."""
    if not stationary:
        return ()
    text = (
        "Fleets are the smallest for requests that arrive at random (Poisson), at a rate that does not change; "
        "bursts need more."
    )
    if arrived is None:
        return (text,)
    text += (
        f" At the trace's own arrival times ({arrived.requests:,} requests{arrived.pace}) the objective of the "
        f"recommended fleet, with its spares serving, is {_kept(arrived)}. --arrivals trace plans for them."
    )
    return (text,)


def _kept(run: FailureRun | ArrivedRun) -> str:
    kept = f"missed: {', '.join(run.misses)}" if run.misses else "met"
    return kept + (f" (not judged, too few requests: {', '.join(run.not_judged)})" if run.not_judged else "")


def _left_out_notes(left_out: LeftOut) -> Iterator[str]:
    """Yield how many requests of the source the plan lacks, and what that does to it."""
    if left_out.early:
        yield (
            f"{_part(left_out.early, left_out)} are left out because of their size: the router sent them to the "
            "largest pool early, before it had read them. They are longer than what fits any other pool. Where "
            "the plan's rate counts them, they are planned like the others: its largest pool is too small for "
            "them, and its long context may be."
        )
    if left_out.undecided:
        yield (
            f"{_part(left_out.undecided, left_out)} are left out because no router estimated them. They may have "
            "any length; where the plan's rate counts them, they are planned like the others."
        )


def _part(requests: int, left_out: LeftOut) -> str:
    return f"{requests:,} of {left_out.requests:,} requests ({requests / max(1, left_out.requests):.1%})"


def _format_notes(setup: Setup) -> Iterator[str]:
    """Yield what the servers' arguments cannot say: the formats of the weights, and of an unusual KV cache."""
    instance = setup.instance
    if instance.weight_format is not None:
        yield (
            f"Weights are planned with {instance.model.weight_bytes:g} bytes each (--weight-bytes). The servers' "
            "arguments name no model: serve one whose weights are in that format."
        )
    if instance.kv_bytes != MODELS_KV_BYTES and setup.engine.kv_format(instance) is None:
        yield (
            f"KV elements are planned with {instance.kv_bytes:g} bytes each (--kv-bytes). The servers' arguments "
            "do not set that format: add the --kv-cache-dtype that has this size."
        )


def _yarn_notes(setup: Setup) -> Iterator[str]:
    """Yield what contexts beyond the model's own need."""
    yarn = setup.instance.model.yarn
    if yarn is None or setup.long_context <= yarn.native_context:
        return
    text = (
        f"The configuration of {setup.model_name} allows {yarn.native_context:,} tokens; longer contexts need "
        "YaRN, which may lower the quality of responses to short prompts: "
    )
    if setup.engine is Engine.SGLANG:
        yield text + (
            "add it to the arguments of such servers (--json-model-override-args) yourself, and set "
            "SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN=1."
        )
    else:
        yield text + (
            "the arguments of such servers turn it on (--hf-overrides). Leave that out for newer weights of this "
            "size whose own configuration allows the context."
        )


def workload_notes(lengths: Lengths, setup: Setup, analysis: Analysis) -> tuple[str, ...]:
    """Return the caveats about the lengths, the instances and the cost model."""
    notes = [*([lengths.note] if lengths.note else []), *_left_out_notes(lengths.left_out)]
    if setup.measured is None and (refused := refused_share(lengths, setup)):
        notes.append(
            f"{round(refused * len(lengths)):,} of {len(lengths):,} requests ({refused:.2%}) are longer than "
            f"{setup.long_context:,} tokens (--long-context): servers refuse them, so they are no load."
        )
    if (ranks := setup.instance.data_parallel) > 1:
        notes.append(
            f"The attention is replicated: KV cache and max_num_seqs are per replica; the {ranks} replicas run in "
            "lockstep and share the experts."
        )
    if setup.engine is Engine.SGLANG:
        notes.append(
            "Simulated fleets use SGLang's scheduling rules; the cost model knows vLLM's batches only. SGLang "
            "admits requests by the max_tokens that clients declare: see --declared."
        )
    if lengths.cached is not None:
        share = float(lengths.cached.sum() / lengths.prompt.sum())
        notes.append(
            f"Prefix caching: {share:.1%} of the prompt tokens are assumed to be cached in every instance; "
            "instances that do not share a cache, or are not chosen by prefix, have fewer cached tokens."
        )
    notes += (*_format_notes(setup), *_yarn_notes(setup))
    if analysis.out_of_reach:
        thresholds = ", ".join(f"{t:,}" for t in analysis.out_of_reach)
        notes.append(f"At these thresholds one of two pools cannot meet the TPOT with its requests: {thresholds}.")
    if setup.measured is not None:
        notes.append("Measured rates are used at every threshold, but hold only for the one they were taken at.")
    if setup.price_usd_h is None:
        notes.append("No price is known for this GPU: give one with --price to see costs in USD.")
    return tuple(notes)
