"""Writing of plain values as block YAML, with comments above the settings that they explain.

Short mappings and lists are written on one line, as people write them. Comments are keyed by the end of the path
to a setting: `dualpool.connect_timeout` is the comment for `connect_timeout` of whatever is named `dualpool`.
"""

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, Final

__all__ = ["documents_of", "yaml_of"]

WIDTH: Final = 118
_FLOW: Final = 90
_PLAIN: Final = re.compile(r"[A-Za-z/.][A-Za-z0-9 _./()|,*+=<>-]*(?<! )")
# Words that YAML 1.1 or 1.2 does not read as strings.
_OTHER: Final = re.compile(r"(?i)y|n|yes|no|on|off|true|false|null|~|[-+.]?[0-9.]+.*|\.inf|\.nan")


def yaml_of(value: Mapping[str, Any], comments: Mapping[str, str], top: str = "") -> str:
    """Return a document that begins with the comment `top`."""
    head = [*_comment(top, ""), ""] if top else []
    return "\n".join([*head, *_mapping(value, comments, "", ())]) + "\n"


def documents_of(documents: list[tuple[Mapping[str, Any], str]], comments: Mapping[str, str]) -> str:
    """Return several documents as one text; each is given with the comment that it begins with."""
    parts = ["\n".join([*_comment(top, ""), *_mapping(each, comments, "", ())]) for each, top in documents]
    return "\n---\n".join(parts) + "\n"


def _mapping(
    value: Mapping[str, Any], comments: Mapping[str, str], indent: str, path: tuple[str, ...]
) -> Iterator[str]:
    for key, item in value.items():
        here = (*path, key)
        yield from _comment(_found(comments, here), indent)
        name = _scalar(key)
        flow = _flow(item)
        short = flow is not None and len(indent) + len(name) + len(flow) < _FLOW
        if not isinstance(item, Mapping | list) or (short and not _commented(comments, here, item)):
            yield f"{indent}{name}: {flow}"
        elif isinstance(item, Mapping):
            yield f"{indent}{name}:"
            yield from _mapping(item, comments, f"{indent}  ", here)
        else:
            yield f"{indent}{name}:"
            yield from _list(item, comments, f"{indent}  ", here)


def _list(value: list[Any], comments: Mapping[str, str], indent: str, path: tuple[str, ...]) -> Iterator[str]:
    for item in value:
        here = (*path, _named(item))
        yield from _comment(_found(comments, here), indent)
        flow = _flow(item)
        short = flow is not None and len(indent) + len(flow) < _FLOW
        if not isinstance(item, Mapping) or (short and not _commented(comments, here, item)):
            yield f"{indent}- {flow or json.dumps(item)}"
            continue
        lines = list(_mapping(item, comments, f"{indent}  ", here))
        # The comment of the first key goes above the dash.
        while lines[0].lstrip().startswith("#"):
            yield lines.pop(0)[2:]
        yield f"{indent}- {lines[0].lstrip()}"
        yield from lines[1:]


def _named(item: Any) -> str:  # noqa: ANN401
    return str(item.get("name") or item.get("applyTo", "")) if isinstance(item, Mapping) else str(item)


def _flow(value: Any) -> str | None:  # noqa: ANN401
    """Return a value on one line, None if it is better written on several."""
    if isinstance(value, Mapping):
        inner = {key: _flow(item) for key, item in value.items()}
        if len(inner) > 3 or any(item is None for item in inner.values()) or "@type" in inner:  # noqa: PLR2004  (readable)
            return None
        return "{" + ", ".join(f"{_scalar(key)}: {item}" for key, item in inner.items()) + "}"
    if isinstance(value, list):
        items = [_flow(item) for item in value]
        if any(item is None for item in items) or any(isinstance(item, Mapping) for item in value[1:]):
            return None
        return "[" + ", ".join(map(str, items)) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:  # noqa: ANN401
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, str):
        return json.dumps(value)
    if re.fullmatch(r"\d+\.\d+s", value):
        return value.rstrip("s").rstrip("0").rstrip(".") + "s"
    word = _PLAIN.fullmatch(value) and not _OTHER.fullmatch(value) and ", " not in value
    return value if word or re.fullmatch(r"\d+m?s", value) else json.dumps(value, ensure_ascii=False)


def _found(comments: Mapping[str, str], path: tuple[str, ...]) -> str:
    ends = (".".join(path[at:]) for at in range(len(path)))
    return next((comments[end] for end in ends if end in comments), "")


def _commented(comments: Mapping[str, str], path: tuple[str, ...], value: Any) -> bool:  # noqa: ANN401
    """Return whether anything inside a value has a comment, and therefore needs a separate line."""
    if isinstance(value, Mapping):
        inner = [((*path, key), item) for key, item in value.items()]
    elif isinstance(value, list):
        inner = [((*path, _named(item)), item) for item in value]
    else:
        return False
    return any(_found(comments, here) or _commented(comments, here, item) for here, item in inner)


def _comment(text: str, indent: str) -> list[str]:
    start = f"{indent}# "
    return [
        line
        for part in text.splitlines()
        for line in textwrap.wrap(part, WIDTH, initial_indent=start, subsequent_indent=start) or [f"{indent}#"]
    ]
