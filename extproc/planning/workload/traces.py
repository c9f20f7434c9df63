"""Request lengths from text: the Azure CSV, JSON lines, points of a CDF. Told apart by their first line.

TIMESTAMP,ContextTokens,GeneratedTokens      Azure/AzurePublicDataset, 2023 and 2024
{"input_tokens": 374, "output_tokens": 44}   JSON lines; "timestamp" in seconds may be there
fraction,input_tokens,output_tokens          points of the two distribution functions
"""

from array import array
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from itertools import chain

import msgspec
import numpy as np

from extproc.core.errors import ConfigurationError
from extproc.planning.workload.lengths import MAX_TOKENS, Lengths, from_quantiles

__all__ = ["parse_trace"]

AZURE_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
CDF_COLUMNS = ("fraction", "input_tokens", "output_tokens")
CDF_REQUESTS = 100_000
KNOWN = (
    "known are CSV with the header TIMESTAMP,ContextTokens,GeneratedTokens, JSON lines with input_tokens and "
    "output_tokens, and CSV with the header fraction,input_tokens,output_tokens"
)


class JsonRow(msgspec.Struct):
    """One line of a JSON-lines trace."""

    input_tokens: int
    output_tokens: int
    timestamp: float | None = None


def parse_trace(lines: Iterable[str], name: str) -> Lengths:
    """Read a trace; `name` stands in the errors.

    Raises ConfigurationError that names the line and what is wrong with it.
    """
    rows = iter(lines)
    first = next(rows, "").lstrip("\ufeff").strip()
    if not first:
        raise ConfigurationError(f"{name}: empty; {KNOWN}")
    columns = tuple(column.strip() for column in first.split(","))
    if first.startswith("{"):
        return _columns(chain([first], rows), name, 1, _json_row)
    if columns[:3] == AZURE_COLUMNS:
        return _columns(rows, name, 2, _azure_row)
    if columns == CDF_COLUMNS:
        return _cdf(rows, name)
    raise ConfigurationError(f"{name}: line 1 is {first[:80]!r}, not a header or a JSON object; {KNOWN}")


def _columns(
    rows: Iterable[str], name: str, first_line: int, parse: Callable[[str], tuple[float, int, int]]
) -> Lengths:
    """Collect (seconds, prompt, output) of each line; nan seconds mean that there are none."""
    seconds, prompt, output = array("d"), array("q"), array("q")
    for number, row in _numbered(rows, first_line):
        try:
            at, tokens_in, tokens_out = parse(row)
        except (ValueError, OverflowError, msgspec.DecodeError) as error:
            raise ConfigurationError(f"{name}: line {number}: {row[:80]!r}: {error}") from error
        if tokens_in < 0 or tokens_out < 0:
            raise ConfigurationError(f"{name}: line {number}: {min(tokens_in, tokens_out)} tokens are negative")
        if max(tokens_in, tokens_out) > MAX_TOKENS:
            raise ConfigurationError(
                f"{name}: line {number}: {max(tokens_in, tokens_out):,} tokens are beyond {MAX_TOKENS:,}"
            )
        seconds.append(at)
        prompt.append(tokens_in)
        output.append(tokens_out)
    arrival = np.array(seconds)
    timed = len(arrival) > 1 and bool(np.isfinite(arrival).all())
    order = np.argsort(arrival, kind="stable") if timed else slice(None)
    arrival_s = arrival[order] - arrival.min() if timed else None
    return Lengths(np.array(prompt, np.int64)[order], np.array(output, np.int64)[order], name, arrival_s)


def _azure_row(row: str) -> tuple[float, int, int]:
    cells = row.split(",")
    if len(cells) < len(AZURE_COLUMNS):
        raise ValueError(f"{len(cells)} columns; TIMESTAMP,ContextTokens,GeneratedTokens are needed")
    stamp = datetime.fromisoformat(cells[0].strip()[:26])  # the trace has 7 digits of fraction, Python takes 6
    return stamp.timestamp(), int(cells[1]), int(cells[2])


def _json_row(row: str) -> tuple[float, int, int]:
    decoded = _DECODER.decode(row)
    return (
        float("nan") if decoded.timestamp is None else decoded.timestamp,
        decoded.input_tokens,
        decoded.output_tokens,
    )


_DECODER = msgspec.json.Decoder(JsonRow)


def _cdf(rows: Iterable[str], name: str) -> Lengths:
    points: list[tuple[float, float, float]] = []
    for number, row in _numbered(rows, 2):
        try:
            fraction, tokens_in, tokens_out = (float(cell) for cell in row.split(","))
        except ValueError as error:
            raise ConfigurationError(f"{name}: line {number}: {row[:80]!r}: three numbers are needed") from error
        points.append((fraction, tokens_in, tokens_out))
    table = np.array(points).reshape(-1, 3)
    return from_quantiles(table[:, 0], table[:, 1], table[:, 2], name, CDF_REQUESTS)


def _numbered(rows: Iterable[str], first_line: int) -> Iterator[tuple[int, str]]:
    """Yield each line that is not blank, with its number."""
    for number, row in enumerate(rows, first_line):
        stripped = row.strip()
        if stripped:
            yield number, stripped
