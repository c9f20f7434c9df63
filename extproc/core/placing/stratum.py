"""Strata: requests that are alike in what may make the router learn from them more or less often.

Only some responses are learned from, and not evenly: one of a thousand pieces costs as much as three hundred that
come as a whole. What the router knows of its misses is of those that it learned from. So requests are divided by
what tells costs apart before the response comes; each part has a share in learning (strata.py in router/), and
what is seen of a part counts for all of it (stratified sampling: Neyman, 1934). The parts are few, in closed sets,
for they are labels of metrics.
"""

from bisect import bisect_left
from enum import StrEnum
from typing import Final, NamedTuple

__all__ = ["ALL_STRATA", "Declared", "Prompt", "Response", "Stratum", "declared_class", "stratum_of"]


class Declared(StrEnum):
    """How many output tokens a client allows."""

    UP_TO_512 = "to_512"
    UP_TO_2K = "to_2k"
    ABOVE_2K = "above_2k"
    NONE = "none"


class Prompt(StrEnum):
    """How long a prompt is, by its estimate, in tokens."""

    UP_TO_1K = "to_1k"
    UP_TO_8K = "to_8k"
    ABOVE_8K = "above_8k"


class Response(StrEnum):
    """How a response comes."""

    JSON = "json"
    STREAM = "stream"


class Stratum(NamedTuple):
    """One part of the traffic."""

    declared: Declared
    prompt: Prompt
    response: Response


def declared_class(limit: int | None) -> Declared:
    """Return the class of a declared limit."""
    return Declared.NONE if limit is None else _DECLARED[bisect_left(_DECLARED_EDGES, limit)]


def stratum_of(limit: int | None, prompt_tokens: float, *, stream: bool) -> Stratum:
    """Return the stratum of a request with this declared limit, estimate, and kind of response."""
    declared = len(_DECLARED) - 1 if limit is None else bisect_left(_DECLARED_EDGES, limit)
    return ALL_STRATA[(declared * len(_PROMPTS) + bisect_left(_PROMPT_EDGES, prompt_tokens)) * 2 + stream]


_DECLARED_EDGES: Final = (512, 2_048)
_PROMPT_EDGES: Final = (1_024, 8_192)
_DECLARED: Final = tuple(Declared)
_PROMPTS: Final = tuple(Prompt)
ALL_STRATA: Final = tuple(
    Stratum(declared, prompt, response) for declared in _DECLARED for prompt in _PROMPTS for response in Response
)
