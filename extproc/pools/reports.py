"""Parsing of a server's reports, its models (`/v1/models`) and its load (`/metrics`), into frozen values.

Metric names come from vLLM's `vllm/v1/metrics/loggers.py` (`gpu_cache_usage_perc` until 0.9) and SGLang's
`srt/observability/metrics_collector.py`. A server may run several engines, each with its own labels: requests are
summed, and the fullest KV cache counts. Not every label distinguishes engines. In SGLang, all ranks of one engine
report the same values (`--enable-metrics-for-all-schedulers`, pipeline stages), and with priority scheduling there
is a row per priority in addition to the total, whose `priority` label is empty.

Values are not trusted: a value that is negative or not finite is ignored, and one above MOST counts as MOST. A
malformed entry of a list does not affect the other entries.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite
from typing import Final

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from extproc.core.errors import DualpoolError
from extproc.core.names import MAX_NAME_CHARS
from extproc.core.placing.fleet import ANY_OTHER

__all__ = [
    "MAX_MODELS",
    "LoadReport",
    "ModelList",
    "ModelReport",
    "ReportNotUnderstood",
    "load_lines",
    "parse_load",
    "parse_models",
]

MOST: Final = 1e12
MAX_LINES: Final = 1_000
# The parser's time is quadratic in the length of a line. vLLM's longest line is about 1 KB.
MAX_LINE_CHARS: Final = 4_096
MAX_MODELS: Final = 1_000
MAX_DIGITS: Final = 12


class ReportNotUnderstood(DualpoolError):
    """A server's page does not contain the information that was asked for."""


@dataclass(frozen=True, slots=True)
class ModelReport:
    """One model that a server lists. `max_model_len` is its context in tokens.

    `parent` is the model whose prices it shares: an adapter's base model, or the first of several names of the
    same weights; "" if it has its own prices.
    """

    name: str
    parent: str = ""
    max_model_len: int | None = None


@dataclass(frozen=True, slots=True)
class LoadReport:
    """How busy a server is: requests waiting and running, KV cache usage (0 to 1), preemptions so far.

    `kv_tokens` is the capacity of its KV cache in tokens, 0 if the server does not report it.
    """

    waiting: int
    running: int
    kv_usage: float
    preemptions: int = 0
    kv_tokens: int = 0


@dataclass(frozen=True, slots=True)
class ModelList:
    """The models that were read from a server's list, at most MAX_MODELS, and how many entries the list has."""

    models: tuple[ModelReport, ...]
    listed: int


class _Model(msgspec.Struct, frozen=True):
    """An entry of unknown types; a field of the wrong type is treated as missing."""

    id: object = None
    parent: object = None
    root: object = None
    max_model_len: object = None
    owned_by: object = None


class _Models(msgspec.Struct, frozen=True):
    data: list[_Model]


_MODELS = msgspec.json.Decoder(_Models)


def parse_models(page: bytes) -> ModelList:
    """Parse a list of models (OpenAI's format, with vLLM's fields). Raises ReportNotUnderstood."""
    try:
        listed = _MODELS.decode(page).data
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ReportNotUnderstood(f"not a list of models: {error}") from error
    read = [(name, model) for model in listed[:MAX_MODELS] if (name := _name(model.id))]
    lengths = {name: _length(model.max_model_len) for name, model in read}
    firsts: dict[str, str] = {}
    for name, model in read:
        firsts.setdefault(_name(model.root), name)
    models = [_model(name, model, lengths, firsts) for name, model in read]
    if any(model.owned_by == SGLANG for _, model in read):
        models = [replace(model, max_model_len=_most_in_sglang(model.max_model_len)) for model in models]
        models.append(ModelReport(ANY_OTHER))
    return ModelList(tuple(models), len(listed))


# How SGLang identifies itself in its list of models. It ignores names that it does not list, except for an adapter
# after a colon (`base:adapter`).
SGLANG: Final = "sglang"


def _most_in_sglang(context_tokens: int | None) -> int | None:
    """Return the longest sequence: SGLang refuses one that fills the context to its last token."""
    return None if context_tokens is None else max(context_tokens - 1, 1)


def _name(value: object) -> str:
    return value if isinstance(value, str) and len(value) <= MAX_NAME_CHARS else ""


