"""Request lengths from text in the formats of `formats.py`, recognised by the first line.

- `TIMESTAMP,ContextTokens,GeneratedTokens`: CSV with a header; Azure, BurstGPT, ServeGen and others. Instead of
  commas there may be semicolons or tabs, as spreadsheets write them
- `{"input_tokens": 374, "output_tokens": 44}`: JSON lines; Mooncake, access logs
- `fraction,input_tokens,output_tokens`: points of the two distribution functions
- `{"cdf": [[512, 0.4], [1024, 1.0]]}`: one JSON document; fleet-sim's CDF, vLLM's benchmark_serving
"""

import re
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import chain
from math import nan

import msgspec
import numpy as np

from extproc.core.errors import ConfigurationError
from extproc.planning.workload.documents import CDF_REQUESTS, check_points, ends_early, is_document, parse_document
from extproc.planning.workload.formats import (
    KNOWN,
    JsonRow,
    Row,
    cells_of,
    expect_one_request,
    read_seconds,
    separator_of,
    spelled_row,
    whole_tokens,
)
from extproc.planning.workload.lengths import MAX_TOKENS, Floats, LeftOut, Lengths, Tokens, from_quantiles
from extproc.planning.workload.spellings import Columns, columns_of

__all__ = ["parse_trace"]

