"""Request lengths from text in the formats of `formats.py`, recognised by the first line.

- `TIMESTAMP,ContextTokens,GeneratedTokens`: CSV with a header; Azure, BurstGPT, ServeGen and others
- `{"input_tokens": 374, "output_tokens": 44}`: JSON lines; Mooncake, access logs
- `fraction,input_tokens,output_tokens`: points of the two distribution functions
- `{"cdf": [[512, 0.4], [1024, 1.0]]}`: one JSON document; fleet-sim's CDF, vLLM's benchmark_serving
"""

from array import array
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from math import nan

import msgspec
import numpy as np

from extproc.core.errors import ConfigurationError
from extproc.planning.workload.formats import (
    Document,
    JsonRow,
    Row,
    cells_of,
    columns_of,
    read_seconds,
    whole_tokens,
)
from extproc.planning.workload.lengths import MAX_TOKENS, Lengths, Tokens, from_quantiles

__all__ = ["parse_trace"]

CDF_COLUMNS = ("fraction", "input_tokens", "output_tokens")
CDF_REQUESTS = 100_000
FEWEST_POINTS = 2
FLEET_SIM_INPUT = 0.8  # prompt's share of the total: fleet-sim's default for its CDF files
MAX_SECONDS = 1e11  # since 1970 or the first request: a larger number is in another unit or a mistake
PREFIX_BLOCK = 512  # tokens per id in Mooncake's hash_ids
VLLM_BLOCK = 16
KNOWN = (
    "known are CSV with a header of token columns (TIMESTAMP,ContextTokens,GeneratedTokens and others), "
    "JSON lines with input_tokens and output_tokens (or input_length and output_length), CSV with the header "
    "fraction,input_tokens,output_tokens, and JSON with cdf or input_lens and output_lens"
)


def parse_trace(lines: Iterable[str], name: str) -> Lengths:
    """Parse a trace; `name` is used in error messages.

    Raises ConfigurationError that names the line and what is wrong with it.
    """
    rows = iter(lines)
    number, first = next(_numbered(rows, 1), (1, ""))
    if not first:
        raise ConfigurationError(f"{name}: empty; {KNOWN}")
    if first.startswith("["):
        return _document("".join(chain([first], rows)), name)
    if first.startswith("{"):
        if _is_document(first):
            return _document("".join(chain([first], rows)), name)
        return _json_lines(chain([first], rows), name, number)
    try:
        places = columns_of(first)
        columns = tuple(column.strip().lower() for column in cells_of(first))
    except ValueError as error:
        raise ConfigurationError(f"{name}: line {number}: {first[:80]!r}: {error}") from error
    if columns == CDF_COLUMNS:
        return _cdf(rows, name, number + 1)
    if places is None:
        raise ConfigurationError(
            f"{name}: line {number} is {first[:80]!r}, not a header or a JSON object; {KNOWN}"
        )
    return _columns(rows, name, number + 1, partial(_csv_row, places=places))


def _is_document(first: str) -> bool:
    """Return whether a first line begins a JSON document rather than being a row."""
    try:
        document = msgspec.json.decode(first, type=Document)
    except msgspec.ValidationError:
        return False
    except RecursionError:
        return False
    except msgspec.DecodeError:  # the value continues on the next line
        return first in {"{", "["} or '"cdf"' in first
    return document.cdf is not None or document.input_lens is not None


def _json_lines(rows: Iterable[str], name: str, first_line: int) -> Lengths:
    logged = undecided = 0

    def read(text: str) -> Row | None:
        nonlocal logged, undecided
        decoded = _DECODER.decode(text)
        logged += decoded.is_access_log
        if decoded.is_undecided:
            undecided += 1
            return None
        return decoded.row()

    lengths = _columns(rows, name, first_line, read)
    if not logged:
        return lengths
    note = "Lengths of an access log are the router's estimates: the output is what was declared or expected."
    if undecided:
        note += (
            f" {undecided:,} of its {logged:,} requests have no estimate and are omitted: no router decided them, "
            "or it sent them to the largest pool early, because of their size."
        )
    return lengths.noted(note)


