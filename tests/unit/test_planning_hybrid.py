"""Models of which some layers do not attend to the whole context: their memory and their cost."""

from dataclasses import replace

import numpy as np
import pytest

from extproc.core.errors import ConfigurationError
from extproc.planning.design.plan import _usual as usual
from extproc.planning.design.pool import _knobs
from extproc.planning.hardware.capacity import capacity
from extproc.planning.hardware.catalogue import built_in, parse
from extproc.planning.hardware.instance import Instance
from extproc.planning.hardware.profiles import Attention, RecurrentLayers, WindowedLayers
from extproc.planning.hardware.roofline import iteration_cost
from extproc.planning.model.engine import Engine
from extproc.planning.model.objective import Objective
from extproc.planning.model.reach import _batches
from extproc.planning.model.setup import Setup
from extproc.planning.model.throughput import throughput
from extproc.planning.workload.lengths import Lengths

CATALOGUE = built_in()
ENTRY = """
models:
  some:
    params_b: 8
    active_params_b: 8
    weight_bytes: 2
    hidden_size: 4096
    layers: 32
    max_context: 131072
    attention: {kind: gqa, query_heads: 32, kv_heads: 8, head_dim: 128, %s}
"""


def instance(model: str, gpus: int) -> Instance:
    """Return an instance of H200s."""
    return Instance(CATALOGUE.model(model), CATALOGUE.gpu("h200"), gpus)


def hybrid_setup(
    gpu: str = "h100-80g", *, tpot_s: float = 10.0, kv_bytes: float = 2.0, engine: Engine = Engine.VLLM
) -> Setup:
    """Return Qwen3.5-35B-A3B on one GPU."""
    model, pages = CATALOGUE.model("qwen3.5-35b-a3b"), engine.state_pages
    one = Instance(model, CATALOGUE.gpu(gpu), 1, kv_bytes, state_pages=pages)
    return Setup("m", gpu, one, 65_536, Objective(tpot_s=tpot_s), engine=engine)


def test_windows_are_held_once_whatever_the_context() -> None:
    """gpt-oss-120b: 18 of 36 layers of 2 x 8 heads of 64 in BF16 grow with
    the context, the other 18 hold 128 tokens.
    """
    served = instance("gpt-oss-120b", 1)
    layer_bytes = 2 * 8 * 64 * 2
    assert 18 * layer_bytes == served.kv_bytes_per_token_and_gpu
    assert 18 * 128 * layer_bytes == served.window_bytes_and_gpu(100_000)
    assert 18 * 50 * layer_bytes == served.window_bytes_and_gpu(50)
    assert served.sequence_tokens(100_000) == 128
    assert served.sequence_tokens(50) == 50


def test_windows_of_other_heads_are_counted_in_tokens_of_the_full_layers() -> None:
    """Gemma 4: 50 layers of 16 heads of 256 over 1,024 tokens, next to 10 layers of 4 heads of 512."""
    assert instance("gemma-4-31b", 1).sequence_tokens(10_000) == 1024 * 50 * 16 * 256 // (10 * 4 * 512)


def test_recurrent_states_are_held_by_each_sequence() -> None:
    """Qwen3.5: 30 layers of 32 states of 128 x 128 float32 and a convolution, divided over the GPUs, whatever
    the context.
    """
    alone, shared = instance("qwen3.5-35b-a3b", 1), instance("qwen3.5-35b-a3b", 2)
    state_bytes = 30 * (32 * 128 * 128 * 4 + 3 * 8192 * 2)
    assert state_bytes == alone.state_bytes_and_gpu == 2 * shared.state_bytes_and_gpu
    assert alone.sequence_tokens(1) == alone.sequence_tokens(100_000)


@pytest.mark.parametrize(
    ("gpus", "kv_bytes", "block_tokens"), [(1, 2.0, 1_056), (2, 2.0, 1_056), (4, 2.0, 528), (1, 1.0, 2_096)]
)
def test_a_block_is_as_large_as_a_state(gpus: int, kv_bytes: float, block_tokens: int) -> None:
    """A block of the attention holds at least what the state of a layer takes, in steps of 16 tokens. With one KV
    head on each GPU the attention is split no further, but states are.
    """
    assert block_tokens == replace(instance("qwen3.5-35b-a3b", gpus), kv_bytes=kv_bytes).block_tokens


@pytest.mark.parametrize(
    ("pages", "held", "reserved"),
    [(2, 3 * 1_056 + 528, 6 * 1_056 + 528), (1, 3 * 1_056 + 528, 3 * 1_056 + 528), (0, 3_144, 3_144)],
)
def test_a_sequence_holds_one_state_for_each_layer(pages: int, held: int, reserved: int) -> None:
    """Each is a page of a block's size, and on average half a block is not full. Where prefixes are cached, vLLM
    reserves two when it starts, but a running sequence holds one. SGLang keeps states by themselves.
    """
    served = replace(instance("qwen3.5-35b-a3b", 1), state_pages=pages)
    assert (held, reserved) == (served.sequence_tokens(8_192), served.reserved_tokens(8_192))


