"""Trace formats: the columns and keys that hold lengths, times and prefixes.

Rows (CSV with a header, or JSON lines) are recognised by the names of their fields: Azure, Mooncake, BurstGPT,
ServeGen, the access log of our Envoy files, and plain `input_tokens`. Documents (one JSON value) are recognised by
their keys: fleet-sim's CDF files, and the files that vLLM's benchmark_serving saves with --save-detailed.
"""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import nan

import msgspec
from msgspec import UNSET, UnsetType

from extproc.core.placing.policy import Reason

__all__ = [
    "KNOWN",
    "Document",
    "JsonRow",
    "Row",
    "cells_of",
    "columns_of",
    "read_seconds",
    "separator_of",
    "whole_tokens",
]

PROMPT_NAMES = ("contexttokens", "input_length", "input_tokens", "prompt_tokens", "request tokens", "prompt_len")
OUTPUT_NAMES = (
    *("generatedtokens", "output_length", "output_tokens", "completion_tokens", "response tokens"),
    *("response_tokens", "output_len"),
)
SEPARATORS = (",", ";", "\t")
TIME_NAMES = ("timestamp", "arrival_time", "time")
MILLISECONDS = 1e-3
KNOWN = (
    "known are CSV with a header of token columns (TIMESTAMP,ContextTokens,GeneratedTokens and others; separated "
    "by commas, semicolons or tabs), "
    "JSON lines with input_tokens and output_tokens (or input_length and output_length), CSV with the header "
    "fraction,input_tokens,output_tokens, and JSON with cdf or input_lens and output_lens"
)


@dataclass(frozen=True, slots=True)
class Row:
    """One request: seconds (nan: none), prompt and output tokens, and ids of its prompt's blocks."""

    seconds: float
    prompt: int
    output: int
    blocks: tuple[int, ...] = ()


class JsonRow(msgspec.Struct):
    """One line of a JSON-lines trace, with all known keys optional."""

    input_tokens: float | None = None
    output_tokens: float | None = None
    input_length: float | None = None
    output_length: float | None = None
    prompt_tokens: float | None = None
    completion_tokens: float | None = None
    estimate: float | UnsetType | None = UNSET
    reason: str | None = None
    timestamp: float | str | None = None
    time: float | str | None = None
    hash_ids: tuple[int, ...] = ()

    def row(self) -> Row:
        """Return the request; raises ValueError if lengths are missing."""
        seconds = nan if self.timestamp is None else read_seconds(self.timestamp)
        if self.input_length is not None and self.output_length is not None:  # Mooncake: times in milliseconds
            prompt, output = whole_tokens(self.input_length), whole_tokens(self.output_length)
            unit = 1 if isinstance(self.timestamp, str) else MILLISECONDS  # a date is a date
            return Row(seconds * unit, prompt, output, self.hash_ids)
        if self.input_tokens is not None and self.output_tokens is not None:
            return Row(seconds, whole_tokens(self.input_tokens), whole_tokens(self.output_tokens))
        if self.prompt_tokens is not None and self.completion_tokens is not None:
            return Row(seconds, round(self.prompt_tokens), whole_tokens(self.completion_tokens))
        if self.prompt_tokens is not None and isinstance(self.estimate, float):  # access log of our Envoy files
            at = nan if self.time is None else read_seconds(self.time)
            return Row(at, round(self.prompt_tokens), max(1, round(self.estimate - self.prompt_tokens)))
        raise ValueError(
            "needs input_tokens and output_tokens, or input_length and output_length "
            "(benchmark_serving writes lengths with --save-detailed)"
        )

    @property
    def is_access_log(self) -> bool:
        """Whether the row is from an access log, whose lengths are the router's estimates."""
        return self.estimate is not UNSET

    @property
    def is_undecided(self) -> bool:
        """Whether no router estimated the row's request: Envoy writes null for missing values."""
        return self.is_access_log and (self.estimate is None or self.prompt_tokens is None)

    @property
    def is_early(self) -> bool:
        """Whether the router did not estimate the row's request because of its size."""
        return self.is_undecided and self.reason == Reason.EARLY


class Document(msgspec.Struct):
    """A trace that is one JSON document: a CDF of total tokens, or the lengths of a benchmark's requests."""

    cdf: list[tuple[float, float]] | None = None
    input_lens: list[int] | None = None
    output_lens: list[int] | None = None


def separator_of(header: str) -> str:
    """Return what separates the cells of a CSV: of comma, semicolon and tab the most frequent outside quotes."""
    bare = re.sub('"[^"]*"', "", header)
    return max(SEPARATORS, key=bare.count)


def columns_of(header: Sequence[str]) -> tuple[int | None, int, int] | None:
    """Return the column indices of time, prompt and output tokens in a CSV, or None if it has no such columns."""
    names = [name.strip().lower() for name in header]
    prompt = next((names.index(name) for name in PROMPT_NAMES if name in names), None)
    output = next((names.index(name) for name in OUTPUT_NAMES if name in names), None)
    if prompt is None or output is None:
        return None
    return next((names.index(name) for name in TIME_NAMES if name in names), None), prompt, output


def cells_of(row: str, separator: str = ",") -> list[str]:
    """Return the cells of a CSV row; raises ValueError if its quoting is wrong."""
    if '"' not in row:
        return row.split(separator)
    try:
        return next(csv.reader([row], delimiter=separator, skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise ValueError(str(error)) from error


def whole_tokens(cell: float | str) -> int:
    """Return a number of tokens, which may be written as 374.0; raises ValueError or OverflowError."""
    if isinstance(cell, str) and cell.strip().isdecimal():
        return int(cell)
    try:
        number = float(cell)
        tokens = int(number)
    except ValueError as error:
        raise ValueError(f"{cell!r} is not a number of tokens") from error
    if tokens != number:
        raise ValueError(f"{cell!r} is not a whole number of tokens")
    return tokens


def read_seconds(stamp: float | str) -> float:
    """Return seconds from a number or a date and time (UTC if it has no zone); raises ValueError otherwise."""
    try:
        return float(stamp)
    except ValueError:
        at = datetime.fromisoformat(str(stamp).strip())
    return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()
