"""The models of the catalogue have the shapes of their published configurations, which aiconfigurator-core has."""

import json
from importlib.resources import files
from typing import Any

import pytest

from extproc.planning.hardware.catalogue import built_in
from extproc.planning.hardware.profiles import ModelProfile

MODELS = built_in().models
# Models without measured times, by the configuration that the package has of them.
ALSO = {
    "kimi-k2": "moonshotai/Kimi-K2-Instruct",
    "gemma-4-31b": "nvidia/Gemma-4-31B-IT-NVFP4",
    "deepseek-v3.2": "deepseek-ai/DeepSeek-V3.2",
    "glm-5": "zai-org/GLM-5-FP8",
    "glm-5.3": "zai-org/GLM-5.3-FP8",
    "llama-4-scout": "meta-llama/Llama-4-Scout-17B-16E-Instruct",
}
BILLION = 1e9
ROUNDED = 0.02  # model cards round, and count vision parts or leave out tables' padding


def published(name: str) -> dict[str, Any]:
    """Return the language model's part of a config.json."""
    pytest.importorskip("aiconfigurator_core", reason="needs dualpool[measured]")
    model = MODELS[name].measured or ALSO[name]
    file = files("aiconfigurator_core") / "model_configs" / f"{model.replace('/', '--')}_config.json"
    config = json.loads(file.read_text("utf-8"))
    text: dict[str, Any] = config.get("text_config", config)
    return {"tie_word_embeddings": False, **text}


def attention_params(model: ModelProfile, config: dict[str, Any]) -> float:
    """Return the parameters of all attention layers, in billions."""
    hidden, shape = model.hidden_size, model.attention
    if shape.kind == "mla":
        query = config["q_lora_rank"] * (hidden + shape.query_heads * (shape.nope_dim + shape.rope_dim))
        latent = hidden * (shape.kv_lora_rank + shape.rope_dim)
        latent += shape.kv_lora_rank * shape.query_heads * (shape.nope_dim + shape.v_dim)
        return float(model.layers * (query + latent + shape.query_heads * shape.v_dim * hidden)) / BILLION
    gated = 1 if shape.recurrent is not None else 0  # Qwen3.5's attention has a gate as wide as its queries
    full = hidden * shape.head_dim * ((2 + gated) * shape.query_heads + 2 * shape.kv_heads)
    params = float(model.full_layers * full)
    if (windowed := shape.windowed) is not None:
        params += windowed.layers * hidden * windowed.head_dim * 2 * (shape.query_heads + windowed.kv_heads)
    if shape.recurrent is not None:
        keys = config["linear_num_key_heads"] * config["linear_key_head_dim"]
        values = config["linear_num_value_heads"] * config["linear_value_head_dim"]
        params += shape.recurrent.layers * hidden * (2 * keys + 3 * values)
    return params / BILLION


def dense_params(model: ModelProfile, config: dict[str, Any]) -> float:
    """Return the parameters of dense layers and shared experts, in billions."""
    matrix = 3 * model.hidden_size
    if model.routed is None:
        return float(model.layers * matrix * config["intermediate_size"]) / BILLION
    first = config.get("first_k_dense_replace", 0)
    shared = config.get("n_shared_experts", 0) * config.get("moe_intermediate_size", 0)
    shared += config.get("shared_expert_intermediate_size", 0)
    if config.get("model_type") == "llama4_text":
        shared = config["intermediate_size"]
    dense = first * config["intermediate_size"] if first else 0
    return float(matrix * (dense + (model.layers - first) * shared)) / BILLION


def tables(model: ModelProfile) -> float:
    """Return the parameters of the tables, in billions."""
    return model.table_params_b * (1 if model.tied_tables else 2)


@pytest.mark.parametrize("name", MODELS)
def test_layers_heads_and_context_are_those_of_the_configuration(name: str) -> None:
    """Each number from which memory is computed is in config.json."""
    model, config = MODELS[name], published(name)
    shape = model.attention
    assert config["hidden_size"] == model.hidden_size
    assert config["num_hidden_layers"] == model.layers
    assert config["num_attention_heads"] == shape.query_heads
    native = model.max_context if model.yarn is None else model.yarn.native_context
    assert config["max_position_embeddings"] == native
    assert config["tie_word_embeddings"] == model.tied_tables
    assert config["vocab_size"] * model.hidden_size / BILLION == pytest.approx(model.table_params_b, abs=6e-4)
    if shape.kind == "mla":
        latent = (config["kv_lora_rank"], config["qk_rope_head_dim"])
        heads = (config["qk_nope_head_dim"], config["v_head_dim"])
        assert (*latent, *heads) == (shape.kv_lora_rank, shape.rope_dim, shape.nope_dim, shape.v_dim)
    else:
        usual = config["hidden_size"] // config["num_attention_heads"]
        assert config.get("global_head_dim", config.get("head_dim", usual)) == shape.head_dim
        kv_heads = config.get("num_global_key_value_heads") or config["num_key_value_heads"]
        assert kv_heads == shape.kv_heads


