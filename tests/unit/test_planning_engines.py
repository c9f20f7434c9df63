"""Engines other than the current vLLM, and servers with replicated attention: schedules, defaults, refusals."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.core.errors import ConfigurationError
from extproc.planning.design.notes import workload_notes
from extproc.planning.design.plan import _usual as usual
from extproc.planning.design.pool import PoolTask, Tuning, best_pool
from extproc.planning.design.pool import _candidates as candidates
from extproc.planning.hardware.catalogue import built_in
from extproc.planning.hardware.instance import Instance
from extproc.planning.hardware.roofline import iteration_cost
from extproc.planning.model.analytic import analyse, default_thresholds
from extproc.planning.model.engine import Engine
from extproc.planning.model.objective import Objective
from extproc.planning.model.options import ProfileOptions, setup_of
from extproc.planning.model.setup import Setup
from extproc.planning.model.throughput import InstanceLimits, throughput
from extproc.planning.simulation.balancing import Balance, Balancing
from extproc.planning.simulation.instance import VllmInstance
from extproc.planning.simulation.sequence import Sequence
from extproc.planning.workload.declared import DeclaredRule
from extproc.planning.workload.lengths import Lengths
from tests.unit.planning_sglang_reference import Request, schedule
from tests.unit.test_planning_instance import cost, run

CATALOGUE = built_in()
REQUESTS = st.lists(
    st.tuples(st.integers(1, 150), st.integers(1, 60), st.floats(0, 40, allow_nan=False), st.integers(0, 40)),
    min_size=1,
    max_size=25,
)


def sglang(kv_tokens: int, seqs: int = 64, tokens: int = 64) -> InstanceLimits:
    """Return limits under which a sequence of 210 tokens always fits."""
    return InstanceLimits(seqs, tokens, kv_tokens, 210, scheduler="sglang")


def same_schedule(bounds: InstanceLimits, requests: list[tuple[int, int, float, int]]) -> VllmInstance:
    """Check that both schedule alike; requests are (prompt, output,
    arrival, tokens declared beyond the output).
    """
    costs = cost(bounds.max_num_batched_tokens, 0.01, 0.001, 0.0001)
    ordered = [(p, o, at, o + more) for p, o, at, more in sorted(requests, key=lambda r: r[2])]
    instance = VllmInstance(costs, bounds)
    sequences = [Sequence(i, p, o, at, declared=d) for i, (p, o, at, d) in enumerate(ordered)]

    finished = run(instance, sequences)
    plain = schedule(costs, bounds, [Request(i, p, o, at, d) for i, (p, o, at, d) in enumerate(ordered)])

    assert {index: pytest.approx(at, rel=1e-9) for index, at in plain.finish_s.items()} == finished
    first = {sequence.index: sequence.first_token_s for sequence in sequences}
    assert {index: pytest.approx(at, rel=1e-9) for index, at in plain.first_token_s.items()} == first
    assert plain.retracted == instance.preemptions
    return instance


@settings(max_examples=150, deadline=None)
@given(
    requests=REQUESTS,
    bounds=st.builds(sglang, st.integers(260, 1_000), st.integers(1, 8), st.integers(8, 64)),
)
def test_schedules_of_sglang_are_those_of_a_plain_scheduler(
    requests: list[tuple[int, int, float, int]], bounds: InstanceLimits
) -> None:
    """For any requests: prefill before decoding, admission by expected output, retraction."""
    same_schedule(bounds, requests)


def test_a_thousand_requests_are_scheduled_as_by_sglang() -> None:
    """On a busy server that occasionally runs out of memory, none of a thousand requests differs."""
    rng = np.random.default_rng(3)
    arrivals = np.cumsum(rng.exponential(2.0, 1000)).tolist()
    prompts, outputs = rng.integers(1, 3000, 1000).tolist(), rng.geometric(1 / 150, 1000).tolist()
    bounds = InstanceLimits(256, 2_048, 12_000, 8_192, scheduler="sglang")
    rows = [(p, o, a, 0) for p, o, a in zip(prompts, outputs, arrivals, strict=True)]
    assert same_schedule(bounds, rows).preemptions > 0


def test_decoding_waits_for_prompts_in_sglang_and_not_in_vllm() -> None:
    """When a prompt of eight chunks arrives while another request decodes, SGLang finishes the prompt first."""

    def finished(limits: InstanceLimits) -> dict[int, float]:
        return run(VllmInstance(cost(512), limits), [Sequence(0, 10, 6, 0.0), Sequence(1, 4_096, 2, 1.5)])

    mixed = finished(InstanceLimits(8, 512, 64_000, 32_000))
    apart = finished(InstanceLimits(8, 512, 64_000, 32_000, scheduler="sglang"))
    assert mixed[0] == pytest.approx(6.0)
    assert apart[0] == pytest.approx(14.0)
    assert apart[1] < mixed[1]


def test_a_request_without_max_tokens_counts_with_its_full_context() -> None:
    """SGLang then takes the context as max_new_tokens: such a request waits,
    while one that declares its output does not.
    """

    def waits(declared: int) -> bool:
        requests = [Sequence(0, 100, 5, 0.0, declared=5), Sequence(1, 100, 5, 0.5, declared=declared)]
        finished = run(VllmInstance(cost(512), sglang(kv_tokens=260, tokens=512)), requests)
        return requests[1].first_token_s > finished[0]

    assert not waits(5)
    assert waits(0)


def test_a_server_that_dies_returns_its_requests_with_either_engine() -> None:
    """It returns decoding, partly prefilled and waiting requests, and is empty afterwards."""
    for scheduler in ("vllm", "sglang"):
        limits = replace(sglang(2_000, seqs=2, tokens=16), scheduler=scheduler)
        instance = VllmInstance(cost(16), limits)
        instance.arrive(Sequence(0, 10, 50, 0.0), 0.0)
        instance.finish_run()
        for index in (1, 2):
            instance.arrive(Sequence(index, 100, 5, 1.5), 1.5)
        instance.finish_run()
        assert {0, 1, 2} == {sequence.index for sequence in instance.fail()}
        assert instance.kv_usage == 0
        assert (instance.waiting, instance.unanswered_tokens) == (0, 0)


@pytest.mark.parametrize(
    ("gpu", "mib"),
    [
        *(("a100-80g", 81_920), ("h100-80g", 81_559), ("h200", 143_771), ("h20", 97_871), ("mi300x", 196_592)),
        *(("b200", 183_359), ("gb200", 189_471), ("b300", 275_040), ("l40s", 46_068), ("a10g", 23_028)),
    ],
)
def test_gigabytes_of_a_gpu_are_those_that_a_program_sees(gpu: str, mib: int) -> None:
    """Data sheets name what is built in: of GDDR6 ECC takes a sixteenth, and a B300 keeps as much for itself."""
    assert mib == pytest.approx(CATALOGUE.gpu(gpu).memory_mib, rel=0.005)


def test_defaults_of_sglang_are_its_own() -> None:
    """chunked_prefill_size by GPU memory, max_running_requests by cache
    size, mem_fraction_static, and the flags.
    """
    setup = setup_of(ProfileOptions(gpu="h100-80g", tp=4, engine="sglang-0.5.23", times="roofline"), CATALOGUE)
    assert setup.engine.batched_tokens(setup.instance) == 8_192
    assert Engine.SGLANG.batched_tokens(replace(setup.instance, gpu=CATALOGUE.gpu("b200"))) == 16_384
    assert Engine.SGLANG.batched_tokens(replace(setup.instance, gpu=CATALOGUE.gpu("l40s"))) == 4_096
    assert Engine.SGLANG.mem_fraction_static(setup.instance, 8_192) == pytest.approx(0.819, abs=0.005)
    flags = setup.flags(65_536)
    assert "--tp-size 4" in flags
    assert f"--chunked-prefill-size {setup.max_batched_tokens}" in flags
    assert f"--max-running-requests {setup.limits(65_536).max_num_seqs}" in flags
    assert setup.limits(65_536).max_num_seqs == setup.capacity.kv_tokens * 512 // 65_536
    assert "--mem-fraction-static 0.874" in flags  # for chunks of up to 2,048 tokens, 10 GiB are left free
    assert setup.limits(65_536).scheduler == "sglang"


def replicated(tensor: int, data: int, model: str = "deepseek-v3", gpu: str = "h200") -> Setup:
    """Return a server with replicated attention."""
    instance = Instance(CATALOGUE.model(model), CATALOGUE.gpu(gpu), tensor, data_parallel=data)
    return Setup(model, gpu, instance, 65_536, Objective())


def test_activations_that_take_all_memory_leave_none() -> None:
    """SGLang's reserve for a chunk of a million tokens is more than a GPU has; no memory is negative."""
    options = ProfileOptions(
        model="qwen3-30b-a3b", gpu="h100-80g", tp=1, engine="sglang-0.5.23", batched_tokens=1_048_576
    )
    with pytest.raises(ConfigurationError, match=r"1 GPU\(s\) of 80 GB offer 0 GB: no room for a KV cache"):
        setup_of(options, CATALOGUE)


