"""Decoding request bodies: the types their fields share, and whose fault it is when they do not fit."""

from typing import Annotated, TypeVar

import msgspec

from extproc.core.errors import BodyFault, BodyNotUnderstood
from extproc.core.names import bounded_name

__all__ = ["AtLeastMinusOne", "Count", "NotNegative", "compact_json", "decode_body", "is_set", "model_key"]

NotNegative = Annotated[int, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]
AtLeastMinusOne = Annotated[int, msgspec.Meta(ge=-1)]

T = TypeVar("T")


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


def model_key(model: str | None) -> str:
    """Return the model's name, no longer than a key may be; "" when absent."""
    return bounded_name(model) if model else ""


def is_set(raw: msgspec.Raw) -> bool:
    """Tell whether a field was there and not null."""
    return len(raw) > 0 and (len(raw) != len(b"null") or bytes(raw) != b"null")


def compact_json(raw: msgspec.Raw) -> str:
    r"""Return JSON as chat templates write it: without white space and \uXXXX escapes; "" when not set.

    Raises BodyNotUnderstood.
    """
    if not is_set(raw):
        return ""
    text = bytes(raw)
    if b"\\u" in text:
        return msgspec.json.encode(decode_body(_ANY, raw)).decode()
    try:
        return msgspec.json.format(text, indent=-1).decode()  # a third of the cost
    except UnicodeDecodeError as error:
        raise BodyNotUnderstood(BodyFault.NOT_JSON, str(error)) from None


_ANY: msgspec.json.Decoder[object] = msgspec.json.Decoder()
