"""The vLLM instance model: a schedule computed by hand, invariants, and vLLM's rules one by one."""

from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.planning.hardware.roofline import IterationCost
from extproc.planning.model.throughput import InstanceLimits
from extproc.planning.simulation.instance import VllmInstance
from extproc.planning.simulation.sequence import Sequence


def cost(
    most_tokens: int = 64, linear: float = 0.0, per_context: float = 0.0, per_pair: float = 0.0
) -> IterationCost:
    """Return iterations of 1 s, plus `linear` seconds per token of the batch."""
    return IterationCost(tuple(1.0 + linear * n for n in range(most_tokens + 1)), per_context, per_pair)


def limits(seqs: int = 4, tokens: int = 64, kv: int = 1024, context: int = 512) -> InstanceLimits:
    """Return small limits."""
    return InstanceLimits(seqs, tokens, kv, context)


def run(instance: VllmInstance, requests: list[Sequence]) -> dict[int, float]:
    """Feed requests in order of arrival, check the invariants at each event, and return when each finished."""
    finished: dict[int, float] = {}

    def until(now_s: float) -> None:
        while instance.until_s <= now_s and instance.until_s < inf:
            at_s = instance.until_s
            for sequence in instance.finish_run():
                finished[sequence.index] = at_s
            instance.check()

    for request in requests:
        until(request.arrived_s)
        instance.arrive(request, request.arrived_s)
        instance.check()
    until(inf)
    return finished


def test_a_schedule_computed_by_hand() -> None:
    """Two requests with chunked prefill and a shared batch finish exactly when a hand-computed schedule says.

    max_num_batched_tokens 8, iterations of 1 s + 0.1 s per token, 0.01 s per context token read by decoding.
    A (10 in, 3 out) arrives at 0; B (4 in, 2 out) at 0.5.
    0.0  chunk of 8 of A                                  1 + .8               -> 1.8
    1.8  chunk of 2 of A, 4 of B (6 left in the budget)   1 + .6               -> 3.4  first tokens of A and B
    3.4  decode A (context 10), B (context 4)             1 + .2 + .14         -> 4.74 B done
    4.74 decode A (context 11)                            1 + .1 + .11         -> 5.95 A done
    """
    instance = VllmInstance(cost(8, linear=0.1, per_context=0.01), limits(tokens=8))
    a, b = Sequence(0, 10, 3, 0.0), Sequence(1, 4, 2, 0.5)

    finished = run(instance, [a, b])

    assert a.first_token_s == pytest.approx(3.4)
    assert b.first_token_s == pytest.approx(3.4)
    assert finished == {0: pytest.approx(5.95), 1: pytest.approx(4.74)}


def test_an_arrival_waits_for_the_iteration_in_flight_only() -> None:
    """A request that arrives during a long decode run is admitted after the current iteration."""
    instance = VllmInstance(cost(), limits())
    first, second = Sequence(0, 5, 100, 0.0), Sequence(1, 5, 1, 10.5)

    run(instance, [first, second])

    assert second.first_token_s == pytest.approx(12.0)


def test_preemption_frees_the_last_admitted_and_recomputes_it() -> None:
    """When blocks run out, the last admitted sequence loses its blocks and
    recomputes prompt and output.

    4 blocks of 16. A and B hold 2 blocks each from 17 tokens on; at 32 tokens A needs a third, and B is preempted
    with 16 tokens generated (prompt 16 + 1 from prefill + 15 decoded - the last is not in the cache).
    """
    instance = VllmInstance(cost(), limits(kv=64))
    a, b = Sequence(0, 16, 20, 0.0), Sequence(1, 16, 20, 0.0)

    finished = run(instance, [a, b])

    assert instance.preemptions == 1
    assert (a.preemptions, b.preemptions) == (0, 1)
    # A: its prefill, then 19 decode iterations. B's prefill shares A's second iteration.
    assert finished[0] == pytest.approx(20.0)
    assert finished[1] > finished[0]


def test_max_num_seqs_makes_requests_wait_first_come_first_served() -> None:
    """With one slot, requests run one after another in order of arrival."""
    instance = VllmInstance(cost(), limits(seqs=1))

    finished = run(instance, [Sequence(0, 1, 3, 0.0), Sequence(1, 1, 2, 0.1), Sequence(2, 1, 1, 0.2)])

    assert finished == {0: pytest.approx(3.0), 1: pytest.approx(5.0), 2: pytest.approx(6.0)}


def test_a_single_output_token_ends_with_the_prefill() -> None:
    """A request for one token never decodes."""
    instance = VllmInstance(cost(), limits())
    assert run(instance, [Sequence(0, 100, 1, 0.0)]) == {0: pytest.approx(2.0)}


request_lists = st.lists(
    st.tuples(st.integers(1, 150), st.integers(1, 60), st.floats(0, 40, allow_nan=False)), min_size=1, max_size=25
)


@settings(max_examples=60, deadline=None)
@given(requests=request_lists, blocks=st.integers(14, 40), seqs=st.integers(1, 8), tokens=st.integers(8, 64))
def test_tokens_and_blocks_are_conserved(
    requests: list[tuple[int, int, float]], blocks: int, seqs: int, tokens: int
) -> None:
    """For any requests, each finishes once, with its first token not after its last, and no block is lost."""
    instance = VllmInstance(cost(64, 0.01, 0.001, 0.0001), limits(seqs, tokens, blocks * 16, 210))
    ordered = sorted(requests, key=lambda request: request[2])
    sequences = [Sequence(i, prompt, output, at) for i, (prompt, output, at) in enumerate(ordered)]

    finished = run(instance, sequences)

    assert sorted(finished) == list(range(len(sequences)))
    assert all(s.arrived_s < s.first_token_s <= finished[s.index] for s in sequences)
    assert instance.outstanding == 0
    assert instance.kv_usage == 0
