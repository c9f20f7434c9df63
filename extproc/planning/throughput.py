"""Requests per second that one instance sustains, from lengths and iteration times, without simulating.

With b sequences decoding, each iteration completes b / E[output] requests, so as many prompts must be prefilled.
Prefill comes in chunks: a share f of the iterations carries one of m tokens, the others only decode.

    T(b) = (1 - f) T_decode(b) + f T_mixed(b, m)          mu(b) = b / (E[output] T(b))

mu grows with b; b is bounded by max_num_seqs, by the KV cache, by the batch's token budget, and by the objective
on the time per output token. The usable rate leaves head-room: an instance at exactly mu queues without end.
What this leaves out: queueing and bursts. The simulator has them.
"""

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from extproc.core.errors import ConfigurationError
from extproc.planning.lengths import Lengths
from extproc.planning.roofline import IterationCost

__all__ = ["InstanceLimits", "Throughput", "throughput"]

KV_FILL = 0.9  # of the KV cache on average; the rest absorbs fluctuation
LOAD = 0.9  # of the largest rate (the load at which the paper measures)


@dataclass(frozen=True, slots=True)
class InstanceLimits:
    """What bounds a batch: sequences, tokens of one iteration, KV cache (tokens), and the longest sequence."""

    max_num_seqs: int
    max_num_batched_tokens: int
    kv_tokens: int
    context_tokens: int


@dataclass(frozen=True, slots=True)
class Throughput:
    """Usable requests per second of one instance, with how many sequences, and what bounds it."""

    requests_per_s: float
    sequences: int
    iteration_s: float
    bound_by: str


@dataclass(frozen=True, slots=True)
class Means:
    """Means of a workload: tokens, and context weighted by how long it is held."""

    prompt: float
    output: float
    context: float
    chunk: float
    pairs_per_prompt_token: float


def throughput(lengths: Lengths, cost: IterationCost, limits: InstanceLimits, tpot_s: float) -> Throughput:
    """Return what one instance sustains for a workload.

    Raises ConfigurationError when even a single sequence decodes slower than the objective.
    """
    means = _means(lengths, limits)
    bounds = {
        "max_num_seqs": float(limits.max_num_seqs),
        "KV cache": KV_FILL * limits.kv_tokens / means.context,
        "max_num_batched_tokens": limits.max_num_batched_tokens / (1 + means.prompt / means.output),
    }
    bound_by = min(bounds, key=lambda name: bounds[name])
    sequences = max(1, int(bounds[bound_by]))
    sizes = range(1, sequences + 1)
    slowest = bisect_right(sizes, tpot_s, key=lambda b: _iteration_s(means, cost, b))
    if slowest == 0:
        alone = _iteration_s(means, cost, 1)
        raise ConfigurationError(
            f"objective TPOT {tpot_s * 1e3:g} ms: met by no fleet; a single sequence takes {alone * 1e3:.1f} "
            "ms per token"
        )
    if slowest < sequences:
        sequences, bound_by = slowest, "TPOT"
    iteration_s = _iteration_s(means, cost, sequences)
    return Throughput(LOAD * sequences / (means.output * iteration_s), sequences, iteration_s, bound_by)


def _means(lengths: Lengths, limits: InstanceLimits) -> Means:
    output = np.maximum(lengths.output, 1).astype(np.float64)
    prompt = np.maximum(lengths.prompt, 1).astype(np.float64)
    room = max(1.0, limits.max_num_batched_tokens * 0.9)  # decodes take the rest of the batch
    return Means(
        prompt=float(prompt.mean()),
        output=float(output.mean()),
        context=float((output * (prompt + output / 2)).sum() / output.sum()),
        chunk=float(prompt.sum() / np.ceil(prompt / room).sum()),
        pairs_per_prompt_token=float((prompt**2 / 2).sum() / prompt.sum()),
    )


def _iteration_s(means: Means, cost: IterationCost, sequences: int) -> float:
    """Return the mean time of an iteration in the steady state of `sequences` decoding sequences."""
    context = int(sequences * means.context)
    prefill_per_iteration = sequences * means.prompt / means.output
    share = min(1.0, prefill_per_iteration / means.chunk)
    chunk = prefill_per_iteration / share
    tokens = min(len(cost.linear_s) - 1, sequences + round(chunk))
    mixed = cost.mixed_s(0, context, tokens, chunk * means.pairs_per_prompt_token)
    return (1 - share) * cost.decode_run_s(sequences, context, 1) + share * mixed
