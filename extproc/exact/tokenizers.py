"""Tokenizers of models from their files, `tokenizer.json` as Hugging Face's models have it, with a time budget.

The library is fastokens: it reads that file, counts as Hugging Face's own does, and is fast enough to count on
the thread that decides. Microseconds for prose that it has not seen before, then for the same again, in Llama
3's vocabulary (bench/exact.py, the least of two runs on two cores that other programs used, too):

    library               4 KB             64 KB               1 MB          memory of what it saw
    tokenizers 0.23  1,555 / 1,193   31,900 / 31,300   1,350,000 / 607,000   7 MB
    kitoken 0.11       334 / 245     11,500 / 7,500      160,000 / 165,000   none
    gigatoken 0.10      42 / 8          268 / 114          7,900 / 2,300     grows without end
    fastokens 0.3       31 / 9          291 / 157          9,100 / 4,100     at most 130 MB

A call cannot be ended, so a text is counted in pieces of PIECE_BYTES and the clock is asked between them. The
worst text that was found (one letter, random letters, blanks) takes 60 to 180 us for each KB, ordinary text 5 to
20: so a count ends at most 2 ms after its budget. A piece ends behind a line or a word, where most tokens end. All
counts together have a fifth of the time, so that nobody slows the others down with texts that are worst to count.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import translate
from typing import Final

from extproc.core.errors import ConfigurationError, shown
from extproc.core.estimator.counting import Count
from extproc.core.time_share import TimeShare
from extproc.files import read_file

__all__ = ["PIECE_BYTES", "Tokenizers"]

# Ten times the largest vocabularies that models have.
MAX_FILE_BYTES: Final = 256 << 20
PIECE_BYTES: Final = 8 << 10
# Where a line or a word ends, if there is one in the last quarter of a piece.
LOOK_BACK_BYTES: Final = PIECE_BYTES // 4
# What is never counted in less than a millisecond, so that it is not begun with.
MOST_BYTES_PER_MS: Final = 256 << 10
# Of the time that all counts may take, and how much of it may be used at once.
SHARE: Final = 0.2
BURST_S: Final = 0.05
# What a fault of the library raises: of PyO3's, no Exception, and no type that can be imported.
PANIC: Final = "PanicException"
CONTINUATION, FIRST_LEAD = 0x80, 0xC0

_Encode = Callable[[str], Sequence[int]]


class Tokenizers:
    """The Counter of a configuration: `files` are tokenizers' files by globs of models, of which the first counts.

    A count takes `budget_ms` and one piece more at most, by `clock`, in seconds. Raises ConfigurationError for all
    files that cannot be used, and when the library is not installed.
    """

    def __init__(
        self, files: Mapping[str, str], budget_ms: float, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._budget_s = budget_ms / 1000
        self._most_bytes = budget_ms * MOST_BYTES_PER_MS
        self._clock = clock
        self._share = TimeShare(BURST_S)
        self._patterns = [(re.compile(translate(glob)), glob) for glob in files]
        self._encode = _loaded(files)

    def tokenizer_of(self, model: str) -> str | None:
        """Return the first glob that fits a model's name; None when there is none."""
        return next((glob for pattern, glob in self._patterns if pattern.match(model)), None)

    def count(self, tokenizer: str, texts: Sequence[bytes]) -> Count:
        """Count the tokens of each text; give up when the time is used up, or is sure not to be enough."""
        began_s = self._clock()
        left_s = min(self._share.left_s(began_s, SHARE), self._budget_s)
        if left_s <= 0 or sum(map(len, texts)) > self._most_bytes:
            return Count((), 0.0)
        ends_s, encode = began_s + left_s, self._encode[tokenizer]
        try:
            tokens = tuple([self._count_text(encode, text, ends_s) for text in texts])
        except (_Late, ValueError):  # what the library's expressions cannot cut is a ValueError
            tokens = ()
        except BaseException as error:
            if type(error).__name__ != PANIC:
                raise
            tokens = ()
        took_s = self._clock() - began_s
        self._share.spend(took_s)
        return Count(tokens, took_s)

    def _count_text(self, encode: _Encode, text: bytes, ends_s: float) -> int:
        count = 0
        for piece in _pieces(text):
            if self._clock() > ends_s:
                raise _Late
            count += len(encode(piece.decode(errors="replace")))
        return count


class _Late(Exception):
    """The time is used up."""


def _pieces(text: bytes) -> Iterator[bytes]:
    start = 0
    while len(text) - start > PIECE_BYTES:
        end = _end_of_piece(text, start + PIECE_BYTES)
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]


def _end_of_piece(text: bytes, latest: int) -> int:
    """Return where a piece ends: behind a line, before a word, or at least between two characters."""
    line = text.rfind(b"\n", latest - LOOK_BACK_BYTES, latest)
    if line >= 0:
        return line + 1
    word = text.rfind(b" ", latest - LOOK_BACK_BYTES, latest)
    if word >= 0:
        return word
    while CONTINUATION <= text[latest] < FIRST_LEAD:
        latest -= 1
    return latest


def _loaded(files: Mapping[str, str]) -> dict[str, _Encode]:
    """Return what encodes for each glob; a file that several have is read once."""
    try:
        from fastokens import Tokenizer  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise ConfigurationError(
            f"estimator.exact: {shown(list(files))} given, and fastokens is missing; install dualpool[exact]"
        ) from error
    read: dict[str, _Encode] = {}
    encoders: dict[str, _Encode] = {}
    faults = []
    for glob, file in files.items():
        try:
            if file not in read:
                read[file] = _read(Tokenizer, file)
            encoders[glob] = read[file]
        except (OSError, ValueError) as error:
            faults.append(
                f"estimator.exact.{glob}: {shown(file)} given: {error}; "
                "allowed: a tokenizer.json as Hugging Face's models have it"
            )
    if faults:
        raise ConfigurationError(*faults)
    return encoders


def _read(library: type, file: str) -> _Encode:
    """Return what encodes by a file. Raises OSError or ValueError for what is none."""
    read_file(file, MAX_FILE_BYTES)  # whose error says more than the library's, which reads whatever comes
    encode: _Encode = library.from_file(file).encode_ordinary  # type: ignore[attr-defined]
    encode("What is made at first use is made now: tables, and expressions of the cutting of words.")
    return encode
