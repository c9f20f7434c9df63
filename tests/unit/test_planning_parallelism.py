"""The GPUs per instance and the batch that `dualpool plan` takes where the user gives none."""

from contextlib import suppress
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from extproc.core.errors import ConfigurationError
from extproc.planning.hardware.catalogue import built_in
from extproc.planning.model.analytic import analyse
from extproc.planning.model.options import ProfileOptions, first_setup, setup_of
from extproc.planning.model.reach import check_reach, reaching, with_best_batch
from extproc.planning.model.setup import Setup
from extproc.planning.workload.declared import DeclaredRule
from extproc.planning.workload.lengths import Lengths, from_means

LENGTHS = Lengths(np.tile([400, 1_000, 3_000], 300), np.tile([500, 100, 300], 300), "lengths")
BY_LENGTH = "<=4096: ttft 2s; else: ttft 30s"


def options(**changes: object) -> ProfileOptions:
    """Return options of a model that one B200 holds with little memory and time left."""
    return replace(ProfileOptions(gpu="b200", times="roofline", objective=BY_LENGTH), **changes)  # type: ignore[arg-type]


def gpus_of_one_pool(setup: Setup, rate: float, lengths: Lengths = LENGTHS) -> int:
    """Return the GPUs that one pool of the right size needs."""
    one = analyse(lengths, rate, setup, DeclaredRule.TRUTH, (4_096,)).right_sized
    return one.instances * setup.instance.gpus


@pytest.mark.parametrize("rate", [2.0, 200.0])
@pytest.mark.parametrize("tpot_ms", [80, 40, 25])
@pytest.mark.parametrize("model", ["llama-3-8b", "llama-3-70b"])
def test_no_other_instance_needs_fewer_gpus(model: str, tpot_ms: int, rate: float) -> None:
    """Whichever --tp and --batched-tokens the user gave instead, one pool of all requests would not be smaller."""
    asked = options(model=model, tpot_ms=tpot_ms)
    others = {}
    for size in (1, 2, 4, 8):
        for batch in (None, *(2**power for power in range(7, 15))):
            with suppress(ConfigurationError):  # it does not reach the objective
                setup = setup_of(replace(asked, tp=size, batched_tokens=batch), built_in())
                if setup.max_batched_tokens <= setup_of(replace(asked, tp=size), built_in()).max_batched_tokens:
                    others[size, batch] = gpus_of_one_pool(setup, rate)
    chosen = reaching(LENGTHS, rate, setup_of(asked, built_in()))
    assert gpus_of_one_pool(chosen, rate) == min(others.values())
    for given in {size for size, _ in others}:
        setup = reaching(LENGTHS, rate, setup_of(replace(asked, tp=given), built_in()), sizes=False)
        assert setup.instance.tensor_parallel == given
        assert gpus_of_one_pool(setup, rate) == min(gpus for (size, _), gpus in others.items() if size == given)


def test_half_a_batch_can_save_a_tenth_of_the_gpus() -> None:
    """Long prompts in smaller chunks leave more of the TPOT to the sequences that decode."""
    lengths = from_means(9_000, 400, 20_000, np.random.default_rng(0))
    setup = setup_of(options(model="llama-3-8b", gpu="l40s", objective=None, ttft=30), built_in())
    chosen = reaching(lengths, 200.0, setup)
    assert chosen.max_batched_tokens < setup.max_batched_tokens
    assert gpus_of_one_pool(chosen, 200.0, lengths) < 0.92 * gpus_of_one_pool(setup, 200.0, lengths)


def test_a_batch_with_which_long_prompts_start_too_late_is_not_taken() -> None:
    """Half of the largest batch would be cheaper, but no fleet with it meets the TTFT, however large."""
    lengths = from_means(9_000, 400, 20_000, np.random.default_rng(0))
    batches = {}
    for ttft in (30.0, 4.4):
        setup = setup_of(options(model="llama-3-8b", gpu="l40s", tp=1, objective=None, ttft=ttft), built_in())
        chosen = reaching(lengths, 200.0, setup, sizes=False)
        check_reach(lengths, chosen)
        batches[ttft] = chosen.max_batched_tokens
    assert batches[30.0] < batches[4.4]


def test_the_best_batch_of_an_instance_serves_the_most_in_time() -> None:
    """One that would serve more, but starts long prompts too late, is not taken; if all do, nothing changes."""
    lengths = from_means(9_000, 400, 20_000, np.random.default_rng(0))
    batches = {}
    for ttft in (30.0, 4.4, 0.1):
        setup = setup_of(options(model="llama-3-8b", gpu="l40s", tp=1, objective=None, ttft=ttft), built_in())
        best = with_best_batch(lengths, setup)
        assert ttft == 0.1 or best == reaching(lengths, 200.0, setup, sizes=False)
        batches[ttft] = best.best_batch_tokens
    assert batches[0.1] is None
    assert batches[30.0] != batches[4.4]


