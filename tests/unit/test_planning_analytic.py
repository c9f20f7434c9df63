"""The cost model: capacity computed by hand, the paper's formulas, break-even,
thresholds, and agreement with the fleet simulator.
"""

from math import ceil

import numpy as np
import pytest

from extproc.core.errors import ConfigurationError
from extproc.planning.hardware.capacity import capacity, smallest_tensor_parallel
from extproc.planning.hardware.catalogue import built_in, parse
from extproc.planning.hardware.instance import Instance
from extproc.planning.model.analytic import analyse, break_even_rate, right_sized_context
from extproc.planning.model.objective import Objective
from extproc.planning.model.setup import MeasuredRates, Setup, SlotRule
from extproc.planning.simulation.balancing import Balance, Balancing
from extproc.planning.simulation.search import smallest_fleets
from extproc.planning.simulation.task import Design, SearchTask
from extproc.planning.workload.declared import DeclaredRule, budgets, declared_tokens
from extproc.planning.workload.lengths import Lengths

CATALOGUE = built_in()


def instance(model: str = "llama-3-70b", gpu: str = "a100-80g", gpus: int = 8) -> Instance:
    """Return an instance of the built-in catalogue."""
    return Instance(CATALOGUE.model(model), CATALOGUE.gpu(gpu), gpus)


def setup(measured: MeasuredRates | None = None, spare: int = 0, slots: SlotRule = SlotRule.PAGED) -> Setup:
    """Return the paper's instance at a context of 65,536 tokens."""
    return Setup(
        "llama-3-70b",
        "a100-80g",
        instance(),
        65_536,
        Objective(),
        slots,
        spare,
        price_usd_h=2.21,
        measured=measured,
    )


def lengths(prompts: list[int], outputs: list[int]) -> Lengths:
    """Return lengths given by hand."""
    return Lengths(np.array(prompts), np.array(outputs), "by hand")


def test_kv_capacity_of_llama_70b_on_two_gpus_is_what_the_formula_says() -> None:
    """2 x 80 GB x 0.92 - 141.2 GB of weights leaves 6 GB; at 2 x 80 x 8 x 128 x
    2 bytes per token that is 18,304 tokens.
    """
    assert capacity(instance(gpus=2), "x").kv_tokens == int(6e9 / 327_680) // 16 * 16


@pytest.mark.parametrize(
    ("model", "gpus", "bytes_per_token"),
    [
        ("llama-3-8b", 1, 2 * 32 * 8 * 128 * 2),
        ("llama-3-70b", 8, 2 * 80 * 1 * 128 * 2),
        ("qwen3-235b-a22b", 8, 2 * 94 * 1 * 128 * 2),  # 4 heads on 8 GPUs: each GPU holds a complete head
        ("deepseek-v3", 8, 61 * 576 * 2),  # the latent cache is on every GPU
    ],
)
def test_kv_bytes_of_a_token_on_each_gpu(model: str, gpus: int, bytes_per_token: int) -> None:
    """Heads are split over GPUs down to one per GPU; the latent cache is not split."""
    assert instance(model, gpus=gpus).kv_bytes_per_token_and_gpu == bytes_per_token


def test_weights_that_do_not_fit_are_refused_by_name() -> None:
    """An instance too small for the weights is an error that names both sizes."""
    with pytest.raises(ConfigurationError, match=r"weights take 141 GB, and 1 GPU\(s\) of 80 GB offer 74 GB"):
        capacity(instance(gpus=1), "llama-3-70b")


def test_a_context_that_does_not_fit_is_refused() -> None:
    """One sequence of max_model_len must fit, as vLLM requires at startup."""
    with pytest.raises(ConfigurationError, match="one sequence of 65,536 tokens does not fit"):
        Setup("llama-3-70b", "a100-80g", instance(gpus=2), 65_536, Objective())


