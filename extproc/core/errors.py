"""The exceptions of this program, grouped by whose fault they are.

DualpoolError
├── ConfigurationError     the operator's: the message names the field, the value and what is allowed
├── BodyNotUnderstood      the client's: the request goes to the largest pool unchanged
└── ResponseNotUnderstood  the pool's: nothing is learned from the response
"""

import re
import reprlib
from enum import StrEnum

__all__ = [
    "BodyFault",
    "BodyNotUnderstood",
    "ConfigurationError",
    "DualpoolError",
    "ResponseFault",
    "ResponseNotUnderstood",
    "printable",
    "shown",
    "without_password",
]


# The most that one error may print to a terminal or a log, whatever the input.
MAX_PRINTED_BYTES = 2_000
MAX_SENTENCE_BYTES = 480
# Larger integers are shown by their size: converting one to decimal takes quadratic time.
MAX_WRITTEN_BITS = 128


class DualpoolError(Exception):
    """Base of every error this program raises on purpose."""


class ConfigurationError(DualpoolError):
    """The operator's configuration cannot be used; one clear sentence per problem.

    `source` is the file that the sentences are about. The error prints as one line per sentence, at most 2 KB in
    all.
    """

    def __init__(self, *sentences: str, source: str = "") -> None:
        super().__init__(*sentences)
        self.sentences = sentences
        self.source = source

    def __str__(self) -> str:
        head = f"{_line(self.source)}: " if self.source else ""
        if len(self.sentences) == 1:
            return head + _line(self.sentences[0])
        head += f"{len(self.sentences)} errors"
        return "\n  ".join([head, *self.lines(MAX_PRINTED_BYTES - len(head.encode()))])

    def lines(self, left_bytes: int = MAX_PRINTED_BYTES) -> list[str]:
        """Return the sentences as printed, one line each: as many as fit, then how many more there are."""
        lines: list[str] = []
        for number, sentence in enumerate(self.sentences):
            line = _line(sentence)
            left_bytes -= len(line.encode()) + len("\n  ")
            if left_bytes < len("\n  and 999,999 more"):
                return [*lines, f"and {len(self.sentences) - number:,} more"]
            lines.append(line)
        return lines


def shown(value: object) -> str:
    """Return a value of any size as messages show it: a shortened repr, with credentials removed from URLs.

    Rejected values appear in logs and in /config.
    """
    return _SHORT.repr(value)


def without_password(text: str) -> str:
    """Return a text with user names and passwords removed from its URLs."""
    return re.sub(r"(?<=://)[^/?#\s]*@", "***@", text)


class BodyFault(StrEnum):
    """Why a request body could not be turned into facts; a metric label, so the set is closed."""

    EMPTY = "empty"
    ENCODED = "encoded"  # an unsupported content-encoding, or one that exceeds the bounds when decoded
    NOT_JSON = "not_json"
    WRONG_TYPE = "wrong_type"  # JSON, but a field we count is not of its documented type or range
    TOO_DEEP = "too_deep"
    TOO_MANY = "too_many"  # more elements, of any size, than are worth the time to read


class BodyNotUnderstood(DualpoolError):
    """A request body that yields no facts."""

    def __init__(self, fault: BodyFault, detail: str = "") -> None:
        super().__init__(f"{fault}: {detail}" if detail else fault.value)
        self.fault = fault


class ResponseFault(StrEnum):
    """Why nothing was learned from a response; a metric label, so the set is closed."""

    NOT_JSON = "not_json"
    BROKEN_SSE = "broken_sse"
    NO_USAGE = "no_usage"
    WRONG_USAGE = "wrong_usage"  # token counts that are absurd: zero, negative, or too many
    ENCODING = "encoding"  # unknown content-encoding, or data that does not decode
    TOO_LARGE = "too_large"
    CUT_SHORT = "cut_short"  # the stream ended before the response did
    STATUS = "status"  # neither a 2xx nor a refusal because of the request's length
    EARLY_RESPONSE = "early_response"  # the response began before the whole request had arrived


class ResponseNotUnderstood(DualpoolError):
    """A response from which nothing is learned."""

    def __init__(self, fault: ResponseFault, detail: str = "") -> None:
        super().__init__(f"{fault}: {detail}" if detail else fault.value)
        self.fault = fault


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 80
        self.maxlevel = 3

    def repr_str(self, x: str, level: int) -> str:
        # Only the beginning is searched; the rest is cut off anyway.
        return super().repr_str(without_password(x[:MAX_SENTENCE_BYTES]) + x[MAX_SENTENCE_BYTES:], level)

    def repr_int(self, x: int, level: int) -> str:
        bits = x.bit_length()
        return super().repr_int(x, level) if bits <= MAX_WRITTEN_BITS else f"a number of {bits} bits"


_SHORT = _Short()


def printable(text: str) -> str:
    """Return a text without control characters: in a terminal they would do something."""
    return "".join(c if c.isprintable() else " " for c in text)


def _line(text: str) -> str:
    """Return a text as one line without control characters, truncated if it is long."""
    line = printable(text[: MAX_SENTENCE_BYTES + 1])
    data = line.encode()
    return (
        line if len(data) <= MAX_SENTENCE_BYTES else data[: MAX_SENTENCE_BYTES - 3].decode(errors="ignore") + "..."
    )
