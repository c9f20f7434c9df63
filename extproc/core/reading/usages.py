"""Checking what answers say they used, and whose fault it is when it makes no sense."""

from collections.abc import Iterable
from typing import Final, Protocol, TypeVar

import msgspec

from extproc.core.errors import AnswerFault, AnswerNotUnderstood
from extproc.core.reading.sse import SseEvent
from extproc.core.usage import Usage

__all__ = ["UsageStream", "checked_usage", "decode_answer"]

# No model has a context near this; a count beyond it is nonsense.
MAX_TOKENS: Final = 10_000_000

T = TypeVar("T")


class UsageStream(Protocol):
    """Finds the usage in the events of one streamed answer."""

    @property
    def complete(self) -> bool:
        """Whether the stream's last event was seen; what follows it in the body says nothing."""
        ...

    def see(self, events: Iterable[SseEvent]) -> None:
        """Look at the next events. Raises AnswerNotUnderstood."""
        ...

    def finish(self) -> Usage:
        """Return the usage once all events were seen. Raises AnswerNotUnderstood."""
        ...


def decode_answer(
    decoder: msgspec.json.Decoder[T], body: bytes | bytearray, not_json: AnswerFault = AnswerFault.NOT_JSON
) -> T:
    """Decode an answer, or one event of it, into the decoder's type; `not_json` names the fault if it is not JSON.

    Raises AnswerNotUnderstood.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        # A wrong type inside the usage makes it wrong; anywhere else, this is no answer of the API's.
        wrong = "usage" in str(error)
        raise AnswerNotUnderstood(AnswerFault.WRONG_USAGE if wrong else AnswerFault.NO_USAGE, str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise AnswerNotUnderstood(not_json, str(error)) from None


def checked_usage(
    prompt_tokens: int | None, completion_tokens: int | None, cached_tokens: int | None, *, cut_by_length: bool
) -> Usage:
    """Make a Usage of counts that make sense; completion and cached tokens may be absent.

    Raises AnswerNotUnderstood.
    """
    if prompt_tokens is None:
        raise AnswerNotUnderstood(AnswerFault.NO_USAGE, "no prompt tokens in the usage")
    usage = Usage(prompt_tokens, completion_tokens or 0, cached_tokens or 0, cut_by_length)
    if not (
        0 < usage.prompt_tokens <= MAX_TOKENS
        and 0 <= usage.completion_tokens <= MAX_TOKENS
        and 0 <= usage.cached_tokens <= usage.prompt_tokens
    ):
        raise AnswerNotUnderstood(AnswerFault.WRONG_USAGE, str(usage))
    return usage
