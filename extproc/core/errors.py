"""The exceptions of this program, by whose fault they are.

DualpoolError
├── ConfigurationError   the operator's: names the field, the value and what is allowed
├── BodyNotUnderstood    the client's: the request is passed on as it came, to the largest pool
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
    "shown",
    "without_password",
]


# How much of a terminal or a log one error may take, whatever was given.
MAX_PRINTED_BYTES = 2_000
MAX_SENTENCE_BYTES = 480
# Longer numbers are told by their size: to write them out takes time that grows with its square.
MAX_WRITTEN_BITS = 128


class DualpoolError(Exception):
    """Base of every error this program raises on purpose."""


class ConfigurationError(DualpoolError):
    """The operator's configuration cannot be used: one clear sentence for each thing that is wrong with it.

    `source` is the file that they are of. Printed, it is one line for each, and at most 2 KB in all.
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
        """Return the sentences as they are printed, a line each: as many as fit, and how many more there are."""
        lines: list[str] = []
        for number, sentence in enumerate(self.sentences):
            line = _line(sentence)
            left_bytes -= len(line.encode()) + len("\n  ")
            if left_bytes < len("\n  and 999,999 more"):
                return [*lines, f"and {len(self.sentences) - number:,} more"]
            lines.append(line)
        return lines


def shown(value: object) -> str:
    """Return a value of any size as it is shown in a message: as Python writes it, but short, and of a URL not who
    logs in: logs and /config show what was refused.
    """
    return _SHORT.repr(value)


def without_password(text: str) -> str:
    """Return a text whose URLs do not say who logs in."""
    return re.sub(r"(?<=://)[^/?#\s]*@", "***@", text)


class BodyFault(StrEnum):
    """Why a request body could not be turned into facts; a metric label, so the set is closed."""

    EMPTY = "empty"
    ENCODED = "encoded"  # a content-encoding that is not undone, or not within its bounds
    NOT_JSON = "not_json"
    WRONG_TYPE = "wrong_type"  # JSON, but a field we count is not of its documented type or range
    TOO_DEEP = "too_deep"
    TOO_MANY = "too_many"  # more elements, of whatever size, than are worth their time


class BodyNotUnderstood(DualpoolError):
    """A request body that yields no facts."""

    def __init__(self, fault: BodyFault, detail: str = "") -> None:
        super().__init__(f"{fault}: {detail}" if detail else fault.value)
        self.fault = fault


class ResponseFault(StrEnum):
    """Why a response taught nothing; a metric label, so the set is closed."""

    NOT_JSON = "not_json"
    BROKEN_SSE = "broken_sse"
    NO_USAGE = "no_usage"
    WRONG_USAGE = "wrong_usage"  # zero, negative or beyond what the bytes could hold
    ENCODING = "encoding"  # unknown content-encoding, or data that does not decode
    TOO_LARGE = "too_large"
    CUT_SHORT = "cut_short"  # the stream ended before the response did
    STATUS = "status"  # neither a 2xx nor a refusal for length
    EARLY_RESPONSE = "early_response"  # the response began before the request was whole


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
        # What is cut away need not be searched.
        return super().repr_str(without_password(x[:MAX_SENTENCE_BYTES]) + x[MAX_SENTENCE_BYTES:], level)

    def repr_int(self, x: int, level: int) -> str:
        bits = x.bit_length()
        return super().repr_int(x, level) if bits <= MAX_WRITTEN_BITS else f"a number of {bits} bits"


_SHORT = _Short()


def _line(text: str) -> str:
    """Return a text as one line without control characters, its end cut where it is long."""
    line = "".join(c if c.isprintable() else " " for c in text[: MAX_SENTENCE_BYTES + 1])
    data = line.encode()
    return (
        line if len(data) <= MAX_SENTENCE_BYTES else data[: MAX_SENTENCE_BYTES - 3].decode(errors="ignore") + "..."
    )
