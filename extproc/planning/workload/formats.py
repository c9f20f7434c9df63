"""What is known of trace formats: the columns and keys in which they hold lengths, times and prefixes.

Rows (CSV with a header, or JSON lines) are told by their names: Azure, Mooncake, BurstGPT, ServeGen, the access
log of our Envoy files, and plain `input_tokens`. Documents (one JSON value) are told by their keys: the CDF files
of fleet-sim, and what vLLM's benchmark_serving saves with --save-detailed.
"""

from dataclasses import dataclass
from datetime import datetime
from math import nan

import msgspec

__all__ = ["Document", "JsonRow", "Row", "columns_of", "read_seconds"]

PROMPT_NAMES = ("contexttokens", "input_length", "input_tokens", "prompt_tokens", "request tokens", "prompt_len")
OUTPUT_NAMES = (
    *("generatedtokens", "output_length", "output_tokens", "completion_tokens", "response tokens"),
    *("response_tokens", "output_len"),
)
TIME_NAMES = ("timestamp", "arrival_time", "time")
STAMP_LENGTH = 26  # Azure has 7 digits of a fraction, Python takes 6
MILLISECONDS = 1e-3


@dataclass(frozen=True, slots=True)
class Row:
    """One request: seconds (nan: none), prompt and output tokens, and ids of its prompt's blocks."""

    seconds: float
    prompt: int
    output: int
    blocks: tuple[int, ...] = ()


class JsonRow(msgspec.Struct):
    """One line of a JSON-lines trace, whichever of the known keys it has."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    input_length: int | None = None
    output_length: int | None = None
    prompt_tokens: float | None = None
    completion_tokens: int | None = None
    estimate: float | None = None
    timestamp: float | None = None
    time: str | None = None
    hash_ids: tuple[int, ...] = ()

    def row(self) -> Row:
        """Return the request; raises ValueError where lengths are missing."""
        if self.input_length is not None and self.output_length is not None:  # Mooncake: times in milliseconds
            seconds = nan if self.timestamp is None else self.timestamp * MILLISECONDS
            return Row(seconds, self.input_length, self.output_length, self.hash_ids)
        seconds = nan if self.timestamp is None else self.timestamp
        if self.input_tokens is not None and self.output_tokens is not None:
            return Row(seconds, self.input_tokens, self.output_tokens)
        if self.prompt_tokens is not None and self.completion_tokens is not None:
            return Row(seconds, round(self.prompt_tokens), self.completion_tokens)
        if self.prompt_tokens is not None and self.estimate is not None:  # the access log of our Envoy files
            at = nan if self.time is None else read_seconds(self.time)
            return Row(at, round(self.prompt_tokens), max(1, round(self.estimate - self.prompt_tokens)))
        raise ValueError("needs input_tokens and output_tokens, or input_length and output_length")

    @property
    def is_access_log(self) -> bool:
        """Whether the row is of an access log: its lengths are the router's estimates."""
        return self.estimate is not None


class Document(msgspec.Struct):
    """A whole JSON document: a CDF of total tokens, or the lengths of a benchmark's requests."""

    cdf: list[tuple[float, float]] | None = None
    input_lens: list[int] | None = None
    output_lens: list[int] | None = None


def columns_of(header: str) -> tuple[int | None, int, int] | None:
    """Return where a CSV has time, prompt and output tokens, or None when it has no such columns."""
    names = [name.strip().lower() for name in header.split(",")]
    prompt = next((names.index(name) for name in PROMPT_NAMES if name in names), None)
    output = next((names.index(name) for name in OUTPUT_NAMES if name in names), None)
    if prompt is None or output is None:
        return None
    return next((names.index(name) for name in TIME_NAMES if name in names), None), prompt, output


def read_seconds(text: str) -> float:
    """Return seconds from a number or a date and time; raises ValueError for anything else."""
    stamp = text.strip()
    try:
        return float(stamp)
    except ValueError:
        return datetime.fromisoformat(stamp.removesuffix("Z")[:STAMP_LENGTH]).timestamp()
