"""The names under which logs and exports hold tokens, times and numbers of requests, and rows read by them.

Names are compared in lower case, without underscores, hyphens, spaces and a leading `usage.`. In JSON they may be
in objects within the row, as the usage of a response is: of several objects the outermost counts, and usages at
one depth must agree, since a row is one request. Lists are not looked into: their entries are not the row's.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

__all__ = ["Columns", "Spelled", "columns_of", "spelled"]

# Those of OTel's conventions, OpenInference, Bedrock, Langfuse and Vidur among them.
PROMPTS = (
    *("contexttokens", "inputlength", "inputtokens", "prompttokens", "requesttokens", "promptlen", "inputlen"),
    *("inputtokencount", "genai.usage.inputtokens", "genai.usage.prompttokens"),
    *("llm.tokencount.prompt", "llm.usage.prompttokens", "numprefilltokens", "inputusage"),
)
OUTPUTS = (
    *("generatedtokens", "outputlength", "outputtokens", "completiontokens", "responsetokens", "outputlen"),
    *("outputtokencount", "genai.usage.outputtokens", "genai.usage.completiontokens"),
    *("llm.tokencount.completion", "llm.usage.completiontokens", "numdecodetokens", "outputusage"),
)
# Also those of LiteLLM's, Langfuse's and Helicone's exports, and of Vidur's traces.
TIMES = ("timestamp", "arrivaltime", "time", "starttime", "requestcreatedat", "createdat", "arrivedat")
# Usage reports have them, OpenAI's, LiteLLM's and OpenRouter's: rows that are sums of several requests would be
# taken for long ones.
COUNTS = ("nummodelrequests", "numrequests", "apirequests", "requests", "totalrequests", "requestcount")
# Anthropic and Bedrock count the cached part of a prompt apart from these; everywhere else it is included.
APART = ("inputtokens", "inputtokencount")
CACHED = (
    *("cachereadinputtokens", "cachecreationinputtokens", "cachewriteinputtokens"),
    *("cachereadinputtokencount", "cachewriteinputtokencount"),
)
# In JSON alone: Gemini's, which counts TOOLS and THOUGHTS apart. Not in JSON: Mooncake's, whose times are in
# milliseconds.
GEMINI = ("prompttokencount", "candidatestokencount")
TOOLS, THOUGHTS = "tooluseprompttokencount", "thoughtstokencount"
JSON_PROMPTS = (*(name for name in PROMPTS if name != "inputlength"), GEMINI[0])
JSON_OUTPUTS = (*(name for name in OUTPUTS if name != "outputlength"), GEMINI[1])
LANGFUSE = "usagedetails"  # an object with parts of the input and the output, whose names begin with these words
TOKENS = "TOKENS"  # its unit, which may also be characters, requests, images or seconds
DEEPEST = 5  # objects within objects

Cell = int | float | str


@dataclass(frozen=True, slots=True)
class Columns:
    """Indices of the columns of a CSV; those of times, numbers of requests and cached tokens may be missing."""

    time: int | None
    prompt: int
    output: int
    requests: tuple[int, ...]
    cached: tuple[int, ...]

    @property
    def last(self) -> int:
        """The last of them."""
        return max(self.prompt, self.output, self.time or 0, *self.requests, *self.cached)


@dataclass(frozen=True, slots=True)
class Spelled:
    """What a row of JSON says under any of the names: the parts of prompt and output, whose sums are the tokens.

    `cached` are parts of the prompt, too, that are named apart from the others.
    """

    prompt: tuple[Cell, ...]
    output: tuple[Cell, ...]
    cached: tuple[Cell, ...]
    time: Cell | None
    counts: tuple[object, ...]


def columns_of(header: Sequence[str]) -> Columns | None:
    """Return the columns of a CSV, or None if it has none of prompt and output tokens."""
    names = [_common(name) for name in header]
    time, prompt, output = (
        next((names.index(name) for name in known if name in names), None) for known in (TIMES, PROMPTS, OUTPUTS)
    )
    requests = tuple(names.index(name) for name in COUNTS if name in names)
    if prompt is None or output is None:
        return None
    cached = [names.index(name) for name in CACHED if name in names and names[prompt] in APART]
    return Columns(time, prompt, output, requests, tuple(cached))


def _common(name: str) -> str:
    """Return a name as it is compared."""
    bare = name.strip().lower().replace("_", "").replace("-", "").replace(" ", "")
    return bare.removeprefix("usage.").removeprefix("usagemetadata.")


def spelled(row: Mapping[str, Any]) -> Spelled | None:
    """Return what a row says, or None if it lacks the tokens of the prompt or of the output.

    Raises ValueError if it has several usages that differ, or one of characters or the like.
    """
    level = [{"": row}]
    for _ in range(DEEPEST):
        found = [usage for each in level for usage in _usages(each)]
        if not found:
            found = [usage for usage in (_apart(level),) if usage is not None]
        if found:
            first = found[0]
            if any(_sums(each) != _sums(first) for each in found):
                raise ValueError("it has several usages that differ: one for each request is needed")
            outer = _named(row)
            time = _time(outer)
            counts = (*first.counts, *_of(outer, COUNTS))
            return replace(first, time=first.time if time is None else time, counts=counts)
        level = [
            {key: value}
            for each in level
            for inner in each.values()
            for key, value in inner.items()
            if isinstance(value, dict)
        ]
    return None


def _usages(named: Mapping[str, Mapping[str, Any]]) -> Iterator[Spelled]:
    """Yield the usage of each object that has both the prompt's and the output's tokens."""
    for name, inner in named.items():
        cells = _named(inner)
        if _common(name) == LANGFUSE:
            parts = [tuple(cells[key] for key in cells if key.startswith(part)) for part in ("input", "output")]
            if all(parts):
                yield Spelled(parts[0], parts[1], _of(cells, CACHED), _time(cells), _of(cells, COUNTS))
            continue
        if _common(name) == "usage" and "input" in cells and "output" in cells:  # Langfuse's before usageDetails
            if str(cells.get("unit", TOKENS)).upper() != TOKENS:
                raise ValueError(f"its usage counts {cells['unit']!r:.40}: tokens are needed")
            yield _usage(cells, "input", "output")
            continue
        prompt, output = (
            next((key for key in keys if key in cells), None) for keys in (JSON_PROMPTS, JSON_OUTPUTS)
        )
        if prompt is not None and output is not None:
            yield _usage(cells, prompt, output)


def _sums(usage: Spelled) -> tuple[object, object]:
    """Return the tokens of the prompt and of the output: one usage may name parts that another adds up."""
    try:
        return sum(map(float, usage.prompt)), sum(map(float, usage.output))
    except ValueError:  # which is reported when they are read
        return usage.prompt, usage.output


def _apart(level: Iterable[Mapping[str, Mapping[str, Any]]]) -> Spelled | None:
    """Return a usage whose prompt's tokens are in one object and the output's in another, as in Bedrock's logs."""
    cells: dict[str, Cell] = {}
    for named in level:
        for inner in named.values():
            cells = {**_named(inner), **cells}
    prompt, output = (next((key for key in keys if key in cells), None) for keys in (JSON_PROMPTS, JSON_OUTPUTS))
    return None if prompt is None or output is None else _usage(cells, prompt, output)


def _usage(cells: Mapping[str, Cell], prompt: str, output: str) -> Spelled:
    cached = _of(cells, CACHED) if prompt in APART else ()
    return Spelled(
        (cells[prompt], *_of(cells, (TOOLS,))),
        (cells[output], *_of(cells, (THOUGHTS,))),
        cached,
        _time(cells),
        _of(cells, COUNTS),
    )


def _named(row: Mapping[str, Any]) -> dict[str, Cell]:
    """Return the cells of an object by their compared names; those without a value are left out."""
    return {
        _common(key): value
        for key, value in row.items()
        if isinstance(value, int | float | str) and not isinstance(value, bool)
    }


def _of(cells: Mapping[str, Cell], names: Iterable[str]) -> tuple[Cell, ...]:
    return tuple(cells[name] for name in names if name in cells)


def _time(cells: Mapping[str, Cell]) -> Cell | None:
    return next((cells[name] for name in TIMES if name in cells), None)
