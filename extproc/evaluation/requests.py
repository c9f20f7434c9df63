r"""A request as it arrives at the router, with its number of tokens by a real tokenizer.

In 40 % of the requests every non-ASCII character is escaped as \uXXXX, as Python's json does by default.
"""

import base64
import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from struct import pack

import numpy as np

from extproc.core.apis import read_request
from extproc.core.errors import ConfigurationError
from extproc.core.facts import Api, RequestFacts
from extproc.evaluation.chats import Chat, Turn
from extproc.evaluation.tokenizers import Tokenizer
from extproc.files import read_file

__all__ = ["Lengths", "Request", "make_request", "read_lengths"]

Lengths = Sequence[tuple[int, int]]  # prompt tokens, completion tokens

MAX_TRACE_BYTES = 256 << 20
ESCAPING_SHARE = 0.4


@dataclass(frozen=True, slots=True)
class Request:
    """One request and its true cost: the prompt's `tokens` by the tokenizer, the output's by the trace.

    `kind` is the kind of its text, `group` its special role in a stream ("" for none), `tenant` its sender.
    """

    kind: str
    facts: RequestFacts
    body_bytes: int
    tokens: int
    output_tokens: int
    group: str = ""
    tenant: str = ""


def read_lengths(trace: Path) -> Lengths:
    """Read the columns ContextTokens and GeneratedTokens of a trace.

    Raises ConfigurationError if the file cannot be read, lacks these columns, or has no rows.
    """
    try:
        rows = csv.DictReader(StringIO(read_file(trace, MAX_TRACE_BYTES).decode(), newline=""))
        if missing := {"ContextTokens", "GeneratedTokens"} - {*(rows.fieldnames or ())}:
            raise ConfigurationError(f"lengths: {trace} has no column {' and no column '.join(sorted(missing))}")
        lengths = [(_tokens(rows, row["ContextTokens"]), _tokens(rows, row["GeneratedTokens"])) for row in rows]
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"lengths: {trace}: not UTF-8 text") from error
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigurationError(f"lengths: {trace}: {getattr(error, 'strerror', None) or error}") from error
    if not lengths:
        raise ConfigurationError(f"lengths: {trace} holds no request below its header")
    return lengths


def _tokens(rows: "csv.DictReader[str]", cell: str | None) -> int:
    text = (cell or "").strip()
    if not text.isdecimal():
        raise ValueError(f"line {rows.line_num}: {text!r} is not a number of tokens")
    return int(text)


def make_request(
    kind: str,
    chat: Chat,
    tokenizer: Tokenizer,
    output_tokens: int,
    rng: np.random.Generator,
    *,
    group: str = "",
    tenant: str = "",
) -> Request:
    """Return a chat as a request: serialised as by a client, and read as by the router."""
    escaped = bool(rng.random() < ESCAPING_SHARE)
    messages = [_message(turn) for turn in chat.turns]
    if chat.images or chat.videos:
        parts: list[object] = [{"type": "text", "text": chat.turns[-1].content}]
        parts += [{"type": "image_url", "image_url": {"url": _png(*size)}} for size in chat.images]
        parts += [{"type": "video_url", "video_url": {"url": "https://example.com/v.mp4"}}] * chat.videos
        messages[-1]["content"] = parts
    tools = [json.loads(tool) for tool in chat.tools]
    fields = {"model": tokenizer.name, "messages": messages, "tools": tools}
    body = json.dumps(fields, ensure_ascii=escaped).encode()
    facts = read_request(Api.CHAT, body)
    return Request(kind, facts, len(body), tokenizer.count_chat(chat), output_tokens, group, tenant)


def _message(turn: Turn) -> dict[str, object]:
    message: dict[str, object] = {"role": turn.role, "content": turn.content}
    return message | {"reasoning_content": turn.reasoning} if turn.reasoning else message


def _png(width: int, height: int) -> str:
    """Return a data: URL of a PNG's header, the only part of an image that is read."""
    header = b"\x89PNG\r\n\x1a\n" + pack(">I4sIIBBBBBI", 13, b"IHDR", width, height, 8, 2, 0, 0, 0, 0)
    return f"data:image/png;base64,{base64.b64encode(header).decode()}"
