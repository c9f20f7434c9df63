"""Token counts within a time budget, with tokenizers read from files (Hugging Face's `tokenizer.json`).

The library is fastokens: it reads these files, counts the same tokens as Hugging Face's own library, and is fast
enough to count on the thread that decides. Microseconds for prose not seen before / for the same text again, in
Llama 3's vocabulary (bench/exact.py, the minimum of two runs on two cores shared with other programs):

    library               4 KB             64 KB               1 MB          memory of its cache
    tokenizers 0.23  1,555 / 1,193   31,900 / 31,300   1,350,000 / 607,000   7 MB
    kitoken 0.11       334 / 245     11,500 / 7,500      160,000 / 165,000   none
    gigatoken 0.10      42 / 8          268 / 114          7,900 / 2,300     unbounded
    fastokens 0.3       31 / 9          291 / 157          9,100 / 4,100     at most 130 MB

A call cannot be cancelled, so a text is counted in pieces of PIECE_BYTES and the clock is read between them. The
slowest texts known (one repeated letter, random letters, blanks) take 60 to 180 us per KB, ordinary text 5 to 20:
so a count overruns its budget by at most 2 ms. A piece ends after a line or a word, where most tokens end. All
counts together may use a fifth of the time, so that a client's worst-case texts cannot slow down other clients.
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

# Ten times the size of the largest vocabularies in use.
MAX_FILE_BYTES: Final = 256 << 20
PIECE_BYTES: Final = 8 << 10
# The end of a line or word is searched for in the last quarter of a piece.
LOOK_BACK_BYTES: Final = PIECE_BYTES // 4
# No text is counted faster than this, so counts that would need more are not started.
MOST_BYTES_PER_MS: Final = 256 << 10
# The share of time that all counts may use together, and how much of it may be used in one burst.
SHARE: Final = 0.2
BURST_S: Final = 0.05
# Raised by PyO3 when the library panics: it is not an Exception, and its type cannot be imported.
PANIC: Final = "PanicException"
CONTINUATION, FIRST_LEAD = 0x80, 0xC0

_Encode = Callable[[str], Sequence[int]]


class Tokenizers:
    """The Counter of a configuration; `files` maps globs of model names to tokenizer files, the first match wins.

    A count takes at most `budget_ms` plus the time of one piece; `clock` is in seconds. Raises ConfigurationError
    that names every file that cannot be used, or if the library is not installed.
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
        """Return the first glob that matches a model's name; None if there is none."""
        return next((glob for pattern, glob in self._patterns if pattern.match(model)), None)

    def count(self, tokenizer: str, texts: Sequence[bytes]) -> Count:
        """Count the tokens of each text; give up if the time is used up, or certainly cannot suffice."""
        began_s = self._clock()
        left_s = min(self._share.left_s(began_s, SHARE), self._budget_s)
        if left_s <= 0 or sum(map(len, texts)) > self._most_bytes:
            return Count((), 0.0)
        ends_s, encode = began_s + left_s, self._encode[tokenizer]
        try:
            tokens = tuple([self._count_text(encode, text, ends_s) for text in texts])
        except (_Late, ValueError):  # ValueError: the library's regular expressions cannot split the text
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
    """Return the end of a piece: after a line, before a space, or at least between two characters."""
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
    """Return an encoder for each glob; a file that several globs name is read once."""
    try:
        from fastokens import Tokenizer  # noqa: PLC0415  (an optional dependency)
    except ImportError as error:
        raise ConfigurationError(
            f"estimator.exact: {shown(list(files))} given, but fastokens is not installed; install dualpool[exact]"
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
    """Return the encoder of a tokenizer file. Raises OSError or ValueError if it is not one."""
    read_file(file, MAX_FILE_BYTES)  # limits the size, which the library does not; its errors are clearer, too
    encode: _Encode = library.from_file(file).encode_ordinary  # type: ignore[attr-defined]
    encode("What is made at first use is made now: tables, and expressions of the cutting of words.")
    return encode
