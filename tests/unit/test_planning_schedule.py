"""The simulated instance against a plain scheduler with vLLM's rules: the same times and the same preemptions."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.planning.hardware.catalogue import built_in
from extproc.planning.hardware.instance import Instance
from extproc.planning.model.engine import Engine
from extproc.planning.model.objective import Objective
from extproc.planning.model.setup import Setup
from extproc.planning.model.throughput import InstanceLimits
from extproc.planning.simulation.instance import VllmInstance
from extproc.planning.simulation.sequence import Sequence
from tests.unit.planning_reference import Request, schedule
from tests.unit.test_planning_instance import cost, run

REQUESTS = st.lists(
    st.tuples(st.integers(1, 150), st.integers(1, 60), st.floats(0, 40, allow_nan=False), st.integers(0, 9)),
    min_size=1,
    max_size=25,
)


def same_schedule(bounds: InstanceLimits, requests: list[tuple[int, int, float, int]]) -> VllmInstance:
    """Check that both schedule alike; requests are (prompt, output, arrival, cached blocks)."""
    costs = cost(bounds.max_num_batched_tokens, 0.01, 0.001, 0.0001)
    ordered = [(p, o, at, min(16 * c, (p - 1) // 16 * 16)) for p, o, at, c in sorted(requests, key=lambda r: r[2])]
    instance = VllmInstance(costs, bounds)
    sequences = [Sequence(i, p, o, at, cached) for i, (p, o, at, cached) in enumerate(ordered)]

    finished = run(instance, sequences)
    plain = schedule(costs, bounds, [Request(i, p, o, at, cached) for i, (p, o, at, cached) in enumerate(ordered)])

    assert {index: pytest.approx(at, rel=1e-9) for index, at in plain.finish_s.items()} == finished
    first = {sequence.index: sequence.first_token_s for sequence in sequences}
    assert {index: pytest.approx(at, rel=1e-9) for index, at in plain.first_token_s.items()} == first
    assert plain.preemptions == instance.preemptions
    return instance


def bounds_of(
    *, blocks: int, seqs: int, tokens: int, threshold: int, reserve_full: bool, extra: int
) -> InstanceLimits:
    """Return limits under which a sequence of 210 tokens, and its extra memory, always fits."""
    return InstanceLimits(seqs, tokens, blocks * 16 + extra + 15, 210, threshold, reserve_full, extra)


BOUNDS = st.builds(
    bounds_of,
    blocks=st.integers(14, 40),
    seqs=st.integers(1, 8),
    tokens=st.integers(8, 64),
    threshold=st.sampled_from([0, 0, 5, 16]),
    reserve_full=st.booleans(),
    extra=st.sampled_from([0, 0, 1, 40]),
)


@settings(max_examples=150, deadline=None)
@given(requests=REQUESTS, bounds=BOUNDS)
def test_schedules_are_those_of_a_plain_scheduler(
    requests: list[tuple[int, int, float, int]], bounds: InstanceLimits
) -> None:
    """For any requests, with and without the admission gate, the threshold for
    long prompts, windows and cached prefixes.
    """
    same_schedule(bounds, requests)


@pytest.mark.parametrize("threshold", [0, 256])
def test_a_thousand_requests_are_scheduled_alike(threshold: int) -> None:
    """On a busy instance of realistic size, none of a thousand requests differs."""
    rng = np.random.default_rng(3)
    arrivals = np.cumsum(rng.exponential(2.5, 1000)).tolist()
    prompts, outputs = rng.integers(1, 3000, 1000).tolist(), rng.geometric(1 / 150, 1000).tolist()
    bounds = InstanceLimits(64, 512, 16_000, 8_192, threshold)
    instance = same_schedule(bounds, [(p, o, a, 0) for p, o, a in zip(prompts, outputs, arrivals, strict=True)])
    assert instance.preemptions > 0


def test_a_prompt_is_admitted_only_when_all_of_it_fits() -> None:
    """For two prompts of 1,000 tokens and a cache of 1,600, vLLM makes the
    second wait instead of preempting it.
    """
    requests = [Sequence(0, 1000, 400, 0.0), Sequence(1, 1000, 400, 0.0)]
    gated = VllmInstance(cost(512), InstanceLimits(8, 512, 1600, 1600))
    finished = run(gated, requests)
    assert gated.preemptions == 0
    assert requests[1].first_token_s > finished[0]


def test_without_the_gate_the_second_prompt_thrashes() -> None:
    """An engine that checks only the first chunk admits both, and preempts over and over."""
    loose = VllmInstance(cost(512), InstanceLimits(8, 512, 1600, 1600, reserve_full_prompt=False))
    run(loose, [Sequence(0, 1000, 400, 0.0), Sequence(1, 1000, 400, 0.0)])
    assert loose.preemptions > 20


def test_a_long_prompt_leaves_room_for_short_ones() -> None:
    """With long_prefill_token_threshold, a short prompt next to a long one
    gets its token in the next iteration.
    """

    def first_token(threshold: int) -> float:
        instance = VllmInstance(cost(512), InstanceLimits(8, 512, 64_000, 32_000, threshold))
        short = Sequence(1, 100, 2, 0.5)
        run(instance, [Sequence(0, 20_000, 2, 0.0), short])
        return short.first_token_s

    assert first_token(256) == pytest.approx(2.0)
    assert first_token(0) > 39.0


@pytest.mark.parametrize(
    ("gpu", "older", "tokens", "sequences"),
    [
        ("a100-80g", 2_048, 2_048, 256),
        ("l40s", 2_048, 2_048, 256),
        ("h100-80g", 8_192, 8_192, 1_024),
        ("h200", 8_192, 8_192, 1_024),
        ("b200", 8_192, 16_384, 1_024),
        ("gb200", 8_192, 16_384, 1_024),
        ("b300", 8_192, 16_384, 1_024),
        ("mi300x", 8_192, 16_384, 1_024),
    ],
)
def test_batches_are_vllms_defaults_for_the_gpu(gpu: str, older: int, tokens: int, sequences: int) -> None:
    """max_num_batched_tokens and max_num_seqs are those that vLLM's API server picks; for GPUs of 160 GiB and more
    it picks more tokens than version 0.18 did.
    """
    instance = Instance(built_in().model("llama-3-8b"), built_in().gpu(gpu), 1)
    assert (older, tokens) == (Engine.VLLM_0_18.batched_tokens(instance), Engine.VLLM.batched_tokens(instance))
    assert sequences == instance.gpu.vllm_limits[1]


@pytest.mark.parametrize(
    ("memory_gb", "tokens", "sequences", "expected"),
    [
        (24, None, None, (2_048, 2_048, 256)),
        (192, None, None, (8_192, 16_384, 1_024)),
        (192, 4_096, None, (4_096, 4_096, 1_024)),
        (192, 32_768, 64, (32_768, 32_768, 64)),
    ],
)
def test_batches_of_a_gpu_of_ones_own_follow_from_its_memory(
    memory_gb: float, tokens: int | None, sequences: int | None, expected: tuple[int, int, int]
) -> None:
    """As vLLM picks them by memory; what a profile gives holds for each version."""
    gpu = replace(
        built_in().gpu("l40s"), memory_gb=memory_gb, max_num_batched_tokens=tokens, max_num_seqs=sequences
    )
    instance = Instance(built_in().model("llama-3-8b"), gpu, 1)
    batches = (engine.batched_tokens(instance) for engine in (Engine.VLLM_0_18, Engine.VLLM))
    assert expected == (*batches, Engine.VLLM.sequences(instance, 100_000, 8_192))


def test_an_older_engine_has_less_memory_and_no_gate() -> None:
    """The engine's version determines gpu_memory_utilization and the admission of prompts."""
    instance = Instance(built_in().model("llama-3-8b"), built_in().gpu("h100-80g"), 1)
    engines = (Engine.VLLM, Engine.VLLM_0_18)
    today, before = (Setup("8B", "H100", instance, 8192, Objective(), engine=engine) for engine in engines)
    assert before.capacity.kv_tokens < today.capacity.kv_tokens
    assert (True, False) == tuple(setup.limits(8192).reserve_full_prompt for setup in (today, before))
