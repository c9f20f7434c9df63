"""Measured iteration times: the tables reproduce the engine's figures, and plans say which times they used."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from extproc.core.errors import ConfigurationError
from extproc.planning.hardware import measured
from extproc.planning.hardware.catalogue import built_in
from extproc.planning.hardware.instance import Instance
from extproc.planning.hardware.measured import measured_cost, tables_of
from extproc.planning.hardware.roofline import iteration_cost
from extproc.planning.model.objective import Objective
from extproc.planning.model.setup import Setup, Times
from extproc.planning.model.times import CHUNKS, SEQUENCES, agreement, times_notes

CATALOGUE = built_in()


class StatedEngine:
    """Answers by a formula that the tables can reproduce exactly, in milliseconds."""

    def decode_step_latency(self, gen_tokens: int, isl: int, osl: int) -> float:  # noqa: ARG002
        """Return 5 ms, plus 0.01 ms per sequence, plus 0.001 ms per sequence and hundred tokens of context."""
        return 5 + 0.01 * gen_tokens + 1e-5 * gen_tokens * isl

    def mixed_step_breakdown(
        self,
        ctx_tokens: int,
        gen_tokens: int,
        isl: int,
        osl: int,  # noqa: ARG002
    ) -> tuple[float, float, float, float]:
        """Return 4 ms plus 0.02 ms per token, and the attention of prefill and of decoding."""
        shared, prefill = 4 + 0.02 * (ctx_tokens + gen_tokens), 0.5 + 1e-7 * isl**2 / 2 if ctx_tokens else 0.0
        return shared + prefill + 0.3, shared, prefill, 0.3 if gen_tokens else 0.0

    def predict_prefill_latency(self, bs: int, isl: int, prefix: int) -> float:
        """Fail: not called if the engine reports attention separately."""
        raise AssertionError((bs, isl, prefix))


class LatentEngine(StatedEngine):
    """Reports latent attention within the time that all tokens share, as aiconfigurator-core does."""

    def mixed_step_breakdown(
        self,
        ctx_tokens: int,
        gen_tokens: int,
        isl: int,
        osl: int,  # noqa: ARG002
    ) -> tuple[float, float, float, float]:
        """Return the complete step as shared time, without regard to the prompt that a chunk belongs to."""
        assert isl in {ctx_tokens, 1}
        whole = self.predict_prefill_latency(1, ctx_tokens + gen_tokens, 0)
        return whole, whole, 0.0, 0.0

    def predict_prefill_latency(self, bs: int, isl: int, prefix: int) -> float:
        """Return 4 ms, plus 0.02 ms per new token, plus 1e-6 ms per pair of a
        new token and a token it attends to.
        """
        new = isl - prefix
        return bs * (4 + 0.02 * new + 1e-6 * new * (prefix + new / 2))


def test_the_tables_reproduce_the_engines_figures() -> None:
    """Decode steps and steps with prefill, at sizes that are not on the grid."""
    cost = tables_of(StatedEngine(), 2048)
    for sequences, context in ((1, 500), (37, 3000), (700, 16_000)):
        asked = StatedEngine().decode_step_latency(sequences, context, 2) / 1e3
        assert cost.decode_run_s(sequences, sequences * context, 1) == pytest.approx(asked, rel=1e-6)
    prefill_s = cost.mixed_s(0, 0, 1000, 1000**2 / 2)
    assert prefill_s == pytest.approx((4 + 0.02 * 1000 + 0.5 + 1e-7 * 1000**2 / 2) / 1e3, rel=1e-3)
    assert cost.mixed_s(10, 20_000, 1000, 1000**2 / 2) > prefill_s + 0.0002


def test_latent_attention_is_paid_for_in_every_chunk_of_a_long_prompt() -> None:
    """The fourth chunk attends to the three before it, although the engine's step times do not include that."""
    cost, engine = tables_of(LatentEngine(), 2048), LatentEngine()
    for chunk, before in ((2048, 0), (2048, 6144), (512, 0), (512, 30_000)):
        asked_s = engine.predict_prefill_latency(1, before + chunk, before) / 1e3
        assert cost.mixed_s(0, 0, chunk, chunk * (before + chunk / 2)) == pytest.approx(asked_s, rel=1e-6)


