"""Differences between inference engines that matter to a plan: defaults by version, each with its source."""

from enum import StrEnum

from extproc.planning.hardware.capacity import MEMORY_UTILISATION
from extproc.planning.hardware.instance import Instance
from extproc.planning.hardware.measured import Kernels
from extproc.planning.hardware.profiles import ACTIVATION_BYTES

__all__ = ["Engine"]

BYTES_PER_MIB = 2**20
VLLM_0_18_LARGEST_BATCH = 8_192  # vllm/engine/arg_utils.py: later versions take more on GPUs of 160 GiB and more
# SGLang 0.5.23, sglang/srt/arg_groups/memory_hook.py: (GPU memory in MiB below which it applies,
# chunked_prefill_size)
SGLANG_CHUNKS = ((20 * 1024, 2_048), (60 * 1024, 4_096), (160 * 1024, 8_192))
SGLANG_LARGEST_CHUNK = 16_384
SGLANG_PREFILL_GRAPHS_MIB = 464  # 58 graph sizes up to 8,192 tokens, 8 MiB each
SGLANG_GRAPH_SEQUENCES = 512  # largest decode batch captured on GPUs of this size


class Engine(StrEnum):
    """An engine version, with its defaults."""

    # gpu_memory_utilization .92 (vllm/config/cache.py); a prompt is admitted only if all of it fits
    # (scheduler_reserve_full_isl, since 0.19); long_prefill_token_threshold does not limit a request that runs
    # alone; declared outputs that do not fit are shortened. 0.33 schedules the same way.
    VLLM = "vllm-0.32"
    VLLM_0_18 = "vllm-0.18"  # .90; only a prompt's first chunk has to fit; the threshold limits every request
    SGLANG = "sglang-0.5.23"  # prefill before decoding; admission by the expected output lengths

    @property
    def kernels(self) -> Kernels:
        """The engine whose measured iteration times are used."""
        return "sglang" if self is Engine.SGLANG else "vllm"

    @property
    def full_name(self) -> str:
        """The engine's name as written in sentences."""
        return "SGLang" if self is Engine.SGLANG else "vLLM"

    def kv_format(self, instance: Instance) -> str | None:
        """Return the --kv-cache-dtype with KV elements of this size; None if it is the default, or not known.

        Caches of sparse attention are FP8 by default on some GPUs: for GLM-5 on Blackwell in vLLM
        (vllm/model_executor/models/config.py), for DeepSeek-V3.2 in SGLang.
        """
        if instance.kv_bytes == ACTIVATION_BYTES and instance.model.attention.indexer is not None:
            return "bfloat16"
        if instance.kv_bytes != 1:
            return None
        return "fp8_e4m3" if self is Engine.SGLANG else "fp8"

    @property
    def state_pages(self) -> int:
        """Pages that hold a sequence's recurrent state in one layer, as `Instance` counts them."""
        return {Engine.VLLM: 2, Engine.VLLM_0_18: 1, Engine.SGLANG: 0}[self]

    def utilisation(self, instance: Instance, batched_tokens: int) -> float:
        """Return the share of a GPU's memory, as the catalogue counts it, that weights and KV cache may take."""
        if self is Engine.SGLANG:
            offered = (instance.gpu.memory_mib - _sglang_reserved_mib(instance, batched_tokens)) * BYTES_PER_MIB
            return offered / (instance.gpu.memory_gb * 1e9)
        return 0.9 if self is Engine.VLLM_0_18 else MEMORY_UTILISATION

    def batched_tokens(self, instance: Instance) -> int:
        """Return the default of max_num_batched_tokens (vLLM) or chunked_prefill_size (SGLang)."""
        gpu = instance.gpu
        if self is Engine.SGLANG:
            return next((chunk for most, chunk in SGLANG_CHUNKS if gpu.memory_mib < most), SGLANG_LARGEST_CHUNK)
        tokens, _ = gpu.vllm_limits
        picked = self is Engine.VLLM_0_18 and gpu.max_num_batched_tokens is None
        return min(tokens, VLLM_0_18_LARGEST_BATCH) if picked else tokens

    def sequences(self, instance: Instance, kv_tokens: int, context_tokens: int) -> int:
        """Return the default of max_num_seqs (vLLM) or max_running_requests (SGLang).

        The latter is _resolve_max_running_requests_per_worker in sglang/srt/model_executor/pool_configurator.py.
        """
        if self is not Engine.SGLANG:
            return instance.gpu.vllm_limits[1]
        return max(1, min(max(kv_tokens * 512 // context_tokens, 2_048), 4_096, kv_tokens // 2))

    def mem_fraction_static(self, instance: Instance, batched_tokens: int) -> float:
        """Return SGLang's default of this name: the share of the visible memory for weights and KV cache."""
        mib = instance.gpu.memory_mib
        return round((mib - _sglang_reserved_mib(instance, batched_tokens)) / mib, 3)


def _sglang_reserved_mib(instance: Instance, batched_tokens: int) -> float:
    """Return the MiB that SGLang reserves for activations and graphs.

    memory_hook.py: 512, 1.5 per token of a chunk, 1,024 for 8 GPUs, plus graphs; at least 10 GiB on large GPUs.
    """
    mla = instance.model.attention.kind == "mla"
    graphs = 2 * SGLANG_GRAPH_SEQUENCES + (1_536 if mla else SGLANG_PREFILL_GRAPHS_MIB)
    reserved = 512 + 1.5 * max(batched_tokens, 2_048) + instance.tensor_parallel / 8 * 1_024 + graphs
    large = instance.gpu.memory_mib > 60 * 1024
    return max(reserved, 10 * 1024) if large else reserved
