"""Profiles of GPUs and models: the numbers from which capacity and iteration times are computed.

The catalogue is data (`catalogue.yaml`), each entry with its sources. A user's file has the same format and adds
or replaces entries.
"""

from dataclasses import dataclass, field
from typing import Literal, TypeVar

from extproc.core.errors import ConfigurationError

T = TypeVar("T")

__all__ = [
    "ACTIVATION_BYTES",
    "MAX_BATCHED_TOKENS",
    "Attention",
    "Catalogue",
    "GpuProfile",
    "IndexerLayers",
    "ModelProfile",
    "RecurrentLayers",
    "RoutedExperts",
    "WindowedLayers",
    "Yarn",
]

# Limits max_num_batched_tokens: an iteration time is computed for each number of tokens up to that setting.
MAX_BATCHED_TOKENS = 1_048_576
MIB_PER_GB = 1019.5  # MiB that a program sees per GB of the catalogue: 81,559 of "80 GB", 143,771 of "141 GB"
# vLLM 0.32, vllm/engine/arg_utils.py, get_batch_defaults: (GPU memory in MiB below which they apply,
# max_num_batched_tokens and max_num_seqs)
VLLM_LIMITS = ((70 * 1024, (2_048, 256)), (160 * 1024, (8_192, 1_024)))
VLLM_LARGEST = (16_384, 1_024)
ACTIVATION_BYTES = 2
SCALE_BYTES, SCALED_ELEMENTS = 4, 128  # a scale of FP8 values, and how many values have one in common


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuProfile:
    """One GPU: sizes in GB (1e9 bytes), bandwidths in GB/s, dense peaks in TFLOP/s, price in USD per hour.

    `max_num_batched_tokens` and `max_num_seqs` are vLLM's defaults where it does not pick them by memory.
    `measured` is the GPU's name in aiconfigurator-core, if it is listed there.
    """

    memory_gb: float
    bandwidth_gb_s: float
    bf16_tflops: float
    fp8_tflops: float | None = None
    link_gb_s: float
    price_usd_h: float | None = None
    max_num_batched_tokens: int | None = None
    max_num_seqs: int | None = None
    measured: str | None = None
    sources: tuple[str, ...] = ()

    @property
    def memory_mib(self) -> float:
        """The memory that a program sees."""
        return self.memory_gb * MIB_PER_GB

    @property
    def vllm_limits(self) -> tuple[int, int]:
        """The max_num_batched_tokens and max_num_seqs that vLLM's API server picks."""
        tokens, sequences = next((limits for most, limits in VLLM_LIMITS if self.memory_mib < most), VLLM_LARGEST)
        return self.max_num_batched_tokens or tokens, self.max_num_seqs or sequences


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowedLayers:
    """Layers that attend only to the last `window_tokens` (sliding window) or to the token's own chunk."""

    layers: int
    window_tokens: int
    kv_heads: int
    head_dim: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RecurrentLayers:
    """Layers of linear attention: a state of `state_bytes` per sequence and layer, whatever the context."""

    layers: int
    state_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexerLayers:
    """Layers of sparse attention (DeepSeek-V3.2, GLM-5) that select the tokens to attend to: `top_tokens` of the
    context, by an indexer that compares the query's `heads` with one key of each token. Layers without an indexer
    take the selection of the one before.
    """

    layers: int
    heads: int
    head_dim: int
    top_tokens: int

    @property
    def key_bytes(self) -> int:
        """Bytes of a token's key: FP8, and a scale of 4 bytes for each 128 elements, whatever the KV format."""
        return self.head_dim + SCALE_BYTES * self.head_dim // SCALED_ELEMENTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """Shape of the attention: grouped-query (Llama, Qwen) or multi-head latent (DeepSeek).

    `kv_heads` and `head_dim` are those of the layers with full attention: all that are neither windowed nor
    recurrent.
    """

    kind: Literal["gqa", "mla"]
    query_heads: int
    kv_heads: int = 0
    head_dim: int = 0
    kv_lora_rank: int = 0
    rope_dim: int = 0
    nope_dim: int = 0
    v_dim: int = 0
    windowed: WindowedLayers | None = None
    recurrent: RecurrentLayers | None = None
    indexer: IndexerLayers | None = None

    def latent_bytes(self, kv_bytes: float) -> float:
        """Return the bytes of a token's latent in one layer. Sparse attention has a format of its own for FP8, in
        which scales are stored and the part with positions stays in BF16 (fp8_ds_mla in vLLM).
        """
        if self.indexer is None or kv_bytes >= ACTIVATION_BYTES:
            return (self.kv_lora_rank + self.rope_dim) * kv_bytes
        scales = SCALE_BYTES * self.kv_lora_rank / SCALED_ELEMENTS
        return self.kv_lora_rank * kv_bytes + scales + self.rope_dim * ACTIVATION_BYTES

    @property
    def all_kv_heads(self) -> frozenset[int]:
        """The numbers of KV heads of the kinds of layers; a latent cache has none."""
        windowed = () if self.windowed is None else (self.windowed.kv_heads,)
        return frozenset(windowed if self.kind == "mla" else (self.kv_heads, *windowed))

    def splits_over(self, gpus: int) -> bool:
        """Return whether vLLM starts with this tensor parallelism: each GPU has equally many heads, and equally
        many KV heads or a copy of one.
        """
        split = all(heads % gpus == 0 or gpus % heads == 0 for heads in self.all_kv_heads)
        return split and self.query_heads % gpus == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedExperts:
    """The routed experts of a mixture-of-experts model; each token uses a few of them."""

    params_b: float
    experts: int
    experts_per_token: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Yarn:
    """What a model needs beyond the `native_context` of its config.json: YaRN, which stretches the positions of
    `original_context` tokens by a factor.
    """

    native_context: int
    original_context: int
    rope_theta: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelProfile:
    """One model: parameters in billions, bytes per weight, and its attention.

    `measured` is the model's name in aiconfigurator-core, if it is listed there; `published_weight_bytes`
    is set if `weight_bytes` differs from the published value. `table_params_b` is the size of one embedding table:
    the input's is only looked up, the output's is multiplied only for tokens that produce another token.
    `params_b` and `active_params_b` contain both tables, or one if input and output share it (`tied_tables`).
    """

    params_b: float
    active_params_b: float
    weight_bytes: float
    hidden_size: int
    layers: int
    max_context: int
    attention: Attention
    yarn: Yarn | None = None
    routed: RoutedExperts | None = None
    table_params_b: float = 0.0
    tied_tables: bool = False
    measured: str | None = None
    published_weight_bytes: float | None = None
    sources: tuple[str, ...] = ()

    @property
    def full_layers(self) -> int:
        """Layers whose attention spans the full context."""
        parts = (self.attention.windowed, self.attention.recurrent)
        return self.layers - sum(part.layers for part in parts if part is not None)

    @property
    def looked_up_params_b(self) -> float:
        """Parameters of the table from which an iteration only reads single rows, in billions."""
        return 0.0 if self.tied_tables else self.table_params_b

    @property
    def multiplied_params_b(self) -> float:
        """Parameters with which each token of a prompt is multiplied, in billions."""
        return self.active_params_b - self.table_params_b * (1 if self.tied_tables else 2)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """GPUs and models by name."""

    gpus: dict[str, GpuProfile] = field(default_factory=dict)
    models: dict[str, ModelProfile] = field(default_factory=dict)

    def gpu(self, name: str) -> GpuProfile:
        """Return a GPU profile; raises ConfigurationError for a name that is not in the catalogue."""
        return _named(self.gpus, name, "gpu")

    def model(self, name: str) -> ModelProfile:
        """Return a model profile; raises ConfigurationError for a name that is not in the catalogue."""
        return _named(self.models, name, "model")

    def with_more(self, more: "Catalogue") -> "Catalogue":
        """Return this catalogue with the entries of another added; the other's entries win."""
        return Catalogue({**self.gpus, **more.gpus}, {**self.models, **more.models})


def _named(profiles: dict[str, T], name: str, what: str) -> T:
    profile = profiles.get(name)
    if profile is None:
        raise ConfigurationError(f"{what} {name!r} is not in the catalogue; it has {', '.join(sorted(profiles))}")
    return profile