def test_as_many_sequences_fit_as_a_server_logged() -> None:
    """With prefix caching vLLM 0.24 logged for Qwen3.6-35B-A3B in FP8 4.33 sequences of 131,072 tokens in 5.98 GiB
    (noonghunna/club-3090 issue 612). The model has the shape of Qwen3.5-35B-A3B.
    """
    served = replace(instance("qwen3.5-35b-a3b", 1), kv_bytes=1.0)
    each = (131_072 + served.reserved_tokens(131_072)) * served.kv_bytes_per_token_and_gpu
    assert 5.98 * 2**30 / each == pytest.approx(4.33, abs=0.01)


def of_kinds(
    layers: int, *, windowed: WindowedLayers | None = None, recurrent: RecurrentLayers | None = None
) -> Instance:
    """Return Llama-3-8B with so many layers, some of them of these kinds."""
    plain = instance("llama-3-8b", 1)
    attention = replace(plain.model.attention, windowed=windowed, recurrent=recurrent)
    return replace(plain, model=replace(plain.model, layers=layers, attention=attention))


def test_groups_of_recurrent_layers_are_filled_up() -> None:
    """23 recurrent layers and six with attention, as Nemotron 3 Nano has, are five groups of six, as if there were
    24. The states are as large as 642 tokens, so blocks have 656.
    """
    served = of_kinds(29, recurrent=RecurrentLayers(layers=23, state_bytes=642 * 4_096))
    assert (6, 656) == (served.group_layers, served.block_tokens)
    assert 4 * 656 + 328 == served.sequence_tokens(8_192)
    assert 8 * 656 + 328 == served.reserved_tokens(8_192)
    assert served.kv_bytes_per_token_and_gpu == served.held_bytes_per_token_and_gpu


def test_groups_of_windows_are_filled_up() -> None:
    """Gemma 3 27B has 52 windowed layers and ten others: six groups of ten. SGLang has no such groups."""
    windowed = WindowedLayers(layers=52, window_tokens=1_024, kv_heads=8, head_dim=128)
    served = of_kinds(62, windowed=windowed)
    assert 6 * 1_024 == served.sequence_tokens(8_192)
    assert 5.2 * 1_024 == pytest.approx(replace(served, state_pages=0).sequence_tokens(8_192), abs=1)


def test_nearly_equal_kinds_are_filled_up_to_the_larger() -> None:
    """Ten layers and twelve windows are two groups of twelve, so each token takes the memory of two layers that do
    not exist; ten and fifteen are three groups of ten.
    """
    windowed = WindowedLayers(layers=12, window_tokens=1_024, kv_heads=8, head_dim=128)
    alike = of_kinds(22, windowed=windowed)
    assert 12 == alike.group_layers
    assert 12 * 4_096 == alike.held_bytes_per_token_and_gpu
    assert 10 * 4_096 == alike.kv_bytes_per_token_and_gpu
    assert 1_024 == alike.sequence_tokens(8_192)
    apart = of_kinds(25, windowed=replace(windowed, layers=15))
    assert 10 == apart.group_layers
    assert 2 * 1_024 == apart.sequence_tokens(8_192)
    whole = [capacity(each, "some").kv_tokens for each in (alike, replace(alike, state_pages=0))]
    assert whole[1] / whole[0] == pytest.approx(1.2, rel=0.001)


def test_blocks_of_a_latent_cache_beside_states_are_multiples_of_128() -> None:
    """Kimi Linear: 20 layers with states of 2,170,880 bytes, seven with latents of 1,152 bytes: 1,885 tokens."""
    latent = instance("deepseek-v3", 8).model
    attention = replace(latent.attention, recurrent=RecurrentLayers(layers=20, state_bytes=2_170_880))
    served = replace(instance("deepseek-v3", 8), model=replace(latent, layers=27, attention=attention))
    assert 1_920 == replace(served, tensor_parallel=1).block_tokens


def test_no_more_sequences_run_than_there_are_blocks_for_states() -> None:
    """The default of 1,024 is above the blocks of one H100, and vLLM refuses to start with more than these."""
    setup = hybrid_setup()
    assert 1 <= setup.limits(65_536).max_num_seqs < setup.capacity.blocks < 1_024
    assert f"--max-num-seqs {setup.capacity.blocks - 1}" in setup.flags(65_536)


def test_a_batch_reaches_the_end_of_a_block() -> None:
    """However tight the objective, no max_num_batched_tokens is below the block of a model with recurrent states,
    with which vLLM 0.32 does not start; without prefix caching (0.18) there is no such limit.
    """
    assert hybrid_setup(tpot_s=1e-6).max_batched_tokens == 2_048
    assert hybrid_setup(tpot_s=1e-6, engine=Engine.VLLM_0_18).max_batched_tokens == 128
    assert {each.max_batched_tokens for each in _batches(hybrid_setup())} == {8_192, 4_096, 2_048}


