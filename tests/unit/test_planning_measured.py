"""Measured iteration times: the tables say what the engine says, and plans say which times they used."""

from dataclasses import replace

import pytest

from extproc.core.errors import ConfigurationError
from extproc.planning.hardware import measured
from extproc.planning.hardware.capacity import Instance
from extproc.planning.hardware.catalogue import built_in
from extproc.planning.hardware.measured import measured_cost, tables_of
from extproc.planning.hardware.roofline import iteration_cost
from extproc.planning.model.objective import Objective
from extproc.planning.model.setup import Setup, Times
from extproc.planning.model.times import times_note

CATALOGUE = built_in()


class StatedEngine:
    """Answers by a formula that the tables can hold exactly: milliseconds."""

    def decode_step_latency(self, gen_tokens: int, isl: int, osl: int) -> float:  # noqa: ARG002
        """Return 5 ms, a hundredth for each sequence, and a thousandth for each hundred tokens of context."""
        return 5 + 0.01 * gen_tokens + 1e-5 * gen_tokens * isl

    def mixed_step_breakdown(
        self,
        ctx_tokens: int,
        gen_tokens: int,
        isl: int,
        osl: int,  # noqa: ARG002
    ) -> tuple[float, float, float, float]:
        """Return 4 ms and a fiftieth for each token, attention of prefill and of decoding."""
        shared, prefill = 4 + 0.02 * (ctx_tokens + gen_tokens), 0.5 + 1e-7 * isl**2 / 2 if ctx_tokens else 0.0
        return shared + prefill + 0.3, shared, prefill, 0.3 if gen_tokens else 0.0


def test_the_tables_hold_what_the_engine_says() -> None:
    """Steps that decode, and steps with prefill, at sizes that are not on the grid."""
    cost = tables_of(StatedEngine(), 2048)
    for sequences, context in ((1, 500), (37, 3000), (700, 16_000)):
        asked = StatedEngine().decode_step_latency(sequences, context, 2) / 1e3
        assert cost.decode_run_s(sequences, sequences * context, 1) == pytest.approx(asked, rel=1e-6)
    prefill_s = cost.mixed_s(0, 0, 1000, 1000**2 / 2)
    assert prefill_s == pytest.approx((4 + 0.02 * 1000 + 0.5 + 1e-7 * 1000**2 / 2) / 1e3, rel=1e-3)
    assert cost.mixed_s(10, 20_000, 1000, 1000**2 / 2) > prefill_s + 0.0002


def test_runs_of_measured_steps_add_up() -> None:
    """The closed form and its inverse hold with a slope of its own for each number of sequences."""
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


def test_measured_times_are_used_where_they_are_and_the_gap_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan says where times come from, and how far our roofline is from them."""
    plan = setup("a100-80g", Times.AUTO, monkeypatch, found=True)
    assert plan.cost.decode_fixed_s
    note = times_note(plan)
    assert "measured (stated)" in note
    assert "beyond what it is trusted for" in note


def test_the_roofline_stands_in_where_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Auto falls back and says so; measured refuses; roofline does not ask."""
    fallback = setup("mi300x", Times.AUTO, monkeypatch, found=False)
    assert fallback.cost == iteration_cost(fallback.instance, 2048)
    assert "our roofline's (none are measured" in times_note(fallback)
    with pytest.raises(ConfigurationError, match="--times measured: there are none for 70B on 8 x mi300x"):
        _ = setup("mi300x", Times.MEASURED, monkeypatch, found=False).cost
    assert "(as asked)" in times_note(setup("a100-80g", Times.ROOFLINE, monkeypatch, found=True))


def test_a_gpu_that_is_not_known_is_not_measured() -> None:
    """Whether the package is installed or not."""
    instance = Instance(CATALOGUE.model("llama-3-70b"), CATALOGUE.gpu("mi300x"), 8)
    assert None is measured_cost(instance, 2048)


@pytest.mark.parametrize("gpus", [1, 4, 8])
@pytest.mark.parametrize("gpu", ["a100-80g", "h100-80g", "h200", "b200"])
def test_the_roofline_of_dense_models_is_near_what_was_measured(gpu: str, gpus: int) -> None:
    """Decoding 64 sequences and a chunk of 2,048 tokens: within .75 and 1.4, for every GPU and parallelism."""
    pytest.importorskip("aiconfigurator_core", reason="dualpool[measured] is not installed")
    instance = Instance(CATALOGUE.model("llama-3-8b"), CATALOGUE.gpu(gpu), gpus)
    found, ours = measured_cost(instance, 2048), iteration_cost(instance, 2048)
    assert found is not None
    ratios = [
        ours.decode_run_s(64, 64_000, 1) / found.cost.decode_run_s(64, 64_000, 1),
        ours.mixed_s(0, 0, 2048, 2048**2 / 2) / found.cost.mixed_s(0, 0, 2048, 2048**2 / 2),
    ]
    assert all(0.75 < ratio < 1.4 for ratio in ratios), ratios


def test_weights_of_four_bits_are_computed_in_16() -> None:
    """W4A16 reads a quarter of the bytes, and multiplies as BF16 does: FP8 alone is twice as fast."""
    model, gpu = CATALOGUE.model("llama-3-70b"), CATALOGUE.gpu("h100-80g")
    seconds = {
        bytes_: iteration_cost(
            Instance(replace(model, weight_bytes=bytes_, published_weight_bytes=2.0), gpu, 4), 8192
        ).linear_s[8192]
        for bytes_ in (2.0, 1.0, 0.5)
    }
    assert seconds[0.5] == pytest.approx(seconds[2.0])
    assert seconds[1.0] < 0.6 * seconds[2.0]
