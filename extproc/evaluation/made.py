"""Texts made by rule: logs, tables and base64, of which no free corpus is at hand."""

import base64
from collections.abc import Callable, Sequence

import numpy as np

__all__ = ["made_texts", "made_tool"]

LineMaker = Callable[[np.random.Generator], str]

MADE_BYTES = 400_000  # of each kind
BLOCK_LINES = 150  # of one format, before the next one
WORDS = (
    "request",
    "handler",
    "timeout",
    "connection",
    "user",
    "session",
    "cache",
    "order",
    "payment",
    "worker",
    "queue",
    "started",
    "finished",
    "failed",
    "retry",
    "upstream",
    "backend",
    "token",
    "index",
    "shard",
    "commit",
    "replica",
    "schema",
    "latency",
    "response",
    "client",
    "config",
    "reload",
    "batch",
)
VERBS = ("get", "list", "create", "update", "delete", "search")
LEVELS = ("DEBUG", "INFO", "INFO", "INFO", "WARN", "ERROR")
PATHS = ("/api/v1/users", "/v1/chat/completions", "/health", "/static/app.js", "/orders", "/search?q=")


def made_texts(rng: np.random.Generator) -> dict[str, bytes]:
    """Return logs, csv and base64 as text, some 400 KB of each."""
    return {
        "logs": _lines(rng, (_access_log, _application_log, _key_value_log)),
        "csv": _lines(rng, (_csv_floats, _csv_records, _csv_integers)),
        "base64": base64.b64encode(rng.bytes(MADE_BYTES * 3 // 4)),
    }


def made_tool(rng: np.random.Generator) -> dict[str, object]:
    """Return the definition of a function to call, with one to five parameters."""
    names = [str(word) for word in rng.choice(WORDS, int(rng.integers(1, 6)), replace=False)]
    parameters = {
        name: {"type": str(rng.choice(("string", "integer", "boolean"))), "description": _phrase(rng)}
        for name in names
    }
    schema = {"type": "object", "properties": parameters, "required": names[:2]}
    function = {"name": f"{rng.choice(VERBS)}_{names[0]}", "description": _phrase(rng), "parameters": schema}
    return {"type": "function", "function": function}


def _lines(rng: np.random.Generator, formats: Sequence[LineMaker]) -> bytes:
    lines: list[str] = []
    size = 0
    while size < MADE_BYTES:
        lines.append(formats[len(lines) // BLOCK_LINES % len(formats)](rng))
        size += len(lines[-1]) + 1
    return "\n".join(lines).encode()


def _access_log(rng: np.random.Generator) -> str:
    address = ".".join(str(part) for part in rng.integers(1, 255, 4))
    path, number = rng.choice(PATHS), rng.integers(1, 99_999)
    status, size = rng.choice((200, 200, 200, 304, 404, 500)), rng.integers(100, 90_000)
    return (
        f'{address} - - [{_day(rng)}/2025:{_clock(rng)} +0000] "GET {path}/{number} HTTP/1.1" {status} {size} "-"'
    )


def _application_log(rng: np.random.Generator) -> str:
    day, level, said = _day(rng), rng.choice(LEVELS), " ".join(rng.choice(WORDS, int(rng.integers(4, 12))))
    return f"2025-{rng.integers(1, 13):02}-{day} {_clock(rng)},{rng.integers(1000):03} {level} {said}"


def _key_value_log(rng: np.random.Generator) -> str:
    level, word, trace = rng.choice(LEVELS).lower(), rng.choice(WORDS), rng.bytes(16).hex()
    return f"ts={rng.random() * 1e9 + 1e9:.3f} level={level} msg={word} trace_id={trace} ms={rng.integers(5000)}"


def _csv_floats(rng: np.random.Generator) -> str:
    return ",".join(f"{value:.4f}" for value in rng.normal(0, 100, 6))


def _csv_records(rng: np.random.Generator) -> str:
    name = " ".join(word.title() for word in rng.choice(WORDS, 2))
    return f"{rng.integers(10**6)},{name},2025-{rng.integers(1, 13):02}-{_day(rng)},{rng.random() * 1e4:.2f},true"


def _csv_integers(rng: np.random.Generator) -> str:
    return ";".join(str(value) for value in rng.integers(0, 10_000, 8))


def _day(rng: np.random.Generator) -> str:
    return f"{rng.integers(1, 29):02}"


def _clock(rng: np.random.Generator) -> str:
    return f"{rng.integers(24):02}:{rng.integers(60):02}:{rng.integers(60):02}"


def _phrase(rng: np.random.Generator) -> str:
    return f"The {' '.join(rng.choice(WORDS, int(rng.integers(2, 9))))}."
