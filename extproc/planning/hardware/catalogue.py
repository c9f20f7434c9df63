"""Profiles of GPUs and models: the numbers that capacity and iteration times are computed from.

The catalogue is data (`catalogue.yaml`), each entry with its sources. A user's file has the same form and adds
entries or replaces them.
"""

from dataclasses import dataclass, field, fields
from importlib import resources
from typing import Literal, TypeVar

import msgspec

from extproc.core.errors import ConfigurationError
from extproc.documents import read_document

T = TypeVar("T")

__all__ = [
    "MAX_BATCHED_TOKENS",
    "Attention",
    "Catalogue",
    "GpuProfile",
    "ModelProfile",
    "RecurrentLayers",
    "RoutedExperts",
    "WindowedLayers",
    "built_in",
    "parse",
]

MAX_SIZE = 1e9  # in whatever unit: no GPU or model comes near, and sums of such numbers stay finite
MAX_BATCHED_TOKENS = 1_048_576  # an iteration time is computed for each count up to it


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuProfile:
    """One GPU: sizes in GB (1e9 bytes) and GB/s, dense peaks in TFLOP/s, price in USD per hour.

    `measured` is its name in aiconfigurator-core, where that has it.
    """

    memory_gb: float
    bandwidth_gb_s: float
    bf16_tflops: float
    fp8_tflops: float | None = None
    link_gb_s: float
    price_usd_h: float | None = None
    max_num_batched_tokens: int = 8192
    max_num_seqs: int = 1024
    measured: str | None = None
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowedLayers:
    """Layers that attend to the last `window_tokens` only (sliding window), or to the chunk that they are in."""

    layers: int
    window_tokens: int
    kv_heads: int
    head_dim: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RecurrentLayers:
    """Layers of linear attention: a state of so many bytes a sequence and layer, whatever the context."""

    layers: int
    state_bytes: int


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


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedExperts:
    """The part of a mixture-of-experts model of which each token uses a few experts."""

    params_b: float
    experts: int
    experts_per_token: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelProfile:
    """One model: parameters in billions, bytes per weight, and its attention.

    `measured` is its name in aiconfigurator-core, where that has it; `published_weight_bytes` are set where
    `weight_bytes` are not the published ones.
    """

    params_b: float
    active_params_b: float
    weight_bytes: float
    hidden_size: int
    layers: int
    max_context: int
    attention: Attention
    routed: RoutedExperts | None = None
    measured: str | None = None
    published_weight_bytes: float | None = None
    sources: tuple[str, ...] = ()

    @property
    def full_layers(self) -> int:
        """Layers whose attention reaches over the whole context."""
        parts = (self.attention.windowed, self.attention.recurrent)
        return self.layers - sum(part.layers for part in parts if part is not None)


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
        """Return this catalogue with the entries of another one added or replaced."""
        return Catalogue({**self.gpus, **more.gpus}, {**self.models, **more.models})


def built_in() -> Catalogue:
    """Return the catalogue that comes with the package."""
    text = resources.files("extproc.planning.hardware").joinpath("catalogue.yaml").read_text("utf-8")
    return parse(text, "the built-in catalogue")


def parse(text: str, name: str) -> Catalogue:
    """Decode a catalogue from YAML.

    Raises ConfigurationError that names the file, the field and what is wrong with it.
    """
    try:
        raw = read_document(text) or {}
    except ConfigurationError as error:
        raise ConfigurationError(*error.sentences, source=name) from error
    _check_keys(name, raw)
    try:
        catalogue = msgspec.convert(raw, Catalogue)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{name}: {error}") from error
    for profile_name, gpu in catalogue.gpus.items():
        _check_gpu(name, profile_name, gpu)
    for profile_name, model in catalogue.models.items():
        _check_model(name, profile_name, model)
    return catalogue


def _check_keys(catalogue: str, raw: object) -> None:
    """Refuse keys that nothing reads: `gpu:` for `gpus:` would add nothing, in silence."""
    if not isinstance(raw, dict):
        raise ConfigurationError(f"{catalogue}: gpus and models are needed, not {str(raw)[:40]!r}")
    _refuse_unknown(f"{catalogue}", raw, {"gpus", "models"})
    for part, kind in (("gpus", GpuProfile), ("models", ModelProfile)):
        entries = raw.get(part) or {}
        if not isinstance(entries, dict):
            raise ConfigurationError(f"{catalogue}: {part}: names with their profiles are needed")
        for name, entry in entries.items():
            if isinstance(entry, dict):
                _refuse_unknown(f"{catalogue}: {name}", entry, {field.name for field in fields(kind)})


