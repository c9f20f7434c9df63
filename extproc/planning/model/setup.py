"""The setup that is planned: the instance, its pools' limits, the objective, and prices; not the workload."""

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from math import ceil

from extproc.core.errors import ConfigurationError
from extproc.planning.hardware.capacity import Capacity, capacity
from extproc.planning.hardware.instance import Instance
from extproc.planning.hardware.measured import measured_cost
from extproc.planning.hardware.roofline import IterationCost, iteration_cost
from extproc.planning.model.engine import Engine
from extproc.planning.model.objective import Objective
from extproc.planning.model.throughput import InstanceLimits

__all__ = ["HOURS_PER_YEAR", "SMALLEST_BATCH_TOKENS", "MeasuredRates", "Setup", "SlotRule", "Times"]

HOURS_PER_YEAR = 8760
SMALLEST_BATCH_TOKENS = 128


class SlotRule(StrEnum):
    """How max_num_seqs of a pool is chosen."""

    PAGED = "paged"  # vLLM's default for the GPU: blocks are allocated on demand; preemption handles shortages
    WORST_CASE = "worst-case"  # as many as fit at full length (the paper's N_seq), so nothing is ever preempted


class Times(StrEnum):
    """The source of iteration times."""

    AUTO = "auto"  # measured if available, else the roofline
    MEASURED = "measured"
    ROOFLINE = "roofline"


@dataclass(frozen=True, slots=True)
class MeasuredRates:
    """Requests per second of one instance, for users who know them better than the roofline does."""

    homogeneous: float
    short: float
    long: float
    right_sized: float | None = None