def test_a_pool_of_sglang_holds_what_it_was_planned_to_hold() -> None:
    """SGLang refuses a sequence that fills its context, so servers get one token more if the model has it."""
    options = ProfileOptions(engine="sglang-0.5.23", times="roofline")
    setup = setup_of(options, CATALOGUE)
    most = setup.instance.model.max_context
    for context, length in ((8_192, 8_193), (most - 1, most), (most, most)):
        assert f"--context-length {length}" in setup.flags(context)
    stretched = setup_of(replace(options, model="qwen3-32b"), CATALOGUE)  # beyond 40,960 with YaRN only
    for context, length in ((40_959, 40_960), (40_960, 40_960), (40_961, 40_962)):
        assert f"--context-length {length}" in stretched.flags(context)


def test_replicas_of_the_attention_hold_more_of_a_latent_cache() -> None:
    """DeepSeek-V3 on 8 x H200: GPUs that split the attention all hold the same cache. Eight replicas hold eight
    different ones, each smaller because the dense weights are stored eight times.
    """
    split, replicas = replicated(8, 1), replicated(1, 8)
    assert split.instance.gpus == replicas.instance.gpus == 8
    dense, routed, per_token = 671e9 - 653.9e9, 653.9e9, 61 * 576 * 2
    room = 141e9 * 0.92 - dense - routed / 8
    assert replicas.capacity.kv_tokens == pytest.approx(room / per_token, rel=1e-3)
    assert 8 * replicas.capacity.kv_tokens > 5 * split.capacity.kv_tokens
    assert replicas.flags(65_536)[:3] == (
        "--tensor-parallel-size 1",
        "--data-parallel-size 8",
        "--enable-expert-parallel",
    )
    assert replicas.name == "deepseek-v3 on 8 (TP 1, DP 8) x h200"


