"""Requests per second that one instance sustains, from lengths and iteration times, without simulation.

A prefill produces the first token, so a request of E[output] tokens decodes D = E[output] - 1 times; some requests
may not decode. If each iteration completes r requests, D r sequences decode in it, and P r prompt tokens are
prefilled, in chunks: a share f of the iterations carries a chunk of m tokens, the rest only decode.

    T(r) = (1 - f) T_decode(D r) + f T_mixed(D r, m)          mu(r) = r / T(r)

r is a mean and need not be a whole number: with prompts of many chunks and short outputs, less than one sequence
decodes on average. mu grows with r; r is bounded by max_num_seqs, by the KV cache, by the batch's token budget (so
that no iteration exceeds it), and by the objective on the time per output token. A sequence's own prefill ends
before it decodes, so prefill never slows a request that runs alone: an instance can always serve requests one
after another, and an objective is out of reach only if it is below the decode time of a single sequence. The
usable rate leaves head-room, because the queue of an instance at exactly mu grows without limit. Queueing and
bursts are not modelled here; the simulator models them.
"""

from dataclasses import dataclass
from math import inf
from typing import Literal

import numpy as np

from extproc.planning.hardware.roofline import IterationCost
from extproc.planning.workload.lengths import Lengths

__all__ = ["InstanceLimits", "Throughput", "prefill_s", "throughput"]

KV_FILL = 0.9  # average share of the KV cache in use; the rest absorbs fluctuation
LOAD = 0.9  # share of the largest rate that is usable (the load at which the paper measures)
HALVINGS = 40  # bisection steps for the largest r within the TPOT: more precise than anything else here


@dataclass(frozen=True, slots=True)
class InstanceLimits:
    """Limits of a batch: sequences, tokens per iteration, KV cache (tokens), and the longest sequence.

    `long_prefill_token_threshold` limits the tokens of one prompt per iteration (0: only the batch size does).
    `reserve_full_prompt`: a prompt is admitted only if all of it fits the free cache (scheduler_reserve_full_isl).
    `sequence_tokens` is what each sequence holds in addition to its own tokens: windows and recurrent states. An
    instance has `data_parallel` schedulers, and each has all of these limits to itself. `cap_lone_prompt`: the
    threshold also limits a request that runs alone (vLLM until September 2026, PR 57951). `scheduler` is the
    engine whose scheduling rules apply. `shortens_outputs`: a prompt only has to fit by itself, and its output
    ends where the context does (vLLM from 0.32 on, PR 42474); otherwise the declared output has to fit, too.
    """

    max_num_seqs: int
    max_num_batched_tokens: int
    kv_tokens: int
    context_tokens: int
    long_prefill_token_threshold: int = 0
    reserve_full_prompt: bool = True
    sequence_tokens: int = 0
    data_parallel: int = 1
    cap_lone_prompt: bool = False
    scheduler: Literal["vllm", "sglang"] = "vllm"
    shortens_outputs: bool = False


@dataclass(frozen=True, slots=True)
class Throughput:
    """Usable requests per second of one instance, sequences decoding on average (per rank), and the binding limit.

    The rate is 0 if even a single sequence takes longer per token than the objective; `iteration_s` is that time.
    """

    requests_per_s: float
    sequences: float
    iteration_s: float
    bound_by: str


@dataclass(frozen=True, slots=True)
class Means:
    """Means of a workload: prompt tokens, decode steps, context tokens weighted by time held, prefill chunk."""

    prompt: float
    decodes: float
    context: float
    chunk: float
    pairs_per_prompt_token: float