@dataclass(frozen=True)
class Setup:
    """One kind of instance and how it is run.

    `max_num_seqs` overrides the slot rule, as (homogeneous or long, short); `batched_tokens` overrides the choice
    of max_num_batched_tokens, and `best_batch_tokens` is that choice for a known workload (`reach.py`).
    `long_prefill_tokens` is long_prefill_token_threshold (0: none). `refuses_outputs`: a declared output that does
    not fit is refused although the engine shortens it, as vLLM did up to 0.31.
    """

    model_name: str
    gpu_name: str
    instance: Instance
    long_context: int
    objective: Objective
    slots: SlotRule = SlotRule.PAGED
    spare: int = 1
    price_usd_h: float | None = None
    measured: MeasuredRates | None = None
    max_num_seqs: tuple[int, int] | None = None
    batched_tokens: int | None = None
    best_batch_tokens: int | None = None
    long_prefill_tokens: int = 0
    times: Times = Times.ROOFLINE
    engine: Engine = Engine.VLLM
    refuses_outputs: bool = False

    def __post_init__(self) -> None:
        if self.long_context > self.instance.model.max_context:
            raise ConfigurationError(
                f"--long-context {self.long_context:,}: {self.model_name} takes at most "
                f"{self.instance.model.max_context:,} tokens"
            )
        self.capacity.check_context(self.long_context, self.name)
        if self.batched_tokens is not None and self.batched_tokens < self.instance.smallest_chunk_tokens:
            raise ConfigurationError(
                f"--batched-tokens {self.batched_tokens:,}: vLLM takes no fewer than "
                f"{self.instance.smallest_chunk_tokens:,} for {self.name}, a block of its recurrent states"
            )

    @property
    def name(self) -> str:
        """Model, number of GPUs and GPU, as printed in the report."""
        return f"{self.model_name} on {self.instance.parallelism} x {self.gpu_name}"

    @cached_property
    def capacity(self) -> Capacity:
        """KV capacity of an instance."""
        share = self.engine.utilisation(self.instance, self.max_batched_tokens)
        return capacity(self.instance, self.name, share)

    @cached_property
    def cost(self) -> IterationCost:
        """Iteration times of an instance."""
        return self._times(self.max_batched_tokens)

    @property
    def times_source(self) -> str | None:
        """The source of measured iteration times; None if the roofline is used."""
        if self.times is Times.ROOFLINE:
            return None
        found = measured_cost(self.instance, self.max_batched_tokens, self.engine.kernels)
        return None if found is None else found.source

    def _times(self, most_tokens: int) -> IterationCost:
        asked = self.times is not Times.ROOFLINE
        found = measured_cost(self.instance, most_tokens, self.engine.kernels) if asked else None
        if found is None and self.times is Times.MEASURED:
            raise ConfigurationError(
                f"--times measured: there are none for {self.name}: dualpool[measured] has NVIDIA GPUs and some "
                "models; --times roofline computes times"
            )
        return iteration_cost(self.instance, most_tokens) if found is None else found.cost

    @cached_property
    def max_batched_tokens(self) -> int:
        """The batch that was given or found, otherwise the largest whose iteration stays within the TPOT:
        a larger chunk of prefill would stall every decoding sequence for longer than that.
        """
        known = self.batched_tokens or self.best_batch_tokens
        if known is not None:
            return known
        most = self.largest_batch_tokens
        linear_s = self._times(most).linear_s
        tokens = most
        while tokens // 2 >= self.smallest_batch_tokens and linear_s[tokens] > self.objective.tightest_tpot_s:
            tokens //= 2
        return tokens

    @property
    def smallest_batch_tokens(self) -> int:
        """The smallest batch worth trying, and that the engine takes."""
        return max(SMALLEST_BATCH_TOKENS, self.instance.smallest_chunk_tokens)

    @property
    def largest_batch_tokens(self) -> int:
        """The engine's default, from which batches are halved; larger where the engine does not take its own."""
        tokens = self.engine.batched_tokens(self.instance)
        while tokens < self.instance.smallest_chunk_tokens:
            tokens *= 2
        return tokens

    def limits(self, context_tokens: int, *, short: bool = False) -> InstanceLimits:
        """Return the limits of an instance in a pool of this context."""
        if self.max_num_seqs is not None:
            seqs = self.max_num_seqs[1 if short else 0]
        else:
            seqs = self.engine.sequences(self.instance, self.capacity.kv_tokens, context_tokens)
            if self.slots is SlotRule.WORST_CASE:
                seqs = min(seqs, max(1, self.capacity.slots(context_tokens)))
        if self.instance.state_tokens:  # vLLM does not start with more than it has blocks for states (PR 38270)
            seqs = min(seqs, self.capacity.blocks - 1)
        return InstanceLimits(
            # In vLLM each running sequence takes at least one token of the batch.
            max_num_seqs=seqs if self.engine is Engine.SGLANG else min(seqs, self.max_batched_tokens),
            max_num_batched_tokens=self.max_batched_tokens,
            kv_tokens=self.capacity.kv_tokens
            - self.instance.block_tokens,  # vLLM keeps one block as the null block
            context_tokens=context_tokens,
            sequence_tokens=self.instance.sequence_tokens(context_tokens),
            long_prefill_token_threshold=self.long_prefill_tokens,
            reserve_full_prompt=self.engine is not Engine.VLLM_0_18,
            data_parallel=self.instance.data_parallel,
            cap_lone_prompt=self.engine is Engine.VLLM_0_18,
            scheduler="sglang" if self.engine is Engine.SGLANG else "vllm",
            shortens_outputs=self.engine is Engine.VLLM and not self.refuses_outputs,
        )

    def flags(self, context_tokens: int, *, short: bool = False) -> tuple[str, ...]:
        """Return the arguments of `vllm serve` or `sglang.launch_server` for an instance with this context."""
        limits = self.limits(context_tokens, short=short)
        if self.engine is Engine.SGLANG:
            # It refuses a sequence that fills its context (docs/pools.md), which the pool is planned to hold.
            length = context_tokens if context_tokens in self._limits_of_model else context_tokens + 1
            fraction = self.engine.mem_fraction_static(self.instance, self.max_batched_tokens)
            return (
                f"--tp-size {self.instance.tensor_parallel}",
                f"--context-length {length}",
                f"--chunked-prefill-size {limits.max_num_batched_tokens}",
                f"--max-running-requests {limits.max_num_seqs}",
                f"--mem-fraction-static {fraction:g}",
                *self._kv_format_flags(),
            )
        flags = [
            f"--tensor-parallel-size {self.instance.tensor_parallel}",
            *self._data_parallel_flags(),
            f"--max-model-len {context_tokens}",
            *self._yarn_flags(context_tokens),
            f"--max-num-batched-tokens {limits.max_num_batched_tokens}",
            f"--max-num-seqs {limits.max_num_seqs}",
            *self._kv_format_flags(),
        ]
        if self.long_prefill_tokens:
            flags.append(f"--long-prefill-token-threshold {self.long_prefill_tokens}")
        return tuple(flags)

    def _data_parallel_flags(self) -> tuple[str, ...]:
        ranks = self.instance.data_parallel
        return () if ranks == 1 else (f"--data-parallel-size {ranks}", "--enable-expert-parallel")

    @property
    def _limits_of_model(self) -> tuple[int, ...]:
        """The contexts beyond which servers do not go: the longest, and the longest without YaRN."""
        model = self.instance.model
        return (model.max_context, *([] if model.yarn is None else [model.yarn.native_context]))

    def _yarn_flags(self, context_tokens: int) -> tuple[str, ...]:
        """Return vLLM's arguments for YaRN if this context needs it: without them vLLM refuses to start. Each key
        of the JSON is an argument, so that no shell or YAML has to quote it.
        """
        yarn = self.instance.model.yarn
        if yarn is None or context_tokens <= yarn.native_context:
            return ()
        rope = {
            "rope_type": "yarn",
            "factor": f"{ceil(context_tokens / yarn.original_context)}.0",
            "original_max_position_embeddings": yarn.original_context,
            "rope_theta": yarn.rope_theta,
        }
        return tuple(f"--hf-overrides.rope_parameters.{key} {value}" for key, value in rope.items())

    def _kv_format_flags(self) -> tuple[str, ...]:
        """Return the argument without which a server may keep its KV cache in another format."""
        kv_format = self.engine.kv_format(self.instance)
        return () if kv_format is None else (f"--kv-cache-dtype {kv_format}",)

    @property
    def instance_cost(self) -> float:
        """Cost of an instance in USD per hour, or its number of GPUs if the price is not known."""
        return self.instance.gpus * (1.0 if self.price_usd_h is None else self.price_usd_h)

    def usd_per_year(self, instances: float) -> float | None:
        """Return the cost of instances in USD per year, in whole cents, or None if the price is unknown."""
        if self.price_usd_h is None:
            return None
        return round(instances * self.instance.gpus * self.price_usd_h * HOURS_PER_YEAR, 2)
