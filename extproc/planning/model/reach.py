"""What no fleet can meet, however large: told before anything is counted or simulated."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil, inf

import numpy as np

from extproc.core.errors import ConfigurationError
from extproc.planning.hardware.capacity import TENSOR_PARALLEL_SIZES
from extproc.planning.hardware.profiles import GpuProfile
from extproc.planning.model.setup import Setup
from extproc.planning.model.throughput import prefill_s, throughput
from extproc.planning.workload.lengths import Lengths, Tokens

__all__ = ["check_reach", "reaching"]

TAIL = 99  # the percentile of the objective
SHORTEST_CLASS = 256  # tokens: classes that are proposed are this times a power of two
RELAXED_S = 30  # what is proposed for long prompts at least
MOST_GPUS = 8  # of an instance that is proposed: those of one server

Gpus = Sequence[tuple[str, GpuProfile, float | None]]  # name, profile, USD an hour


@dataclass(frozen=True, slots=True)
class Shortfall:
    """What any number of instances of one kind misses: the sentence, and the best time over the asked one."""

    sentence: str
    times_too_slow: float


def check_reach(lengths: Lengths, setup: Setup) -> None:
    """Raise ConfigurationError when success, TTFT or TPOT are out of reach of any number of these instances, and
    say how near they come.

    Requests over the long context are refused by all. The first token takes the prompt's prefill at least:
    measured rates do not tell the times, so with those TTFT and TPOT are not judged.
    """
    objective = setup.objective
    refused = float((_total(lengths) > setup.long_context).mean())
    if 1 - refused < objective.success:
        raise ConfigurationError(
            f"objective success {objective.success:.2%}: met by no fleet, the nearest is {1 - refused:.3%}; "
            f"{refused:.3%} of the requests are longer than {setup.long_context:,} tokens "
            "(--long-context)"
        )
    missed = _shortfall(lengths, setup)
    if missed is not None:
        raise ConfigurationError(missed.sentence)


def reaching(lengths: Lengths, setup: Setup, gpus: Gpus = ()) -> Setup:
    """Return the instance with the fewest GPUs, from the setup's own on, whose fleets can meet the objective, of
    the first of `gpus` that has one; the one that comes nearest where none can.

    Called when the number of GPUs is not asked for: the fewest that hold a model may prefill too slowly.
    """
    nearest, least = setup, inf
    for candidate in _larger(setup, gpus):
        missed = _shortfall(lengths, candidate)
        if missed is None:
            return candidate
        if missed.times_too_slow < least:
            nearest, least = candidate, missed.times_too_slow
    return nearest


def _larger(setup: Setup, gpus: Gpus) -> Iterator[Setup]:
    yield setup
    own = setup.instance
    for name, gpu, price in gpus or ((setup.gpu_name, own.gpu, setup.price_usd_h),):
        for size in TENSOR_PARALLEL_SIZES:
            instance = replace(own, gpu=gpu, tensor_parallel=size)
            if instance.gpus > MOST_GPUS or own.model.attention.query_heads % size:
                continue
            try:
                yield replace(setup, gpu_name=name, price_usd_h=price, instance=instance)
            except ConfigurationError:  # it does not fit
                continue


def _shortfall(lengths: Lengths, setup: Setup) -> Shortfall | None:
    """Return what is worst of the times that an idle instance does not keep, or None where it keeps all."""
    if setup.measured is not None:
        return None
    missed = list(_missed(lengths, setup))
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
                f"objective TTFT {each.ttft_s:g} s{of}: met by no fleet of {setup.name}, the nearest is "
                f"{fastest_s:.2g} s, the prefill of a prompt of {prompt:,} tokens (the {TAIL}th percentile) on an "
                f"idle instance{_proposal(lengths, setup, each.ttft_s)}"
            )
            yield Shortfall(sentence, fastest_s / each.ttft_s)
    tpot_s = objective.tightest_tpot_s
    found = throughput(lengths, setup.cost, limits, tpot_s)
    if found.requests_per_s == 0:
        sentence = (
            f"objective TPOT {tpot_s * 1e3:g} ms: met by no fleet of {setup.name}; a single sequence takes "
            f"{found.iteration_s * 1e3:.1f} ms per token"
        )
        yield Shortfall(sentence, found.iteration_s / tpot_s)


def _proposal(lengths: Lengths, setup: Setup, ttft_s: float) -> str:
    """Return an objective by length that is in reach: nothing where not even short prompts are fast enough."""
    limits, total = setup.limits(setup.long_context), _total(lengths)
    limit = 0
    longer = SHORTEST_CLASS
    while longer < int(total.max()) and prefill_s(longer, setup.cost, limits) <= ttft_s:
        limit, longer = longer, 2 * longer
    if limit == 0:
        return ""
    rest_s = prefill_s(_tail(lengths.prompt[total > limit]), setup.cost, limits)
    return (
        "; an objective by length says what long prompts may take, as in --objective "
        f"'<={limit}: ttft {ttft_s:g}s; else: ttft {max(RELAXED_S, ceil(2 * rest_s))}s'"
    )


def _tail(prompts: Tokens) -> int:
    return int(np.percentile(prompts, TAIL, method="lower"))


def _total(lengths: Lengths) -> Tokens:
    total: Tokens = lengths.prompt + np.maximum(lengths.output, 1)
    return total
