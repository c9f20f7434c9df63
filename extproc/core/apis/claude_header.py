"""The header of Claude Code: a line that it puts in front of its system prompt.

The line has a hash of its own in each conversation or request: with it no prompt would be known from one before.
vLLM drops it from the system prompt of messages and chat. Others keep it, so no more than one line, of about the
usual length (100 characters), is left out.
"""

from collections.abc import Iterable
from typing import Final

__all__ = ["HEADER", "drop_header"]

HEADER: Final = b"x-anthropic-billing-header"
MAX_HEADER_BYTES: Final = 256
_SYSTEM: Final = ("system", "developer")


def drop_header(texts: list[bytes], marks: Iterable[tuple[str, int]]) -> None:
    """Leave the first header out of the system texts in front; a proxy may have put other texts before it.

    `marks` has the role of each message and the number of texts up to its end.
    """
    end = 0
    for role, last in marks:
        if role not in _SYSTEM:
            break
        end = last
    for at, text in enumerate(texts[:end]):
        if text.startswith(HEADER):
            header, _, rest = text.partition(b"\n")
            if len(header) <= MAX_HEADER_BYTES:
                texts[at] = rest
            return
