"""Request lengths from one JSON document: a CDF of totals (fleet-sim), or a benchmark's requests (vLLM)."""

import re

import msgspec
import numpy as np

from extproc.core.errors import ConfigurationError
from extproc.planning.workload.formats import KNOWN, Document
from extproc.planning.workload.lengths import MAX_TOKENS, Lengths, from_quantiles

__all__ = ["CDF_REQUESTS", "check_points", "ends_early", "is_document", "parse_document"]

CDF_REQUESTS = 100_000
FEWEST_POINTS = 2
FLEET_SIM_INPUT = 0.8  # prompt's share of the total: fleet-sim's default for its CDF files
TRUNCATED = "Input data was truncated"  # msgspec's message
_ARRAY_OF_OBJECTS = re.compile(r"\[\s*\{")


def is_document(first: str) -> bool:
    """Return whether a file's first line begins a JSON document rather than being a row.

    A row is complete on its line; a document need not be.
    """
    if first.startswith("["):
        return True
    if not first.startswith("{"):
        return False
    try:
        document = msgspec.json.decode(first, type=Document)
    except msgspec.ValidationError:
        return False
    except (msgspec.DecodeError, RecursionError):
        return ends_early(first)
    return document.cdf is not None or document.input_lens is not None


def ends_early(text: str) -> bool:
    """Return whether JSON text ends before its value does."""
    for more in ("", "0"):  # a number cut behind its point or sign is only known as such once a digit follows
        try:
            msgspec.json.decode(text + more, type=msgspec.Raw)
        except msgspec.DecodeError as error:
            if str(error) == TRUNCATED:
                return True
        except RecursionError:
            return False
    return False


def parse_document(text: str, name: str, line: int) -> Lengths:
    """Parse a document that begins in a line of the file `name`.

    Raises ConfigurationError if it is incomplete, malformed, or holds no lengths.
    """
    try:
        if text.startswith("["):
            document = Document(cdf=msgspec.json.decode(text, type=list[tuple[float, float]]))
        else:
            document = msgspec.json.decode(text, type=Document)
    except (msgspec.DecodeError, RecursionError) as error:
        if _ARRAY_OF_OBJECTS.match(text):
            raise ConfigurationError(
                f"{name}: the JSON that begins in line {line} is an array of objects: one object in each line is "
                "needed, as `jq -c '.[]'` writes them"
            ) from error
        if ends_early(text):
            raise ConfigurationError(
                f"{name}: the file ends too early: the JSON that begins in line {line} is not complete"
            ) from error
        raise ConfigurationError(f"{name}: the JSON that begins in line {line}: {error}; {KNOWN}") from error
    if document.cdf is not None:
        points = np.array(document.cdf, np.float64).reshape(-1, 2)
        check_points(len(points), name)
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


def check_points(points: int, name: str) -> None:
    """Raise ConfigurationError if a CDF has too few points."""
    if points < FEWEST_POINTS:
        raise ConfigurationError(f"{name}: {points} point(s) of a CDF: at least {FEWEST_POINTS} are needed")