def test_experts_are_paid_for_with_an_exchange_in_each_layer() -> None:
    """With fewer GPUs each rank's own computation grows; 61 layers gather
    from and scatter to seven other ranks.
    """
    split, replicas = (iteration_cost(replicated(*shape).instance, 8_192) for shape in ((8, 1), (1, 8)))
    assert replicas.linear_s[1] > split.linear_s[1]
    slope_s = replicas.linear_s[8_000] - replicas.linear_s[7_000]
    exchange_s = 1_000 * 2 * 61 * 7 * 7_168 * 2 / 450e9
    assert slope_s > exchange_s


def test_ranks_step_together_and_hold_their_own_sequences() -> None:
    """Two requests go to two ranks; in every iteration the decoding one waits for the other's prompt."""
    limits = InstanceLimits(8, 512, 64_000, 32_000, data_parallel=2)
    costs = cost(512, linear=0.01)
    instance = VllmInstance(costs, limits)
    decoding, prefilling = Sequence(0, 1, 4, 0.0), Sequence(1, 1_024, 1, 0.5)
    finished = run(instance, [decoding, prefilling])
    assert decoding.first_token_s == pytest.approx(1.01)
    assert finished[1] == pytest.approx(1.01 + 2 * 6.12)
    assert finished[0] == pytest.approx(1.01 + 2 * 6.12 + 1.01)
    assert instance.kv_usage == 0


@settings(max_examples=60, deadline=None)
@given(requests=REQUESTS, ranks=st.integers(2, 4))
def test_ranks_lose_no_request_and_no_block(requests: list[tuple[int, int, float, int]], ranks: int) -> None:
    """For any requests, each finishes once, and all blocks of all ranks are free again."""
    limits = InstanceLimits(4, 32, 20 * 16, 210, data_parallel=ranks)
    instance = VllmInstance(cost(32, 0.01, 0.001, 0.0001), limits)
    ordered = sorted(requests, key=lambda request: request[2])
    finished = run(instance, [Sequence(i, p, o, at) for i, (p, o, at, _) in enumerate(ordered)])
    assert sorted(finished) == list(range(len(ordered)))
    assert instance.kv_usage == 0


