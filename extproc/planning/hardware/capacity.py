"""KV cache capacity of an instance, from the model's shape and the GPUs' memory (paper, cost model).

    KV per token = 2 * layers * kv_heads * head_dim * bytes      N_tokens = (M_gpu * u - M_weights) / KV per token

vLLM pages the cache in blocks and allocates them on demand, so max_model_len reserves nothing: the paper's slot
count floor(N_tokens / C_max) is kept for comparison (`Capacity.slots`); the simulator works with blocks. What a
token and a sequence take is in `instance.py`.

vLLM also reserves memory for the peak of its activations, some GB per GPU, which is not known here. To make up for
it, memory is counted as on the data sheet, although a GPU of "80 GB" offers 85 GB (79.2 GiB) to a program; those
of which it sees less have fewer GB in the catalogue. For Llama-3-8B on one H100 vLLM logged 53.29 GiB of KV (PR
10511); this rule gives 52.10. The rule does not hold if weights fill a GPU: published.py has servers that logged 4
to 8 GiB per GPU less, and a plan with such instances says so.
"""

from dataclasses import dataclass, replace

from extproc.core.errors import ConfigurationError
from extproc.planning.hardware.instance import Instance

__all__ = [
    "MEMORY_UTILISATION",
    "TENSOR_PARALLEL_SIZES",
    "Capacity",
    "capacity",
    "smallest_tensor_parallel",
]

MEMORY_UTILISATION = (
    0.92  # gpu_memory_utilization: vLLM 0.32's default (vllm/config/cache.py); .9 in 0.19 and before
)
TENSOR_PARALLEL_SIZES = (1, 2, 4, 8, 16)


@dataclass(frozen=True, slots=True)
class Capacity:
    """KV cache of one instance; with data parallelism, of each of its ranks."""

    instance: Instance
    kv_tokens: int
    blocks: int

    def slots(self, context_tokens: int) -> int:
        """Return how many sequences of full length fit at once (the paper's N_seq)."""
        return self.kv_tokens // (context_tokens + self.instance.reserved_tokens(context_tokens))

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
    tokens = int(room / (instance.held_bytes_per_token_and_gpu * instance.tensor_parallel))
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