@pytest.mark.parametrize(("kv_bytes", "asked"), [(2.0, "bfloat16"), (1.0, "fp8"), (0.5, None)])
def test_the_format_of_the_cache_is_always_passed(
    kv_bytes: float, asked: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package defaults to FP8 for DeepSeek; for cache formats that it
    does not support, nothing is measured.
    """
    modes: list[object] = []

    def compile_engine(*_: object, **options: object) -> bytes:
        modes.append(options["kvcache_quant_mode"])
        return b""

    package = SimpleNamespace(
        compile_engine=compile_engine, AicEngine=SimpleNamespace(from_spec=lambda _: StatedEngine())
    )
    monkeypatch.setattr(measured, "import_module", lambda _: package)
    monkeypatch.setattr(measured, "metadata", SimpleNamespace(version=lambda _: "0", PackageNotFoundError=OSError))
    measured_cost.cache_clear()
    instance = Instance(CATALOGUE.model("deepseek-v3"), CATALOGUE.gpu("h200"), 8, kv_bytes)
    found = measured_cost(instance, 2048)
    measured_cost.cache_clear()
    assert ([] if asked is None else [asked]) == modes
    assert (asked is not None) == (found is not None)


def test_runs_of_measured_steps_add_up() -> None:
    """The closed form and its inverse hold when the slope differs by the number of sequences."""
    cost = tables_of(StatedEngine(), 256)
    steps = [cost.decode_run_s(7, 3000 + 7 * i, 1) for i in range(50)]
    assert cost.decode_run_s(7, 3000, 50) == pytest.approx(sum(steps))
    assert cost.iterations_to_reach(7, 3000, sum(steps[:20])) == 20


def setup(gpu: str, times: Times, monkeypatch: pytest.MonkeyPatch, *, found: bool) -> Setup:
    """Return Llama-3-70B on eight GPUs, with or without measured times."""
    known = measured.Measured(tables_of(StatedEngine(), 2048), "stated") if found else None
    monkeypatch.setattr("extproc.planning.model.setup.measured_cost", lambda *_: known)
    instance = Instance(CATALOGUE.model("llama-3-70b"), CATALOGUE.gpu(gpu), 8)
    return Setup("70B", gpu, instance, 65_536, Objective(), batched_tokens=2048, times=times)


def test_available_measured_times_are_used_and_the_gap_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan says where the times come from, and how far our roofline is from them."""
    plan = setup("a100-80g", Times.AUTO, monkeypatch, found=True)
    assert plan.cost.decode_fixed_s
    (note,) = times_notes([plan, plan])
    assert "measured (stated)" in note
    assert "outside of its trusted range" in note


@pytest.mark.parametrize("far", [*(("decode", n) for n in SEQUENCES), *(("prefill", n) for n in CHUNKS)])
def test_a_gap_at_any_size_is_named(far: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoding and prefill, few tokens and many: the note names any size whose ratio is outside 0.8 to 1.25."""
    instance = Instance(CATALOGUE.model("llama-3-70b"), CATALOGUE.gpu("h100-80g"), 8)
    near = iteration_cost(instance, max(CHUNKS))
    fixed = [near.decode(n)[0] for n in range(max(SEQUENCES) + 1)]
    slopes, linear = [near.decode(n)[1] for n in range(max(SEQUENCES) + 1)], list(near.linear_s)
    kind, size = far
    if kind == "decode":
        fixed[size], slopes[size] = 2 * fixed[size], 2 * slopes[size]
    else:
        linear[size] *= 2
    other = replace(near, linear_s=tuple(linear), decode_fixed_s=tuple(fixed), decode_slopes_s=tuple(slopes))
    monkeypatch.setattr(
        "extproc.planning.model.setup.measured_cost", lambda *_: measured.Measured(other, "stated")
    )
    plan = Setup("70B", "h100", instance, 65_536, Objective(), batched_tokens=max(CHUNKS), times=Times.AUTO)
    (note,) = times_notes([plan])
    assert not agreement(near, other).trusted
    assert agreement(near, near).trusted
    assert "outside of its trusted range (0.8 to 1.25)" in note
    low = min(getattr(agreement(near, other), kind).values())
    assert f"{low:.2f} to 1.00 of them" in note


def test_each_kind_of_instance_has_its_own_note(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pools that differ in GPU or parallelism have separate notes; pools that differ only in a knob share one."""
    eight = setup("a100-80g", Times.ROOFLINE, monkeypatch, found=False)
    four = replace(eight, instance=replace(eight.instance, tensor_parallel=4))
    notes = times_notes([eight, four, replace(eight, batched_tokens=512)])
    assert ["70B on 8 x a100-80g", "70B on 4 x a100-80g"] == [note.split(":")[0] for note in notes]


def test_the_roofline_is_the_fallback_without_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` falls back and says so; `measured` refuses; `roofline` does not look for measurements."""
    fallback = setup("mi300x", Times.AUTO, monkeypatch, found=False)
    assert fallback.cost == iteration_cost(fallback.instance, 2048)
    assert "our roofline (none are measured" in times_notes([fallback])[0]
    with pytest.raises(ConfigurationError, match="--times measured: there are none for 70B on 8 x mi300x"):
        _ = setup("mi300x", Times.MEASURED, monkeypatch, found=False).cost
    assert "(as requested)" in times_notes([setup("a100-80g", Times.ROOFLINE, monkeypatch, found=True)])[0]


def test_a_gpu_that_is_not_known_is_not_measured() -> None:
    """This holds whether or not the package is installed."""
    instance = Instance(CATALOGUE.model("llama-3-70b"), CATALOGUE.gpu("mi300x"), 8)
    assert None is measured_cost(instance, 2048)


@pytest.mark.parametrize("gpus", [1, 4, 8])
@pytest.mark.parametrize("gpu", ["a100-80g", "h100-80g", "h200", "b200"])
def test_the_roofline_of_dense_models_is_near_what_was_measured(gpu: str, gpus: int) -> None:
    """Decoding 64 sequences and a chunk of 2,048 tokens: within .78 and 1.26 for every GPU and parallelism."""
    pytest.importorskip("aiconfigurator_core", reason="dualpool[measured] is not installed")
    instance = Instance(CATALOGUE.model("llama-3-8b"), CATALOGUE.gpu(gpu), gpus)
    found, ours = measured_cost(instance, 2048), iteration_cost(instance, 2048)
    assert found is not None
    ratios = [
        ours.decode_run_s(64, 64_000, 1) / found.cost.decode_run_s(64, 64_000, 1),
        ours.mixed_s(0, 0, 2048, 2048**2 / 2) / found.cost.mixed_s(0, 0, 2048, 2048**2 / 2),
    ]
    assert all(0.78 < ratio < 1.26 for ratio in ratios), ratios


def test_attention_is_computed_in_16_bits_whatever_the_weights_are() -> None:
    """DeepSeek's weights are FP8; the queries, keys and values of its attention are not."""
    gpu = CATALOGUE.gpu("h200")
    instance = Instance(CATALOGUE.model("deepseek-v3"), gpu, 8)
    flops = 2 * 61 * 128 * (128 + 64 + 128) / 8
    seconds = flops / (0.65 * gpu.bf16_tflops * 1e12)
    assert iteration_cost(instance, 512).prefill_s_per_token_pair == pytest.approx(seconds)


def test_tables_of_embeddings_are_not_multiplied_by_a_prompt() -> None:
    """The input table is only looked up, and therefore not read in full
    either, unless it is also the output table.
    """
    gpu, model = CATALOGUE.gpu("a100-80g"), CATALOGUE.model("llama-3-8b")
    plain, tied = replace(model, table_params_b=0.0), replace(model, tied_tables=True)
    with_tables, without, once = (
        iteration_cost(Instance(each, gpu, 1), 8192).linear_s for each in (model, plain, tied)
    )
    table_s = 0.525e9 * 2 / (0.8 * 2039e9)
    assert without[1] - with_tables[1] == pytest.approx(table_s)
    assert without[1] == once[1]
    multiplied_s = 8192 * 2 * 0.525e9 / (0.65 * 312e12)
    assert without[8192] - with_tables[8192] == pytest.approx(2 * multiplied_s)
    assert without[8192] - once[8192] == pytest.approx(multiplied_s)


def test_residuals_are_moved_by_every_gpu_in_full() -> None:
    """Eight GPUs share the matrix products of a prompt, but each normalises all of its tokens."""
    model, gpu = CATALOGUE.model("llama-3-8b"), CATALOGUE.gpu("a100-80g")
    one, eight = (iteration_cost(Instance(model, gpu, n), 8192).linear_s for n in (1, 8))
    shared_s = 8192 * 2 * (8.03 - 2 * 0.525) * 1e9 / (0.65 * 312e12)
    moved_s = 8192 * 32 * 8 * 4096 * 2 / (0.8 * 2039e9)
    reduced_s = 64 * (20e-6 + 8192 * 4096 * 2 * 1.75 / 300e9)
    assert one[8192] == pytest.approx(0.001 + shared_s + moved_s)
    assert eight[8192] == pytest.approx(0.001 + shared_s / 8 + moved_s + reduced_s)


def test_experts_are_counted_in_addition_to_the_dense_part() -> None:
    """For 1,024 tokens, DeepSeek's dense part is limited by FLOPs and its experts by reading their weights. Both
    are counted, and so are the rows that go to eight experts and back.
    """
    gpu, model = CATALOGUE.gpu("h200"), CATALOGUE.model("deepseek-v3")
    found = iteration_cost(Instance(model, gpu, 8), 1024).linear_s[1024]
    read_s = 653.9e9 * (1 - (1 - 8 / 256) ** 1024) / (8 * 0.8 * 4800e9)
    dense_s = 1024 * 2 * (37 - 2 * 0.927 - 653.9 * 8 / 256) * 1e9 / (8 * 0.65 * 1979e12)
    rows_s = 1024 * 61 * (8 + 3 * 8) * 7168 * 2 / (0.8 * 4800e9)
    reduced_s = 122 * (20e-6 + 1024 * 7168 * 2 * 1.75 / 450e9)
    assert found == pytest.approx(0.001 + read_s + dense_s + rows_s + reduced_s)


def test_weights_of_four_bits_are_computed_in_16() -> None:
    """W4A16 reads a quarter of the bytes and multiplies as fast as BF16; only FP8 is twice as fast."""
    model, gpu = CATALOGUE.model("llama-3-70b"), CATALOGUE.gpu("h100-80g")
    seconds = {
        bytes_: iteration_cost(
            Instance(replace(model, weight_bytes=bytes_, published_weight_bytes=2.0), gpu, 4), 8192
        ).linear_s[8192]
        for bytes_ in (2.0, 1.0, 0.5)
    }
    assert seconds[0.5] == pytest.approx(seconds[2.0])
    assert seconds[1.0] < 0.6 * seconds[2.0]
