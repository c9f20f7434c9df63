"""KV cache capacity of an instance, from the model's shape and the GPUs' memory (paper, cost model).

    KV per token = 2 * layers * kv_heads * head_dim * bytes      N_tokens = (M_gpu * u - M_weights) / KV per token

vLLM pages the cache in blocks and allocates them on demand, so max_model_len reserves nothing: the paper's slot
count floor(N_tokens / C_max) is kept for comparison (`Capacity.slots`); the simulator works with blocks. Tensor
parallelism splits KV heads over GPUs, but never below one head per GPU, and it cannot split DeepSeek's latent
cache: every GPU holds a copy of what cannot be split.

Data parallelism solves this (vLLM's --data-parallel-size with --enable-expert-parallel): each replica of the
attention ("rank") has its own GPUs, scheduler and KV cache, and holds only its own sequences. Each rank holds all
layers except the routed experts, which are divided over all GPUs (docs/serving/data_parallel_deployment.md of
vLLM).

Layers with a sliding window hold only the tokens in the window, recurrent layers hold a state. Neither grows with
a long sequence, so both are counted as extra tokens of each sequence (`Instance.sequence_tokens`), in full from
its admission on. vLLM frees tokens that leave the window (SlidingWindowManager in
vllm/v1/core/single_type_kv_cache_manager.py). Not counted: up to max_num_batched_tokens that a chunk of prefill
holds beyond the window for one iteration, and the padding if groups of layers differ in size.

In vLLM a state takes a page like any other, so the blocks of a model with recurrent layers are as long as a
layer's state is large (1,056 tokens for Qwen3.5-35B-A3B in BF16), and a sequence leaves half a block unused on
average. Since August 2026 (PR 50991) vLLM caches the prefixes of such models by default, in the mode "align", in
which a sequence holds two states (MambaSpec in vllm/v1/kv_cache_interface.py). For Qwen3.6-35B-A3B, of the same
shape, vLLM logged that 5.98 GiB hold 4.33 sequences of 131,072 tokens in FP8 (noonghunna/club-3090 issue 612);
this rule gives the same.

vLLM also reserves memory for the peak of its activations, some GB per GPU, which is not known here. To make up for
it, memory is counted as on the data sheet, although a GPU of "80 GB" offers 85 GB (79.2 GiB) to a program. For
Llama-3-8B on one such GPU vLLM logged 53.29 GiB of KV (PR 10511); this rule gives 52.10. The rule does not hold if
weights fill a GPU: published.py has servers that logged 4 to 8 GiB per GPU less, and a plan with such instances
says so.
"""

from dataclasses import dataclass, replace
from math import ceil

from extproc.core.errors import ConfigurationError
from extproc.planning.hardware.profiles import GpuProfile, ModelProfile

__all__ = [
    "BLOCK_TOKENS",
    "MEMORY_UTILISATION",
    "TENSOR_PARALLEL_SIZES",
    "Capacity",
    "Instance",
    "capacity",
    "smallest_tensor_parallel",
]

BLOCK_TOKENS = 16  # vLLM's default block size
MEMORY_UTILISATION = (
    0.92  # gpu_memory_utilization: vLLM 0.32's default (vllm/config/cache.py); .9 in 0.19 and before
)
TENSOR_PARALLEL_SIZES = (1, 2, 4, 8, 16)


