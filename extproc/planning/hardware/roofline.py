"""Time of one vLLM iteration: a roofline model of the GPU and model profiles.

An iteration runs its operators one after another, so their times add up:

    T = fixed + max(weights read / bandwidth, matrix FLOPs / peak)        what every token goes through
          + the same for routed experts                                   each token uses a few of many
          + activations moved by norms and experts / bandwidth            per token, not split over GPUs
          + all-reduce per token                                          two per layer, if GPUs share a model
          + all-to-all of the experts                                     with data parallelism
          + decode attention: each sequence reads its KV cache            linear in the batch's context tokens
          + prefill attention: FLOPs of each new token on all tokens before it
          + windows, recurrent states and the tokens that sparse attention selects: constant per decoding sequence,
            and per token of prefill

The batch's context grows by one token per sequence and iteration, so T is an arithmetic progression while the
batch stays the same; `decode_run_s` sums it in closed form, so the simulator need not step through it.
A mixture of experts reads only the experts that its tokens hit: E (1 - (1 - k/E)^tokens) of E in expectation.
The input's embedding table is only looked up, and the output's is multiplied only for tokens that produce another
token, so a prompt's tokens are multiplied with neither. Attention is computed in BF16, whatever the weight format.

With data parallelism n is the number of tokens of one rank, and the other ranks are assumed to have as many: the
experts of a rank process the tokens of all ranks. By default (all2all_backend "allgather_reducescatter",
vllm/config/parallel.py) vLLM copies the activations of all other ranks to each rank before the experts, and the
sums back after them: 2 (ranks - 1) n hidden_size values per layer. The link is that between GPUs of one server.

The efficiencies are round numbers, stated here, and the same for every GPU. They were chosen so that dense models
lie within .8 and 1.25 of the measured kernels of `measured.py` wherever possible (`python -m bench.planner_times`
prints the ratios); `published.py` holds published vLLM figures, to which nothing is fitted.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, inf, sqrt

from extproc.planning.hardware.instance import Instance
from extproc.planning.hardware.profiles import ACTIVATION_BYTES

__all__ = ["IterationCost", "iteration_cost"]

MEMORY_EFFICIENCY = 0.8  # of the peak bandwidth; large copies reach .85 to .9
COMPUTE_EFFICIENCY = 0.65  # of the dense peak, for prefill-sized matrices
ROUTED_EFFICIENCY = 0.35  # the same for experts: each gets only a part of the tokens
FIXED_S = 0.001  # scheduling and launching one iteration
ALL_REDUCE_LATENCY_S = 20e-6  # vLLM's own kernel; NCCL takes 33 to 62 us (Vidur's tables of A100 and H100)
ALL_REDUCES_PER_LAYER = 2
ALL_TO_ALLS_PER_LAYER = 2  # to the experts and back
NORM_MOVES = 8.0  # rows of hidden_size per layer: two norms read and write the activations and the residual
EXPERT_ROW_MOVES = 3


@dataclass(frozen=True, slots=True)
class IterationCost:
    """Coefficients of T, in seconds.

    `linear_s[n]` is the time of everything except attention for a batch of n tokens, n up to
    max_num_batched_tokens. Measured times are more detailed for decoding: `decode_fixed_s[n]` and
    `decode_slopes_s[n]` (per token of context) for n sequences, and `mixed_decode_s`, the fixed cost of the
    decoding part of a step with prefill.
    `decode_s_per_sequence` is the time to read full windows and states, the same for any context.
    """

    linear_s: tuple[float, ...]
    decode_s_per_context_token: float
    prefill_s_per_token_pair: float
    decode_fixed_s: tuple[float, ...] = ()
    decode_slopes_s: tuple[float, ...] = ()
    mixed_decode_s: float = 0.0
    decode_s_per_sequence: float = 0.0

    def decode(self, sequences: int) -> tuple[float, float]:
        """Return the fixed time of a step in which `sequences` decode, and its slope per token of context."""
        if self.decode_fixed_s:
            at = min(sequences, len(self.decode_fixed_s) - 1)
            return self.decode_fixed_s[at], self.decode_slopes_s[at]
        return self.linear_s[sequences] + sequences * self.decode_s_per_sequence, self.decode_s_per_context_token

    def mixed_s(self, decodes: int, context_tokens: int, prefill_tokens: int, prefill_pairs: float) -> float:
        """Return the time of one iteration: `decodes` sequences with `context_tokens` in total, and some prefill.

        `prefill_pairs` is the number of tokens that each new token attends to, summed over the new tokens.
        """
        attention = prefill_pairs * self.prefill_s_per_token_pair
        if decodes:
            attention += context_tokens * self.decode(decodes)[1] + self.mixed_decode_s
            attention += decodes * self.decode_s_per_sequence
        return self.linear_s[decodes + prefill_tokens] + attention

    def decode_run_s(self, decodes: int, context_tokens: int, iterations: int) -> float:
        """Return the time of `iterations` iterations in which the same sequences decode one token each."""
        growth = decodes * iterations * (iterations - 1) / 2
        read = iterations * context_tokens + growth
        fixed, slope = self.decode(decodes)
        return iterations * fixed + read * slope

    def iterations_to_reach(self, decodes: int, context_tokens: int, elapsed_s: float) -> int:
        """Return the smallest number of decode iterations (at least 1) that take `elapsed_s` or longer."""
        fixed, per_token = self.decode(decodes)
        slope = per_token * decodes / 2
        first = fixed + per_token * context_tokens - slope
        root = elapsed_s / first if slope == 0 else (sqrt(first**2 + 4 * slope * elapsed_s) - first) / (2 * slope)
        return max(1, ceil(root - 1e-9))


def iteration_cost(instance: Instance, max_num_batched_tokens: int) -> IterationCost:
    """Return the cost coefficients of an instance with batches of up to `max_num_batched_tokens`."""
    bandwidth = instance.gpu.bandwidth_gb_s * 1e9 * MEMORY_EFFICIENCY
    attention_flops = instance.gpu.bf16_tflops * 1e12 * COMPUTE_EFFICIENCY * instance.tensor_parallel
    fixed_s, reduce_s = _communication(instance)
    gather_fixed_s, gather_s = _all_to_all(instance)
    window_s = (_window_flops(instance) + _selected_flops(instance)) / attention_flops
    matrices = _matrices_s(instance, max_num_batched_tokens, bandwidth)
    linear = tuple(
        fixed_s + gather_fixed_s + seconds + n * (reduce_s + gather_s + window_s)
        for n, seconds in enumerate(matrices)
    )
    decode_flops, prefill_flops = _attention_flops(instance)
    held = instance.window_bytes_and_gpu(inf) + 2 * instance.state_bytes_and_gpu  # a state is read and written
    held += instance.selected_bytes_and_gpu
    return IterationCost(
        linear_s=linear,
        decode_s_per_context_token=max(
            instance.read_bytes_per_token_and_gpu / bandwidth, decode_flops / attention_flops
        ),
        prefill_s_per_token_pair=prefill_flops / attention_flops,
        decode_s_per_sequence=held / bandwidth,
    )


def _matrices_s(instance: Instance, most_tokens: int, bandwidth: float) -> Iterator[float]:
    """Yield the seconds of all matrices for each number of tokens in a rank's batch, from 0 on.

    These are the matrices that every token uses, and the experts; each is bound by its weights or its FLOPs.
    """
    model, gpus = instance.model, instance.tensor_parallel
    routed = model.routed
    active_b = 0.0 if routed is None else routed.params_b * routed.experts_per_token / routed.experts
    flops = _peak_flops(instance) * gpus
    token_s = 2e9 * (model.multiplied_params_b - active_b) / (flops * COMPUTE_EFFICIENCY)
    expert_token_s = 2e9 * active_b / (flops * ROUTED_EFFICIENCY)
    moved_s = _moved_bytes(instance) / bandwidth
    byte_s = 1e9 * model.weight_bytes / (gpus * bandwidth)  # of a billion parameters
    read_s = byte_s * instance.read_params_b
    experts_s = byte_s * instance.routed_params_b
    missed = 1.0 if routed is None else (1 - routed.experts_per_token / routed.experts) ** instance.data_parallel
    for n in range(most_tokens + 1):
        yield max(read_s, n * token_s) + max(experts_s * (1 - missed**n), n * expert_token_s) + n * moved_s


def _moved_bytes(instance: Instance) -> float:
    """Return the bytes that each GPU moves for one token of its rank, apart from the matrices.

    Every GPU of a rank computes residuals and their norms in full. A token's row is gathered for each of its
    experts, written by the expert, and read to be summed. Without replicas of the attention each GPU holds a part
    of every expert, and moves all rows.
    """
    model = instance.model
    rows = NORM_MOVES
    if model.routed is not None:
        parts = instance.tensor_parallel if instance.data_parallel > 1 else 1
        rows += EXPERT_ROW_MOVES * model.routed.experts_per_token / parts
    return model.layers * rows * model.hidden_size * ACTIVATION_BYTES


def _peak_flops(instance: Instance) -> float:
    """Return the peak FLOP/s of the format of matrix products; 4-bit weights are widened to BF16 (W4A16)."""
    fp8 = instance.gpu.fp8_tflops
    eight_bits = instance.weight_format in {None, "fp8"} and instance.model.weight_bytes == 1
    return (fp8 if fp8 is not None and eight_bits else instance.gpu.bf16_tflops) * 1e12


def _communication(instance: Instance) -> tuple[float, float]:
    """Return an iteration's fixed costs, and those of all-reduces per token, in seconds.

    A ring all-reduce moves 2 (n-1)/n of the data.
    """
    gpus = instance.tensor_parallel
    if gpus == 1:
        return FIXED_S, 0.0
    reduces = ALL_REDUCES_PER_LAYER * instance.model.layers
    activation_bytes = instance.model.hidden_size * ACTIVATION_BYTES
    ring = 2 * (gpus - 1) / gpus
    return FIXED_S + reduces * ALL_REDUCE_LATENCY_S, reduces * activation_bytes * ring / (
        instance.gpu.link_gb_s * 1e9
    )


def _all_to_all(instance: Instance) -> tuple[float, float]:
    """Return the seconds for gathering and scattering the experts' activations: per iteration, and per token."""
    others = instance.data_parallel - 1
    if others == 0:
        return 0.0, 0.0
    exchanges = ALL_TO_ALLS_PER_LAYER * instance.model.layers
    bytes_per_token = others * instance.model.hidden_size * ACTIVATION_BYTES
    return exchanges * ALL_REDUCE_LATENCY_S, exchanges * bytes_per_token / (instance.gpu.link_gb_s * 1e9)


