"""Decoding of request bodies: shared field types, and the error for values that do not match them.

Numbers and flags are decoded only when they are read: a body may repeat a key a hundred thousand times, and one
float takes up to 8 us. Only the last value counts, and only if it is short.
"""

from typing import Annotated, Final, TypeVar

import msgspec

from extproc.core.apis.work import FREE_BYTES
from extproc.core.errors import BodyFault, BodyNotUnderstood
from extproc.core.facts import CUT_TO_FIT
from extproc.core.names import MAX_NAME_CHARS, bounded_name

__all__ = [
    "Flag",
    "Number",
    "TokenId",
    "check_count",
    "compact_json",
    "costly_numbers",
    "decode_body",
    "forbids_tools",
    "forces_output",
    "holds_any",
    "is_set",
    "larger_limit",
    "model_key",
    "pads_prompt",
    "prompt_cap",
    "read_flag",
    "read_limit",
    "read_number",
]

# No vocabulary is larger.
TokenId = Annotated[int, msgspec.Meta(ge=0, le=(1 << 31) - 1)]
# A JSON value that `read_number` or `read_flag` interprets; empty if the field is absent.
Number = msgspec.Raw
Flag = msgspec.Raw

T = TypeVar("T")


def decode_body(decoder: msgspec.json.Decoder[T], body: bytes | msgspec.Raw) -> T:
    """Decode JSON into the decoder's type.

    Of duplicate keys the last one counts, as in Python's json. Lone surrogates, a byte order mark and NaN are
    rejected. Raises BodyNotUnderstood, and RecursionError for JSON that is nested too deeply.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise BodyNotUnderstood(BodyFault.WRONG_TYPE, str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BodyNotUnderstood(BodyFault.NOT_JSON, str(error)) from None


def check_count(values: msgspec.Raw, most: int, what: str) -> None:
    """Reject a list of more than `most` values before they are decoded. Raises BodyNotUnderstood (TOO_MANY).

    Short values, and values that are not lists, are left to the decoder.
    """
    if len(values) > FREE_BYTES and bytes(values).startswith(b"["):
        count = len(decode_body(_VALUES, values))
        if count > most:
            raise BodyNotUnderstood(BodyFault.TOO_MANY, f"{count} {what}; at most {most} are read")


_VALUES: Final = msgspec.json.Decoder(list[msgspec.Raw])


def read_number(value: Number, field: str, at_least: int) -> int | None:
    """Return an integer as vLLM reads it: 256, 256.0, "256" and " 256.0 " are equal; None if absent or null.

    vLLM uses pydantic models in lax mode (see the conversion table in pydantic's documentation). Raises
    BodyNotUnderstood.
    """
    text = bytes(value)
    if not text or text == b"null":
        return None
    number = int(text) if text.isdigit() and len(text) <= MAX_DIGITS else _whole(_scalar(value, field))
    if number is None or not at_least <= number <= MAX_NUMBER:
        raise BodyNotUnderstood(
            BodyFault.WRONG_TYPE, f"{field}: {_shown(text)} is not an integer from {at_least} to {MAX_NUMBER}"
        )
    return number


def _scalar(value: msgspec.Raw, field: str) -> float | str:
    """Return a boolean, number or string. Raises BodyNotUnderstood, also for a long one."""
    if len(value) > MAX_SCALAR_BYTES:
        raise BodyNotUnderstood(
            BodyFault.WRONG_TYPE, f"{field}: {len(value)} bytes; at most {MAX_SCALAR_BYTES} are read"
        )
    return decode_body(_SCALAR, value)


def _shown(text: bytes) -> str:
    return repr(text[:MAX_SCALAR_BYTES].decode("utf-8", "replace"))


# Integers of at most this many digits are exact as JSON numbers in any language.
MAX_DIGITS: Final = 15
MAX_SCALAR_BYTES: Final = 64
MAX_NUMBER: Final = 1 << 53
_Whole = Annotated[int, msgspec.Meta(ge=-MAX_NUMBER, le=MAX_NUMBER)]
_SCALAR: Final[msgspec.json.Decoder[bool | float | str]] = msgspec.json.Decoder(bool | _Whole | float | str)


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
    """Return a boolean as vLLM reads it: true, 1, 1.0, "true" and "yes" are equal; absent and null are False.

    Raises BodyNotUnderstood.
    """
    text = bytes(value)
    if text == b"true":
        return True
    if not text or text in (b"false", b"null"):
        return False
    scalar = _scalar(value, field)
    word = scalar.lower() if isinstance(scalar, str) else scalar
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise BodyNotUnderstood(BodyFault.WRONG_TYPE, f"{field}: {_shown(text)} is not a boolean")


_TRUE: Final = frozenset({1, "1", "on", "t", "true", "y", "yes"})
_FALSE: Final = frozenset({0, "0", "off", "f", "false", "n", "no"})


def read_limit(value: Number, field: str) -> int | None:
    """Return the output limit of a conversation, in tokens; None if absent, null or 0.

    vLLM refuses a 0, SGLang reads one of max_completion_tokens as absent; no limit reserves more. Raises
    BodyNotUnderstood.
    """
    return read_number(value, field, 0) or None


def larger_limit(limit: int | None, n_predict: Number) -> int | None:
    """Return an output limit next to `n_predict`, which llama.cpp prefers and others ignore: the larger one.

    A negative one is no limit. Raises BodyNotUnderstood.
    """
    if not is_set(n_predict):
        return limit
    other = read_number(n_predict, "n_predict", -MAX_NUMBER)
    return None if limit is None or other is None or other < 0 else max(limit, other)


def forbids_tools(tool_choice: msgspec.Raw) -> bool:
    """Return whether a request forbids to call its tools: OpenAI's "none", Anthropic's {"type": "none"}."""
    return bytes(tool_choice) == b'"none"' or b"".join(bytes(tool_choice)[:64].split()) == b'{"type":"none"}'


def forces_output(ignore_eos: Flag, *at_least: Number) -> bool:
    """Return whether a request keeps the model from ending its output. Raises BodyNotUnderstood.

    vLLM and SGLang then go on to a minimum, to the limit, or without one until the pool's context is full.
    """
    return read_flag(ignore_eos, "ignore_eos") or any(read_number(each, "min_tokens", 0) for each in at_least)


def prompt_cap(value: Number) -> int | None:
    """Return vLLM's truncate_prompt_tokens, which may be CUT_TO_FIT; None if absent. Raises BodyNotUnderstood."""
    return read_number(value, "truncate_prompt_tokens", CUT_TO_FIT)


def pads_prompt(padding: msgspec.Raw) -> bool:
    """Return whether vLLM fills up a prompt for a pooling model to the model's context length."""
    return is_set(padding) and bytes(padding) != b'"do_not_pad"'


def model_key(model: str | None) -> str:
    """Return the model's name, bounded to the length of a key; "" if absent."""
    if not model:
        return ""
    return model if len(model) <= MAX_NAME_CHARS else bounded_name(model)


def is_set(raw: msgspec.Raw) -> bool:
    """Return whether a field was present and not null."""
    return len(raw) > 0 and (len(raw) != len(b"null") or bytes(raw) != b"null")


def holds_any(raw: msgspec.Raw) -> bool:
    """Return whether a field was present and neither null nor an empty list or object."""
    return is_set(raw) and bytes(raw) not in (b"[]", b"{}")


def compact_json(raw: msgspec.Raw, *, unescape: bool) -> str:
    r"""Return JSON without white space and, with `unescape`, without \uXXXX escapes, as chat templates render it.

    The text is "" if the field is not set. `unescape` takes about three times as long. Raises BodyNotUnderstood.
    """
    if not is_set(raw):
        return ""
    text = bytes(raw)
    if unescape:
        return msgspec.json.encode(decode_body(_ANY, raw)).decode()
    try:
        return msgspec.json.format(text, indent=-1).decode()  # a third of the time of decoding and encoding
    except UnicodeDecodeError as error:
        raise BodyNotUnderstood(BodyFault.NOT_JSON, str(error)) from None


def costly_numbers(text: bytes) -> int | None:
    """Return how many numbers of 17 and more digits a text may have; None if one has 32 or more.

    The point counts as a digit. Decoding a float of 17 digits takes up to 8 us, and the time for longer numbers is
    quadratic in their length.
    """
    zeros = text.translate(_ZEROS)
    return None if _LONG_NUMBER in zeros else zeros.count(_COSTLY_NUMBER)


# Python's own limit is 4,300 digits; decoding one number of that length takes an eighth of a millisecond.
_LONG_NUMBER: Final = b"0" * 32
_COSTLY_NUMBER: Final = b"0" * 17
_ZEROS: Final = bytes.maketrans(b"123456789.", b"0" * 10)
_ANY: msgspec.json.Decoder[object] = msgspec.json.Decoder()
