"""What holds for the cost model's plans of any workload: more load, looser objectives, other orders of a trace."""

from dataclasses import dataclass
from random import Random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.core.errors import ConfigurationError
from extproc.planning.hardware.catalogue import built_in
from extproc.planning.model.analytic import analyse
from extproc.planning.model.options import ProfileOptions, setup_of
from extproc.planning.model.reach import reaching
from extproc.planning.workload.declared import DeclaredRule
from extproc.planning.workload.lengths import Lengths

CATALOGUE = built_in()
THRESHOLDS = (2_048, 16_384)
PROMPTS = st.one_of(st.integers(1, 300), st.integers(0, 60_000))
REQUESTS = st.lists(st.tuples(PROMPTS, st.integers(0, 4_000)), min_size=1, max_size=30).filter(
    lambda requests: any(prompt for prompt, _ in requests)
)
PROFILES = st.sampled_from([("llama-3-8b", "h100-80g"), ("qwen3.5-35b-a3b", "h100-80g"), ("gpt-oss-20b", "l40s")])
RATES, TIMES = st.floats(0.1, 500), st.floats(1, 4)
FEW = settings(max_examples=12, deadline=None)

Requests = list[tuple[int, int]]


@dataclass(frozen=True)
class Gpus:
    """GPUs of the best two pools, of the right-sized pool, and of the one with the long context."""

    two: int
    right_sized: int
    long: int

    @property
    def fewest(self) -> int:
        """GPUs of the plan that is recommended."""
        return min(self.two, self.right_sized)


def planned(
    requests: Requests, rate: float, profile: tuple[str, str], ttft_s: float = 60, tpot_ms: float = 200
) -> Gpus | None:
    """Return the GPUs of a plan; None if no fleet meets the objective."""
    model, gpu = profile
    prompts, outputs = (np.array(each) for each in zip(*requests, strict=True))
    lengths = Lengths(prompts, outputs, "any")
    options = ProfileOptions(model=model, gpu=gpu, times="roofline", ttft=ttft_s, tpot_ms=tpot_ms, success=0.5)
    setup = reaching(lengths, rate, setup_of(options, CATALOGUE))
    try:
        found = analyse(lengths, rate, setup, DeclaredRule.TRUTH, THRESHOLDS)
    except ConfigurationError:
        return None
    each = setup.instance.gpus
    return Gpus(found.best.instances * each, found.right_sized.instances * each, found.long.instances * each)


@FEW
@given(REQUESTS, PROFILES, RATES, TIMES)
def test_more_traffic_never_needs_fewer_gpus(
    requests: Requests, profile: tuple[str, str], rate: float, times: float
) -> None:
    """Neither in one pool nor as recommended."""
    less, more = planned(requests, rate, profile), planned(requests, rate * times, profile)
    assert (less is None) == (more is None)
    if less is not None and more is not None:
        assert less.fewest <= more.fewest
        assert less.right_sized <= more.right_sized
        assert less.long <= more.long


@FEW
@given(REQUESTS, PROFILES, RATES, TIMES, TIMES)
def test_a_looser_objective_never_needs_more_gpus(
    requests: Requests, profile: tuple[str, str], rate: float, ttft: float, tpot: float
) -> None:
    """One pool is tuned for its objective, and what met a tight one meets a looser one."""
    tight = planned(requests, rate, profile, 15, 50)
    loose = planned(requests, rate, profile, 15 * ttft, 50 * tpot)
    if tight is not None:
        assert loose is not None
        assert loose.long <= tight.long


@FEW
@given(REQUESTS, PROFILES, RATES, st.randoms(use_true_random=False))
def test_neither_the_order_of_a_trace_nor_its_repetition_matters(
    requests: Requests, profile: tuple[str, str], rate: float, random: Random
) -> None:
    """The rate is given; a trace says which requests there are."""
    shuffled = list(requests)
    random.shuffle(shuffled)
    assert planned(requests, rate, profile) == planned(shuffled, rate, profile)
    assert planned(requests, rate, profile) == planned(requests * 2, rate, profile)
