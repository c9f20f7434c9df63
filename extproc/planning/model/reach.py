"""Objectives that no fleet can meet, found before anything is simulated; the cheapest instance that meets one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from math import ceil, inf

import numpy as np

from extproc.core.errors import ConfigurationError
from extproc.planning.hardware.capacity import TENSOR_PARALLEL_SIZES
from extproc.planning.hardware.profiles import GpuProfile
from extproc.planning.model.engine import Engine
from extproc.planning.model.setup import Setup
from extproc.planning.model.throughput import prefill_s, throughput
from extproc.planning.workload.lengths import Lengths, Tokens

__all__ = ["check_reach", "reaching", "refused_share", "served", "with_best_batch"]

TAIL = 99  # the percentile of the objective
SHORTEST_CLASS = 256  # tokens: proposed classes are this times a power of two
RELAXED_S = 30  # smallest TTFT proposed for long prompts
MOST_GPUS = 8  # per proposed instance: those of one server

Gpus = Sequence[tuple[str, GpuProfile, float | None]]  # name, profile, USD per hour


@dataclass(frozen=True, slots=True)
class Shortfall:
    """An objective that no number of instances of one kind meets: the error, and best time / objective."""

    sentence: str
    times_too_slow: float


def check_reach(lengths: Lengths, setup: Setup) -> None:
    """Raise ConfigurationError, with the best possible value, if no number of instances meets the objective.

    Every instance rejects requests longer than the long context. The first token takes at least the prompt's
    prefill. Measured rates do not contain these times, so TTFT and TPOT are not checked with them.
    """
    objective = setup.objective
    refused = refused_share(lengths, setup)
    if 1 - refused < objective.success:
        raise ConfigurationError(
            f"objective success {objective.success:.2%}: no fleet meets it, the best is {1 - refused:.3%}; "
            f"{refused:.3%} of the requests are longer than {setup.long_context:,} tokens "
            "(--long-context)"
        )
    missed = _shortfall(lengths, setup)
    if missed is not None:
        raise ConfigurationError(missed.sentence)


def refused_share(lengths: Lengths, setup: Setup) -> float:
    """Return the share of requests that every instance refuses because they are longer than the long context."""
    return float((_total(lengths) > setup.long_context).mean())


def served(lengths: Lengths, setup: Setup) -> Lengths | None:
    """Return the requests that are not refused, which alone are load; None if all are refused."""
    fits = _total(lengths) <= setup.long_context
    if bool(fits.all()):
        return lengths
    return lengths.subset(fits) if bool(fits.any()) else None


def reaching(lengths: Lengths, rate: float, setup: Setup, gpus: Gpus = (), *, sizes: bool = True) -> Setup:
    """Return the instance that serves `rate` requests per second in one pool at the least cost.

    Tried are all sizes of the first of `gpus` (default: the setup's own) that can meet the objective with one of
    them, each with all batches. If none can, return the instance that comes nearest. Without `sizes`, where the
    user chose the number of GPUs, only the batch is looked for. The fewest GPUs that hold a model may prefill too
    slowly, or leave so little memory or time for a batch that the fleet is several times as large as with more.
    """
    nearest, least = setup, inf
    for gpu in gpus or ((setup.gpu_name, setup.instance.gpu, setup.price_usd_h),):
        reach = []
        instances = _sizes(setup, *gpu) if sizes else (setup,)
        for candidate in chain.from_iterable(map(_batches, instances)):
            missed = _shortfall(lengths, candidate)
            if missed is None:
                reach.append(candidate)
            elif missed.times_too_slow < least:
                nearest, least = candidate, missed.times_too_slow
        if reach:
            return min(reach, key=lambda candidate: _cost_of_one_pool(lengths, rate, candidate))
    return nearest


def _batches(setup: Setup) -> Iterator[Setup]:
    """Yield the setup with the largest batch that keeps the TPOT, and with each half of it, down to the smallest.

    Prompts in small chunks share more iterations with decoding sequences, whose weights are read in any case, so
    that these have more room within the TPOT. SGLang does not mix the two, and a batch that was given is kept.
    """
    yield setup
    if setup.batched_tokens is not None or setup.measured is not None or setup.engine is Engine.SGLANG:
        return
    tokens = setup.max_batched_tokens // 2
    while tokens >= setup.smallest_batch_tokens:
        yield replace(setup, best_batch_tokens=tokens)
        tokens //= 2


def with_best_batch(lengths: Lengths, setup: Setup) -> Setup:
    """Return the setup with the batch with which an instance serves the most of these requests per second.

    Batches that miss the objective are not taken; if all do, the setup is unchanged.
    """
    reach = [each for each in _batches(setup) if _shortfall(lengths, each) is None]
    return max(reach, key=lambda each: _served_per_s(lengths, each), default=setup)


def _sizes(setup: Setup, name: str, gpu: GpuProfile, price_usd_h: float | None) -> Iterator[Setup]:
    for size in TENSOR_PARALLEL_SIZES:
        instance = replace(setup.instance, gpu=gpu, tensor_parallel=size)
        if instance.gpus > MOST_GPUS:
            continue
        try:
            yield replace(setup, gpu_name=name, price_usd_h=price_usd_h, instance=instance)
        except ConfigurationError:  # it does not fit
            continue


def _cost_of_one_pool(lengths: Lengths, rate: float, setup: Setup) -> float:
    each = _served_per_s(lengths, setup)
    instances = 1 if each == inf else ceil(rate * (1 - refused_share(lengths, setup)) / each) + setup.spare
    return instances * setup.instance_cost


def _served_per_s(lengths: Lengths, setup: Setup) -> float:
    """Return how many requests that are not refused an instance serves per second; inf if it is not known."""
    load = served(lengths, setup)
    if load is None or setup.measured is not None:
        return inf
    limits = setup.limits(setup.long_context)
    return throughput(load, setup.cost, limits, setup.objective.tightest_tpot_s).requests_per_s


def _shortfall(lengths: Lengths, setup: Setup) -> Shortfall | None:
    """Return the worst of the objectives that an idle instance misses, or None if it meets all."""
    if setup.measured is not None:
        return None
    load = served(lengths, setup)
    missed = [] if load is None else list(_missed(load, setup))
    return max(missed, key=lambda each: each.times_too_slow) if missed else None


def _missed(lengths: Lengths, setup: Setup) -> Iterator[Shortfall]:
    objective, limits = setup.objective, setup.limits(setup.long_context)
    total = _total(lengths)
    index = objective.of(total)
    for place, each in enumerate(objective.classes):
        mine = lengths.prompt[index == place]
        if len(mine) == 0:
            continue
        prompt = _tail(mine)
        fastest_s = prefill_s(prompt, setup.cost, limits)
        if fastest_s > each.ttft_s:
            of = "" if not objective.shorter else f" of {each.requests}"
            sentence = (
                f"objective TTFT {each.ttft_s:g} s{of}: no fleet of {setup.name} meets it, the best is "
                f"{fastest_s:.2g} s, the prefill of a prompt of {prompt:,} tokens (the {TAIL}th percentile) on an "
                f"idle instance{_proposal(lengths, setup, each.ttft_s)}"
            )
            yield Shortfall(sentence, fastest_s / each.ttft_s)
    tpot_s = objective.tightest_tpot_s
    found = throughput(lengths, setup.cost, limits, tpot_s)
    if found.requests_per_s == 0:
        sentence = (
            f"objective TPOT {tpot_s * 1e3:g} ms: no fleet of {setup.name} meets it; a single sequence takes "
            f"{found.iteration_s * 1e3:.1f} ms per token"
        )
        yield Shortfall(sentence, found.iteration_s / tpot_s)


def _proposal(lengths: Lengths, setup: Setup, ttft_s: float) -> str:
    """Return the proposal of a reachable objective by length; empty if even short prompts are too slow."""
    limits, total = setup.limits(setup.long_context), _total(lengths)
    limit = 0
    longer = SHORTEST_CLASS
    while longer < int(total.max()) and prefill_s(longer, setup.cost, limits) <= ttft_s:
        limit, longer = longer, 2 * longer
    if limit == 0:
        return ""
    rest_s = prefill_s(_tail(lengths.prompt[total > limit]), setup.cost, limits)
    return (
        "; an objective by length allows long prompts more time, as in --objective "
        f"'<={limit}: ttft {ttft_s:g}s; else: ttft {max(RELAXED_S, ceil(2 * rest_s))}s'"
    )


def _tail(prompts: Tokens) -> int:
    return int(np.percentile(prompts, TAIL, method="lower"))


def _total(lengths: Lengths) -> Tokens:
    total: Tokens = lengths.prompt + np.maximum(lengths.output, 1)
    return total
