"""What a response reports about its request: token usage, or that the request was too long."""

import msgspec

__all__ = ["Overflow", "Usage"]


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Token counts of one complete response, as the pool reported them.

    `cached_tokens` are part of `prompt_tokens`. `cut_by_length` is True when an output ended at a limit, so that
    `completion_tokens` is only a lower bound of the length it would have had. `several_turns`: `completion_tokens`
    is the sum of the outputs of several turns, because the server called tools itself.
    """

    prompt_tokens: int
    completion_tokens: int = 0
    cached_tokens: int = 0
    cut_by_length: bool = False
    several_turns: bool = False


class Overflow(msgspec.Struct, frozen=True, gc=False):
    """A pool's refusal because the request does not fit its context (vLLM: HTTP 400).

    `at_least_prompt_tokens` is the lower bound of the prompt's length that the refusal states, if any.
    """

    at_least_prompt_tokens: int | None = None
