"""Servers with replicas of the attention: the simulated instance beside ranks that do every iteration together."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.planning.hardware.roofline import IterationCost
from extproc.planning.model.throughput import InstanceLimits
from extproc.planning.simulation.instance import VllmInstance
from extproc.planning.simulation.sequence import Sequence
from tests.unit.planning_reference import Request, _Scheduler
from tests.unit.test_planning_instance import cost, run

CLOSE = 1e-3
PER_CONTEXT_TOKEN_S = 1e-5  # of iterations of 1 s; with 8B on an H100 it is 8e-6 of an iteration
SHAPES = st.tuples(st.integers(1, 150), st.integers(1, 60), st.floats(0, 40, allow_nan=False))


def stepped(costs: IterationCost, bounds: InstanceLimits, requests: list[Request]) -> tuple[dict[int, float], int]:
    """Return when each request ends, and the preemptions, if all ranks do each iteration together."""
    ranks = [_Scheduler(costs, bounds) for _ in range(bounds.data_parallel)]
    pending, now_s, first = list(requests), 0.0, 0

    def arrive() -> None:
        nonlocal first
        turn = [*ranks[first:], *ranks[:first]]
        least = min(turn, key=lambda rank: len(rank.waiting) + len(rank.running))
        least.waiting.append(pending.pop(0))
        first = (first + 1) % len(ranks)

    while pending or any(rank.waiting or rank.running for rank in ranks):
        if not any(rank.waiting or rank.running for rank in ranks):
            now_s = max(now_s, pending[0].arrival_s)
            arrive()
        plans = []
        for rank in ranks:
            plan: list[tuple[Request, int]] = []
            budget, preempted = rank.run_running(plan)
            if not preempted:
                rank.admit(plan, budget)
            plans.append(plan)
        now_s += max(rank.seconds(plan) for rank, plan in zip(ranks, plans, strict=True) if plan)
        while pending and pending[0].arrival_s < now_s:  # they choose a rank before the iteration ends
            arrive()
        for rank, plan in zip(ranks, plans, strict=True):
            rank.finish(plan, now_s)
    ends = {index: at for rank in ranks for index, at in rank.done.finish_s.items()}
    return ends, sum(rank.done.preemptions for rank in ranks)


def same_ends(bounds: InstanceLimits, shapes: list[tuple[int, int, float]], costs: IterationCost) -> int:
    """Check that all requests end at the same times; return the preemptions.

    The instance takes one rank as the slowest of a whole run of iterations, which another may become in the middle
    of it. As little as a token of context takes on a GPU, that is less than a thousandth of the time.
    """
    ordered = sorted(shapes, key=lambda shape: shape[2])
    ends, preemptions = stepped(costs, bounds, [Request(i, p, o, at) for i, (p, o, at) in enumerate(ordered)])
    instance = VllmInstance(costs, bounds)
    found = run(instance, [Sequence(i, p, o, at) for i, (p, o, at) in enumerate(ordered)])
    assert {index: pytest.approx(at, rel=CLOSE) for index, at in ends.items()} == found
    assert preemptions == instance.preemptions
    return preemptions


@settings(max_examples=100, deadline=None)
@given(
    shapes=st.lists(SHAPES, min_size=1, max_size=30),
    bounds=st.builds(
        lambda seqs, tokens, kv, ranks: InstanceLimits(min(seqs, tokens), tokens, kv, 210, data_parallel=ranks),
        *(st.integers(1, 8), st.integers(8, 64), st.integers(260, 700), st.integers(2, 4)),
    ),
)
def test_ranks_end_their_requests_as_if_each_iteration_was_stepped(
    shapes: list[tuple[int, int, float]], bounds: InstanceLimits
) -> None:
    """For any requests, whichever rank is the slowest in each iteration."""
    same_ends(bounds, shapes, cost(bounds.max_num_batched_tokens, 0.01, PER_CONTEXT_TOKEN_S, 0.0001))


def test_a_thousand_requests_on_a_server_of_eight_ranks() -> None:
    """At the sizes of a real server, with long prompts and answers, busy and short of memory now and then."""
    rng = np.random.default_rng(3)
    arrivals = np.cumsum(rng.exponential(0.3, 1000)).tolist()
    prompts, outputs = rng.integers(1, 3000, 1000).tolist(), rng.geometric(1 / 150, 1000).tolist()
    bounds = InstanceLimits(256, 2_048, 12_000, 8_192, data_parallel=8)
    shapes = list(zip(prompts, outputs, arrivals, strict=True))
    assert same_ends(bounds, shapes, cost(2_048, 0.01, PER_CONTEXT_TOKEN_S, 0.0001)) > 0
