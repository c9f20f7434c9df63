"""Decoding request bodies: the types their fields share, and whose fault it is when they do not fit."""

from typing import Annotated, TypeVar

import msgspec

from extproc.core.errors import BodyFault, BodyNotUnderstood

__all__ = [
    "AtLeastMinusOne",
    "Count",
    "NotNegative",
    "compact_json",
    "decode_body",
    "model_key",
    "normal_arguments",
]

NotNegative = Annotated[int, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]
AtLeastMinusOne = Annotated[int, msgspec.Meta(ge=-1)]

# A model name becomes a category key and a metric label; real ones (paths, LoRA names) stay well below this.
MODEL_KEY_CHARACTERS = 256

T = TypeVar("T")


def decode_body(decoder: msgspec.json.Decoder[T], body: bytes | msgspec.Raw) -> T:
    """Decode JSON into the decoder's type.

    Nesting is bounded by the interpreter's recursion limit, which msgspec keeps to also where it only skips.
    Raises BodyNotUnderstood.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise BodyNotUnderstood(BodyFault.WRONG_TYPE, str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BodyNotUnderstood(BodyFault.NOT_JSON, str(error)) from None
    except RecursionError:
        raise BodyNotUnderstood(BodyFault.TOO_DEEP) from None


def model_key(model: str | None) -> str:
    """Return the model's name, no longer than a key may be; "" when absent."""
    return model[:MODEL_KEY_CHARACTERS] if model else ""


def compact_json(raw: msgspec.Raw) -> str:
    r"""Return JSON as chat templates write it: without white space and \uXXXX escapes; "" for none.

    Raises BodyNotUnderstood.
    """
    value = decode_body(_ANY, raw) if raw else None
    return "" if value is None else msgspec.json.encode(value).decode()


def normal_arguments(arguments: str) -> str:
    r"""Return a call's arguments (JSON inside a string) without \uXXXX escapes, as servers parse them."""
    if "\\u" not in arguments:
        return arguments
    try:
        return msgspec.json.encode(_ANY.decode(arguments)).decode()
    except (msgspec.DecodeError, RecursionError):
        return arguments  # not JSON after all: the model gets it as it is


_ANY: msgspec.json.Decoder[object] = msgspec.json.Decoder()
