"""The cost of decoding a body, predicted from its bytes before it is decoded, so that no body takes long.

Different bytes cost different amounts of decoding time. Plain text is copied many bytes at a time; white space and
characters outside ASCII are examined one by one; an escape ends one copy and starts another; a bracket creates a
Python object, and so does each value between commas. So the cost of a body is a weighted count of these, in units
of one byte of plain text: about a nanosecond. The sum is close to the real time, and no mixture takes longer than
its cost. Bytes inside strings are weighted like those outside: telling them apart would require parsing.

Counting takes a few comparisons in C per block and stops as soon as a body exceeds the limit.

Rejected: a limit per kind of byte, since a body that reaches several of them takes several times as long; counting
with bytes.count, which takes longer the more matches there are; a table of weights with bytes.translate, which
takes twice as long; measuring time, which would make the same body readable on one day and not on the next.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from extproc.core.errors import BodyFault, BodyNotUnderstood

__all__ = ["FREE_BYTES", "MAX_WORK", "check_work", "work_of"]

# Two mebibytes of plain text. Prompts of 64K tokens stay below it: 400 KB of source code, 700 KB of Han or Hindi,
# 64K token ids, or JSON inside a string, which consists mostly of escapes and punctuation.
MAX_WORK: Final = 2 << 20
# Shorter bodies are not checked: decoding them takes little time whatever they contain.
FREE_BYTES: Final = 32 << 10
BLOCK_BYTES: Final = 64 << 10

# The additional cost of a byte of each kind, besides its 1 for being a byte.
BLANK_OR_FOREIGN: Final = 2
ESCAPE: Final = 6
COMMA: Final = 25
BRACKET: Final = 100
DIGIT: Final = 1
# Digits are slow only in long numbers, so it is enough to sample one word out of this many: where long runs of
# digits are rarer, there are more commas.
WORDS: Final = 8
WORD_BYTES: Final = 8


def check_work(body: bytes) -> None:
    """Reject a body whose decoding takes too much work. Raises BodyNotUnderstood (TOO_MANY).

    Bodies of at most FREE_BYTES need no check.
    """
    if (work := work_of(body)) > MAX_WORK:
        detail = f"{work} units of work before the end of {len(body)} bytes; at most {MAX_WORK} are read"
        raise BodyNotUnderstood(BodyFault.TOO_MANY, detail)


def work_of(text: bytes) -> int:
    """Return the cost of decoding a JSON text, in bytes of plain text; counting stops once it exceeds MAX_WORK."""
    work = len(text)
    for begin in range(0, len(text), BLOCK_BYTES):
        block = np.frombuffer(text, np.int8, min(BLOCK_BYTES, len(text) - begin), begin)
        work += BLANK_OR_FOREIGN * _count(block <= _SPACE)  # bytes from 128 on are negative as int8
        work += ESCAPE * _count(block == _BACKSLASH)
        work += COMMA * _count(block == _COMMA)
        work += BRACKET * _count((block & _NOT_CURLY) == _BRACKET)
        work += DIGIT * WORDS * WORD_BYTES * _digits(text, begin, len(block) // WORD_BYTES)
        if work > MAX_WORK:
            break
    return work


def _digits(text: bytes, begin: int, words: int) -> int:
    """Sample one in WORDS of the words from `begin` on; return how many of the sample consist of eight digits."""
    read = np.frombuffer(text, _WORD, words, begin)[::WORDS]
    return _count(((read & _HIGH) == _OF_DIGITS) & (((read + _SIX) & _HIGH) == _OF_DIGITS))


def _count(found: npt.NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(found))


# Created once: converting a Python int to a numpy scalar takes longer than the comparison.
_SPACE, _COMMA, _BACKSLASH, _BRACKET = (np.int8(byte) for byte in b" ,\\[")
_NOT_CURLY: Final = np.int8(~(ord("{") - ord("[")))
_WORD = np.dtype("<u8")
_HIGH, _OF_DIGITS, _SIX = (np.uint64(byte * 0x0101_0101_0101_0101) for byte in (0xF0, 0x30, 0x06))
