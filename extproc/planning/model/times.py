"""Notes on the iteration times that a plan used, and comparison of measured ones with our roofline."""

from collections.abc import Iterable
from dataclasses import dataclass

from extproc.planning.hardware.roofline import IterationCost, iteration_cost
from extproc.planning.model.setup import Setup, Times

__all__ = ["CHUNKS", "CONTEXT", "SEQUENCES", "TRUSTED", "Agreement", "agreement", "times_notes"]

# Both are compared on decode steps of this many sequences with this much context each, and on prefill chunks.
SEQUENCES, CONTEXT = (1, 64, 256), 1_000
CHUNKS = (512, 2_048, 8_192)
TRUSTED = (0.8, 1.25)


@dataclass(frozen=True, slots=True)
class Agreement:
    """Ratios of our roofline to measured times, of decode steps and prefill chunks by their sizes."""

    decode: dict[int, float]
    prefill: dict[int, float]

    @property
    def trusted(self) -> bool:
        """Whether all ratios are within TRUSTED."""
        return all(TRUSTED[0] <= each <= TRUSTED[1] for each in (*self.decode.values(), *self.prefill.values()))


def agreement(ours: IterationCost, measured: IterationCost) -> Agreement:
    """Compare both at the sizes that fit a batch of both."""
    most = min(len(ours.linear_s), len(measured.linear_s)) - 1
    return Agreement(
        {n: _decode_s(ours, n) / _decode_s(measured, n) for n in SEQUENCES if n <= most},
        {n: _prefill_s(ours, n) / _prefill_s(measured, n) for n in CHUNKS if n <= most},
    )


def times_notes(setups: Iterable[Setup]) -> tuple[str, ...]:
    """Return a sentence on the times of each kind of instance; it points out ratios that are not trusted."""
    kinds: dict[str, Setup] = {}
    for each in setups:
        kinds.setdefault(each.name, each)
    return tuple(_note(each, f"{name}: " if len(kinds) > 1 else "") for name, each in kinds.items())


def _note(setup: Setup, name: str) -> str:
    source = setup.times_source
    if source is None:
        why = (
            "as requested"
            if setup.times is Times.ROOFLINE
            else "none are measured, or dualpool[measured] is missing"
        )
        return (
            f"{name}Iteration times come from our roofline ({why}): trust ratios between fleets more than counts."
        )
    found = agreement(iteration_cost(setup.instance, setup.max_batched_tokens), setup.cost)
    parts = [_range(found.decode, "decoding sequences"), _range(found.prefill, "tokens of prefill")]
    far = "" if found.trusted else f", outside of its trusted range ({TRUSTED[0]:g} to {TRUSTED[1]:g})"
    return (
        f"{name}Iteration times are measured ({source}); our roofline is "
        f"{' and '.join(part for part in parts if part)}{far}."
    )


def _range(ratios: dict[int, float], of: str) -> str:
    if not ratios:
        return ""
    low, high, sizes = min(ratios.values()), max(ratios.values()), list(ratios)
    between = f"{low:.2f}" if len(ratios) == 1 else f"{low:.2f} to {high:.2f}"
    counts = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
    return f"{between} of them for {counts} {of}"


def _decode_s(cost: IterationCost, sequences: int) -> float:
    return cost.decode_run_s(sequences, sequences * CONTEXT, 1)


def _prefill_s(cost: IterationCost, tokens: int) -> float:
    return cost.mixed_s(0, 0, tokens, tokens**2 / 2)
