"""Prompts without messages, as completions and embeddings accept them: one or several, as text or as token ids.

The first characters identify which of the four forms it is, so that each is decoded with its own type: a union of
all four costs three times as much per token id.
"""

import re
from dataclasses import dataclass
from typing import Final

import msgspec

from extproc.core.apis.bodies import TokenId, check_count, decode_body, is_set
from extproc.core.apis.shares import longest_share
from extproc.core.errors import BodyFault, BodyNotUnderstood

__all__ = ["Prompts", "read_prompts"]

# OpenAI's limit for one request.
MAX_PROMPTS: Final = 2048


@dataclass(frozen=True, slots=True)
class Prompts:
    """All prompts of a request together; `count` is how many they are, the other fields are as in RequestFacts."""

    text: bytes = b""
    exact_prompt_tokens: int | None = None
    longest_share: float = 1.0
    count: int = 1


def read_prompts(prompts: msgspec.Raw) -> Prompts:
    """Read plain prompts. Raises BodyNotUnderstood for a mix of strings and token ids, or for too many strings."""
    if not is_set(prompts):
        return Prompts()
    kind = _FIRST.match(bytes(prompts))
    if kind is None:
        return Prompts(decode_body(_TEXT, prompts).encode())
    match kind[1]:
        case b'"':
            check_count(prompts, MAX_PROMPTS, "prompts")
            texts = [text.encode() for text in _few(decode_body(_TEXTS, prompts))]
            return Prompts(b"".join(texts), longest_share=longest_share(texts), count=len(texts))
        case b"[":
            id_lists = decode_body(_ID_LISTS, prompts)
            lengths = [len(ids) for ids in id_lists]
            total = sum(lengths)
            share = max(lengths) / total if total else 1.0
            return Prompts(exact_prompt_tokens=total, longest_share=share, count=len(lengths))
    count = len(decode_body(_IDS, prompts))
    return Prompts(exact_prompt_tokens=count) if count else Prompts()


_FIRST: Final = re.compile(rb"\[\s*(.)")
_TEXT: Final = msgspec.json.Decoder(str)
_TEXTS: Final = msgspec.json.Decoder(list[str])
_IDS: Final = msgspec.json.Decoder(list[TokenId])
_ID_LISTS: Final = msgspec.json.Decoder(list[list[TokenId]])


def _few(texts: list[str]) -> list[str]:
    if len(texts) > MAX_PROMPTS:
        raise BodyNotUnderstood(BodyFault.TOO_MANY, f"{len(texts)} prompts; at most {MAX_PROMPTS} are read")
    return texts
