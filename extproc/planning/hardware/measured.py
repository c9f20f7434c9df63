"""Measured iteration times from the package `aiconfigurator-core` (Apache-2.0), if it has them.

The package holds kernel times of A100, H100, H200, B200, L40S and others for vLLM by version, and an engine that
adds them up for one step. Calling it in each of millions of iterations would take hours, so it is called once on a
grid of batch sizes, and the times are turned into the tables that the roofline also makes (`IterationCost`):

- the part common to all tokens, by tokens in a batch (`linear_s`), including a floor of prefill attention;
- decode-only steps, by sequences: a fixed part and a slope per token of context, fitted through two contexts;
- prefill attention per pair of tokens, fitted through two lengths. The package measures latent attention together
  with its projections; its part is the extra time of a chunk after a long prefix compared with after none.

The times are the GPU's and do not include the scheduler's CPU time. The package has no AMD GPUs.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module, metadata
from typing import Any, Literal, Protocol

import numpy as np

from extproc.planning.hardware.instance import Instance
from extproc.planning.hardware.roofline import IterationCost

__all__ = ["PACKAGE", "Engine", "Kernels", "Measured", "measured_cost", "tables_of"]

PACKAGE = "aiconfigurator-core"
CONTEXTS = (4_000, 32_000)  # tokens per sequence: attention time is taken as linear through these two
PROMPTS = (2_048, 32_768)
SMALLEST_PROMPT = 16
MOST_SEQUENCES = 1_024
TYPICAL_SEQUENCES = 64
MS = 1e-3
Kernels = Literal["vllm", "sglang"]
KV_FORMATS = {2.0: "bfloat16", 1.0: "fp8"}
TITLES: dict[Kernels, str] = {"vllm": "vLLM", "sglang": "SGLang"}


class Engine(Protocol):
    """The times that the package's engine returns, in milliseconds."""

    def decode_step_latency(self, gen_tokens: int, isl: int, osl: int) -> float:
        """Return the time of a step in which `gen_tokens` sequences of `isl` tokens each decode."""
        ...

    def mixed_step_breakdown(
        self, ctx_tokens: int, gen_tokens: int, isl: int, osl: int
    ) -> tuple[float, float, float, float]:
        """Return the times of a step: total, part common to all tokens, prefill attention, decode attention."""
        ...

    def predict_prefill_latency(self, bs: int, isl: int, prefix: int) -> float:
        """Return the time of a step that prefills `bs` prompts of `isl` tokens from token `prefix` on."""
        ...


class _Remembering:
    """An engine that is asked for each time once: the grids of different batches have most points in common."""

    def __init__(self, engine: Engine) -> None:
        self.decode_step_latency = lru_cache(maxsize=None)(engine.decode_step_latency)
        self.mixed_step_breakdown = lru_cache(maxsize=None)(engine.mixed_step_breakdown)
        self.predict_prefill_latency = lru_cache(maxsize=None)(engine.predict_prefill_latency)


@dataclass(frozen=True, slots=True)
class Measured:
    """Measured iteration times and a phrase that names their source."""

    cost: IterationCost
    source: str


@lru_cache(maxsize=64)
def measured_cost(instance: Instance, max_num_batched_tokens: int, kernels: Kernels = "vllm") -> Measured | None:
    """Return measured times of an instance that runs these kernels.

    Return None if the package is not installed, or does not have the GPU, the model or the format.
    """
    model, system = instance.model.measured, instance.gpu.measured
    if model is None or system is None or instance.kv_bytes not in KV_FORMATS:
        return None
    logging.getLogger("aiconfigurator_core").setLevel(
        logging.ERROR
    )  # it warns of every fallback table that it uses
    try:
        compile_engine = import_module("aiconfigurator_core.sdk.engine").compile_engine
        engine_class = import_module("aiconfigurator_core").AicEngine
        version = metadata.version(PACKAGE)
    except (ImportError, metadata.PackageNotFoundError):
        return None
    engine = _engine(compile_engine, engine_class.from_spec, instance, kernels)
    if engine is None:
        return None
    source = f"{PACKAGE} {version}: {model} on {system}, {TITLES[kernels]}"
    return Measured(tables_of(engine, max_num_batched_tokens), source)


