"""The memory that a sequence holds, by vLLM's own grouping of layers and by the planner, for models of every kind.

Run it in a separate environment, as bench.planner_vllm:

    pip install vllm . && python -m bench.planner_groups

A sequence that decodes holds whole blocks in each of vLLM's groups of layers: those of all its tokens, of its
window, or of one state. The models are those of the catalogue, and shapes of others from their config.json. Blocks
of models with recurrent layers have the size that the planner computes.
"""

import logging
from dataclasses import replace
from math import ceil
from types import SimpleNamespace

import torch
import vllm
from vllm.v1.core.kv_cache_planning import get_kv_cache_groups
from vllm.v1.kv_cache_interface import (
    FullAttentionSpec,
    KVCacheSpec,
    MambaSpec,
    MLAAttentionSpec,
    SlidingWindowSpec,
    UniformTypeKVCacheSpecs,
)
from vllm.v1.kv_cache_layout import KVCacheLayout

from extproc.planning.hardware.catalogue import built_in
from extproc.planning.hardware.instance import Instance
from extproc.planning.hardware.profiles import Attention, RecurrentLayers, WindowedLayers

CONTEXTS = (1_504, 32_768)
LATENT = Attention(kind="mla", query_heads=32, kv_lora_rank=512, rope_dim=64, nope_dim=128, v_dim=128)
CONFIG = SimpleNamespace(
    scheduler_config=SimpleNamespace(disable_hybrid_kv_cache_manager=False),
    cache_config=SimpleNamespace(get_resolved_kv_cache_layout=lambda: KVCacheLayout.LBHNC),
    attention_config=SimpleNamespace(hisparse_config=None),
)


def attention(kv_heads: int, head_dim: int) -> Attention:
    """Return grouped-query attention."""
    return Attention(kind="gqa", query_heads=32, kv_heads=kv_heads, head_dim=head_dim)


def windowed(layers: int, window: int, kv_heads: int, head_dim: int) -> WindowedLayers:
    """Return layers with a sliding window."""
    return WindowedLayers(layers=layers, window_tokens=window, kv_heads=kv_heads, head_dim=head_dim)


# Layers with attention or a state, of all kinds together, and their shapes.
SHAPES = {
    "gemma-3-27b": (62, replace(attention(16, 128), windowed=windowed(52, 1_024, 16, 128))),
    "step-3.7-flash": (45, replace(attention(8, 128), windowed=windowed(33, 512, 8, 128))),
    "command-a": (64, replace(attention(8, 128), windowed=windowed(48, 4_096, 8, 128))),
    "nemotron-3-nano": (
        29,
        replace(attention(2, 128), recurrent=RecurrentLayers(layers=23, state_bytes=2_134_016)),
    ),
    "nemotron-3-super": (
        48,
        replace(attention(2, 128), recurrent=RecurrentLayers(layers=40, state_bytes=4_255_744)),
    ),
    "jamba-1.5-mini": (32, replace(attention(8, 128), recurrent=RecurrentLayers(layers=28, state_bytes=573_440))),
    "kimi-linear-48b": (27, replace(LATENT, recurrent=RecurrentLayers(layers=20, state_bytes=2_170_880))),
}


def instances() -> dict[str, Instance]:
    """Return a server of each model."""
    catalogue = built_in()
    models = dict(catalogue.models)
    for name, (layers, shape) in SHAPES.items():
        models[name] = replace(models["llama-3-8b"], layers=layers, attention=shape)
    return {name: Instance(model, catalogue.gpu("b300"), 1) for name, model in models.items()}


def layers_of(served: Instance) -> dict[str, KVCacheSpec]:
    """Return what vLLM's layers ask for."""
    shape, block = served.model.attention, served.block_tokens
    if shape.kind == "mla":
        size = shape.kv_lora_rank + shape.rope_dim
        full = MLAAttentionSpec(block_size=block, num_kv_heads=1, head_size=size, dtype=torch.bfloat16)
    else:
        full = FullAttentionSpec(
            block_size=block, num_kv_heads=shape.kv_heads, head_size=shape.head_dim, dtype=torch.bfloat16
        )
    found: dict[str, KVCacheSpec] = {f"full {n}": full for n in range(served.model.full_layers)}
    if (some := shape.windowed) is not None:
        window = SlidingWindowSpec(
            block_size=block,
            num_kv_heads=some.kv_heads,
            head_size=some.head_dim,
            dtype=torch.bfloat16,
            sliding_window=some.window_tokens,
        )
        found |= {f"window {n}": window for n in range(some.layers)}
    if (states := shape.recurrent) is not None:
        state = MambaSpec(
            block_size=block,
            shapes=((states.state_bytes,),),
            dtypes=(torch.uint8,),
            page_size_padded=full.page_size_bytes,
        )
        found |= {f"state {n}": state for n in range(states.layers)}
    if (indexer := shape.indexer) is not None:
        size = indexer.key_bytes
        keys = MLAAttentionSpec(block_size=block, num_kv_heads=1, head_size=size, dtype=torch.uint8)
        found |= {f"keys {n}": keys for n in range(indexer.layers)}
    return found


def held_bytes(served: Instance, tokens: int) -> float:
    """Return the bytes that a sequence of so many tokens holds in vLLM; half a block of each kind is not full."""
    groups = get_kv_cache_groups(CONFIG, layers_of(served))
    block_bytes, blocks = 0, 0.0
    for group in groups:
        spec = group.kv_cache_spec
        each = spec.kv_cache_specs.values() if isinstance(spec, UniformTypeKVCacheSpecs) else [spec]
        copies = 1 if isinstance(spec, UniformTypeKVCacheSpecs) else len(group.layer_names)
        block_bytes = max(block_bytes, copies * sum(layer.page_size_bytes for layer in each))
        first = next(iter(each))
        if isinstance(first, MambaSpec):
            blocks += 1
        elif isinstance(first, SlidingWindowSpec):
            blocks += ceil(min(tokens, first.sliding_window) / first.block_size) + 0.5
        else:
            blocks += tokens / first.block_size + 0.5
    return block_bytes * blocks


def main() -> None:
    """Print the planner's memory of a sequence as a part of vLLM's."""
    logging.disable(logging.CRITICAL)
    print(f"vLLM {vllm.__version__}; a sequence's memory, planner / vLLM, by its tokens")
    print(f"| model | block | {' | '.join(f'{tokens:,}' for tokens in CONTEXTS)} |")
    print(f"|---|---|{'---|' * len(CONTEXTS)}")
    for name, served in instances().items():
        ratios = [
            (tokens + served.sequence_tokens(tokens))
            * served.held_bytes_per_token_and_gpu
            / held_bytes(served, tokens)
            for tokens in CONTEXTS
        ]
        print(f"| {name} | {served.block_tokens:,} | {' | '.join(f'{ratio:.3f}' for ratio in ratios)} |")


if __name__ == "__main__":
    main()
