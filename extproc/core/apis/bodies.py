"""Decoding request bodies: the types their fields share, and whose fault it is when they do not fit.

The work of a body is bounded in elements as well as in bytes: `{}` costs as much as a paragraph. Before a body is
decoded, its brackets and commas are counted, which no element goes without; that takes a millisecond for a
mebibyte. Those inside strings count too: the limits leave room for text that is source code.
"""

from typing import Annotated, Final, TypeVar

import msgspec

from extproc.core.errors import BodyFault, BodyNotUnderstood
from extproc.core.names import MAX_NAME_CHARS, bounded_name

__all__ = [
    "MAX_CONTAINERS",
    "Flag",
    "NotNegative",
    "Number",
    "check_elements",
    "compact_json",
    "decode_body",
    "holds_any",
    "is_set",
    "model_key",
    "prompt_cap",
    "read_flag",
    "read_number",
]

NotNegative = Annotated[int, msgspec.Meta(ge=0)]
# What stands in a body where a number or a boolean is wanted; `read_number` and `read_flag` say what it means.
Number = bool | int | float | str | None
Flag = bool | int | float | str | None

# A conversation that fills 64K tokens has a few hundred messages, each with a few objects; and as source code, or
# JSON in strings, a few thousand brackets.
MAX_CONTAINERS: Final = 3 << 12
# Token ids are one value each, and keys of a tool.
MAX_VALUES: Final = 1 << 15

T = TypeVar("T")


def check_elements(body: bytes) -> None:
    """Refuse a body of more elements than are worth their time. Raises BodyNotUnderstood (TOO_MANY).

    One of less than MAX_CONTAINERS bytes cannot hold too many.
    """
    containers = body.count(b"{") + body.count(b"[")
    if containers > MAX_CONTAINERS:
        raise BodyNotUnderstood(BodyFault.TOO_MANY, f"{containers} brackets; at most {MAX_CONTAINERS} are read")
    values = body.count(b",")
    if values > MAX_VALUES:
        raise BodyNotUnderstood(BodyFault.TOO_MANY, f"{values} commas; at most {MAX_VALUES} are read")


def decode_body(decoder: msgspec.json.Decoder[T], body: bytes | msgspec.Raw) -> T:
    """Decode JSON into the decoder's type.

    Of a key used twice the last one counts, as in Python's json. Lone surrogates, a byte order mark and NaN are
    not JSON here. Raises BodyNotUnderstood, and RecursionError for JSON that is nested too deeply.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise BodyNotUnderstood(BodyFault.WRONG_TYPE, str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BodyNotUnderstood(BodyFault.NOT_JSON, str(error)) from None


def read_number(value: Number, field: str, at_least: int) -> int | None:
    """Return a whole number as vLLM takes it: 256, 256.0, "256" and " 256.0 " are the same, None is absent.

    vLLM's models are pydantic's in its lax mode (its documentation's conversion table). Raises BodyNotUnderstood.
    """
    if value is None:
        return None
    number = value if type(value) is int else _whole(value)
    if number is None or number < at_least:
        raise BodyNotUnderstood(
            BodyFault.WRONG_TYPE, f"{field}: {str(value)[:64]!r} is no number from {at_least} on"
        )
    return number


def _whole(value: float | str) -> int | None:
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str):
        digits, point, zeros = value.strip().partition(".")
        if not digits.isascii() or digits != digits.rstrip() or zeros.strip("0") or len(point) > len(zeros):
            return None
        try:
            return int(digits)
        except ValueError:  # no digits, or thousands of them
            return None
    return int(value)


def read_flag(value: Flag, field: str) -> bool:
    """Return a boolean as vLLM takes it: true, 1, 1.0, "true" and "yes" are the same; absent is False.

    Raises BodyNotUnderstood.
    """
    if value is None or value is False:
        return False
    if value is True:
        return True
    word = value.lower() if isinstance(value, str) else value
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise BodyNotUnderstood(BodyFault.WRONG_TYPE, f"{field}: {str(value)[:64]!r} is no boolean")


_TRUE: Final = frozenset({1, "1", "on", "t", "true", "y", "yes"})
_FALSE: Final = frozenset({0, "0", "off", "f", "false", "n", "no"})


def prompt_cap(value: Number) -> int | None:
    """Return vLLM's truncate_prompt_tokens; None also for -1, which is as much as the context holds.

    Raises BodyNotUnderstood.
    """
    cap = read_number(value, "truncate_prompt_tokens", -1)
    return None if cap == -1 else cap


def model_key(model: str | None) -> str:
    """Return the model's name, no longer than a key may be; "" when absent."""
    if not model:
        return ""
    return model if len(model) <= MAX_NAME_CHARS else bounded_name(model)


def is_set(raw: msgspec.Raw) -> bool:
    """Tell whether a field was there and not null."""
    return len(raw) > 0 and (len(raw) != len(b"null") or bytes(raw) != b"null")


def holds_any(raw: msgspec.Raw) -> bool:
    """Tell whether a field was there and neither null nor an empty list or object."""
    return is_set(raw) and bytes(raw) not in (b"[]", b"{}")


def compact_json(raw: msgspec.Raw, *, unescape: bool) -> str:
    r"""Return JSON as chat templates write it: without white space, and \uXXXX escapes; "" when not set.

    Escapes are undone with `unescape` only, which takes ten times as long. Raises BodyNotUnderstood.
    """
    if not is_set(raw):
        return ""
    text = bytes(raw)
    if unescape:
        return msgspec.json.encode(decode_body(_ANY, raw)).decode()
    try:
        return msgspec.json.format(text, indent=-1).decode()  # a third of the cost
    except UnicodeDecodeError as error:
        raise BodyNotUnderstood(BodyFault.NOT_JSON, str(error)) from None


_ANY: msgspec.json.Decoder[object] = msgspec.json.Decoder()