def test_a_batch_that_was_given_is_kept_and_sglang_s_is_not_halved() -> None:
    """The user's batch is the user's; and SGLang's iterations never hold prompts beside decoding sequences."""
    lengths = from_means(9_000, 400, 20_000, np.random.default_rng(0))
    asked = options(model="llama-3-8b", gpu="l40s", objective=None, ttft=30)
    for changes in ({"batched_tokens": 1_024}, {"engine": "sglang-0.5.23"}):
        setup = setup_of(replace(asked, tp=1, **changes), built_in())
        assert reaching(lengths, 200.0, setup, sizes=False) == setup


def test_the_choice_weighs_the_rate() -> None:
    """A few requests need one instance and a spare of the fewest GPUs; many take the size that suits them."""
    setup = setup_of(options(tpot_ms=25), built_in())
    few, many = (reaching(LENGTHS, rate, setup).instance.tensor_parallel for rate in (0.1, 200.0))
    assert few == 1
    assert many > 1


def test_the_spares_count() -> None:
    """Spares are whole instances: with many of them smaller instances are cheaper."""
    few, many = (setup_of(options(spare=spare, tpot_ms=25), built_in()) for spare in (0, 200))
    assert reaching(LENGTHS, 200.0, few).instance.gpus > reaching(LENGTHS, 200.0, many).instance.gpus


def test_a_looser_objective_does_not_multiply_the_fleet() -> None:
    """Neither the size nor the batch that a loose objective allows is taken where others need less."""
    tpots_ms = (18, 20, 22, 25, 30, 40, 60, 80)
    sizes = []
    for tpot_ms in tpots_ms:
        setup = setup_of(options(tpot_ms=tpot_ms), built_in())
        sizes.append(gpus_of_one_pool(reaching(LENGTHS, 200.0, setup), 200.0))
    assert all(looser <= tighter for tighter, looser in pairwise(sizes)), dict(zip(tpots_ms, sizes, strict=True))


def test_the_first_gpu_that_reaches_the_objective_is_taken() -> None:
    """Of several GPUs the one that was named first, where one of its sizes reaches; else the next."""
    catalogue = built_in()
    setup = setup_of(options(gpu="l40s", tpot_ms=25), catalogue)
    gpus = tuple((name, catalogue.gpu(name), 1.0) for name in ("l40s", "h200"))
    for tpot_ms, name in ((80, "l40s"), (12, "h200")):
        objective = setup_of(options(tpot_ms=tpot_ms), catalogue).objective
        chosen = reaching(LENGTHS, 20.0, replace(setup, objective=objective), gpus)
        assert (chosen.gpu_name, chosen.price_usd_h) == (name, 1.0)


@pytest.mark.parametrize("gpus", [("a10g", "h200"), ("h200", "a10g")])
def test_a_gpu_that_cannot_hold_the_model_leaves_it_to_the_others(gpus: tuple[str, ...]) -> None:
    """The order in which GPUs are named does not matter; if none holds the model, the error is the first one's."""
    asked = options(model="deepseek-v3", objective=None)
    assert "h200" == first_setup(asked, gpus, built_in()).gpu_name
    with pytest.raises(ConfigurationError, match="deepseek-v3 on a10g: not even 16 GPUs hold"):
        first_setup(asked, ("a10g", "l40s"), built_in())


def test_measured_rates_are_of_the_instance_that_was_measured() -> None:
    """With --measured nothing is compared: the rates would be wrong for any other size."""
    setup = setup_of(options(measured="2.8,11.2,2.8"), built_in())
    assert reaching(LENGTHS, 200.0, setup) == setup


def test_requests_that_servers_refuse_do_not_weigh() -> None:
    """A rate of which 99 % are refused needs as few instances as the rest, and these count."""
    refused = Lengths(np.full(89_100, 9_000_000), np.full(89_100, 3), "refused")
    both = Lengths(np.append(LENGTHS.prompt, refused.prompt), np.append(LENGTHS.output, refused.output), "both")
    setup = setup_of(options(success=0.01, tpot_ms=25), built_in())
    assert reaching(both, 200.0, setup).instance == reaching(LENGTHS, 2.0, setup).instance
    assert reaching(both, 200.0, setup).instance != reaching(LENGTHS, 200.0, setup).instance


def test_an_instance_of_more_than_one_server_is_kept_if_nothing_less_holds_the_model() -> None:
    """Sizes beyond eight GPUs are not proposed, except where the model needs them."""
    setup = setup_of(options(model="deepseek-v3", gpu="a100-80g", weight_bytes=1, objective=BY_LENGTH), built_in())
    assert setup.instance.gpus == 16
    assert reaching(LENGTHS, 200.0, setup).instance == setup.instance
    for tpot_ms in (10, 8, 6, 4):
        tight = setup_of(options(tpot_ms=tpot_ms), built_in())
        assert reaching(LENGTHS, 200.0, tight).instance.gpus <= 8