@pytest.mark.parametrize(("engine", "tokens"), [("vllm-0.32", 8_192), ("sglang-0.5.23", 8_192)])
def test_an_untuned_pool_runs_with_the_engines_own_batch_and_files_say_so(engine: str, tokens: int) -> None:
    """The planner's choice is used only if it was asked for; the files state what was simulated."""
    setup = setup_of(ProfileOptions(gpu="h100-80g", tp=4, engine=engine, times="roofline"), CATALOGUE)
    design = usual(setup, 65_536)
    assert setup.max_batched_tokens < tokens
    assert tokens == design.limits(0, setup).max_num_batched_tokens
    assert any(flag.endswith(f" {tokens}") for flag in design.setup(0, setup).flags(65_536))
    asked = usual(replace(setup, batched_tokens=256), 65_536)
    assert asked.limits(0, setup).max_num_batched_tokens == 256


def test_a_plan_has_notes_on_replicas_and_the_engine() -> None:
    """The notes say which figures are per replica and which scheduling rules apply."""
    lengths = Lengths(np.array([500]), np.array([100]), "t")
    notes = {}
    for name, options in {
        "replicas": ProfileOptions(model="deepseek-v3", gpu="h200", tp=1, dp=8, times="roofline"),
        "sglang": ProfileOptions(gpu="h100-80g", tp=4, engine="sglang-0.5.23", times="roofline"),
        "neither": ProfileOptions(gpu="h100-80g", tp=4, times="roofline"),
    }.items():
        setup = setup_of(options, CATALOGUE)
        analysis = analyse(lengths, 10, setup, DeclaredRule.TRUTH, default_thresholds(setup.long_context))
        notes[name] = " ".join(workload_notes(lengths, setup, analysis))
    assert "the 8 replicas run in lockstep" in notes["replicas"]
    assert "SGLang's scheduling rules" in notes["sglang"]
    assert "replica" not in notes["neither"] + notes["sglang"]


def test_the_rate_of_a_server_is_that_of_all_its_replicas() -> None:
    """The cost model counts eight times the rate of one replica."""
    setup = replicated(1, 8)
    lengths = Lengths(np.array([500]), np.array([100]), "t")
    limits = setup.limits(65_536)
    all_of_them = throughput(lengths, setup.cost, limits, 0.08).requests_per_s
    one = throughput(lengths, setup.cost, replace(limits, data_parallel=1), 0.08).requests_per_s
    assert all_of_them == pytest.approx(8 * one)


def test_replicas_are_searched_for_models_with_experts_to_share() -> None:
    """For DeepSeek-V3 with long outputs on H200, where the latent cache is
    the bottleneck, all splits are candidates.
    """
    rng = np.random.default_rng(0)
    lengths = Lengths(rng.integers(2_000, 6_000, 500), rng.integers(500, 1_500, 500), "t")
    setup = setup_of(ProfileOptions(model="deepseek-v3", gpu="h200", times="roofline", tpot_ms=150), CATALOGUE)
    rule, balancing = DeclaredRule.TRUTH, Balancing(Balance.TOKENS)
    task = PoolTask(lengths, 5, 65_536, setup, setup.objective, rule, balancing, Tuning(knobs=False))
    shapes = {(each.instance.tensor_parallel, each.instance.data_parallel) for each, _ in candidates(task)}
    assert {(8, 1), (4, 2), (2, 4), (1, 8)} == shapes
    best = best_pool(task)
    assert best is not None
    assert best.setup.instance.gpus == 8


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (ProfileOptions(dp=2), "--dp 2: llama-3-70b has no experts to share"),
        (
            ProfileOptions(model="deepseek-v3", gpu="h200", dp=2, engine="sglang-0.5.23"),
            "--dp 2: is only supported for vLLM",
        ),
        (ProfileOptions(dp=0), "--dp 0: must be at least 1"),
    ],
)
def test_replicas_that_are_not_planned_are_refused(options: ProfileOptions, words: str) -> None:
    """The error is one sentence that names the option."""
    with pytest.raises(ConfigurationError, match=words):
        setup_of(options, CATALOGUE)