def test_the_smallest_instance_that_fits_is_found() -> None:
    """Llama-3-70B with 65,536 tokens needs four A100s; DeepSeek-V3 does not fit on eight of them."""
    assert smallest_tensor_parallel(instance(gpus=1), 65_536, "x").tensor_parallel == 4
    assert smallest_tensor_parallel(instance("deepseek-v3"), 65_536, "x").tensor_parallel == 16


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gpus: {x: {memory_gb: -1}}", "x.yaml: Object missing required field `bandwidth_gb_s`"),
        ("gpus: [", "not YAML"),
        ("gpus: {}\ngpus: {}", "x.yaml: gpus: given twice, again in line 2"),
        (
            "models: {x: {attention: {kind: gqa, query_heads: 8, window: {layers: 5}}}}",
            "x.yaml: x.attention: 'window' is not known; known are .*windowed",
        ),
        ("models: {x: {attention: {windowed: {size: 5}}}}", "x.yaml: x.attention.windowed: 'size' is not known"),
        ("models: {x: {routed: {expert: 5}}}", "x.yaml: x.routed: 'expert' is not known"),
        ("gpus: {x: {memory_gb: 0, bandwidth_gb_s: 1, bf16_tflops: 1, link_gb_s: 1}}", "x: 0.0 is not allowed"),
    ],
)
def test_a_wrong_catalogue_is_refused(text: str, message: str) -> None:
    """The error names the file and the field."""
    with pytest.raises(ConfigurationError, match=message):
        parse(text, "x.yaml")


def test_every_built_in_profile_says_where_its_figures_come_from() -> None:
    """All GPUs and models have sources, and the commonly used GPUs are in the catalogue."""
    catalogue = built_in()
    sources = {name: gpu.sources for name, gpu in catalogue.gpus.items()}
    sources |= {name: model.sources for name, model in catalogue.models.items()}
    assert [] == [name for name, each in sources.items() if not each]
    asked = {"a100-80g", "h100-80g", "h200", "b200", "gb200", "mi300x", "mi325x", "mi355x", "h20", "l40s", "a10g"}
    assert asked <= catalogue.gpus.keys()


def test_closed_form_is_the_papers() -> None:
    """With the paper's rates and alpha = .80 the closed form gives 60 %."""
    measured = MeasuredRates(2.8, 11.2, 2.8)
    split = analyse(
        lengths([100] * 8 + [20_000] * 2, [10] * 10), 1000, setup(measured), DeclaredRule.TRUTH, (8192,)
    ).best

    assert split.alpha == pytest.approx(0.8)
    assert split.rho == pytest.approx(4)
    assert split.closed_form == pytest.approx(0.6)
    assert split.honest_form == pytest.approx(0.6)  # mu_L = mu_H by assumption
    assert (split.short_instances, split.long_instances) == (ceil(800 / 11.2), ceil(200 / 2.8))


def test_honest_form_counts_the_long_pools_own_rate() -> None:
    """With mu_L below mu_H the saving shrinks to 1 - alpha mu_H/mu_S - (1 - alpha) mu_H/mu_L."""
    measured = MeasuredRates(2.8, 11.2, 1.4)
    split = analyse(
        lengths([100] * 8 + [20_000] * 2, [10] * 10), 1000, setup(measured), DeclaredRule.TRUTH, (8192,)
    ).best
    assert split.honest_form == pytest.approx(1 - 0.8 / 4 - 0.2 * 2)


def test_at_small_scale_two_pools_lose() -> None:
    """At lambda = .5, mu_H = 1, mu_S = 2, alpha = .5, two pools need two instances and one
    pool only one; the closed form says +25 %.
    """
    measured = MeasuredRates(1, 2, 1)
    work = lengths([100, 20_000], [10, 10])
    analysis = analyse(work, 0.5, setup(measured), DeclaredRule.TRUTH, (8192,))

    assert analysis.best.closed_form == pytest.approx(0.25)
    assert analysis.right_sized.instances == 1
    assert analysis.best.instances == 2
    assert not analysis.two_pools_pay


def test_break_even_is_the_last_rate_at_which_two_pools_are_not_smaller() -> None:
    """Above the break-even rate two pools always need fewer instances; just below it they do not."""
    alpha, rates, spare = 0.8, (2.8, 11.2, 2.8), 1

    def smaller(rate: float) -> bool:
        apart = ceil(alpha * rate / rates[1]) + ceil((1 - alpha) * rate / rates[2]) + 2 * spare
        return apart < ceil(rate / rates[0]) + spare

    found = break_even_rate(alpha, rates, spare)

    assert found is not None
    assert all(smaller(rate) for rate in np.linspace(found + 1e-6, found + 400, 4000))
    assert not smaller(found - 1e-6)