CDF_COLUMNS = ("fraction", "input_tokens", "output_tokens")
CACHED_NOTE = "The cached part of each prompt is added to its input_tokens, in which Anthropic does not count it."
LOG_NOTE = "Lengths of an access log are the router's estimates: the output is what was declared or expected."
MAX_SECONDS = 1e11  # since 1970 or the first request: a larger number is in another unit or a mistake
PREFIX_BLOCKS = (512, 16, 32, 64, 128, 256, 1024)  # tokens per id in hash_ids: Mooncake's, Bailian's, others
VLLM_BLOCK = 16
_ENVOYS_OWN = re.compile(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+\]\[\d+\]\[\w+\]\[")  # time, thread, level, logger


def parse_trace(lines: Iterable[str], name: str) -> Lengths:
    """Parse a trace; `name` is used in error messages.

    Raises ConfigurationError that names the line and what is wrong with it.
    """
    rows = iter(lines)
    number, first = next(_numbered(rows, 1), (1, ""))
    if not first:
        raise ConfigurationError(f"{name}: empty; {KNOWN}")
    if is_document(first.strip()):
        return parse_document("".join(chain([first.strip()], rows)), name, number)
    if first.strip().startswith("{"):
        return _json_lines(chain([first], rows), name, number)
    separator = separator_of(first)
    try:
        header = cells_of(first, separator)
    except ValueError as error:
        raise ConfigurationError(f"{name}: line {number}: {first[:80]!r}: {error}") from error
    if tuple(column.strip().lower() for column in header) == CDF_COLUMNS:
        return _cdf(rows, name, number + 1, separator)
    places = columns_of(header)
    if places is None:
        raise ConfigurationError(
            f"{name}: line {number} is {first[:80]!r}, no header with known columns and no JSON object; {KNOWN}"
        )
    lengths = _columns(rows, name, number + 1, partial(_csv_row, places=places, separator=separator))
    return _also_noted(lengths, CACHED_NOTE) if places.cached else lengths


def _json_lines(rows: Iterable[str], name: str, first_line: int) -> Lengths:
    logged = early = undecided = 0
    has_cached = False

    def read(text: str) -> Row | None:
        nonlocal logged, early, undecided, has_cached
        try:
            decoded = _DECODER.decode(text)
        except msgspec.ValidationError:  # as numbers that are written as texts
            found = spelled_row(text)
            if found is None:
                raise
            has_cached = has_cached or found[1]
            return found[0]
        if not decoded.has_lengths and not decoded.is_access_log and (found := spelled_row(text)) is not None:
            has_cached = has_cached or found[1]
            return found[0]
        logged += decoded.is_access_log
        early += decoded.is_early
        if decoded.is_undecided:
            undecided += not decoded.is_early
            return None
        has_cached = has_cached or (decoded.cached_apart > 0 and decoded.input_tokens is not None)
        return decoded.row()

    lengths = _columns(rows, name, first_line, read)
    if not logged:
        return _also_noted(lengths, CACHED_NOTE) if has_cached else lengths
    return replace(_also_noted(lengths, LOG_NOTE), left_out=LeftOut(early, undecided, logged))


def _also_noted(lengths: Lengths, note: str) -> Lengths:
    return lengths.noted(f"{note} {lengths.note}".strip())


def _columns(rows: Iterable[str], name: str, first_line: int, parse: Callable[[str], Row | None]) -> Lengths:
    """Collect the requests of all lines that hold one, sorted by arrival if all have a time."""
    seconds, prompt, output = array("d"), array("q"), array("q")
    blocks: list[tuple[int, ...]] = []
    numbered = _numbered(rows, first_line)
    for number, text in numbered:
        try:
            row = parse(text)
        except (ValueError, OverflowError, RecursionError, msgspec.DecodeError) as error:
            reason = _reason(text, error, last=next(numbered, None) is None)
            raise ConfigurationError(f"{name}: line {number}: {text[:80]!r}: {reason}") from error
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
    timed = len(arrival) > 0 and bool(np.isfinite(arrival).all())
    order = np.argsort(arrival, kind="stable") if timed else np.arange(len(arrival))
    start_s = float(arrival.min()) if timed else 0.0
    prompts = np.array(prompt, np.int64)[order]
    return Lengths(
        prompts,
        np.array(output, np.int64)[order],
        name,
        arrival[order] - start_s if timed else None,
        f"{_note_on_empty(prompts, name)} {_note_on_untimed(arrival, name)}".strip(),
        cached=_cached(prompts, [blocks[at] for at in order]) if any(blocks) else None,
        start_s=start_s,
    )


def _note_on_empty(prompts: Tokens, name: str) -> str:
    """Return a note on prompts without tokens, or "" if there are none: no server was asked, or it refused."""
    empty = int(np.count_nonzero(prompts == 0))
    if not empty:
        return ""
    return (
        f"{empty:,} of {len(prompts):,} requests of {name} have no input tokens, as gateways log those that fail: "
        "they count as requests of one token, which every pool serves at once. Leave them out, also of --rate."
    )


def _note_on_untimed(arrival_s: Floats, name: str) -> str:
    """Return a note on requests without a time among others that have one, or "" if there are none."""
    untimed = int(np.isnan(arrival_s).sum())
    if untimed in {0, len(arrival_s)}:
        return ""
    return (
        f"{untimed:,} of {len(arrival_s):,} requests of {name} have no time: the times of the others are not used."
    )


def _reason(text: str, error: Exception, *, last: bool) -> str:
    """Return what is wrong with a row."""
    if not isinstance(error, msgspec.DecodeError) or not ends_early(text):
        return str(error)
    if last:
        return "the file ends too early: the JSON of its last line is not complete"
    return "the JSON of this line is not complete"


def _block_tokens(prompts: Tokens, blocks: list[tuple[int, ...]]) -> int:
    """Return how many tokens each block has: the size that fits most prompts; of several the first.

    Bailian's traces have Mooncake's keys but other blocks. The last one, which is not full, may lack its id.
    """
    ids = np.fromiter(map(len, blocks), np.int64, len(blocks))
    asked, ids = prompts[ids > 0], ids[ids > 0]
    fits = [np.count_nonzero((asked // size == ids) | (-(-asked // size) == ids)) for size in PREFIX_BLOCKS]
    return PREFIX_BLOCKS[int(np.argmax(fits))]


def _cached(prompts: Tokens, blocks: list[tuple[int, ...]]) -> Tokens:
    """Return how many leading tokens of each prompt an unlimited prefix cache would hold from earlier prompts."""
    seen: set[int] = set()
    block_tokens = _block_tokens(prompts, blocks)
    cached = np.zeros_like(prompts)
    for request, ids in enumerate(blocks):
        same = 0
        while same < len(ids) and ids[same] in seen:
            same += 1
        seen.update(ids)
        most = (int(prompts[request]) - 1) // VLLM_BLOCK * VLLM_BLOCK  # the last token is always computed
        cached[request] = max(0, min(same * block_tokens, most))
    return cached


def _csv_row(row: str, *, places: Columns, separator: str) -> Row:
    cells = cells_of(row, separator)
    if len(cells) <= places.last:
        raise ValueError(f"{len(cells)} columns; the header has more")
    if places.requests:
        expect_one_request(*(cells[place] for place in places.requests))
    return Row(
        nan if places.time is None else read_seconds(cells[places.time]),
        whole_tokens(cells[places.prompt])
        + sum(whole_tokens(cells[place].strip() or 0) for place in places.cached),
        whole_tokens(cells[places.output]),
    )


_DECODER = msgspec.json.Decoder(JsonRow)


def _cdf(rows: Iterable[str], name: str, first_line: int, separator: str) -> Lengths:
    points: list[tuple[float, float, float]] = []
    for number, row in _numbered(rows, first_line):
        try:
            fraction, tokens_in, tokens_out = (float(cell) for cell in cells_of(row, separator))
        except ValueError as error:
            raise ConfigurationError(f"{name}: line {number}: {row[:80]!r}: three numbers are needed") from error
        points.append((fraction, tokens_in, tokens_out))
    check_points(len(points), name)
    table = np.array(points).reshape(-1, 3)
    return from_quantiles(table[:, 0], table[:, 1], table[:, 2], name, CDF_REQUESTS)


def _numbered(rows: Iterable[str], first_line: int) -> Iterator[tuple[int, str]]:
    """Yield each non-blank line, stripped, with its number; a tab may end an empty cell. Lines of Envoy's own log,
    which are between those of the access log in the log of a container, are none.
    """
    for number, row in enumerate(rows, first_line):
        if row.strip() and not _ENVOYS_OWN.match(row):
            yield number, row.strip(" \r\n")
