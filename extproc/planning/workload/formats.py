"""Trace formats: the columns and keys that hold lengths, times and prefixes.

Rows (CSV with a header, or JSON lines) are recognised by the names of their fields: Azure, Mooncake, BurstGPT,
ServeGen, the access log of our Envoy files, and plain `input_tokens`. Documents (one JSON value) are recognised by
their keys: fleet-sim's CDF files, and the files that vLLM's benchmark_serving saves with --save-detailed.
"""

import csv
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from math import nan
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from extproc.core.placing.policy import Reason
from extproc.planning.workload.spellings import spelled

__all__ = [
    "KNOWN",
    "Document",
    "JsonRow",
    "Row",
    "cells_of",
    "expect_one_request",
    "read_seconds",
    "separator_of",
    "spelled_row",
    "whole_tokens",
]

SEPARATORS = (",", ";", "\t")
MILLISECONDS = 1e-3
LACKS = (
    "needs input_tokens and output_tokens, prompt_tokens and completion_tokens, or input_length and "
    "output_length, in the row or in an object within it, as usage (leave out requests that failed without any; "
    "benchmark_serving: --save-detailed)"
)
KNOWN = (
    "known are CSV with a header of token columns (TIMESTAMP,ContextTokens,GeneratedTokens; prompt_tokens and "
    "completion_tokens, or input_... and output_..., are known, too; separated by commas, semicolons or tabs), "
    "JSON lines with input_tokens and output_tokens (or input_length and output_length), also within an object as "
    "usage, CSV with the header "
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
    cache_read_input_tokens: float | None = None
    cache_creation_input_tokens: float | None = None
    input_length: float | None = None
    output_length: float | None = None
    prompt_tokens: float | None = None
    completion_tokens: float | None = None
    estimate: float | UnsetType | None = UNSET
    reason: str | None = None
    timestamp: float | str | None = None
    arrival_time: float | str | None = None
    time: float | str | None = None
    start_time: float | str | None = None
    started_at: float | str | None = msgspec.field(default=None, name="startTime")
    request_created_at: float | str | None = None
    created_at: float | str | None = None
    num_model_requests: object = None
    num_requests: object = None
    api_requests: object = None
    requests: object = None
    total_requests: object = None
    request_count: object = None
    hash_ids: tuple[int, ...] = ()
    chat_id: object = None  # of Bailian's traces, whose timestamps are in seconds; Mooncake's are in milliseconds

    def row(self) -> Row:
        """Return the request; raises ValueError if lengths are missing, or it is a sum of several requests."""
        expect_one_request(self.num_model_requests, self.num_requests, self.api_requests)
        expect_one_request(self.requests, self.total_requests, self.request_count)
        seconds = self._seconds()
        if self.input_length is not None and self.output_length is not None:  # Mooncake, Bailian
            prompt, output = whole_tokens(self.input_length), whole_tokens(self.output_length)
            unit = MILLISECONDS if _number_in(self.timestamp) is not None and self.chat_id is None else 1
            return Row(seconds * unit, prompt, output, self.hash_ids)
        if self.input_tokens is not None and self.output_tokens is not None:
            prompt = whole_tokens(self.input_tokens) + whole_tokens(self.cached_apart)
            return Row(seconds, prompt, whole_tokens(self.output_tokens))
        if self.prompt_tokens is not None and self.completion_tokens is not None:
            return Row(seconds, round(self.prompt_tokens), whole_tokens(self.completion_tokens))
        if self.prompt_tokens is not None and isinstance(self.estimate, float):  # access log of our Envoy files
            return Row(seconds, round(self.prompt_tokens), max(1, round(self.estimate - self.prompt_tokens)))
        raise ValueError(LACKS)

    def _seconds(self) -> float:
        names = self.timestamp, self.arrival_time, self.time, self.start_time, self.started_at
        for stamp in (*names, self.request_created_at, self.created_at):
            if stamp is not None:
                return read_seconds(stamp)
        return nan

    @property
    def has_lengths(self) -> bool:
        """Whether the row has lengths under one of the names of this structure."""
        pairs = (
            (self.input_length, self.output_length),
            (self.input_tokens, self.output_tokens),
            (self.prompt_tokens, self.completion_tokens),
        )
        logged = self.prompt_tokens is not None and isinstance(self.estimate, float)
        return logged or any(None not in pair for pair in pairs)

    @property
    def cached_apart(self) -> float:
        """The cached tokens of the prompt, which its input_tokens do not contain."""
        return (self.cache_read_input_tokens or 0) + (self.cache_creation_input_tokens or 0)

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


def spelled_row(text: str | bytes) -> tuple[Row, bool] | None:
    """Return the request of a JSON line under any of the known names, in it or in objects within it, and whether
    cached tokens were added to its prompt; None if it has no lengths.

    Raises ValueError if it is the sum of several requests, or has wrong values or several usages.
    """
    found = spelled(msgspec.json.decode(text, type=dict[str, Any]))
    if found is None:
        return None
    expect_one_request(*found.counts)
    prompt, output, cached = (sum(map(whole_tokens, each)) for each in (found.prompt, found.output, found.cached))
    return Row(nan if found.time is None else read_seconds(found.time), prompt + cached, output), cached > 0


class Document(msgspec.Struct):
    """A trace that is one JSON document: a CDF of total tokens, or the lengths of a benchmark's requests."""

    cdf: list[tuple[float, float]] | None = None
    input_lens: list[int] | None = None
    output_lens: list[int] | None = None


def separator_of(header: str) -> str:
    """Return what separates the cells of a CSV: of comma, semicolon and tab the most frequent outside quotes."""
    bare = re.sub('"[^"]*"', "", header)
    return max(SEPARATORS, key=bare.count)


def cells_of(row: str, separator: str = ",") -> list[str]:
    """Return the cells of a CSV row; raises ValueError if its quoting is wrong."""
    if '"' not in row:
        return row.split(separator)
    try:
        return next(csv.reader([row], delimiter=separator, skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise ValueError(f"{error}: quotes must end on their line (leave out columns of long texts)") from error


def expect_one_request(*counts: object) -> None:
    """Raise ValueError if a row is the sum of several requests, or of none: it would be taken for a long one.

    Values that are no numbers do not count: other logs may have other things under these names.
    """
    for count in counts:
        if count is not None and _number_in(count) not in (None, 1):
            raise ValueError(f"the sum of {count} requests: one row for each request is needed")


def _number_in(value: object) -> float | None:
    try:
        return float(value) if isinstance(value, int | float | str) else None
    except ValueError:
        return None


def whole_tokens(cell: float | str) -> int:
    """Return a number of tokens, which may be written as 374.0; raises ValueError or OverflowError."""
    if isinstance(cell, str) and cell.strip().isdecimal():
        return int(cell)
    try:
        number = float(cell)
        tokens = int(number)
    except ValueError as error:
        hint = "" if str(cell).strip() else " (leave out rows of requests that failed before they had any)"
        raise ValueError(f"{cell!r} is not a number of tokens{hint}") from error
    if tokens != number:
        raise ValueError(f"{cell!r} is not a whole number of tokens")
    return tokens


def read_seconds(stamp: float | str) -> float:
    """Return seconds from a number or a date and time (UTC if it has no zone); raises ValueError otherwise."""
    try:
        return float(stamp)
    except ValueError:
        pass
    try:
        at = datetime.fromisoformat(str(stamp).strip())
    except ValueError as error:
        raise ValueError(f"{stamp!r} is neither seconds nor an ISO date (2026-11-16 18:15:46.5+01:00)") from error
    return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()
