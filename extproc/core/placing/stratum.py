"""Strata: groups of requests whose responses cost about the same to learn from.

Only some responses are learned from, and not at equal rates: one that comes in a thousand pieces costs as much as
three hundred that come in one. The router observes under-counts only in responses that it learns from. So requests
are divided by properties, known before the response, that predict its cost. Each stratum has a share in learning
(router/strata.py), and its sample represents the whole stratum (stratified sampling: Neyman, 1934). The strata are
few, from closed sets, because they are metric labels.
"""

from bisect import bisect_left
from enum import StrEnum
from typing import Final, NamedTuple

__all__ = ["ALL_STRATA", "Declared", "Prompt", "Response", "Stratum", "declared_class", "stratum_of"]


class Declared(StrEnum):
    """The class of a request's declared limit of output tokens."""

    UP_TO_512 = "to_512"
    UP_TO_2K = "to_2k"
    ABOVE_2K = "above_2k"
    NONE = "none"


class Prompt(StrEnum):
    """The class of a prompt's estimated length, in tokens."""

    UP_TO_1K = "to_1k"
    UP_TO_8K = "to_8k"
    ABOVE_8K = "above_8k"


class Response(StrEnum):
    """The kind of response: in one piece, or streamed."""

    JSON = "json"
    STREAM = "stream"


class Stratum(NamedTuple):
    """One part of the traffic."""

    declared: Declared
    prompt: Prompt
    response: Response


def declared_class(limit: int | None) -> Declared:
    """Return the class of a declared limit of output tokens."""
    return Declared.NONE if limit is None else _DECLARED[bisect_left(_DECLARED_EDGES, limit)]


def stratum_of(limit: int | None, prompt_tokens: float, *, stream: bool) -> Stratum:
    """Return the stratum for a declared limit, an estimated prompt length, and the kind of response."""
    declared = len(_DECLARED) - 1 if limit is None else bisect_left(_DECLARED_EDGES, limit)
    return ALL_STRATA[(declared * len(_PROMPTS) + bisect_left(_PROMPT_EDGES, prompt_tokens)) * 2 + stream]


_DECLARED_EDGES: Final = (512, 2_048)
_PROMPT_EDGES: Final = (1_024, 8_192)
_DECLARED: Final = tuple(Declared)
_PROMPTS: Final = tuple(Prompt)
ALL_STRATA: Final = tuple(
    Stratum(declared, prompt, response) for declared in _DECLARED for prompt in _PROMPTS for response in Response
)
