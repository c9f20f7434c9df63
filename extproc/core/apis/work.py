"""What a body takes to read, told by its bytes before it is decoded: so none takes long, whatever it holds.

Decoding has its prices. Bytes of plain text are copied many at a time; white space, and characters outside ASCII,
are looked at one by one; an escape ends one copy and begins another; a bracket makes an object of Python's, and so
does what stands between two commas. So a body is priced by how many it has of each, in units of a byte of plain
text: about a nanosecond. The sum is close to the time, and no mixture takes more than its price. Bytes inside
strings count as those outside: which is which is known only after reading.

Counting is a few comparisons in C of a block after the other, and ends where a body has turned out to be too much.

Rejected: a limit for each kind, since several of them together take several times what any of them may; counting
with bytes.count, which takes longer the more there is to count; a table of prices by bytes.translate, twice the
time; the time itself, by which the same body would be read on one day and not on the next.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from extproc.core.errors import BodyFault, BodyNotUnderstood

__all__ = ["FREE_BYTES", "MAX_WORK", "check_work", "work_of"]

# Of plain text two mebibytes. What models take in at 64K tokens is below it: source code of 400 KB, Han or Hindi
# of 700 KB, as many token ids, JSON inside a string, which is all marks.
MAX_WORK: Final = 2 << 20
# Shorter bodies take less than others may, of whatever they are.
FREE_BYTES: Final = 32 << 10
BLOCK_BYTES: Final = 64 << 10

# Beside being a byte.
BLANK_OR_FOREIGN: Final = 2
ESCAPE: Final = 6
COMMA: Final = 25
BRACKET: Final = 100
DIGIT: Final = 1
# Digits, which are slow in numbers alone, are looked for in one word of so many: what is rarer has more commas.
WORDS: Final = 8
WORD_BYTES: Final = 8


def check_work(body: bytes) -> None:
    """Refuse a body that takes more work than it is worth. Raises BodyNotUnderstood (TOO_MANY).

    One of at most FREE_BYTES need not be asked about.
    """
    if (work := work_of(body)) > MAX_WORK:
        detail = f"{work} units of work before the end of {len(body)} bytes; at most {MAX_WORK} are read"
        raise BodyNotUnderstood(BodyFault.TOO_MANY, detail)


def work_of(text: bytes) -> int:
    """Return what a JSON text takes to decode, in bytes of plain text; of one above MAX_WORK a part of it."""
    work = len(text)
    for begin in range(0, len(text), BLOCK_BYTES):
        block = np.frombuffer(text, np.int8, min(BLOCK_BYTES, len(text) - begin), begin)
        work += BLANK_OR_FOREIGN * _count(block <= _SPACE)  # bytes from 128 on are negative
        work += ESCAPE * _count(block == _BACKSLASH)
        work += COMMA * _count(block == _COMMA)
        work += BRACKET * _count((block & _NOT_CURLY) == _BRACKET)
        work += DIGIT * WORDS * WORD_BYTES * _digits(text, begin, len(block) // WORD_BYTES)
        if work > MAX_WORK:
            break
    return work


def _digits(text: bytes, begin: int, words: int) -> int:
    """Return how many of the words from a byte on, of which one in WORDS is looked at, are eight digits."""
    read = np.frombuffer(text, _WORD, words, begin)[::WORDS]
    return _count(((read & _HIGH) == _OF_DIGITS) & (((read + _SIX) & _HIGH) == _OF_DIGITS))


def _count(found: npt.NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(found))


# Made once: numpy takes longer to make them of Python's than to compare with them.
_SPACE, _COMMA, _BACKSLASH, _BRACKET = (np.int8(byte) for byte in b" ,\\[")
_NOT_CURLY: Final = np.int8(~(ord("{") - ord("[")))
_WORD = np.dtype("<u8")
_HIGH, _OF_DIGITS, _SIX = (np.uint64(byte * 0x0101_0101_0101_0101) for byte in (0xF0, 0x30, 0x06))