def test_two_pools_without_an_advantage_never_break_even() -> None:
    """If the honest saving is not positive, there is no rate at which two pools need fewer instances."""
    assert break_even_rate(0.5, (2.0, 2.0, 2.0), 0) is None


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (DeclaredRule.TRUTH, [10, 2000]),
        (DeclaredRule.HALF_MORE, [15, 3000]),
        (DeclaredRule.FIXED_1024, [1024, 2000]),
        (DeclaredRule.FIXED_4096, [4096, 4096]),
    ],
)
def test_declared_tokens_by_rule(rule: DeclaredRule, expected: list[int]) -> None:
    """Each rule declares what its name says, and never less than the actual output."""
    declared = declared_tokens(lengths([1, 1], [10, 2000]), rule)
    assert declared is not None
    assert expected == declared.tolist()


def test_without_max_tokens_the_budget_holds_the_outputs_upper_quantile() -> None:
    """A request that declares no limit is budgeted the 99 % quantile of the outputs."""
    work = lengths([100] * 100, list(range(1, 101)))
    assert declared_tokens(work, DeclaredRule.NONE) is None
    assert budgets(work, DeclaredRule.NONE, prompt_factor=1.0).tolist() == [200] * 100


def test_right_sized_context_holds_the_longest_request() -> None:
    """14,089 tokens (the longest request of the Azure trace) need a context of 16,384."""
    assert right_sized_context(lengths([14_000], [89]), DeclaredRule.TRUTH, 65_536) == 16_384


def test_worst_case_slots_are_the_papers_slot_counts() -> None:
    """Eight A100s hold 20 sequences of 65,536 tokens and 166 of 8,192 (the paper says 16 and 128)."""
    worst = setup(slots=SlotRule.WORST_CASE)
    assert (worst.limits(65_536).max_num_seqs, worst.limits(8_192).max_num_seqs) == (20, 166)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_that_is_not_positive_is_refused(rate: float) -> None:
    """The error names the rate."""
    with pytest.raises(ConfigurationError, match="requests per second must be positive"):
        analyse(lengths([10], [10]), rate, setup(), DeclaredRule.TRUTH, (512,))


def test_an_objective_faster_than_a_single_sequence_is_refused() -> None:
    """The error names the part of the objective and what a single sequence achieves."""
    fast = Setup("llama-3-70b", "a100-80g", instance(), 65_536, Objective(tpot_s=0.001))
    with pytest.raises(
        ConfigurationError,
        match=r"TPOT 1 ms: no fleet of llama-3-70b on \d x a100-80g meets it; a single sequence takes \d+",
    ):
        analyse(lengths([100], [100]), 10, fast, DeclaredRule.TRUTH, (512,))


def test_the_simulated_fleet_is_near_the_analytical_one() -> None:
    """If queueing hardly matters, both models need the same number of instances within 20 %."""
    rng = np.random.default_rng(3)
    work = Lengths(rng.integers(200, 2000, 5000), rng.integers(50, 250, 5000), "even lengths")
    plan = setup()
    analytical = analyse(work, 150, plan, DeclaredRule.TRUTH, (1024,)).long.instances

    task = SearchTask(Design("one pool", (65_536,)), plan, work, DeclaredRule.TRUTH, 150, 6_000, seeds=1)

    assert smallest_fleets(task)[0].total == pytest.approx(analytical, rel=0.2)


def test_two_simulated_pools_are_near_the_analytical_ones() -> None:
    """For short requests mixed with some of 5,000 tokens, both models need
    about the same number of instances per pool.

    If prompts are so long that their prefill uses up the TTFT objective, queueing
    decides, which only the simulator models.
    """
    rng = np.random.default_rng(4)
    prompt = np.where(rng.random(5000) < 0.2, 5_000, rng.integers(200, 1500, 5000))
    work = Lengths(prompt, rng.integers(50, 250, 5000), "two kinds")
    plan = setup()
    split = analyse(work, 150, plan, DeclaredRule.TRUTH, (4096,)).best

    design = Design("two pools", (4_096, 65_536))
    task = SearchTask(
        design, plan, work, DeclaredRule.TRUTH, 150, 3_000, 1, "oracle", Balancing(Balance.FULL_SCAN)
    )

    short, long = smallest_fleets(task)[0].instances
    assert short == pytest.approx(split.short_instances, rel=0.25, abs=1)
    assert long == pytest.approx(split.long_instances, rel=0.25, abs=1)
