"""How much KV cache an instance holds, from the model's shape and the GPUs' memory (paper, cost model).

    KV per token = 2 * layers * kv_heads * head_dim * bytes      N_tokens = (M_gpu * u - M_weights) / KV per token

vLLM pages the cache in blocks and takes them on demand, so max_model_len reserves nothing: the paper's slot count
floor(N_tokens / C_max) is kept for comparison (`Capacity.slots`), the simulator works with blocks. Tensor
parallelism splits KV heads over GPUs, but never below one head per GPU, and it cannot split DeepSeek's latent
cache at all: what cannot be split is held by every GPU. vLLM also sets aside the peak of its activations, some GB
a GPU, which is not known here. In its place stands that memory is counted as data sheets do: a GPU of "80 GB"
offers 85 GB (79.2 GiB) to a program. For Llama-3-8B on one such GPU vLLM logged 53.29 GiB of KV (PR 10511), this
rule gives 52.10.
"""

from dataclasses import dataclass, replace

from extproc.core.errors import ConfigurationError
from extproc.planning.hardware.catalogue import GpuProfile, ModelProfile

__all__ = ["BLOCK_TOKENS", "MEMORY_UTILISATION", "Capacity", "Instance", "capacity", "smallest_tensor_parallel"]

BLOCK_TOKENS = 16  # vLLM's default block size
MEMORY_UTILISATION = (
    0.92  # gpu_memory_utilization: vLLM's default since mid-2026 (vllm/config/cache.py); .9 before
)
TENSOR_PARALLEL_SIZES = (1, 2, 4, 8, 16)


@dataclass(frozen=True, slots=True)
class Instance:
    """One vLLM server: the model, the GPU, how many of them, and bytes per KV element."""

    model: ModelProfile
    gpu: GpuProfile
    tensor_parallel: int
    kv_bytes: float = 2.0

    @property
    def weight_bytes(self) -> float:
        """All weights, in bytes."""
        return self.model.params_b * 1e9 * self.model.weight_bytes

    @property
    def weight_format(self) -> str | None:
        """The quantisation of the weights where it is not the model's own: fp8 or int4_wo (4 bits, computed
        wider).
        """
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
            heads = max(attention.kv_heads / self.tensor_parallel, 1.0)
            elements = 2 * heads * attention.head_dim
        return self.model.layers * elements * self.kv_bytes


@dataclass(frozen=True, slots=True)
class Capacity:
    """KV cache of one instance."""

    kv_tokens: int
    blocks: int

    def slots(self, context_tokens: int) -> int:
        """Return how many sequences of full length fit at once (the paper's N_seq)."""
        return self.kv_tokens // context_tokens

    def check_context(self, context_tokens: int, name: str) -> None:
        """Raise ConfigurationError when one sequence of full length does not fit; vLLM would refuse to start."""
        if self.kv_tokens < context_tokens:
            raise ConfigurationError(
                f"{name}: one sequence of {context_tokens:,} tokens does not fit the KV cache of "
                f"{self.kv_tokens:,} tokens; more GPUs per instance (--tp) or a shorter context are needed"
            )


def capacity(instance: Instance, name: str, utilisation: float = MEMORY_UTILISATION) -> Capacity:
    """Return the KV capacity of an instance that may use so much of its memory (gpu_memory_utilization).

    Raises ConfigurationError when the weights leave no room for a single block.
    """
    usable = instance.gpu.memory_gb * 1e9 * instance.tensor_parallel * utilisation
    room = usable - instance.weight_bytes
    tokens = int(room / (instance.kv_bytes_per_token_and_gpu * instance.tensor_parallel))
    if tokens < BLOCK_TOKENS:
        raise ConfigurationError(
            f"{name}: the weights take {instance.weight_bytes / 1e9:,.0f} GB, and {instance.tensor_parallel} "
            f"GPU(s) of {instance.gpu.memory_gb:g} GB offer {usable / 1e9:,.0f} GB: no room for a KV cache"
        )
    blocks = tokens // BLOCK_TOKENS
    return Capacity(blocks * BLOCK_TOKENS, blocks)


def smallest_tensor_parallel(instance: Instance, context_tokens: int, name: str) -> Instance:
    """Return the instance with the fewest GPUs that hold the weights and one sequence of full length.

    Raises ConfigurationError when not even 16 GPUs do.
    """
    for size in TENSOR_PARALLEL_SIZES:
        candidate = replace(instance, tensor_parallel=size)
        try:
            capacity(candidate, name).check_context(context_tokens, name)
        except ConfigurationError:
            continue
        return candidate
    largest = TENSOR_PARALLEL_SIZES[-1]
    raise ConfigurationError(
        f"{name}: not even {largest} GPUs hold the weights and {context_tokens:,} tokens of KV"
    )