def _refuse_unknown(where: str, given: dict[object, object], known: set[str]) -> None:
    unknown = [str(key)[:40] for key in given if key not in known]
    if unknown:
        raise ConfigurationError(f"{where}: {unknown[0]!r} is not known; known are {', '.join(sorted(known))}")


def _named(profiles: dict[str, T], name: str, what: str) -> T:
    profile = profiles.get(name)
    if profile is None:
        raise ConfigurationError(f"{what} {name!r} is not in the catalogue; it has {', '.join(sorted(profiles))}")
    return profile


def _check_gpu(catalogue: str, profile: str, gpu: GpuProfile) -> None:
    sizes = (gpu.memory_gb, gpu.bandwidth_gb_s, gpu.bf16_tflops, gpu.link_gb_s)
    limits = (gpu.max_num_batched_tokens, gpu.max_num_seqs)
    known = tuple(number for number in (gpu.fp8_tflops, gpu.price_usd_h) if number is not None)
    _check_sizes(catalogue, profile, (*sizes, *limits, *known))
    if gpu.max_num_batched_tokens > MAX_BATCHED_TOKENS:
        raise ConfigurationError(
            f"{catalogue}: {profile}: max_num_batched_tokens {gpu.max_num_batched_tokens:,}: at most "
            f"{MAX_BATCHED_TOKENS:,}"
        )


def _check_model(catalogue: str, profile: str, model: ModelProfile) -> None:
    sizes = (model.params_b, model.active_params_b, model.weight_bytes, model.layers)
    _check_sizes(catalogue, profile, (*sizes, model.hidden_size, model.max_context))
    if model.active_params_b > model.params_b:
        raise ConfigurationError(
            f"{catalogue}: {profile}: active_params_b {model.active_params_b:g} is more than params_b "
            f"{model.params_b:g}"
        )
    _check_attention(catalogue, f"{profile}.attention", model.attention)
    if model.full_layers < 1:
        raise ConfigurationError(
            f"{catalogue}: {profile}: {model.layers - model.full_layers} windowed and recurrent of {model.layers} "
            "layers: at least one must have full attention"
        )
    if model.routed is not None:
        _check_routed(catalogue, f"{profile}.routed", model.routed, model.params_b)


def _check_attention(catalogue: str, profile: str, attention: Attention) -> None:
    shape = (
        (attention.kv_heads, attention.head_dim)
        if attention.kind == "gqa"
        else (attention.kv_lora_rank, attention.rope_dim, attention.nope_dim, attention.v_dim)
    )
    _check_sizes(catalogue, profile, (attention.query_heads, *shape))
    if (windowed := attention.windowed) is not None:
        numbers = (windowed.layers, windowed.window_tokens, windowed.kv_heads, windowed.head_dim)
        _check_sizes(catalogue, f"{profile}.windowed", numbers)
    if (recurrent := attention.recurrent) is not None:
        _check_sizes(catalogue, f"{profile}.recurrent", (recurrent.layers, recurrent.state_bytes))


def _check_routed(catalogue: str, profile: str, routed: RoutedExperts, params_b: float) -> None:
    _check_sizes(catalogue, profile, (routed.params_b, routed.experts, routed.experts_per_token))
    if routed.params_b > params_b:
        raise ConfigurationError(
            f"{catalogue}: {profile}: params_b {routed.params_b:g} is more than the model's {params_b:g}"
        )
    if routed.experts_per_token > routed.experts:
        raise ConfigurationError(
            f"{catalogue}: {profile}: {routed.experts_per_token} experts_per_token of {routed.experts} experts: "
            f"at most {routed.experts}"
        )


def _check_sizes(catalogue: str, profile: str, numbers: tuple[float, ...]) -> None:
    wrong = [number for number in numbers if not 0 < number <= MAX_SIZE]
    if wrong:
        raise ConfigurationError(
            f"{catalogue}: {profile}: {wrong[0]} is not allowed: sizes must be positive and at most {MAX_SIZE:g}"
        )
