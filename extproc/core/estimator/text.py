"""The content of a prompt's text as a vector of counts, and the kind of text that it indicates.

The counts are: bytes of each class, transitions at which tokenizers cut or merge, runs of one character,
characters of each script, letter pairs in buckets, and content that does not repeat. All except the runs and the
last one are sums over codes of neighbouring bytes (codes.py): one pass in C over pairs as 16-bit numbers, then one
over the codes, feature by feature (a product with a matrix of ones and zeros takes twice as long, and evicts
everything else from the processor's first-level cache).

Runs, which tokenizers swallow whole, cannot be recognised from pairs: they are counted in aligned words of eight
equal bytes, whose pairs are subtracted from all other counts. (When they were also counted as letters or marks,
their price was a small difference of large prices, and the bounds of such requests were five to ten times the
truth: a single one in 300 requests made up a tenth to a fifth of the mean width.) Runs of digits are separate:
some vocabularies make a token of each digit, others of every three. Very long texts are sampled in evenly spread
blocks, which bounds the cost.

Random letters, keys, base64 and random syllables contain the same bytes and scripts as text, but cost up to four
times the tokens. They are recognised by their lack of repeats (repeats.py): all bytes but digits, which cost the
same everywhere, and all characters outside ASCII are counted, multiplied by the share of the expected repeats that
is missing.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from extproc.core.estimator.codes import BUCKETS, CODE_OF, CODES, ByteClass, Script
from extproc.core.estimator.repeats import GRAM, LONG_GRAM, missing_repeats
from extproc.core.estimator.sampling import SAMPLE_BYTES, sample

__all__ = [
    "BLANK_RUN",
    "KIND_WEIGHTS",
    "RUN",
    "TEXT_FEATURES",
    "TEXT_NAMES",
    "UNREPEATED",
    "Counts",
    "TextKind",
    "kind_of",
    "look",
    "main_script",
    "text_kind",
]

Counts = npt.NDArray[np.float64]  # shape (TEXT_FEATURES,), in the order of TEXT_NAMES

WORD = 8  # bytes
LEAST_REPEATS_BYTES = 320  # shorter texts are not expected to repeat enough
# English prose has about 3 % marks and digits, Python source about 15 %, compact JSON and CSV 25 % and more.
MARKUP_SHARE = 0.10

B, S = ByteClass, Script
CLASSES: Final = tuple(ByteClass)[: ByteClass.CONTINUATION]  # the ASCII classes
SCRIPTS: Final = tuple(Script)[1:]
LOWER = (B.VOWEL, B.CONSONANT, B.RARE_LETTER)
LETTERS = (*LOWER, B.UPPER)
MARKS = (B.BRACKET, B.JOINER, B.PUNCTUATION)
BLANKS = (B.SPACE, B.LINE)

# Name, and cells: the classes of the byte before and of the byte after.
Cell = tuple[tuple[ByteClass, ...], tuple[ByteClass, ...]]
TRANSITIONS: Final[tuple[tuple[str, tuple[Cell, ...]], ...]] = (
    ("word start", (((*BLANKS, B.DIGIT, *MARKS), LETTERS), (LOWER, (B.UPPER,)))),
    ("foreign word start", ((BLANKS, (B.LEAD,)),)),
    ("number start", (((*BLANKS, *LETTERS, *MARKS), (B.DIGIT,)),)),
    ("spaced mark", (((B.SPACE,), MARKS),)),
    ("capitals", (((B.UPPER,), (B.UPPER,)),)),
    ("vowels", (((B.VOWEL,), (B.VOWEL,)),)),
    ("consonants", (((B.CONSONANT, B.RARE_LETTER), (B.CONSONANT, B.RARE_LETTER)),)),
    ("marks", ((MARKS, MARKS),)),
    ("indentation", ((BLANKS, (B.SPACE,)),)),
    ("blank line", (((B.LINE,), (B.LINE,)),)),
)
RUNS: Final = ("byte in a run of blanks", "byte in a run", "digit in a run")
UNREPEATED: Final = ("unrepeated byte", "unrepeated character")

TEXT_NAMES: Final = (
    *(byte_class.name.lower() for byte_class in CLASSES),
    *(name for name, _ in TRANSITIONS),
    *RUNS,
    *(script.name.lower() for script in SCRIPTS),
    *(f"letter pair {bucket}" for bucket in range(1, BUCKETS + 1)),
    *UNREPEATED,
)
TEXT_FEATURES: Final = len(TEXT_NAMES)
BLANK_RUN: Final = TEXT_NAMES.index(RUNS[0])
RUN: Final = BLANK_RUN + 1
OF_CLASSES: Final = len(CLASSES)
OF_RUNS: Final = slice(BLANK_RUN, BLANK_RUN + len(RUNS))
OF_SCRIPTS: Final = slice(BLANK_RUN + len(RUNS), BLANK_RUN + len(RUNS) + len(SCRIPTS))
OF_UNREPEATED: Final = slice(TEXT_FEATURES - len(UNREPEATED), TEXT_FEATURES)


class TextKind(StrEnum):
    """Kinds of text that differ in bytes per token."""

    LATIN = "latin"
    MARKUP = "markup"  # code, JSON, tables: much punctuation, digits and line ends
    TWO_BYTE = "two_byte"  # Greek, Cyrillic, Hebrew, Arabic
    INDIC = "indic"  # Indic scripts, Thai, Lao, Tibetan
    CJK = "cjk"  # kana, Han, Hangul, emoji
    NONE = "none"  # no text


def look(text: bytes) -> Counts:
    """Count the content of a text, as if it followed a line end; scaled up if the text is sampled."""
    seen = sample(text) if len(text) > SAMPLE_BYTES else text
    # Each pair of neighbours as a number: the 16 bits that begin at each byte.
    pairs = np.ndarray((len(seen),), _PAIR, b"\n" + seen, 0, (1,))
    # All indices are valid; with "wrap" that is checked at the least cost.
    codes = np.bincount(CODE_OF.take(pairs, mode="wrap"), minlength=_NO_CODE + 1)
    words = np.ndarray((len(seen) // WORD,), _WORD, seen)
    in_runs = words == (words & _BYTE) * _REPEATED
    # `in` on bytes: with cold caches, as between requests, numpy's any() takes five times as long.
    of_runs = _runs_out_of(codes, words[in_runs]) if 1 in in_runs.tobytes() else None
    counts = np.add.reduceat(codes.take(_CODES_OF_COUNTS, mode="wrap"), _FIRST_CODES).astype(np.float64)
    if of_runs:
        counts[OF_RUNS] = of_runs
    if unrepeated := _unrepeated(text, counts):
        but_digits = counts[:OF_CLASSES].sum() - counts[B.DIGIT]
        counts[OF_UNREPEATED] = unrepeated * but_digits, unrepeated * counts[OF_SCRIPTS].sum()
    if len(seen) < len(text):
        counts *= len(text) / len(seen)
    return counts


def main_script(counts: Counts) -> Script:
    """Return the most frequent script outside ASCII; NONE if there is none."""
    of_scripts = counts[OF_SCRIPTS]
    most = int(of_scripts.argmax())
    return SCRIPTS[most] if of_scripts[most] > 0 else Script.NONE


def text_kind(counts: Counts) -> TextKind:
    """Return the kind of text by its dominant bytes (bytes of each script; ASCII by its punctuation)."""
    return kind_of(counts.dot(KIND_WEIGHTS).tolist())


def kind_of(sums: Iterable[float]) -> TextKind:
    """Return the kind of text by its counts' products with KIND_WEIGHTS."""
    ascii_bytes, marks, two_byte, indic, cjk, latin_marks = sums
    most = max(two_byte, indic, cjk)
    if most > ascii_bytes:
        return TextKind.TWO_BYTE if most == two_byte else TextKind.INDIC if most == indic else TextKind.CJK
    if ascii_bytes == 0:
        return TextKind.LATIN if latin_marks else TextKind.NONE
    return TextKind.MARKUP if marks > MARKUP_SHARE * ascii_bytes else TextKind.LATIN


