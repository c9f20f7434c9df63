"""The blocks that a sequence of a model with recurrent layers holds, by vLLM's own KVCacheManager.

Run it in a separate environment, as bench.planner_vllm:

    pip install vllm . && python -m bench.planner_states

The model is Qwen3.5-35B-A3B: one group of layers with attention, three with recurrent states, prefixes cached.
"""

import itertools

import torch
import vllm
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_manager import KVCacheManager
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec, MambaSpec
from vllm.v1.request import Request

from extproc.planning.hardware.catalogue import built_in
from extproc.planning.hardware.instance import Instance

MODEL, STATE_GROUPS = "qwen3.5-35b-a3b", 3
PROMPT, CHUNK, OUTPUT = 10_000, 7_392, 3_000


def manager(block_tokens: int) -> KVCacheManager:
    """Return vLLM's manager of a large cache with blocks of this size."""
    attention = FullAttentionSpec(block_size=block_tokens, num_kv_heads=2, head_size=256, dtype=torch.bfloat16)
    state = MambaSpec(
        block_size=block_tokens,
        shapes=((3, 8_192), (32, 128, 128)),
        dtypes=(torch.bfloat16, torch.float32),
        page_size_padded=attention.page_size_bytes,
        mamba_cache_mode="align",
    )
    specs = (attention, *(state,) * STATE_GROUPS)
    groups = [KVCacheGroupSpec([str(number)], spec) for number, spec in enumerate(specs)]
    config = KVCacheConfig(num_blocks=5_000, kv_cache_tensors=[], kv_cache_groups=groups)
    return KVCacheManager(
        config, max_model_len=65_536, scheduler_block_size=block_tokens, hash_block_size=block_tokens
    )


def run(block_tokens: int) -> tuple[list[int], list[int]]:
    """Return the blocks held in each step of the prompt, and in each of the output."""
    init_none_hash(sha256)
    cache = manager(block_tokens)
    hasher = get_request_block_hasher(block_tokens, sha256)
    request = Request("r", list(range(PROMPT)), SamplingParams(max_tokens=OUTPUT), None, block_hasher=hasher)
    unused = cache.block_pool.get_num_free_blocks()
    held = []
    for tokens in itertools.chain((CHUNK, PROMPT - CHUNK), itertools.repeat(1, OUTPUT)):
        if tokens == 1:
            request.append_output_token_ids(0)
        if cache.allocate_slots(request, tokens) is None:
            raise RuntimeError("the cache is full")
        request.num_computed_tokens += tokens
        held.append(unused - cache.block_pool.get_num_free_blocks())
    return held[:2], held[2:]


def main() -> None:
    """Print the blocks besides those of the sequence's tokens."""
    catalogue = built_in()
    served = Instance(catalogue.model(MODEL), catalogue.gpu("h200"), 1)
    prompt, output = run(served.block_tokens)
    print(f"vLLM {vllm.__version__}, {MODEL}, blocks of {served.block_tokens:,} tokens")
    print(f"at the end of a chunk, and of the prompt: {', '.join(map(str, prompt))} blocks")
    first = PROMPT + 1
    besides = [held - -(-(first + step) // served.block_tokens) for step, held in enumerate(output)]
    for states in sorted(set(besides)):
        share = besides.count(states) / len(besides)
        print(f"while it decodes, {states} blocks of states: in {share:.1%} of the steps")


if __name__ == "__main__":
    main()
