"""Checking the usage that responses report, and saying what is wrong when it makes no sense."""

from typing import Final, TypeVar

import msgspec

from extproc.core.errors import ResponseFault, ResponseNotUnderstood
from extproc.core.usage import Usage

__all__ = ["Cached", "checked_usage", "decode_response"]

# No model has a context near this; a count beyond it is nonsense.
MAX_TOKENS: Final = 10_000_000

# Only what is a whole number counts.
Cached = int | float | str | None

T = TypeVar("T")


def decode_response(
    decoder: msgspec.json.Decoder[T], body: bytes | bytearray, not_json: ResponseFault = ResponseFault.NOT_JSON
) -> T:
    """Decode a response, or one event of it, into the decoder's type; `not_json` is the fault if it is none.

    Raises ResponseNotUnderstood.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        # A wrong type inside the usage makes it wrong; anywhere else, this is no response of the API's.
        wrong = "usage" in str(error)
        raise ResponseNotUnderstood(
            ResponseFault.WRONG_USAGE if wrong else ResponseFault.NO_USAGE, str(error)
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ResponseNotUnderstood(not_json, str(error)) from None


def checked_usage(
    prompt_tokens: int | None, completion_tokens: int | None, cached_tokens: Cached, *, cut_by_length: bool
) -> Usage:
    """Make a Usage of counts that make sense; completion and cached tokens may be absent.

    Cached tokens that are no part of the prompt (some servers count other things), or no number, are left out.

    Raises ResponseNotUnderstood.
    """
    if prompt_tokens is None:
        raise ResponseNotUnderstood(ResponseFault.NO_USAGE, "no prompt tokens in the usage")
    cached = cached_tokens if isinstance(cached_tokens, int) and 0 <= cached_tokens <= prompt_tokens else 0
    usage = Usage(prompt_tokens, completion_tokens or 0, cached, cut_by_length)
    if not (0 < usage.prompt_tokens <= MAX_TOKENS and 0 <= usage.completion_tokens <= MAX_TOKENS):
        raise ResponseNotUnderstood(ResponseFault.WRONG_USAGE, str(usage))
    return usage
