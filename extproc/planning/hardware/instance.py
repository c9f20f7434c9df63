"""An instance: what its GPUs hold of a model, of a token, and of a sequence.

Tensor parallelism splits KV heads over GPUs, but never below one head per GPU, and it cannot split DeepSeek's
latent cache: every GPU holds a copy of what cannot be split.

Data parallelism solves this (vLLM's --data-parallel-size with --enable-expert-parallel): each replica of the
attention ("rank") has its own GPUs, scheduler and KV cache, and holds only its own sequences. Each rank holds all
layers except the routed experts, which are divided over all GPUs (docs/serving/data_parallel_deployment.md of
vLLM).

Layers with a sliding window hold only the tokens in the window, recurrent layers hold a state. Neither grows with
a long sequence, so both are counted as extra tokens of each sequence (`Instance.sequence_tokens`), in full from
its admission on. vLLM frees tokens that leave the window (SlidingWindowManager in
vllm/v1/core/single_type_kv_cache_manager.py). Not counted: up to max_num_batched_tokens that a chunk of prefill
holds beyond the window for one iteration.

vLLM puts layers of one kind into groups that share a block table, and all groups have as many layers as the
rarest kind has (`Instance.group_layers`); the last group of a kind is filled up with layers that do not exist
(_get_kv_cache_groups_uniform_page_size in vllm/v1/core/kv_cache_planning.py). So 23 recurrent layers beside six
with attention take the memory of 24.

In vLLM a state takes a page like any other, so the blocks of a model with recurrent layers are as long as a
layer's state is large (1,056 tokens for Qwen3.5-35B-A3B in BF16), and a sequence leaves half a block unused on
average. Since August 2026 (PR 50991) vLLM caches the prefixes of such models by default, in the mode "align". When
it starts it then reserves two states for a sequence (MambaSpec in vllm/v1/kv_cache_interface.py), and its log and
its largest context follow from that: for Qwen3.6-35B-A3B, of the same shape, that 5.98 GiB hold 4.33 sequences of
131,072 tokens in FP8 (noonghunna/club-3090 issue 612); `Instance.reserved_tokens` gives the same. A running
sequence has the second state only in the step that ends its prompt, and in one step of each block that it decodes:
vLLM's own KVCacheManager, 0.32 and 0.33, holds one in all others (`python -m bench.planner_states`).
"""

from dataclasses import dataclass
from math import ceil

from extproc.planning.hardware.profiles import GpuProfile, ModelProfile

__all__ = ["BLOCK_TOKENS", "Instance"]

BLOCK_TOKENS = 16  # vLLM's default block size
# Of a latent cache beside recurrent states it is a multiple of this (_align_hybrid_block_size in vllm/platforms).
MLA_BLOCK_STEP = 128


