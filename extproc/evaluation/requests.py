r"""Streams of requests as real clients send them, with the tokens that a real tokenizer counts in them.

Two mixes, fixed before the estimators were measured on them. All kinds of text are equally likely.

*fixed*: one user message of 8 KiB of one kind.
*traffic*: lengths in tokens follow a real trace (a kind's usual bytes per token turn them into bytes). A quarter
of the prompts has a second kind of text in its second half. 30 % are one user message, 30 % begin with a system
prompt of 200-800 bytes of English, 25 % are conversations of 3-9 turns, 15 % offer 1-6 tools.

In both, 40 % of the clients escape: they write every character outside ASCII as \uXXXX, as Python's json does.
"""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from extproc.core.apis import read_request
from extproc.core.errors import ConfigurationError
from extproc.core.facts import Api, RequestFacts
from extproc.evaluation.made import made_tool
from extproc.evaluation.texts import Texts, window
from extproc.evaluation.tokenizers import Tokenizer

__all__ = ["Lengths", "Request", "fixed_stream", "read_lengths", "traffic_stream"]

Lengths = Sequence[tuple[int, int]]  # prompt tokens, completion tokens

FIXED_BYTES = 8 * 1024
ESCAPING_SHARE = 0.4
MIXED_SHARE = 0.25
SYSTEM_BYTES = (200, 800)
PROBE_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Request:
    """One request and what it will cost: tokens of its prompt by the tokenizer, of its output by the trace."""

    kind: str
    facts: RequestFacts
    body_bytes: int
    tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class _Chat:
    messages: tuple[tuple[str, str], ...]
    tools: tuple[object, ...] = ()


def read_lengths(trace: Path) -> Lengths:
    """Read the columns ContextTokens and GeneratedTokens of a trace.

    Raises ConfigurationError when the file is missing or has other columns.
    """
    try:
        with trace.open(newline="") as file:
            lengths = [(int(row["ContextTokens"]), int(row["GeneratedTokens"])) for row in csv.DictReader(file)]
    except (OSError, KeyError, ValueError, TypeError, csv.Error) as error:
        raise ConfigurationError(
            f"lengths: {trace} is no trace with ContextTokens, GeneratedTokens: {error!r}"
        ) from error
    if not lengths:
        raise ConfigurationError(f"lengths: {trace} holds no request below its header")
    return lengths


def fixed_stream(texts: Texts, tokenizer: Tokenizer, count: int, seed: int) -> Iterator[Request]:
    """Yield requests of the mix *fixed*."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        kind = _one_of(sorted(texts), rng)
        chat = _Chat((("user", window(texts[kind], FIXED_BYTES, rng)),))
        yield _request(kind, chat, tokenizer, 0, rng)


def traffic_stream(
    texts: Texts, tokenizer: Tokenizer, lengths: Lengths, count: int, seed: int
) -> Iterator[Request]:
    """Yield requests of the mix *traffic*."""
    rng = np.random.default_rng(seed)
    bytes_per_token = {kind: _bytes_per_token(text, tokenizer) for kind, text in texts.items()}
    kinds = sorted(texts)
    for _ in range(count):
        prompt_tokens, output_tokens = lengths[int(rng.integers(len(lengths)))]
        kind = _one_of(kinds, rng)
        parts = [kind, _one_of(kinds, rng)] if rng.random() < MIXED_SHARE else [kind]
        sizes = [max(16, round(prompt_tokens * bytes_per_token[part] / len(parts))) for part in parts]
        text = "\n\n".join(window(texts[part], size, rng) for part, size in zip(parts, sizes, strict=True))
        shape = _SHAPES[int(rng.choice(len(_SHAPES), p=_SHARES))]
        yield _request(kind, shape(text, texts, rng), tokenizer, output_tokens, rng)


def _plain(text: str, _texts: Texts, _rng: np.random.Generator) -> _Chat:
    return _Chat((("user", text),))


def _with_system(text: str, texts: Texts, rng: np.random.Generator) -> _Chat:
    instructions = window(texts.get("prose", next(iter(texts.values()))), int(rng.integers(*SYSTEM_BYTES)), rng)
    return _Chat((("system", instructions), ("user", text)))


def _conversation(text: str, _texts: Texts, rng: np.random.Generator) -> _Chat:
    turns = 2 * int(rng.integers(1, 5)) + 1
    cuts = [0, *sorted(rng.integers(0, len(text) + 1, turns - 1).tolist()), len(text)]
    roles = ("user", "assistant")
    return _Chat(tuple((roles[i % 2], text[a:b]) for i, (a, b) in enumerate(pairwise(cuts))))


def _with_tools(text: str, _texts: Texts, rng: np.random.Generator) -> _Chat:
    return _Chat((("user", text),), tuple(made_tool(rng) for _ in range(int(rng.integers(1, 7)))))


_SHAPES: tuple[Callable[[str, Texts, np.random.Generator], _Chat], ...] = (
    _plain,
    _with_system,
    _conversation,
    _with_tools,
)
_SHARES = (0.30, 0.30, 0.25, 0.15)


def _request(
    kind: str, chat: _Chat, tokenizer: Tokenizer, output_tokens: int, rng: np.random.Generator
) -> Request:
    escaped = bool(rng.random() < ESCAPING_SHARE)
    messages = [{"role": role, "content": content} for role, content in chat.messages]
    fields = {"model": tokenizer.name, "messages": messages, "tools": chat.tools}
    body = json.dumps(fields, ensure_ascii=escaped).encode()
    tools = [json.dumps(tool, ensure_ascii=False) for tool in chat.tools]
    tokens = tokenizer.count_chat(chat.messages, tools)
    return Request(kind, read_request(Api.CHAT, body), len(body), tokens, output_tokens)


def _one_of(kinds: Sequence[str], rng: np.random.Generator) -> str:
    return kinds[int(rng.integers(len(kinds)))]


def _bytes_per_token(text: bytes, tokenizer: Tokenizer) -> float:
    probe = text[:PROBE_BYTES].decode("utf-8", errors="ignore")
    return len(probe.encode()) / tokenizer.count(probe)
