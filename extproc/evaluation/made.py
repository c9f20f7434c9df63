"""Texts made by rule: logs, tables, configuration, of which no free corpus is at hand."""

import json
from collections.abc import Callable, Sequence

import numpy as np

__all__ = ["made_texts", "made_tool", "made_tool_json"]

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
    """Return each kind as text, some 400 KB of it."""
    return {kind: _lines(rng, formats) for kind, formats in _FORMATS.items()}


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


def made_tool_json(rng: np.random.Generator) -> str:
    """Return the same, as the line of JSON that a chat template writes."""
    return json.dumps(made_tool(rng), ensure_ascii=False)


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


def _stack_frame(rng: np.random.Generator) -> str:
    path = "/".join(rng.choice(WORDS, 3))
    call = f"{rng.choice(VERBS)}_{rng.choice(WORDS)}"
    line = f"    return self.{call}({rng.choice(WORDS)})"
    return f'  File "/srv/{path}.py", line {rng.integers(1, 2_000)}, in {call}\n{line}'


def _hex_dump(rng: np.random.Generator) -> str:
    row = rng.bytes(16)
    shown = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)  # noqa: PLR2004  (printable ASCII)
    return f"{rng.integers(1 << 24):08x}  {row[:8].hex(' ')}  {row[8:].hex(' ')}  |{shown}|"


def _padded_row(rng: np.random.Generator) -> str:
    return "| " + " | ".join(f"{rng.choice(WORDS):<{width}}" for width in (24, 40, 12)) + " |"


def _table_rule(rng: np.random.Generator) -> str:
    return "+".join("-" * int(width) for width in rng.integers(10, 60, 4)) + "\n" + _padded_row(rng)


def _leader_dots(rng: np.random.Generator) -> str:
    return f"{' '.join(rng.choice(WORDS, 3)).title():.<70} {rng.integers(1, 400)}"


def _right_aligned(rng: np.random.Generator) -> str:
    return "".join(f"{value:>16.3f}" for value in rng.normal(0, 10_000, 5))


def _sql(rng: np.random.Generator) -> str:
    table, column, other = rng.choice(WORDS, 3)
    condition = f"{column}_at > '2025-{rng.integers(1, 13):02}-01' AND {other} = {rng.integers(10_000)}"
    start = f"SELECT {column}_id, COUNT(*) AS {other} FROM {table}s WHERE "  # noqa: S608  (asks no database)
    return f"{start}{condition} GROUP BY {column}_id ORDER BY 2 DESC LIMIT {rng.integers(1, 500)};"


def _yaml(rng: np.random.Generator) -> str:
    name, image = rng.choice(WORDS, 2)
    version = f"{rng.integers(20)}.{rng.integers(20)}"
    return f'  - name: {name}\n    image: {image}:{version}\n    env:\n      - {name.upper()}: "1"'


def _formula(rng: np.random.Generator) -> str:
    letters = rng.choice(list("abcknpqxyz"), 4)
    return (
        r"\frac{{\partial {}}}{{\partial {}}} = \sum_{{{}=1}}^{{\infty}} \alpha_{{{}}} e^{{-\lambda t}} \\".format(
            *letters
        )
    )


def _xml(rng: np.random.Generator) -> str:
    tag, key, value = rng.choice(WORDS, 3)
    return f'<{tag} {key}="{value}-{rng.integers(1_000)}"><{key}>{_phrase(rng)}</{key}></{tag}>'


def _identifier_code(rng: np.random.Generator) -> str:
    first, second, third = (str(word).title() for word in rng.choice(WORDS, 3))
    call = f"this.{third.lower()}Service.get{first}By{second}(ctx,{{{first}:1}})"
    return f"const {first.lower()}{second}{third}=await {call};"


def _escaped_json(rng: np.random.Generator) -> str:
    return json.dumps(json.dumps({"id": int(rng.integers(10**9)), "text": _phrase(rng), "tags": ["a", "b"]}))


def _url(rng: np.random.Generator) -> str:
    path = "/".join(rng.choice(WORDS, 3))
    return f"https://cdn.{rng.choice(WORDS)}.example.com/{path}?id={rng.bytes(8).hex()}&utm_source={rng.choice(WORDS)}"


def _chat_line(rng: np.random.Generator) -> str:
    said, smile = " ".join(rng.choice(WORDS, int(rng.integers(1, 9)))), rng.choice(list("😀🎉👍🔥❤😂🙏✅"))
    return f"[{_clock(rng)[:5]}] {rng.choice(WORDS)}: {said}!! {smile * int(rng.integers(1, 4))} lol"


def _patch(rng: np.random.Generator) -> str:
    word, call = rng.choice(WORDS), f"{rng.choice(VERBS)}_{rng.choice(WORDS)}"
    return (
        f"@@ -{rng.integers(900)},7 +{rng.integers(900)},9 @@ def {call}(self):\n"
        f"     {word} = None\n-    return {call}({word})\n+    return {call}({word}, timeout={rng.integers(90)})"
    )


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


_FORMATS: dict[str, tuple[LineMaker, ...]] = {
    "logs": (_access_log, _application_log, _key_value_log),
    "csv": (_csv_floats, _csv_records, _csv_integers),
    "stack traces": (_stack_frame,),
    "hex dumps": (_hex_dump,),
    "padded tables": (_padded_row, _table_rule, _leader_dots, _right_aligned),
    "sql": (_sql,),
    "yaml": (_yaml,),
    "formulas": (_formula,),
    "xml": (_xml,),
    "identifiers in code": (_identifier_code,),
    "escaped json": (_escaped_json,),
    "links": (_url,),
    "chat with emoji": (_chat_line,),
    "patches": (_patch,),
    "tool definitions": (made_tool_json,),
}
