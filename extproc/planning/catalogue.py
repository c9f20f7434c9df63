"""Profiles of GPUs and models: the numbers that capacity and iteration times are computed from.

The catalogue is data (`catalogue.yaml`), each entry with its sources. A user's file has the same form and adds
entries or replaces them.
"""

from dataclasses import dataclass, field
from importlib import resources
from typing import Literal, TypeVar

import msgspec
import yaml

from extproc.core.errors import ConfigurationError

T = TypeVar("T")

__all__ = ["Attention", "Catalogue", "GpuProfile", "ModelProfile", "RoutedExperts", "built_in", "parse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuProfile:
    """One GPU: sizes in GB (1e9 bytes) and GB/s, dense peaks in TFLOP/s, price in USD per hour."""

    memory_gb: float
    bandwidth_gb_s: float
    bf16_tflops: float
    fp8_tflops: float | None = None
    link_gb_s: float
    price_usd_h: float | None = None
    max_num_batched_tokens: int = 8192
    max_num_seqs: int = 1024
    sources: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """Shape of the attention: grouped-query (Llama, Qwen) or multi-head latent (DeepSeek)."""

    kind: Literal["gqa", "mla"]
    query_heads: int
    kv_heads: int = 0
    head_dim: int = 0
    kv_lora_rank: int = 0
    rope_dim: int = 0
    nope_dim: int = 0
    v_dim: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedExperts:
    """The part of a mixture-of-experts model of which each token uses a few experts."""

    params_b: float
    experts: int
    experts_per_token: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelProfile:
    """One model: parameters in billions, bytes per weight, and its attention."""

    params_b: float
    active_params_b: float
    weight_bytes: float
    hidden_size: int
    layers: int
    max_context: int
    attention: Attention
    routed: RoutedExperts | None = None
    sources: list[str] = field(default_factory=list)


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
    text = resources.files("extproc.planning").joinpath("catalogue.yaml").read_text("utf-8")
    return parse(text, "the built-in catalogue")


def parse(text: str, name: str) -> Catalogue:
    """Decode a catalogue from YAML.

    Raises ConfigurationError that names the file, the field and what is wrong with it.
    """
    try:
        catalogue = msgspec.convert(yaml.safe_load(text) or {}, Catalogue)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{name}: not YAML: {' '.join(str(error).split())}") from error
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{name}: {error}") from error
    for profile_name, gpu in catalogue.gpus.items():
        sizes = (gpu.memory_gb, gpu.bandwidth_gb_s, gpu.bf16_tflops, gpu.link_gb_s)
        limits = (gpu.max_num_batched_tokens, gpu.max_num_seqs)
        _check_positive(name, profile_name, (*sizes, *limits))
    for profile_name, model in catalogue.models.items():
        sizes = (model.params_b, model.active_params_b, model.weight_bytes, model.layers)
        _check_positive(name, profile_name, (*sizes, model.hidden_size, model.max_context))
        _check_attention(name, profile_name, model.attention)
    return catalogue


def _named(profiles: dict[str, T], name: str, what: str) -> T:
    profile = profiles.get(name)
    if profile is None:
        raise ConfigurationError(f"{what} {name!r} is not in the catalogue; it has {', '.join(sorted(profiles))}")
    return profile


def _check_positive(catalogue: str, profile: str, numbers: tuple[float, ...]) -> None:
    if min(numbers) <= 0:
        raise ConfigurationError(f"{catalogue}: {profile}: {min(numbers)} is not allowed: sizes must be positive")


def _check_attention(catalogue: str, profile: str, attention: Attention) -> None:
    shape = (
        (attention.kv_heads, attention.head_dim)
        if attention.kind == "gqa"
        else (attention.kv_lora_rank, attention.rope_dim, attention.nope_dim, attention.v_dim)
    )
    _check_positive(catalogue, f"{profile}.attention", (attention.query_heads, *shape))
