"""Models whose attention is sparse: the cache of latents and of the indexer's keys, and their cost."""

from dataclasses import replace

import pytest

from extproc.core.errors import ConfigurationError
from extproc.planning.hardware.capacity import capacity
from extproc.planning.hardware.catalogue import built_in, parse
from extproc.planning.hardware.instance import Instance
from extproc.planning.hardware.roofline import iteration_cost
from extproc.planning.model.engine import Engine
from extproc.planning.model.objective import Objective
from extproc.planning.model.setup import Setup

CATALOGUE = built_in()
LATENT, KEY = 512 + 64, 128 + 4  # elements of a latent; bytes of a key in FP8 with a scale in float32
FP8_LATENT = 512 + 16 + 2 * 64  # bytes: values, a scale for each 128 of them, and positions in BF16
BANDWIDTH = 4.8e12 * 0.8  # of an H200
ENTRY = """
models:
  some:
    params_b: 8
    active_params_b: 8
    weight_bytes: 2
    hidden_size: 4096
    layers: 32
    max_context: 131072
    attention: {%s, query_heads: 32, indexer: {%s}}
"""
MLA = "kind: mla, kv_lora_rank: 512, rope_dim: 64, nope_dim: 128, v_dim: 128"
GQA = "kind: gqa, kv_heads: 8, head_dim: 128"
INDEXER = "layers: 32, heads: 64, head_dim: 128, top_tokens: 2048"


def instance(model: str = "deepseek-v3.2", *, kv_bytes: float = 2.0, gpus: int = 8, gpu: str = "h200") -> Instance:
    """Return an instance with this KV format."""
    return Instance(CATALOGUE.model(model), CATALOGUE.gpu(gpu), gpus, kv_bytes)


@pytest.mark.parametrize("gpus", [1, 8])
@pytest.mark.parametrize(("kv_bytes", "latent"), [(2.0, 2 * LATENT), (1.0, FP8_LATENT)])
def test_each_gpu_holds_latents_and_keys(gpus: int, kv_bytes: float, latent: int) -> None:
    """DeepSeek-V3.2: 61 of both for each token. Keys are FP8 in either format; neither is split over GPUs."""
    assert 61 * (latent + KEY) == instance(kv_bytes=kv_bytes, gpus=gpus).kv_bytes_per_token_and_gpu


def test_the_cache_in_fp8_is_that_of_a_server() -> None:
    """SGLang logged 975,424 tokens in 43.67 GB (GiB, rounded) on each of eight B200 (sgl-project/sglang PR 11309),
    and 40,016 bytes a token less the indexer's keys.
    """
    served = instance(kv_bytes=1.0)
    assert 43.67 * 2**30 / 975_424 == pytest.approx(served.kv_bytes_per_token_and_gpu, rel=2e-4)
    assert 54.52 * 2**30 / 1_462_784 == pytest.approx(61 * FP8_LATENT, rel=2e-4)


def test_without_an_indexer_fp8_has_no_scales() -> None:
    """DeepSeek-V3's cache in FP8 is half of that in BF16."""
    assert 61 * LATENT == instance("deepseek-v3", kv_bytes=1.0).kv_bytes_per_token_and_gpu


def test_layers_that_share_a_selection_have_no_keys() -> None:
    """GLM-5.3 has 78 layers and 21 indexers, GLM-5 one in each layer."""
    assert 78 * 2 * LATENT + 21 * KEY == instance("glm-5.3").kv_bytes_per_token_and_gpu
    assert 78 * (2 * LATENT + KEY) == instance("glm-5").kv_bytes_per_token_and_gpu


def test_keys_leave_room_for_fewer_tokens() -> None:
    """Of the same weights, the cache of V3.2 holds 1,152 tokens for 1,284 of V3."""
    dense, sparse = (capacity(instance(name), name).kv_tokens for name in ("deepseek-v3", "deepseek-v3.2"))
    assert sparse / dense == pytest.approx(1_152 / 1_284, rel=1e-3)


@pytest.mark.parametrize(("kv_bytes", "latent"), [(2.0, 2 * LATENT), (1.0, FP8_LATENT)])
def test_a_step_reads_all_keys_and_the_selected_latents(kv_bytes: float, latent: int) -> None:
    """What grows with the context is the keys; 2,048 latents are read whatever it is."""
    cost = iteration_cost(instance(kv_bytes=kv_bytes), 2_048)
    assert cost.decode_s_per_context_token == pytest.approx(61 * KEY / BANDWIDTH)
    assert cost.decode_s_per_sequence == pytest.approx(2_048 * 61 * latent / BANDWIDTH)


@pytest.mark.parametrize(("gpu", "peak"), [("h200", 1_979e12), ("a100-80g", 312e12)])
@pytest.mark.parametrize("gpus", [8, 16])
def test_every_gpu_compares_each_token_with_all_before(gpus: int, gpu: str, peak: float) -> None:
    """Indexers are not split: 64 heads of 128 in 61 layers for each pair of tokens, in FP8 if the GPU has it."""
    cost = iteration_cost(instance(gpus=gpus, gpu=gpu), 16)
    assert cost.prefill_s_per_token_pair == pytest.approx(2 * 61 * 64 * 128 / (peak * 0.65))


def test_each_token_attends_to_the_selected_ones() -> None:
    """Beside the same matrices as V3, it computes scores and sums over 2,048 latents for each head, split over the
    GPUs.
    """
    sparse, dense = (iteration_cost(instance(name), 2_048) for name in ("deepseek-v3.2", "deepseek-v3"))
    flops = 2 * 61 * 128 * (2 * 512 + 64) * 2_048
    assert sparse.linear_s[2_000] - dense.linear_s[2_000] == pytest.approx(2_000 * flops / (8 * 989e12 * 0.65))


@pytest.mark.parametrize(
    ("attention", "indexer", "says"),
    [
        (GQA, INDEXER, "some.indexer: attention of kind gqa has none: kind mla is needed"),
        (MLA, INDEXER.replace("layers: 32", "layers: 33"), "33 layers: at most the 32 with full attention"),
        (MLA, INDEXER.replace("heads: 64", "heads: 0"), "some.indexer: 0 is not allowed"),
        (MLA, INDEXER + ", topk: 1", "'topk' is not known; known are head_dim, heads, layers, top_tokens"),
    ],
)
def test_impossible_indexers_are_refused(attention: str, indexer: str, says: str) -> None:
    """The error names the catalogue's mistake, and what is allowed."""
    with pytest.raises(ConfigurationError, match=says):
        parse(ENTRY % (attention, indexer), "mine.yaml")
    parse(ENTRY % (MLA, INDEXER), "mine.yaml")


@pytest.mark.parametrize("engine", [Engine.VLLM, Engine.SGLANG])
def test_the_format_that_was_planned_is_asked_for(engine: Engine) -> None:
    """Servers take FP8 for such caches on some GPUs unless they are told otherwise; other caches are in BF16."""
    assert engine.kv_format(instance(gpu="b200")) == "bfloat16"
    assert engine.kv_format(instance("deepseek-v3")) is None
    setup = Setup("m", "b200", instance(gpu="b200"), 65_536, Objective(), engine=engine)
    assert "--kv-cache-dtype bfloat16" in setup.flags(65_536)


def test_other_formats_are_scaled_likewise() -> None:
    """Only what is quantised shrinks: positions and scales do not."""
    attention = CATALOGUE.model("deepseek-v3.2").attention
    assert 256 + 16 + 128 == attention.latent_bytes(0.5)
    assert LATENT * 0.5 == replace(attention, indexer=None).latent_bytes(0.5)
