"""Reading the planner's input from files, a router's address, or a few numbers; no other module reads them."""

import gzip
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from io import TextIOWrapper
from math import inf
from pathlib import Path
from typing import TextIO
from urllib.parse import urlsplit

import numpy as np

from extproc.core.errors import ConfigurationError
from extproc.fetching import fetched, reason_of
from extproc.files import read_file
from extproc.planning.hardware.catalogue import built_in, parse
from extproc.planning.hardware.profiles import Catalogue
from extproc.planning.workload.day import Day, check_even_hours, day_of_trace, parse_day
from extproc.planning.workload.joining import joined
from extproc.planning.workload.lengths import Lengths, from_means
from extproc.planning.workload.live import Scrape, lengths_between, parse_scrape, rate_between
from extproc.planning.workload.traces import parse_trace

__all__ = ["LiveInput", "lengths_of_means", "live_input", "load_catalogue", "load_day", "load_traces"]

MAX_TRACE_BYTES = 256 * 1024 * 1024  # ten million requests; a sample of them gives the same plan
MAX_LINE = 1024 * 1024  # characters; a row of a trace has about a hundred
MAX_SCRAPE_BYTES = 16 * 1024 * 1024
MAX_SCRAPES = 2
MAX_CATALOGUE_BYTES = 4 * 1024 * 1024
SCRAPE_TIMEOUT_S = 10.0
MEANS_REQUESTS = 100_000
UTF_8 = "utf-8-sig"  # some Windows programs write a byte order mark
GZIP = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class LiveInput:
    """Lengths from a router's metrics, and the rate if there are two scrapes and an interval."""

    lengths: Lengths
    rate: float | None


def load_traces(paths: Sequence[str]) -> Lengths:
    """Read one or more traces and join their requests, in order of arrival if all have times.

    Raises ConfigurationError for a file that is missing, too large, not text, or invalid.
    """
    traces = [_load_trace(Path(path)) for path in paths]
    return (traces[0] if len(traces) == 1 else joined(traces)).with_prompts()


def live_input(
    sources: Sequence[str], interval_s: float | None, model: str | None = None, *, needs_rate: bool = True
) -> LiveInput:
    """Read one or two scrapes (files or HTTP addresses, the earlier one first), of one model or all.

    A single address with an interval is scraped twice. Without `needs_rate` the rate is not computed. Raises
    ConfigurationError if a source cannot be read.
    """
    if len(sources) > MAX_SCRAPES:
        raise ConfigurationError(f"--metrics: {len(sources)} scrapes are given: one or two are read")
    if interval_s is not None and not 0 < interval_s < inf:
        raise ConfigurationError(f"--scrape-interval {interval_s:g}: seconds must be positive and finite")
    if interval_s is not None and len(sources) == 1 and not _is_address(sources[0]):
        raise ConfigurationError(
            f"--scrape-interval {interval_s:g}: {sources[0]} is one file; a second scrape or an address is needed"
        )
    if len(sources) > 1 and _is_address(sources[0]):
        raise ConfigurationError(
            f"--metrics {sources[0]}: an address is scraped now, and cannot be the earlier of two scrapes; alone "
            "it is scraped twice, --scrape-interval seconds apart"
        )
    started_s = time.monotonic()
    first = _scrape(sources[0], model)
    if len(sources) == 1:
        if interval_s is None:
            return LiveInput(lengths_between(None, first), None)
        time.sleep(interval_s)
        interval_s = time.monotonic() - started_s
    return _between(first, _scrape(sources[-1], model), interval_s if needs_rate else None)