@lru_cache(maxsize=64)
def _engine(
    compile_engine: Callable[..., bytes], load: Callable[[bytes], Engine], instance: Instance, kernels: Kernels
) -> Engine | None:
    size = instance.tensor_parallel
    # The KV format is always given: for some models the package's default is FP8.
    options: dict[str, Any] = {"tp_size": size, "kvcache_quant_mode": KV_FORMATS[instance.kv_bytes]}
    if instance.data_parallel > 1:  # token counts are per rank, and equal for all ranks
        options |= {"attention_dp_size": instance.data_parallel, "moe_ep_size": instance.gpus}
    elif instance.model.routed is not None:
        options["moe_tp_size"] = size
    if instance.weight_format is not None:
        options["gemm_quant_mode"] = instance.weight_format
    try:
        made = load(compile_engine(instance.model.measured, instance.gpu.measured, kernels, **options))
        engine = _Remembering(made)
        engine.decode_step_latency(1, CONTEXTS[0], 2)
        engine.mixed_step_breakdown(PROMPTS[0], 0, PROMPTS[0], 1)
    except Exception:  # noqa: BLE001  (third-party code that raises many types if it lacks the data)
        return None
    return engine


def tables_of(engine: Engine, max_num_batched_tokens: int) -> IterationCost:
    """Call an engine on a grid of batch sizes and return the tables."""
    tokens = _grid(max_num_batched_tokens)
    floor_ms = engine.mixed_step_breakdown(SMALLEST_PROMPT, 0, SMALLEST_PROMPT, 1)[2]
    pair_ms, apart = _pair_ms(engine)
    shared = [
        engine.mixed_step_breakdown(n, 0, n, 1)[1] + (floor_ms if apart else -pair_ms * n**2 / 2) for n in tokens
    ]
    sequences = _grid(min(MOST_SEQUENCES, max_num_batched_tokens))
    steps = [_decode(engine, n) for n in sequences]
    every = np.arange(sequences[-1] + 1)
    fixed = np.interp(every, sequences, [each[0] for each in steps])
    slopes = np.interp(every, sequences, [each[1] for each in steps])
    mixed_decode_ms = engine.mixed_step_breakdown(1, 1, 1, 2)[3]
    return IterationCost(
        linear_s=tuple((MS * np.interp(np.arange(max_num_batched_tokens + 1), tokens, shared)).tolist()),
        decode_s_per_context_token=MS * float(slopes[min(TYPICAL_SEQUENCES, len(slopes) - 1)]),
        prefill_s_per_token_pair=MS * max(pair_ms, 0.0),
        decode_fixed_s=tuple((MS * fixed).tolist()),
        decode_slopes_s=tuple((MS * slopes).tolist()),
        mixed_decode_s=MS * mixed_decode_ms,
    )


def _pair_ms(engine: Engine) -> tuple[float, bool]:
    """Return the milliseconds of a new token's attention per token before it.

    Also return whether the engine reports attention separately from the part common to all tokens.
    """
    chunk, whole = PROMPTS
    short, long = (engine.mixed_step_breakdown(n, 0, n, 1)[2] for n in PROMPTS)
    if long > 0:
        return (long - short) / (whole**2 / 2 - chunk**2 / 2), True
    prefix = whole - chunk
    more_ms = engine.predict_prefill_latency(1, whole, prefix) - engine.predict_prefill_latency(1, chunk, 0)
    return max(0.0, more_ms) / (chunk * prefix), False


def _decode(engine: Engine, sequences: int) -> tuple[float, float]:
    """Return the fixed time of a decode step and its slope per token of context, in milliseconds."""
    short, long = (engine.decode_step_latency(sequences, context, 2) for context in CONTEXTS)
    slope = max(0.0, (long - short) / (sequences * (CONTEXTS[1] - CONTEXTS[0])))
    return short - slope * sequences * CONTEXTS[0], slope


def _grid(most: int) -> list[int]:
    """Return powers of two and the midpoints between them, up to and including `most`."""
    powers = [2**k for k in range(most.bit_length()) if 2**k <= most]
    return sorted({*powers, *(3 * p // 2 for p in powers if p > 1 and 3 * p // 2 <= most), most})