def _runs_out_of(codes: npt.NDArray[np.intp], words: npt.NDArray[np.uint64]) -> list[int]:
    """Subtract the pairs of words of one repeated byte from the counts; return these words' bytes by RUNS."""
    of_runs = [0] * len(RUNS)
    for byte, runs in enumerate(np.bincount(words.astype(np.uint8)).tolist()):
        if runs:
            codes[_CODE_OF_TWICE[byte]] -= (WORD - 1) * runs
            of_runs[_RUN_OF[byte]] += WORD * runs
    return of_runs


def _unrepeated(text: bytes, counts: Counts) -> float:
    """Return the share of the expected repeats that a text lacks; 0 for one too short to tell."""
    if len(text) < LEAST_REPEATS_BYTES:
        return 0.0
    gram = GRAM if text.isascii() or counts.dot(_LETTERS_AND_OTHERS) <= 0 else LONG_GRAM
    return missing_repeats(text, gram)


def _codes_of_counts() -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the codes that each count sums, one count after the other, and the index where each begins."""
    of_byte = [CODES.after == byte_class for byte_class in CLASSES]
    of_transition = [
        np.any([np.isin(CODES.before, before) & np.isin(CODES.after, after) for before, after in cells], axis=0)
        for _, cells in TRANSITIONS
    ]
    of_run = [np.zeros(len(CODES.before), bool) for _ in RUNS]
    of_script = [CODES.script == script for script in SCRIPTS]
    of_bucket = [CODES.bucket == bucket for bucket in range(1, BUCKETS + 1)]
    of_none = [np.zeros(len(CODES.before), bool) for _ in UNREPEATED]
    chosen = [*of_byte, *of_transition, *of_run, *of_script, *of_bucket, *of_none]
    codes = [np.flatnonzero(each) if each.any() else np.array([_NO_CODE]) for each in chosen]
    firsts = np.cumsum([0, *map(len, codes[:-1])])
    return np.concatenate(codes), firsts


def _kind_weights() -> npt.NDArray[np.float64]:
    """Return weights of counts, shape (TEXT_FEATURES, 6): a script counts for all bytes of its characters."""
    weights = np.zeros((TEXT_FEATURES, 6))
    weights[: len(CLASSES), 0] = 1
    weights[[B.DIGIT, B.LINE, B.BRACKET, B.PUNCTUATION], 1] = 1
    # First and last script, the bytes of a character, and the column that they count for.
    for first, last, size, column in (
        (S.GREEK, S.OTHER_TWO_BYTE, 2, 2),
        (S.DEVANAGARI, S.TIBETAN, 3, 3),
        (S.DASH, S.OTHER_THREE_BYTE, 3, 4),
        (S.EMOJI, S.OTHER_FOUR_BYTE, 4, 4),
        (S.LATIN_1, S.COMBINING, 2, 5),
        (S.MYANMAR, S.POLYTONIC, 3, 5),
    ):
        weights[OF_SCRIPTS.start + first - 1 : OF_SCRIPTS.start + last, column] = size
    return weights


# Made once: converting them from Python objects, numbers too, takes numpy longer than using them.
_PAIR, _WORD = np.dtype("<u2"), np.dtype("<u8")
_BYTE, _REPEATED = np.array(0xFF, _WORD), np.array(0x0101_0101_0101_0101, _WORD)
_NO_CODE = len(CODES.before)  # used for counts without a code
_CODES_OF_COUNTS, _FIRST_CODES = _codes_of_counts()
_CODE_OF_TWICE = CODE_OF[np.arange(256) * 0x0101].tolist()  # the code of a byte followed by itself
_RUN_OF = [0 if byte == ord(" ") else 2 if ord("0") <= byte <= ord("9") else 1 for byte in range(256)]
KIND_WEIGHTS: Final = _kind_weights()
# +1 for letters of scripts other than Latin, -1 for everything else: ASCII, Han, kana and Hangul.
_LETTERS_AND_OTHERS = np.zeros(TEXT_FEATURES)
_LETTERS_AND_OTHERS[OF_SCRIPTS] = 1
_LETTERS_AND_OTHERS[:OF_CLASSES] = -1
_LETTERS_AND_OTHERS[OF_SCRIPTS.start + S.CJK_MARK - 1 : OF_SCRIPTS.start + S.HANGUL] = -1
