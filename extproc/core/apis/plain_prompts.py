"""Prompts without messages, as completions and embeddings take them: one or several, as text or as token ids."""

from dataclasses import dataclass
from typing import cast

from extproc.core.apis.bodies import NotNegative
from extproc.core.errors import BodyFault, BodyNotUnderstood

__all__ = ["PlainPrompts", "Prompts", "read_prompts"]

# A string, a list of strings, a list of token ids, or a list of such lists; `read_prompts` refuses mixtures.
PlainPrompts = str | list[str | NotNegative | list[NotNegative]]


@dataclass(frozen=True, slots=True)
class Prompts:
    """What plain prompts hold together, and how many they are; the other fields are those of RequestFacts."""

    text: bytes = b""
    exact_prompt_tokens: int | None = None
    longest_share: float = 1.0
    count: int = 1


def read_prompts(prompts: PlainPrompts | None) -> Prompts:
    """Read plain prompts. Raises BodyNotUnderstood when strings and token ids are mixed."""
    if prompts is None:
        return Prompts()
    if isinstance(prompts, str):
        return Prompts(prompts.encode())
    kinds = set(map(type, prompts))
    if len(kinds) > 1:
        raise BodyNotUnderstood(BodyFault.WRONG_TYPE, "prompts must be all strings, or all lists of token ids")
    if int in kinds:
        return Prompts(exact_prompt_tokens=len(prompts))
    if list in kinds:
        lengths = list(map(len, cast("list[list[int]]", prompts)))
        return Prompts(exact_prompt_tokens=sum(lengths), longest_share=_longest_share(lengths), count=len(lengths))
    texts = [text.encode() for text in cast("list[str]", prompts)]
    return Prompts(b"".join(texts), longest_share=_longest_share(list(map(len, texts))), count=len(texts))


def _longest_share(lengths: list[int]) -> float:
    total = sum(lengths)
    return max(lengths) / total if total else 1.0
