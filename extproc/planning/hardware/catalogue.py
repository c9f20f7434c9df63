"""Reading a catalogue of profiles; impossible values are rejected with the names of the profile and the field."""

from dataclasses import fields
from functools import cache
from importlib import resources

import msgspec

from extproc.core.errors import ConfigurationError
from extproc.documents import read_document
from extproc.planning.hardware.profiles import (
    MAX_BATCHED_TOKENS,
    Attention,
    Catalogue,
    GpuProfile,
    IndexerLayers,
    ModelProfile,
    RecurrentLayers,
    RoutedExperts,
    WindowedLayers,
    Yarn,
)

__all__ = ["built_in", "parse"]

PARTS = {
    "attention": Attention,
    "windowed": WindowedLayers,
    "recurrent": RecurrentLayers,
    "indexer": IndexerLayers,
    "routed": RoutedExperts,
    "yarn": Yarn,
}
MAX_SIZE = 1e9  # in any unit: no GPU or model comes near it, and sums of such numbers stay finite


@cache
def built_in() -> Catalogue:
    """Return the catalogue that comes with the package; it is read once."""
    text = resources.files("extproc.planning.hardware").joinpath("catalogue.yaml").read_text("utf-8")
    return parse(text, "the built-in catalogue")


def parse(text: str, name: str) -> Catalogue:
    """Decode a catalogue from YAML.

    Raises ConfigurationError that names the file, the field and what is wrong with it.
    """
    try:
        raw = read_document(text)
    except ConfigurationError as error:
        raise ConfigurationError(*error.sentences, source=name) from error
    raw = {} if raw is None else raw
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
    """Reject unknown keys: `gpu:` instead of `gpus:` would silently add nothing."""
    if not isinstance(raw, dict):
        raise ConfigurationError(f"{catalogue}: gpus and models are needed, not {str(raw)[:40]!r}")
    _refuse_unknown(f"{catalogue}", raw, {"gpus", "models"})
    for part, kind in (("gpus", GpuProfile), ("models", ModelProfile)):
        entries = raw.get(part) or {}
        if not isinstance(entries, dict):
            raise ConfigurationError(f"{catalogue}: {part}: names with their profiles are needed")
        for name, entry in entries.items():
            if not str(name).isprintable():
                raise ConfigurationError(f"{catalogue}: {part}: {name!r}: a name has printable characters only")
            _check_profile(f"{catalogue}: {name}", entry, kind)


def _check_profile(where: str, given: object, kind: type) -> None:
    """Reject keys that a profile or a part of it does not have; what is no mapping is left to the decoder."""
    if not isinstance(given, dict):
        return
    _refuse_unknown(where, given, {field.name for field in fields(kind)})
    for key, part in PARTS.items():
        if key in given:
            _check_profile(f"{where}.{key}", given[key], part)


def _refuse_unknown(where: str, given: dict[object, object], known: set[str]) -> None:
    unknown = [str(key)[:40] for key in given if key not in known]
    if unknown:
        raise ConfigurationError(f"{where}: {unknown[0]!r} is not known; known are {', '.join(sorted(known))}")


def _check_gpu(catalogue: str, profile: str, gpu: GpuProfile) -> None:
    sizes = (gpu.memory_gb, gpu.bandwidth_gb_s, gpu.bf16_tflops, gpu.link_gb_s)
    optional = (gpu.max_num_batched_tokens, gpu.max_num_seqs, gpu.fp8_tflops, gpu.price_usd_h)
    known = tuple(number for number in optional if number is not None)
    _check_sizes(catalogue, profile, (*sizes, *known))
    if (gpu.max_num_batched_tokens or 0) > MAX_BATCHED_TOKENS:
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
    if not (model.table_params_b >= 0 and model.multiplied_params_b > 0):
        raise ConfigurationError(
            f"{catalogue}: {profile}: table_params_b {model.table_params_b:g}: must not be negative, and both "
            f"tables are in active_params_b {model.active_params_b:g}"
        )
    _check_attention(catalogue, f"{profile}.attention", model.attention)
    if (indexer := model.attention.indexer) is not None:
        _check_indexer(catalogue, f"{profile}.indexer", indexer, model)
    if model.full_layers < 1:
        raise ConfigurationError(
            f"{catalogue}: {profile}: {model.layers - model.full_layers} windowed and recurrent of {model.layers} "
            "layers: at least one must have full attention"
        )
    if (yarn := model.yarn) is not None:
        numbers = (yarn.native_context, yarn.original_context, yarn.rope_theta)
        _check_sizes(catalogue, f"{profile}.yarn", numbers)
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


def _check_indexer(catalogue: str, profile: str, indexer: IndexerLayers, model: ModelProfile) -> None:
    _check_sizes(catalogue, profile, (indexer.layers, indexer.heads, indexer.head_dim, indexer.top_tokens))
    if model.attention.kind != "mla":
        raise ConfigurationError(f"{catalogue}: {profile}: attention of kind gqa has none: kind mla is needed")
    if indexer.layers > model.full_layers:
        raise ConfigurationError(
            f"{catalogue}: {profile}: {indexer.layers} layers: at most the {model.full_layers} with full attention"
        )


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
