"""What one server says of itself: its models (`/v1/models`) and its load (`/metrics`), as frozen values.

Names of metrics: vLLM's `vllm/v1/metrics/loggers.py` (`gpu_cache_usage_perc` until 0.9) and SGLang's production
metrics. A server may run several engines, each with its own labels: requests are summed, the fullest KV cache
counts. Nothing that a server says is believed further than a number can be: not finite or negative is as if not
said, and what is beyond MOST counts as that.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Final

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from extproc.core.errors import DualpoolError
from extproc.core.names import MAX_NAME_CHARS

__all__ = ["LoadReport", "ModelReport", "ReportNotUnderstood", "parse_load", "parse_models"]

MOST: Final = 1e12
MAX_LINES: Final = 1_000
MAX_MODELS: Final = 1_000
MAX_DIGITS: Final = 12


class ReportNotUnderstood(DualpoolError):
    """A server's page that says nothing of what was asked."""


@dataclass(frozen=True, slots=True)
class ModelReport:
    """One model that a server lists: its name, an adapter's base model ("" for none), its context in tokens."""

    name: str
    parent: str = ""
    max_model_len: int | None = None


@dataclass(frozen=True, slots=True)
class LoadReport:
    """How busy a server is: requests waiting and running, KV cache in use (0 to 1), preemptions so far.

    `kv_tokens` is what its KV cache holds, 0 where it does not say.
    """

    waiting: int
    running: int
    kv_usage: float
    preemptions: int = 0
    kv_tokens: int = 0


class _Model(msgspec.Struct, frozen=True, gc=False):
    id: str
    parent: str | None = None
    root: str | None = None
    max_model_len: int | None = None


class _Models(msgspec.Struct, frozen=True, gc=False):
    data: list[_Model]


_MODELS = msgspec.json.Decoder(_Models)


def parse_models(page: bytes) -> tuple[ModelReport, ...]:
    """Read the list of models (OpenAI's form, with vLLM's fields). Raises ReportNotUnderstood."""
    try:
        models = _MODELS.decode(page).data
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ReportNotUnderstood(f"no list of models: {error}") from error
    listed = [model for model in models[:MAX_MODELS] if 0 < len(model.id) <= MAX_NAME_CHARS]
    lengths = {model.id: model.max_model_len for model in listed}
    return tuple(_model(model, lengths) for model in listed)


def _model(model: _Model, lengths: Mapping[str, int | None]) -> ModelReport:
    """Return a model as listed; an adapter, of which vLLM tells no length, has that of its base."""
    parent = model.parent or ""
    length = model.max_model_len or lengths.get(parent)
    return ModelReport(model.id, parent, length if length is not None and length > 0 else None)


_WAITING: Final = ("vllm:num_requests_waiting", "sglang:num_queue_reqs")
_RUNNING: Final = ("vllm:num_requests_running", "sglang:num_running_reqs")
_KV_USAGE: Final = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc", "sglang:token_usage")
_PREEMPTIONS: Final = ("vllm:num_preemptions_total",)
_KV_TOKENS: Final = "sglang:max_total_num_tokens"
_KV_BLOCKS: Final = "vllm:cache_config_info"  # in its labels
_NAMES: Final = (*_WAITING, *_RUNNING, *_KV_USAGE, *_PREEMPTIONS, _KV_TOKENS, _KV_BLOCKS)


def parse_load(page: bytes) -> LoadReport:
    """Read the load out of a page of metrics. Raises ReportNotUnderstood when it says not who waits."""
    try:
        samples, kv_tokens = _samples(page)
    except (ValueError, LookupError, AttributeError, TypeError) as error:  # the parser was made for honest pages
        raise ReportNotUnderstood(f"no page of metrics: {error}") from error
    waiting, running = _total(samples, _WAITING), _total(samples, _RUNNING)
    if waiting is None or running is None:
        raise ReportNotUnderstood("the metrics do not say how many requests wait and run")
    usage = [value for name in _KV_USAGE for value in samples.get(name, ())]
    return LoadReport(
        waiting,
        running,
        min(max(usage, default=0.0), 1.0),
        _total(samples, _PREEMPTIONS) or 0,
        kv_tokens or _total(samples, (_KV_TOKENS,)) or 0,
    )


def _samples(page: bytes) -> tuple[dict[str, list[float]], int]:
    """Return the values of the metrics that are wanted, and the tokens of all KV caches by their blocks."""
    lines = [line for line in page.decode().split("\n") if line.startswith(_NAMES)]
    if len(lines) > MAX_LINES:
        raise ReportNotUnderstood(f"{len(lines)} lines about one server; at most {MAX_LINES} are read")
    samples: dict[str, list[float]] = {}
    kv_tokens = 0.0
    for family in text_string_to_metric_families("\n".join([*lines, ""])):
        for sample in family.samples:
            if sample.name == _KV_BLOCKS:
                kv_tokens += _number(sample.labels.get("block_size")) * _number(
                    sample.labels.get("num_gpu_blocks")
                )
            elif isfinite(sample.value) and sample.value >= 0:
                samples.setdefault(sample.name, []).append(sample.value)
    return samples, int(min(kv_tokens, MOST))


def _number(text: str | None) -> int:
    return int(text) if text and len(text) <= MAX_DIGITS and text.isdecimal() else 0


def _total(samples: Mapping[str, list[float]], names: tuple[str, ...]) -> int | None:
    values = [value for name in names for value in samples.get(name, ())]
    return int(min(sum(values), MOST)) if values else None