def _model(name: str, model: _Model, lengths: Mapping[str, int | None], firsts: Mapping[str, str]) -> ModelReport:
    """Return a model as listed; an adapter, for which vLLM reports no length, gets the length of its base.

    `firsts` maps each root (the location of the weights, which vLLM reports for models and adapters) to the first
    name that has it.
    """
    parent = _name(model.parent) or (firsts[root] if (root := _name(model.root)) else "")
    if parent == name:
        parent = ""
    return ModelReport(name, parent, _length(model.max_model_len) or lengths.get(parent))


def _length(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


_WAITING: Final = ("vllm:num_requests_waiting", "sglang:num_queue_reqs")
_RUNNING: Final = ("vllm:num_requests_running", "sglang:num_running_reqs")
_KV_USAGE: Final = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc", "sglang:token_usage")
_PREEMPTIONS: Final = ("vllm:num_preemptions_total",)
_KV_TOKENS: Final = "sglang:max_total_num_tokens"
_KV_BLOCKS: Final = "vllm:cache_config_info"  # the figures are in its labels
_NAMES: Final = (*_WAITING, *_RUNNING, *_KV_USAGE, *_PREEMPTIONS, _KV_TOKENS, _KV_BLOCKS)
_NAME_BYTES: Final = tuple(name.encode() for name in _NAMES)
_RANKS: Final = frozenset({"tp_rank", "pp_rank", "moe_ep_rank"})  # the ranks of one engine report the same values


def load_lines(lines: bytes | bytearray) -> bytes:
    """Return those of a page's lines that `parse_load` reads; the last one has to be complete."""
    return b"".join(line + b"\n" for line in lines.split(b"\n") if line.startswith(_NAME_BYTES))


def parse_load(page: bytes) -> LoadReport:
    """Parse the load from a page of metrics.

    Raises ReportNotUnderstood if the page lacks the numbers of waiting and running requests.
    """
    try:
        samples, kv_tokens = _samples(page)
    except (ValueError, LookupError, AttributeError, TypeError) as error:  # the parser expects well-formed pages
        raise ReportNotUnderstood(f"not a page of metrics: {error}") from error
    waiting, running = _total(samples, _WAITING), _total(samples, _RUNNING)
    if waiting is None or running is None:
        raise ReportNotUnderstood("the metrics do not report how many requests wait and run")
    usage = [value for name in _KV_USAGE for value in samples.get(name, ())]
    return LoadReport(
        waiting,
        running,
        min(max(usage, default=0.0), 1.0),
        _total(samples, _PREEMPTIONS) or 0,
        kv_tokens or _total(samples, (_KV_TOKENS,)) or 0,
    )


def _samples(page: bytes) -> tuple[dict[str, list[float]], int]:
    """Return the values per engine of each metric that is used, and the capacity of all KV caches in tokens."""
    lines = [line for line in page.decode().split("\n") if line.startswith(_NAMES) and len(line) <= MAX_LINE_CHARS]
    if len(lines) > MAX_LINES:
        raise ReportNotUnderstood(f"{len(lines)} lines about one server; at most {MAX_LINES} are read")
    samples: dict[str, dict[frozenset[tuple[str, str]], float]] = {}
    kv_tokens = 0.0
    for family in text_string_to_metric_families("\n".join([*lines, ""])):
        for sample in family.samples:
            if sample.name == _KV_BLOCKS:
                kv_tokens += _number(sample.labels.get("block_size")) * _number(
                    sample.labels.get("num_gpu_blocks")
                )
            elif isfinite(sample.value) and sample.value >= 0 and not sample.labels.get("priority"):
                engine = frozenset(each for each in sample.labels.items() if each[0] not in _RANKS)
                engines = samples.setdefault(sample.name, {})
                engines[engine] = max(sample.value, engines.get(engine, 0.0))
    return {name: list(engines.values()) for name, engines in samples.items()}, int(min(kv_tokens, MOST))


def _number(text: str | None) -> int:
    return int(text) if text and len(text) <= MAX_DIGITS and text.isdecimal() else 0


def _total(samples: Mapping[str, list[float]], names: tuple[str, ...]) -> int | None:
    values = [value for name in names for value in samples.get(name, ())]
    return int(min(sum(values), MOST)) if values else None