def throughput(lengths: Lengths, cost: IterationCost, limits: InstanceLimits, tpot_s: float) -> Throughput:
    """Return the rate that one instance sustains for a workload within the objective on time per output token."""
    means = _means(lengths, limits)
    fixed_s, slope_s = cost.decode(1)
    single_s = fixed_s + means.context * slope_s
    if means.decodes > 0 and single_s > tpot_s:
        return Throughput(0.0, 0.0, single_s, "TPOT")
    held = means.context + limits.sequence_tokens
    bounds = {
        "max_num_seqs": limits.max_num_seqs / means.decodes if means.decodes else inf,
        "KV cache": KV_FILL * limits.kv_tokens / (held * means.decodes) if means.decodes else inf,
        "max_num_batched_tokens": limits.max_num_batched_tokens / (means.decodes + means.prompt),
    }
    bound_by = min(bounds, key=lambda name: bounds[name])
    done = bounds[bound_by]
    if means.decodes > 0 and _iteration_s(means, cost, done) > tpot_s:
        done, bound_by = _within(means, cost, done, tpot_s), "TPOT"
    iteration_s = _iteration_s(means, cost, done)
    batched = done / iteration_s
    alone = 1 / (_prefill_s(means, cost) + means.decodes * single_s)
    ranks = limits.data_parallel
    if alone > batched:
        return Throughput(ranks * LOAD * alone, means.decodes * single_s * alone, single_s, bound_by)
    return Throughput(ranks * LOAD * batched, done * means.decodes, iteration_s, bound_by)


def prefill_s(prompt_tokens: int, cost: IterationCost, limits: InstanceLimits) -> float:
    """Return the time to the first token of one prompt on an idle instance, in seconds."""
    one = Lengths(np.array([max(1, prompt_tokens)]), np.array([1]), "one prompt")
    return _prefill_s(_means(one, limits), cost)


def _means(lengths: Lengths, limits: InstanceLimits) -> Means:
    output = np.maximum(lengths.output, 1).astype(np.float64)
    prompt = np.maximum(lengths.prompt, 1).astype(np.float64)
    decodes = output - 1  # the prefill produces the first token
    room = max(1.0, limits.max_num_batched_tokens * 0.9)  # decoding sequences take the rest of the batch
    computed = np.maximum(lengths.computed, 1).astype(np.float64)
    return Means(
        prompt=float(computed.mean()),
        decodes=float(decodes.mean()),
        context=float((decodes * (prompt + output / 2)).sum() / max(1.0, decodes.sum())),
        chunk=float(computed.sum() / np.ceil(computed / room).sum()),
        pairs_per_prompt_token=float(((prompt**2 - (prompt - computed) ** 2) / 2).sum() / computed.sum()),
    )


def _iteration_s(means: Means, cost: IterationCost, done: float) -> float:
    """Return the mean iteration time in a steady state in which each iteration completes `done` requests."""
    sequences, prefill = done * means.decodes, done * means.prompt
    share = min(1.0, prefill / means.chunk)
    chunk = prefill / share
    read_s = sequences * means.context * cost.decode_s_per_context_token
    mixed_s = (
        _linear_s(cost, sequences + chunk)
        + chunk * means.pairs_per_prompt_token * cost.prefill_s_per_token_pair
        + sequences * cost.decode_s_per_sequence
    )
    # An iteration without prefill has at least one sequence.
    return read_s + (1 - share) * _decode_s(cost, max(1.0, sequences)) + share * mixed_s


def _prefill_s(means: Means, cost: IterationCost) -> float:
    """Return the prefill time of one prompt that runs alone."""
    chunks = means.prompt / means.chunk
    pairs = means.prompt * means.pairs_per_prompt_token
    return chunks * _linear_s(cost, means.chunk) + pairs * cost.prefill_s_per_token_pair


def _within(means: Means, cost: IterationCost, most: float, tpot_s: float) -> float:
    """Return the largest number of requests per iteration, up to `most`, that keeps iterations within the TPOT."""
    low, high = most * 2.0**-HALVINGS, most
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if _iteration_s(means, cost, middle) > tpot_s:
            high = middle
        else:
            low = middle
    return low


def _decode_s(cost: IterationCost, sequences: float) -> float:
    """Return the fixed time of a step in which `sequences` decode."""
    if cost.decode_fixed_s:
        return cost.decode(round(sequences))[0]
    return _linear_s(cost, sequences) + sequences * cost.decode_s_per_sequence


def _linear_s(cost: IterationCost, tokens: float) -> float:
    """Return the time of everything except attention for a batch of `tokens`, interpolated linearly."""
    below = min(int(tokens), len(cost.linear_s) - 2)
    part = min(1.0, tokens - below)
    return cost.linear_s[below] + part * (cost.linear_s[below + 1] - cost.linear_s[below])