@dataclass(frozen=True, slots=True)
class Instance:
    """One server.

    `tensor_parallel` GPUs share the attention of a sequence; `data_parallel` replicas of the attention (ranks)
    share the experts; `kv_bytes` are bytes per KV element. `state_pages` are the pages of its cache that vLLM
    reserves for the recurrent state of a sequence in one layer; 0 if states are kept apart from them (SGLang).
    """

    model: ModelProfile
    gpu: GpuProfile
    tensor_parallel: int
    kv_bytes: float = 2.0
    data_parallel: int = 1
    state_pages: int = 2

    @property
    def gpus(self) -> int:
        """GPUs of the server."""
        return self.tensor_parallel * self.data_parallel

    @property
    def weight_bytes(self) -> float:
        """Weights that the GPUs of one rank hold, in bytes; of the routed experts only the rank's part."""
        return (self._shared_params_b + self.routed_params_b) * 1e9 * self.model.weight_bytes

    @property
    def routed_params_b(self) -> float:
        """Parameters of the routed experts that one rank holds, in billions."""
        routed = self.model.routed
        return 0.0 if routed is None else routed.params_b / self.data_parallel

    @property
    def read_params_b(self) -> float:
        """Parameters that one rank reads in every iteration, whatever its batch, in billions."""
        return self._shared_params_b - self.model.looked_up_params_b

    @property
    def _shared_params_b(self) -> float:
        routed = self.model.routed
        return self.model.params_b - (0.0 if routed is None else routed.params_b)

    @property
    def parallelism(self) -> str:
        """The number of GPUs and the parallelism, as printed in the report."""
        ranks = self.data_parallel
        return f"{self.gpus}" if ranks == 1 else f"{self.gpus} (TP {self.tensor_parallel}, DP {ranks})"

    @property
    def weight_format(self) -> str | None:
        """The format of the weights if it is not the model's own; int4_wo is 4 bits, computed wider."""
        own = self.model.published_weight_bytes
        if own is None or self.model.weight_bytes == own:
            return None
        return "fp8" if self.model.weight_bytes == 1 else "int4_wo" if self.model.weight_bytes < 1 else "bfloat16"

    @property
    def kv_bytes_per_token_and_gpu(self) -> float:
        """KV cache that one token takes on each GPU, in bytes."""
        attention = self.model.attention
        if attention.kind == "mla":
            layers = self.model.full_layers * attention.latent_bytes(self.kv_bytes)
            return layers + self.index_bytes_per_token
        elements = self._elements(attention.kv_heads, attention.head_dim)
        return self.model.full_layers * elements * self.kv_bytes

    @property
    def index_bytes_per_token(self) -> float:
        """Keys of the indexers of sparse attention, which every GPU holds, in bytes; 0 without."""
        indexer = self.model.attention.indexer
        return 0.0 if indexer is None else float(indexer.layers * indexer.key_bytes)

    @property
    def read_bytes_per_token_and_gpu(self) -> float:
        """What each GPU reads of one token to decode another, however far apart they are, in bytes."""
        return self.index_bytes_per_token or self.kv_bytes_per_token_and_gpu

    @property
    def selected_bytes_and_gpu(self) -> float:
        """What each GPU reads of the tokens that sparse attention selects, in bytes; 0 without."""
        attention = self.model.attention
        if attention.indexer is None:
            return 0.0
        return attention.indexer.top_tokens * self.model.full_layers * attention.latent_bytes(self.kv_bytes)

    def window_bytes_and_gpu(self, context_tokens: float) -> float:
        """Return the bytes that the windowed layers of a sequence of this length hold on each GPU."""
        windowed = self.model.attention.windowed
        if windowed is None:
            return 0.0
        held = min(context_tokens, windowed.window_tokens) * windowed.layers
        return held * self._elements(windowed.kv_heads, windowed.head_dim) * self.kv_bytes

    @property
    def state_bytes_and_gpu(self) -> float:
        """The recurrent states of a sequence on each GPU, in bytes; heads are split over GPUs."""
        recurrent = self.model.attention.recurrent
        return 0.0 if recurrent is None else recurrent.layers * recurrent.state_bytes / self.tensor_parallel

    @property
    def state_tokens(self) -> int:
        """Tokens of a block that is as large as one layer's recurrent state; 0 if no state is in a block."""
        recurrent = self.model.attention.recurrent
        if recurrent is None or self.state_pages == 0:
            return 0
        token_bytes = self.kv_bytes_per_token_and_gpu / self.model.full_layers
        step = MLA_BLOCK_STEP if self.model.attention.kind == "mla" else BLOCK_TOKENS
        return ceil(recurrent.state_bytes / self.tensor_parallel / token_bytes / step) * step

    @property
    def block_tokens(self) -> int:
        """Tokens of one block of the KV cache."""
        return self.state_tokens or BLOCK_TOKENS

    @property
    def smallest_chunk_tokens(self) -> int:
        """Tokens below which vLLM refuses max_num_batched_tokens and long_prefill_token_threshold.

        Where it reserves two states, it stores one at the end of a block, and a chunk has to get there
        (validate_block_size in vllm/config/vllm.py).
        """
        return self.state_tokens if self.state_pages > 1 else 0

    @property
    def group_layers(self) -> int:
        """Layers of each of vLLM's groups: those of the rarest kind, or of the most frequent one if it has less
        than half as many again.
        """
        parts = (self.model.attention.windowed, self.model.attention.recurrent)
        kinds = (self.model.full_layers, *(part.layers for part in parts if part is not None))
        return max(kinds) if max(kinds) < 1.5 * min(kinds) else min(kinds)

    @property
    def held_bytes_per_token_and_gpu(self) -> float:
        """Memory that one token takes on each GPU, in bytes: its KV cache, and what fills up vLLM's groups."""
        return self.kv_bytes_per_token_and_gpu * self._filled(self.model.full_layers)

    def sequence_tokens(self, context_tokens: int) -> int:
        """Return what a running sequence holds besides its tokens in the full layers, converted to such tokens."""
        return self._besides(context_tokens, min(1, self.state_pages))

    def reserved_tokens(self, context_tokens: int) -> int:
        """Return the same of a sequence as vLLM counts it when it starts."""
        return self._besides(context_tokens, self.state_pages)

    def _besides(self, context_tokens: int, pages: int) -> int:
        windowed, recurrent = self.model.attention.windowed, self.model.attention.recurrent
        held = self.window_bytes_and_gpu(context_tokens) / self.held_bytes_per_token_and_gpu
        if windowed is not None:
            held *= self._filled(windowed.layers)
        if recurrent is None or pages == 0:
            return ceil(held + self.state_bytes_and_gpu / self.held_bytes_per_token_and_gpu)
        block, groups = self.state_tokens, ceil(recurrent.layers / self.group_layers)
        own = ceil(self.model.full_layers / self.group_layers)
        return ceil(held + pages * block * groups / own + block / 2)

    def _filled(self, layers: int) -> float:
        """Return the layers of vLLM's groups for so many real ones of a kind, per real one."""
        if self.state_pages == 0:
            return 1.0
        return ceil(layers / self.group_layers) * self.group_layers / layers

    def _elements(self, kv_heads: int, head_dim: int) -> float:
        """Return the key and value elements of one token and layer on each GPU: at least those of one head."""
        return 2 * max(kv_heads / self.tensor_parallel, 1.0) * head_dim