def test_a_default_batch_below_a_block_is_raised() -> None:
    """In FP8 a block has 2,096 tokens and vLLM's default batch on an A100 2,048."""
    setup = hybrid_setup("a100-80g", kv_bytes=1.0)
    assert setup.max_batched_tokens == 4_096
    assert usual(setup, 65_536).limits(0, setup).max_num_batched_tokens == 4_096


def test_a_batch_that_is_given_below_a_block_is_refused() -> None:
    """The error says from which number of tokens on vLLM starts."""
    with pytest.raises(ConfigurationError, match=r"--batched-tokens 1,024: vLLM takes no fewer than 1,056"):
        replace(hybrid_setup(), batched_tokens=1_024)


def test_thresholds_for_long_prompts_below_a_block_are_not_tried() -> None:
    """A server with such a threshold does not start if it caches prefixes; before vLLM did so, they are tried."""
    tried = {each.long_prefill_tokens for each in _knobs(hybrid_setup())}
    assert tried == {0}
    as_long = hybrid_setup(kv_bytes=2.06)
    assert 1_024 == as_long.instance.smallest_chunk_tokens
    assert {0, 1_024} == {each.long_prefill_tokens for each in _knobs(as_long)}
    assert {256, 1_024} < {each.long_prefill_tokens for each in _knobs(hybrid_setup(engine=Engine.VLLM_0_18))}


def test_a_window_makes_room_for_more_sequences() -> None:
    """With three quarters of its layers windowed, the same model holds
    nearly four times as many long sequences.
    """
    full = instance("llama-3-8b", 1)
    windowed = WindowedLayers(layers=24, window_tokens=1024, kv_heads=8, head_dim=128)
    attention = replace(full.model.attention, windowed=windowed)
    hybrid = replace(full, model=replace(full.model, attention=attention))
    slots = [capacity(each, "some").slots(65_536) for each in (full, hybrid)]
    assert slots[1] / slots[0] == pytest.approx(4 * 65_536 / (65_536 + 3 * 1024), rel=0.05)


def test_long_contexts_cost_what_the_full_layers_cost() -> None:
    """Beyond the window only full layers read more for a longer context; the window itself is read in full."""
    cost = iteration_cost(instance("gemma-4-31b", 2), 2048)
    bandwidth = 4.8e12 * 0.8
    grows = cost.decode_run_s(8, 8 * 50_000, 1) - cost.decode_run_s(8, 8 * 2_000, 1)
    assert grows == pytest.approx(8 * 48_000 * 10 * 2 * 2 * 512 * 2 / bandwidth)
    assert cost.decode_s_per_sequence == pytest.approx(1024 * 50 * 2 * 8 * 256 * 2 / bandwidth)
    assert cost.mixed_s(8, 8 * 2_000, 100, 0) - cost.mixed_s(0, 0, 108, 0) == pytest.approx(
        8 * cost.decode_s_per_sequence + 8 * 2_000 * cost.decode_s_per_context_token
    )


def test_the_cost_model_counts_what_sequences_hold() -> None:
    """If the cache is the limit, a sequence takes its context plus its states."""
    setup = Setup("m", "h200", instance("qwen3.5-35b-a3b", 1), 65_536, Objective(tpot_s=10.0))
    lengths = Lengths(np.array([2_000]), np.array([2_000]), "alike")
    limits = replace(setup.limits(65_536), max_num_seqs=4096, max_num_batched_tokens=8192, kv_tokens=200_000)
    found = throughput(lengths, setup.cost, limits, 10.0)
    assert found.bound_by == "KV cache"
    assert found.sequences == pytest.approx(0.9 * 200_000 / (3_000 + limits.sequence_tokens), rel=0.01)


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ("windowed: {layers: 32, window_tokens: 128, kv_heads: 8, head_dim: 64}", "at least one must have full"),
        ("windowed: {layers: 8, window_tokens: 0, kv_heads: 8, head_dim: 64}", "0 is not allowed"),
        ("recurrent: {layers: 8, state_bytes: -1}", "-1 is not allowed"),
        ("recurrent: {layers: 8}", "state_bytes"),
    ],
)
def test_impossible_layers_are_refused(part: str, says: str) -> None:
    """The error names the catalogue's mistake."""
    with pytest.raises(ConfigurationError, match=says):
        parse(ENTRY % part, "mine.yaml")


def test_a_plain_model_needs_no_extra_memory_per_sequence() -> None:
    """A model without windows and recurrent states needs no extra memory per sequence."""
    assert instance("llama-3-70b", 4).sequence_tokens(8_192) == 0
    assert isinstance(CATALOGUE.model("llama-3-70b").attention, Attention)
