"""Validation of the usage that responses report."""

from typing import Final, TypeVar

import msgspec

from extproc.core.errors import ResponseFault, ResponseNotUnderstood
from extproc.core.usage import Usage

__all__ = ["MAX_OBJECTS", "Cached", "check_objects", "checked_usage", "decode_response"]

# No model's context is anywhere near this; a larger count is invalid.
MAX_TOKENS: Final = 10_000_000

# Decoding takes up to a tenth of a microsecond for an object, however small it is, and a few compressed bytes can
# be millions of empty ones. A response of 4 MiB with log probabilities, in which every token has 20 candidates,
# has about 70,000.
MAX_OBJECTS: Final = 100_000

# Only an integer counts; other types are accepted and ignored.
Cached = int | float | str | None

T = TypeVar("T")


def decode_response(
    decoder: msgspec.json.Decoder[T], body: bytes | bytearray, not_json: ResponseFault = ResponseFault.NOT_JSON
) -> T:
    """Decode a response, or one event of it, into the decoder's type.

    Raises ResponseNotUnderstood; its fault is `not_json` if the bytes are not JSON, TOO_LARGE if they hold more
    than MAX_OBJECTS objects.
    """
    check_objects(body)
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        # A wrong type inside the usage means wrong usage; elsewhere, that this is not a response of the API.
        wrong = "usage" in str(error)
        raise ResponseNotUnderstood(
            ResponseFault.WRONG_USAGE if wrong else ResponseFault.NO_USAGE, str(error)
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ResponseNotUnderstood(not_json, str(error)) from None


def check_objects(data: bytes | bytearray) -> None:
    """Reject JSON that takes too long to decode. Raises ResponseNotUnderstood (TOO_LARGE)."""
    if len(data) > MAX_OBJECTS and data.count(b"{") > MAX_OBJECTS:
        raise ResponseNotUnderstood(
            ResponseFault.TOO_LARGE, f"more than {MAX_OBJECTS} objects in {len(data)} bytes"
        )


def checked_usage(
    prompt_tokens: int | None, completion_tokens: int | None, cached_tokens: Cached, *, cut_by_length: bool
) -> Usage:
    """Return plausible counts as a Usage; completion and cached tokens may be absent.

    Cached tokens that are not an integer, or exceed the prompt (some servers count something else), are ignored.

    Raises ResponseNotUnderstood.
    """
    if prompt_tokens is None:
        raise ResponseNotUnderstood(ResponseFault.NO_USAGE, "no prompt tokens in the usage")
    cached = cached_tokens if isinstance(cached_tokens, int) and 0 <= cached_tokens <= prompt_tokens else 0
    usage = Usage(prompt_tokens, completion_tokens or 0, cached, cut_by_length)
    if not (0 < usage.prompt_tokens <= MAX_TOKENS and 0 <= usage.completion_tokens <= MAX_TOKENS):
        raise ResponseNotUnderstood(ResponseFault.WRONG_USAGE, str(usage))
    return usage
