"""Models of which some layers do not attend to the whole context: their memory and their cost."""

from dataclasses import replace

import numpy as np
import pytest

from extproc.core.errors import ConfigurationError
from extproc.planning.hardware.capacity import Instance, capacity
from extproc.planning.hardware.catalogue import built_in, parse
from extproc.planning.hardware.profiles import Attention, WindowedLayers
from extproc.planning.hardware.roofline import iteration_cost
from extproc.planning.model.objective import Objective
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
    """Qwen3.5: 30 layers of 32 states of 128 x 128 float32 and a convolution, divided over the GPUs."""
    alone, shared = instance("qwen3.5-35b-a3b", 1), instance("qwen3.5-35b-a3b", 2)
    state_bytes = 30 * (32 * 128 * 128 * 4 + 3 * 8192 * 2)
    assert state_bytes == alone.state_bytes_and_gpu == 2 * shared.state_bytes_and_gpu
    assert alone.sequence_tokens(1) == alone.sequence_tokens(100_000) > 1_000


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
