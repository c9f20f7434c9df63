"""Which iteration times a plan used, and how far measured ones are from our roofline."""

from extproc.planning.hardware.roofline import IterationCost, iteration_cost
from extproc.planning.model.setup import Setup, Times

__all__ = ["times_note"]

SEQUENCES, CONTEXT = 64, 1_000  # the decoding step, and
PREFILL = 512  # the chunk, at which both are compared
NEAR = (0.8, 1.25)


def times_note(setup: Setup) -> str:
    """Return one sentence on the times; it names the gap where the roofline is far from what was measured."""
    source = setup.times_source
    if source is None:
        why = (
            "as asked" if setup.times is Times.ROOFLINE else "none are measured, or dualpool[measured] is missing"
        )
        return f"Iteration times are our roofline's ({why}): ratios between fleets beat counts."
    ours = iteration_cost(setup.instance, max(PREFILL, setup.max_batched_tokens))
    ratios = [each(ours) / each(setup.cost) for each in (_decode_s, _prefill_s)]
    far = "" if all(NEAR[0] <= ratio <= NEAR[1] for ratio in ratios) else ", beyond what it is trusted for"
    return (
        f"Iteration times are measured ({source}); our roofline is {ratios[0]:.2f} of them for {SEQUENCES} "
        f"decoding sequences and {ratios[1]:.2f} for a chunk of {PREFILL} tokens{far}."
    )


def _decode_s(cost: IterationCost) -> float:
    return cost.decode_run_s(SEQUENCES, SEQUENCES * CONTEXT, 1)


def _prefill_s(cost: IterationCost) -> float:
    tokens = min(PREFILL, len(cost.linear_s) - 1)
    return cost.mixed_s(0, 0, tokens, tokens**2 / 2)