def _columns(rows: Iterable[str], name: str, first_line: int, parse: Callable[[str], Row | None]) -> Lengths:
    """Collect the requests of all lines that hold one, sorted by arrival if all have a time."""
    seconds, prompt, output = array("d"), array("q"), array("q")
    blocks: list[tuple[int, ...]] = []
    for number, text in _numbered(rows, first_line):
        try:
            row = parse(text)
        except (ValueError, OverflowError, RecursionError, msgspec.DecodeError) as error:
            raise ConfigurationError(f"{name}: line {number}: {text[:80]!r}: {error}") from error
        if row is None:
            continue
        if row.prompt < 0 or row.output < 0:
            raise ConfigurationError(f"{name}: line {number}: {min(row.prompt, row.output)} tokens are negative")
        if max(row.prompt, row.output) > MAX_TOKENS:
            raise ConfigurationError(
                f"{name}: line {number}: {max(row.prompt, row.output):,} tokens are beyond {MAX_TOKENS:,}"
            )
        if abs(row.seconds) > MAX_SECONDS:
            raise ConfigurationError(
                f"{name}: line {number}: a time of {row.seconds:g} s is beyond {MAX_SECONDS:g}: "
                "seconds are needed, not milliseconds"
            )
        seconds.append(row.seconds)
        prompt.append(row.prompt)
        output.append(row.output)
        blocks.append(row.blocks)
    arrival = np.array(seconds)
    timed = len(arrival) > 1 and bool(np.isfinite(arrival).all())
    order = np.argsort(arrival, kind="stable") if timed else np.arange(len(arrival))
    arrival_s = arrival[order] - arrival.min() if timed else None
    prompts = np.array(prompt, np.int64)[order]
    cached = _cached(prompts, [blocks[at] for at in order]) if any(blocks) else None
    return Lengths(prompts, np.array(output, np.int64)[order], name, arrival_s, cached=cached)


def _cached(prompts: Tokens, blocks: list[tuple[int, ...]]) -> Tokens:
    """Return how many leading tokens of each prompt an unlimited prefix cache would hold from earlier prompts."""
    seen: set[int] = set()
    cached = np.zeros_like(prompts)
    for request, ids in enumerate(blocks):
        same = 0
        while same < len(ids) and ids[same] in seen:
            same += 1
        seen.update(ids)
        most = (int(prompts[request]) - 1) // VLLM_BLOCK * VLLM_BLOCK  # the last token is always computed
        cached[request] = max(0, min(same * PREFIX_BLOCK, most))
    return cached


def _csv_row(row: str, *, places: tuple[int | None, int, int]) -> Row:
    cells = cells_of(row)
    time, prompt, output = places
    if len(cells) <= max(prompt, output, time or 0):
        raise ValueError(f"{len(cells)} columns; the header has more")
    return Row(
        nan if time is None else read_seconds(cells[time]),
        whole_tokens(cells[prompt]),
        whole_tokens(cells[output]),
    )


_DECODER = msgspec.json.Decoder(JsonRow)


def _document(text: str, name: str) -> Lengths:
    """Parse a JSON document: a CDF of total tokens, or the lengths of a benchmark's requests."""
    try:
        if text.startswith("["):
            document = Document(cdf=msgspec.json.decode(text, type=list[tuple[float, float]]))
        else:
            document = msgspec.json.decode(text, type=Document)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ConfigurationError(f"{name}: {error}; {KNOWN}") from error
    if document.cdf is not None:
        points = np.array(document.cdf, np.float64).reshape(-1, 2)
        _check_points(len(points), name)
        total = points[:, 0]
        lengths = from_quantiles(
            points[:, 1], FLEET_SIM_INPUT * total, (1 - FLEET_SIM_INPUT) * total, name, CDF_REQUESTS
        )
        return lengths.noted(
            f"Only totals are given: {FLEET_SIM_INPUT:.0%} of each is taken as the prompt, as fleet-sim does."
        )
    if not document.input_lens or len(document.input_lens) != len(document.output_lens or []):
        raise ConfigurationError(f"{name}: no cdf in it, nor input_lens and output_lens of one length; {KNOWN}")
    try:
        lens = [np.array(each, np.int64) for each in (document.input_lens, document.output_lens)]
    except OverflowError as error:
        raise ConfigurationError(f"{name}: tokens are beyond {MAX_TOKENS:,}") from error
    return Lengths(lens[0], lens[1], name)


def _check_points(points: int, name: str) -> None:
    if points < FEWEST_POINTS:
        raise ConfigurationError(f"{name}: {points} point(s) of a CDF: at least {FEWEST_POINTS} are needed")


def _cdf(rows: Iterable[str], name: str, first_line: int) -> Lengths:
    points: list[tuple[float, float, float]] = []
    for number, row in _numbered(rows, first_line):
        try:
            fraction, tokens_in, tokens_out = (float(cell) for cell in cells_of(row))
        except ValueError as error:
            raise ConfigurationError(f"{name}: line {number}: {row[:80]!r}: three numbers are needed") from error
        points.append((fraction, tokens_in, tokens_out))
    _check_points(len(points), name)
    table = np.array(points).reshape(-1, 3)
    return from_quantiles(table[:, 0], table[:, 1], table[:, 2], name, CDF_REQUESTS)


def _numbered(rows: Iterable[str], first_line: int) -> Iterator[tuple[int, str]]:
    """Yield each non-blank line, stripped, with its number."""
    for number, row in enumerate(rows, first_line):
        stripped = row.strip()
        if stripped:
            yield number, stripped
