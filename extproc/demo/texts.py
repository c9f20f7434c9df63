"""The texts of the demo's requests: sentences from texts.yaml, and the standard library's source and manual.

All randomness comes from the generator that is passed in, so that a run can be repeated.
"""

import json
import os
import pydoc_data.topics
import struct
import zlib
from base64 import b64encode
from functools import cache
from importlib.resources import files
from pathlib import Path
from random import Random
from typing import cast

from extproc.documents import read_document

__all__ = ["LANGUAGES", "json_records", "log_lines", "manual", "picture", "prose", "source_code"]

LANGUAGES = ("german", "spanish", "russian", "chinese", "japanese", "korean", "arabic", "hindi")
_LIBRARY = Path(os.__file__).parent


def prose(random: Random, language: str, characters: int) -> str:
    """Return random sentences of a language, about this many characters in total."""
    sentences = _sentences()[language]
    text: list[str] = []
    while sum(map(len, text)) < characters:
        text.append(random.choice(sentences))
    return " ".join(text)


def source_code(random: Random, characters: int) -> str:
    """Return lines of the standard library's source, from a random position."""
    text = _sources()
    start = text.find("\n", random.randrange(max(len(text) - characters, 1))) + 1
    return text[start : start + characters]


def manual(random: Random, characters: int) -> str:
    """Return a random excerpt of Python's manual, as `help()` shows it."""
    text = _manual()
    start = text.find(" ", random.randrange(len(text))) + 1
    return (text[start:] + text * (characters // len(text) + 1))[:characters]


def json_records(random: Random, records: int) -> str:
    """Return compact JSON: a list of orders."""
    rows = [
        {
            "order": random.randrange(10**6),
            "customer": f"C-{random.randrange(10**5):05}",
            "items": [{"sku": f"{random.randrange(16**6):06X}", "quantity": random.randrange(1, 20)}],
            "total": round(random.uniform(5, 900), 2),
            "paid": random.random() < 0.8,  # noqa: PLR2004  (most of them)
        }
        for _ in range(records)
    ]
    return json.dumps(rows, separators=(",", ":"))


def log_lines(random: Random, lines: int) -> str:
    """Return lines of a made-up server log."""
    return "\n".join(_log_line(random) for _ in range(lines))


def picture(random: Random, width: int, height: int) -> str:
    """Return a PNG of noise as a data: URL."""
    rows = b"".join(b"\0" + random.randbytes(width) for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    png = (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", zlib.compress(rows, 1))
        + _chunk(b"IEND", b"")
    )
    return "data:image/png;base64," + b64encode(png).decode()


def _log_line(random: Random) -> str:
    time = f"{random.randrange(24):02}:{random.randrange(60):02}:{random.uniform(0, 60):06.3f}"
    fields = {
        "level": random.choice(("info", "warning", "error")),
        "client": f"10.0.{random.randrange(256)}.{random.randrange(256)}",
        "status": random.choice((200, 304, 404, 503)),
        "duration_ms": random.randrange(3000),
        "id": f"{random.randrange(16**12):012x}",
    }
    return " ".join([f"2026-03-{random.randrange(1, 29):02}T{time}Z", *(f"{key}={fields[key]}" for key in fields)])


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@cache
def _sentences() -> dict[str, list[str]]:
    return cast(dict[str, list[str]], read_document((files("extproc.demo") / "texts.yaml").read_text("utf-8")))


@cache
def _sources() -> str:
    names = ("argparse", "ast", "typing", "inspect", "tarfile", "subprocess", "datetime", "decimal", "doctest")
    paths = (_LIBRARY / f"{name}.py" for name in names)
    return "\n".join(path.read_text("utf-8") for path in paths if path.exists())


@cache
def _manual() -> str:
    return "\n".join(pydoc_data.topics.topics.values())