def _attention_flops(instance: Instance) -> tuple[float, float]:
    """Return the FLOPs of one new token per token of context: in decode, and in prefill."""
    attention = instance.model.attention
    if attention.indexer is not None:
        return (_index_flops(instance),) * 2
    per_dim = 2.0 * instance.model.full_layers * attention.query_heads
    if attention.kind == "gqa":
        return (per_dim * 2 * attention.head_dim,) * 2
    latent = attention.kv_lora_rank
    decode = per_dim * (latent + attention.rope_dim + latent)  # queries are projected into the latent space
    prefill = per_dim * (attention.nope_dim + attention.rope_dim + attention.v_dim)
    return decode, prefill


def _index_flops(instance: Instance) -> float:
    """Return the FLOPs of the indexers of all GPUs, each of which computes all heads, in FP8 if it can; counted as
    so many FLOPs in BF16.
    """
    indexer, gpu = instance.model.attention.indexer, instance.gpu
    assert indexer is not None, "only for sparse attention"
    faster = (gpu.fp8_tflops or gpu.bf16_tflops) / gpu.bf16_tflops
    return 2.0 * indexer.layers * indexer.heads * indexer.head_dim * instance.tensor_parallel / faster


def _selected_flops(instance: Instance) -> float:
    """Return the FLOPs of one token's attention to as many tokens as sparse attention selects, in latent space."""
    attention = instance.model.attention
    if attention.indexer is None:
        return 0.0
    width = 2 * attention.kv_lora_rank + attention.rope_dim
    return 2.0 * instance.model.full_layers * attention.query_heads * width * attention.indexer.top_tokens


def _window_flops(instance: Instance) -> float:
    """Return the FLOPs of one token's attention to full windows."""
    windowed = instance.model.attention.windowed
    if windowed is None:
        return 0.0
    per_dim = 2.0 * windowed.layers * instance.model.attention.query_heads
    return per_dim * 2 * windowed.head_dim * windowed.window_tokens