def lengths_of_means(text: str) -> Lengths:
    """Make lengths from `INPUT,OUTPUT` means."""
    try:
        mean_prompt, mean_output = (float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigurationError(f"--mean-tokens {text!r}: two numbers are needed, as in 1155,211") from error
    return from_means(mean_prompt, mean_output, MEANS_REQUESTS, np.random.default_rng(0))


def load_catalogue(path: str | None) -> Catalogue:
    """Return the built-in catalogue, with the entries of a user's file added."""
    if path is None:
        return built_in()
    try:
        text = read_file(path, MAX_CATALOGUE_BYTES).decode(UTF_8)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: {_reason(error)}") from error
    return built_in().with_more(parse(text, path))


def load_day(asked: str | None, lengths: Lengths, *, as_arrived: bool = False) -> Day | None:
    """Return the load over a day, from the lengths' own trace (`trace`) or from a file; None if not requested.

    `as_arrived`: the trace's own arrivals are simulated at each load of the day. Raises ConfigurationError if the
    source does not describe a day, or if such a trace has ups and downs of its own.
    """
    if asked is None:
        return None
    if asked == "trace":
        return day_of_trace(lengths)
    if as_arrived:
        check_even_hours(lengths, asked)
    path = Path(asked)
    try:
        with path.open(encoding=UTF_8) as file:
            return parse_day(_lines(file, path.name), path.name)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"--day-curve {asked}: {_reason(error)}") from error


def _load_trace(path: Path) -> Lengths:
    try:
        size = path.stat().st_size
        if size > MAX_TRACE_BYTES:
            raise ConfigurationError(f"{path.name}: {size / 2**20:,.0f} MiB; {AT_MOST}")
        with _opened(path) as file:
            return parse_trace(_lines(file, path.name), path.name)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: {_reason(error)}") from error


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    """Open a file that may be gzipped, whatever its name; `_lines` limits the size after decompression."""
    with path.open("rb") as file:
        packed = file.peek(len(GZIP)).startswith(GZIP)
        with TextIOWrapper(gzip.GzipFile(fileobj=file) if packed else file, encoding=UTF_8) as text:
            yield text


AT_MOST = f"at most {MAX_TRACE_BYTES // 2**20} MiB are read: a random sample of its lines gives the same plan"


def _lines(file: TextIO, name: str) -> Iterator[str]:
    """Yield lines within the limits; they are counted here because a pipe does not report its size."""
    read = number = 0
    while line := file.readline(MAX_LINE + 1):
        read, number = read + len(line), number + 1
        if len(line) > MAX_LINE and number == 1 and line.startswith(("{", "[")):  # a document may be a single line
            line += file.readline(MAX_TRACE_BYTES)
            read += len(line) - MAX_LINE - 1
        elif len(line) > MAX_LINE:
            raise ConfigurationError(f"{name}: line {number} is longer than {MAX_LINE:,} characters")
        if read > MAX_TRACE_BYTES:
            raise ConfigurationError(f"{name}: more than {MAX_TRACE_BYTES // 2**20} MiB; {AT_MOST}")
        yield line


def _between(first: Scrape, second: Scrape, interval_s: float | None) -> LiveInput:
    lengths = lengths_between(first, second)  # the first to see a restart, which leaves no rate either
    return LiveInput(lengths, None if interval_s is None else rate_between(first, second, interval_s))


def _scrape(source: str, model: str | None) -> Scrape:
    try:
        if _is_address(source):
            address = urlsplit(source)
            if not address.path.strip("/"):  # that of the admin port is enough, as for all other commands
                address = address._replace(path="/metrics")
            with fetched(address.geturl(), SCRAPE_TIMEOUT_S) as answer:
                data = answer.read(MAX_SCRAPE_BYTES + 1)
        else:
            with Path(source).open("rb") as file:
                data = file.read(MAX_SCRAPE_BYTES + 1)
        if len(data) > MAX_SCRAPE_BYTES:
            raise ConfigurationError(f"{source}: more than {MAX_SCRAPE_BYTES // 2**20} MiB of metrics")
        text = data.decode("utf-8")
    except FileNotFoundError as error:
        raise ConfigurationError(f"{source}: {_reason(error)}; an address begins with http://") from error
    except (OSError, HTTPException, ValueError) as error:  # ValueError: not UTF-8, or an invalid address
        raise ConfigurationError(f"{source}: {_reason(error)}") from error
    return parse_scrape(text, source, model)


def _is_address(source: str) -> bool:
    return source.startswith(("http://", "https://"))


def _reason(error: Exception) -> str:
    if isinstance(error, EOFError):
        return "the file ends too early: the rest of the gzip archive is missing"
    return reason_of(error)