@dataclass(frozen=True, slots=True)
class Instance:
    """One server.

    `tensor_parallel` GPUs share the attention of a sequence; `data_parallel` replicas of the attention (ranks)
    share the experts; `kv_bytes` are bytes per KV element. `state_pages` are the pages of vLLM's cache that hold
    the recurrent state of a sequence in one layer; 0 if states are kept apart from the pages, once (SGLang).
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
            elements = float(attention.kv_lora_rank + attention.rope_dim)
        else:
            elements = self._elements(attention.kv_heads, attention.head_dim)
        return self.model.full_layers * elements * self.kv_bytes

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
        return ceil(recurrent.state_bytes / self.tensor_parallel / token_bytes / BLOCK_TOKENS) * BLOCK_TOKENS

    @property
    def block_tokens(self) -> int:
        """Tokens of one block of the KV cache."""
        return self.state_tokens or BLOCK_TOKENS

    @property
    def smallest_chunk_tokens(self) -> int:
        """Tokens below which vLLM refuses max_num_batched_tokens and long_prefill_token_threshold.

        Where it keeps two states, it stores one at the end of a block, and a chunk has to get there
        (validate_block_size in vllm/config/vllm.py).
        """
        return self.state_tokens if self.state_pages > 1 else 0

    def sequence_tokens(self, context_tokens: int) -> int:
        """Return what a sequence holds besides its tokens in the full layers, converted to such tokens."""
        held = self.window_bytes_and_gpu(context_tokens)
        recurrent, block = self.model.attention.recurrent, self.state_tokens
        if recurrent is None or block == 0:
            return ceil((held + self.state_bytes_and_gpu) / self.kv_bytes_per_token_and_gpu)
        states = self.state_pages * recurrent.layers * block / self.model.full_layers
        return ceil(held / self.kv_bytes_per_token_and_gpu + states + block / 2)

    def _elements(self, kv_heads: int, head_dim: int) -> float:
        """Return the key and value elements of one token and layer on each GPU: at least those of one head."""
        return 2 * max(kv_heads / self.tensor_parallel, 1.0) * head_dim


@dataclass(frozen=True, slots=True)
class Capacity:
    """KV cache of one instance; with data parallelism, of each of its ranks."""

    instance: Instance
    kv_tokens: int
    blocks: int

    def slots(self, context_tokens: int) -> int:
        """Return how many sequences of full length fit at once (the paper's N_seq)."""
        return self.kv_tokens // (context_tokens + self.instance.sequence_tokens(context_tokens))

    def check_context(self, context_tokens: int, name: str) -> None:
        """Raise ConfigurationError if one sequence of full length does not fit; vLLM would refuse to start."""
        if self.slots(context_tokens) < 1:
            raise ConfigurationError(
                f"{name}: one sequence of {context_tokens:,} tokens does not fit the KV cache of "
                f"{self.kv_tokens:,} tokens; more GPUs per instance (--tp) or a shorter context are needed"
            )


def capacity(instance: Instance, name: str, utilisation: float = MEMORY_UTILISATION) -> Capacity:
    """Return the KV capacity of an instance; `utilisation` is vLLM's gpu_memory_utilization.

    Raises ConfigurationError if the heads cannot be split, or the weights leave no room for a single block.
    """
    if not instance.model.attention.splits_over(instance.tensor_parallel):
        raise ConfigurationError(f"{name}: its attention heads do not split over {instance.tensor_parallel} GPUs")
    usable = max(0.0, instance.gpu.memory_gb * 1e9 * instance.tensor_parallel * utilisation)
    room = usable - instance.weight_bytes
    tokens = int(room / (instance.kv_bytes_per_token_and_gpu * instance.tensor_parallel))
    if tokens < instance.block_tokens:
        raise ConfigurationError(
            f"{name}: the weights take {instance.weight_bytes / 1e9:,.0f} GB, and {instance.tensor_parallel} "
            f"GPU(s) of {instance.gpu.memory_gb:g} GB offer {usable / 1e9:,.0f} GB: no room for a KV cache"
        )
    blocks = tokens // instance.block_tokens
    return Capacity(instance, blocks * instance.block_tokens, blocks)


def smallest_tensor_parallel(instance: Instance, context_tokens: int, name: str) -> Instance:
    """Return the instance with the fewest GPUs that hold the weights and one sequence of full length.

    Raises ConfigurationError if 16 GPUs are not enough.
    """
    for size in TENSOR_PARALLEL_SIZES:
        candidate = replace(instance, tensor_parallel=size)
        try:
            capacity(candidate, name).check_context(context_tokens, name)
        except ConfigurationError:
            continue
        return candidate
    attention = instance.model.attention
    largest = max(size for size in TENSOR_PARALLEL_SIZES if attention.splits_over(size))
    most = "" if largest == TENSOR_PARALLEL_SIZES[-1] else ", and its attention heads do not split over more"
    raise ConfigurationError(
        f"{name}: not even {largest} GPUs hold the weights and {context_tokens:,} tokens of KV{most}"
    )
