"""Inference engines as far as plans differ by them: defaults by version, each with where it was read."""

from enum import StrEnum

from extproc.planning.hardware.capacity import MEMORY_UTILISATION, Instance
from extproc.planning.hardware.measured import Kernels

__all__ = ["Engine"]

MIB_PER_GB = 1019.5  # that a program sees of a data sheet's GB: 81,559 MiB of "80 GB", 143,771 of "141 GB"
BYTES_PER_MIB = 2**20
# SGLang 0.5.23, sglang/srt/arg_groups/memory_hook.py: up to so many MiB of a GPU, chunked_prefill_size
SGLANG_CHUNKS = ((20 * 1024, 2_048), (60 * 1024, 4_096), (160 * 1024, 8_192))
SGLANG_LARGEST_CHUNK = 16_384
SGLANG_PREFILL_GRAPHS_MIB = 464  # 58 sizes up to 8,192 tokens, 8 MiB each
SGLANG_GRAPH_SEQUENCES = 512  # of decoding, captured on GPUs of this size


class Engine(StrEnum):
    """Defaults of an engine by its version."""

    # gpu_memory_utilization .92 (vllm/config/cache.py); a prompt is admitted when all of it fits
    # (scheduler_reserve_full_isl, since 0.19); one that is alone is not held to long_prefill_token_threshold. 0.33
    # schedules alike.
    VLLM = "vllm-0.32"
    VLLM_0_18 = "vllm-0.18"  # .90; the first chunk of a prompt has to fit; all are held to the threshold
    SGLANG = "sglang-0.5.23"  # prefill before decoding, admission by what outputs are expected to need

    @property
    def kernels(self) -> Kernels:
        """Whose measured iteration times are asked for."""
        return "sglang" if self is Engine.SGLANG else "vllm"

    @property
    def full_name(self) -> str:
        """The engine's name in sentences."""
        return "SGLang" if self is Engine.SGLANG else "vLLM"

    def utilisation(self, instance: Instance, batched_tokens: int) -> float:
        """Return the share of a GPU's memory, as data sheets count it, that weights and KV cache may take."""
        if self is Engine.SGLANG:
            mib = instance.gpu.memory_gb * MIB_PER_GB
            offered = (mib - _sglang_reserved_mib(instance, batched_tokens)) * BYTES_PER_MIB
            return offered / (instance.gpu.memory_gb * 1e9)
        return 0.9 if self is Engine.VLLM_0_18 else MEMORY_UTILISATION

    def batched_tokens(self, instance: Instance) -> int:
        """Return the default of max_num_batched_tokens, or of chunked_prefill_size."""
        if self is not Engine.SGLANG:
            return instance.gpu.max_num_batched_tokens
        mib = instance.gpu.memory_gb * MIB_PER_GB
        return next((chunk for most, chunk in SGLANG_CHUNKS if mib < most), SGLANG_LARGEST_CHUNK)

    def sequences(self, instance: Instance, kv_tokens: int, context_tokens: int) -> int:
        """Return the default of max_num_seqs, or of max_running_requests (_resolve_max_running_requests_per_worker
        in sglang/srt/model_executor/pool_configurator.py).
        """
        if self is not Engine.SGLANG:
            return instance.gpu.max_num_seqs
        return max(1, min(max(kv_tokens * 512 // context_tokens, 2_048), 4_096, kv_tokens // 2))

    def mem_fraction_static(self, instance: Instance, batched_tokens: int) -> float:
        """Return SGLang's default of this name: weights and KV cache over what a program sees of the memory."""
        mib = instance.gpu.memory_gb * MIB_PER_GB
        return round((mib - _sglang_reserved_mib(instance, batched_tokens)) / mib, 3)


def _sglang_reserved_mib(instance: Instance, batched_tokens: int) -> float:
    """Return what SGLang leaves for activations and graphs (memory_hook.py: 512, 1.5 for each token of a chunk,
    1,024 for 8 GPUs, graphs; at least 10 GiB on large GPUs).
    """
    mla = instance.model.attention.kind == "mla"
    graphs = 2 * SGLANG_GRAPH_SEQUENCES + (1_536 if mla else SGLANG_PREFILL_GRAPHS_MIB)
    reserved = 512 + 1.5 * max(batched_tokens, 2_048) + instance.tensor_parallel / 8 * 1_024 + graphs
    large = instance.gpu.memory_gb * MIB_PER_GB > 60 * 1024
    return max(reserved, 10 * 1024) if large else reserved