@pytest.mark.parametrize("name", [name for name, model in MODELS.items() if model.attention.windowed is not None])
def test_windows_are_those_of_the_configuration(name: str) -> None:
    """Layers, window and heads of sliding windows and chunks."""
    config, windowed = published(name), MODELS[name].attention.windowed
    assert windowed is not None
    kinds = config.get("layer_types") or ["sliding_attention"] * 3 * (config["num_hidden_layers"] // 4)
    assert kinds.count("sliding_attention") == windowed.layers
    assert (config.get("sliding_window") or config["attention_chunk_size"]) == windowed.window_tokens
    assert (config["num_key_value_heads"], config["head_dim"]) == (windowed.kv_heads, windowed.head_dim)


@pytest.mark.parametrize("name", [name for name, model in MODELS.items() if model.attention.recurrent is not None])
def test_states_are_those_of_the_configuration(name: str) -> None:
    """Qwen3.5: a matrix of float32 for each head of the values, and three columns of the convolution in BF16."""
    config, recurrent = published(name), MODELS[name].attention.recurrent
    assert recurrent is not None
    keys, values = config["linear_num_key_heads"], config["linear_num_value_heads"]
    key, value = config["linear_key_head_dim"], config["linear_value_head_dim"]
    assert config["mamba_ssm_dtype"] == "float32"
    columns = (config["linear_conv_kernel_dim"] - 1) * (2 * keys * key + values * value)
    assert 4 * values * key * value + 2 * columns == recurrent.state_bytes
    assert config["layer_types"].count("linear_attention") == recurrent.layers


@pytest.mark.parametrize("name", [name for name, model in MODELS.items() if model.attention.indexer is not None])
def test_indexers_are_those_of_the_configuration(name: str) -> None:
    """Layers that have one, their heads, and how many tokens they select."""
    config, indexer = published(name), MODELS[name].attention.indexer
    assert indexer is not None
    kinds = config.get("indexer_types") or ["full"] * config["num_hidden_layers"]
    assert kinds.count("full") == indexer.layers
    assert (config["index_n_heads"], config["index_head_dim"]) == (indexer.heads, indexer.head_dim)
    assert config["index_topk"] == indexer.top_tokens


@pytest.mark.parametrize("name", [name for name, model in MODELS.items() if model.attention.indexer is None])
def test_no_other_configuration_has_an_indexer(name: str) -> None:
    """A model whose attention is sparse is not taken for one without a cache of keys."""
    assert not {"index_topk", "sparse_attention_config", "compress_ratios"} & set(published(name))


@pytest.mark.parametrize("name", MODELS)
def test_parameters_add_up(name: str) -> None:
    """All parameters and those that a token uses are what the shape gives, both tables included."""
    model, config = MODELS[name], published(name)
    shared = attention_params(model, config) + dense_params(model, config) + tables(model)
    routed = model.routed
    if routed is None:
        assert shared == pytest.approx(model.params_b, rel=ROUNDED)
        assert model.active_params_b == model.params_b
        return
    names = ("num_experts", "num_local_experts", "n_routed_experts")
    assert next(config[each] for each in names if each in config) == routed.experts
    assert config["num_experts_per_tok"] == routed.experts_per_token
    width = config.get("moe_intermediate_size") or config["intermediate_size"]
    layers = model.layers - config.get("first_k_dense_replace", 0)
    each_b = layers * 3 * model.hidden_size * width / BILLION
    assert each_b * routed.experts == pytest.approx(routed.params_b, rel=0.005)
    assert shared + routed.params_b == pytest.approx(model.params_b, rel=ROUNDED)
    assert shared + each_b * routed.experts_per_token == pytest.approx(model.active_params_b, rel=0.03)
