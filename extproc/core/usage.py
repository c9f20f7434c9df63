"""What a response says about itself."""

from dataclasses import dataclass

__all__ = ["Overflow", "Usage"]


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one complete response, as the pool reported them.

    `cached_tokens` are part of `prompt_tokens`. `cut_by_length` says that an output ended at a limit rather than
    by itself, so that `completion_tokens` is a lower bound of what the model wanted to say.
    """

    prompt_tokens: int
    completion_tokens: int = 0
    cached_tokens: int = 0
    cut_by_length: bool = False


@dataclass(frozen=True, slots=True)
class Overflow:
    """A pool's refusal because the request does not fit its context (vLLM: HTTP 400).

    `at_least_prompt_tokens` is the lower bound of the prompt that the refusal names, when it names one.
    """

    at_least_prompt_tokens: int | None = None
