"""Looking at the bytes of a prompt: which byte follows which, told in codes, and the kind of text that they are.

Tokenizers cut text where the kind of character changes (a word begins, digits follow letters, punctuation follows
punctuation) before they look at any vocabulary, and then merge what is frequent. So the counts of pairs of
neighbouring bytes tell nearly all that can be known of the number of tokens without the vocabulary. Of the 65,536
pairs most mean the same: a table maps each to a code, which stands for

    the classes of both bytes     where words, numbers and runs of marks begin and end
    a script                      of a lead byte and the byte after it: UTF-8 has a block of 64 characters for
                                  each second byte after E0 to EF, so that Tamil, Khmer and Han are told apart
    a bucket                      of a pair of small letters, by a fixed hash: which letters go together differs
                                  between words of a language and what only looks like it

It is one pass in C over pairs as 16-bit numbers. Runs of one character, which tokenizers swallow whole, show in no
pair: they are counted in aligned words of eight equal bytes. Very long texts are sampled in evenly spread blocks,
so that the cost of a look is bounded.
"""

from dataclasses import dataclass
from enum import IntEnum, StrEnum

import numpy as np
import numpy.typing as npt

__all__ = [
    "BUCKETS",
    "CODES",
    "ByteClass",
    "Codes",
    "Look",
    "Script",
    "TextKind",
    "look",
    "main_script",
    "sample",
    "text_kind",
]

SAMPLE_BYTES = 32 * 1024
SAMPLE_BLOCK_BYTES = 256  # many small blocks see more of a text's parts than few large ones
WORD = 8  # bytes
BUCKETS = 40  # of letter pairs; see docs/estimator.md for what more or fewer of them give


class ByteClass(IntEnum):
    """Classes of byte. A tokenizer of Latin text merges frequent letter pairs, so letters differ."""

    VOWEL = 0
    CONSONANT = 1
    RARE_LETTER = 2
    UPPER = 3
    DIGIT = 4
    SPACE = 5
    LINE = 6  # tab and line ends
    BRACKET = 7  # and quotes
    JOINER = 8  # what joins words: _ - / . ,
    PUNCTUATION = 9  # all other ASCII
    CONTINUATION = 10  # of a character outside ASCII
    LEAD = 11  # of the same


class Script(IntEnum):
    """Scripts by the first two bytes of a character."""

    NONE = 0
    LATIN_1 = 1
    LATIN_EXTENDED = 2
    COMBINING = 3
    GREEK = 4
    CYRILLIC = 5
    CYRILLIC_EXTENDED = 6  # letters that Russian and Ukrainian do without
    ARMENIAN = 7
    HEBREW = 8
    ARABIC = 9
    ARABIC_EXTENDED = 10  # letters of Persian and Urdu
    OTHER_TWO_BYTE = 11
    DEVANAGARI = 12
    BENGALI = 13
    GURMUKHI = 14
    GUJARATI = 15
    ORIYA = 16
    TAMIL = 17
    TELUGU = 18
    KANNADA = 19
    MALAYALAM = 20
    SINHALA = 21
    THAI = 22
    LAO = 23
    TIBETAN = 24
    MYANMAR = 25
    GEORGIAN = 26
    ETHIOPIC = 27
    KHMER = 28
    OTHER_SOUTHERN = 29  # E1: Cherokee, Canadian syllables, Mongolian, ...
    VIETNAMESE = 30
    POLYTONIC = 31
    DASH = 32  # and curly quotes
    SYMBOL = 33  # arrows, currency, mathematics
    BOX = 34  # box drawing, blocks
    BRAILLE = 35
    CJK_MARK = 36
    KANA = 37
    HAN = 38
    RARE_HAN = 39  # extensions
    HANGUL = 40
    FULL_WIDTH = 41
    OTHER_THREE_BYTE = 42
    EMOJI = 43
    OTHER_FOUR_BYTE = 44


class TextKind(StrEnum):
    """Kinds of text that differ in bytes per token."""

    LATIN = "latin"
    MARKUP = "markup"  # code, JSON, tables: much punctuation, digits and line ends
    TWO_BYTE = "two_byte"  # Greek, Cyrillic, Hebrew, Arabic
    INDIC = "indic"  # Indic scripts and Thai
    CJK = "cjk"  # kana, Han, Hangul, emoji
    NONE = "none"  # no text at all


@dataclass(frozen=True, slots=True)
class Codes:
    """What each code of a pair stands for; arrays of one length, by code."""

    before: npt.NDArray[np.intp]  # ByteClass
    after: npt.NDArray[np.intp]  # ByteClass
    script: npt.NDArray[np.intp]  # Script that begins with the byte before
    bucket: npt.NDArray[np.intp]  # of letter pairs from 1 on, 0 for others


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen of a text, scaled up to all of it where it was sampled.

    `pairs` are counts by code, float64, shape (len(CODES.before),), which sum up to the bytes of the text;
    `blank_run_bytes` and `run_bytes` those in words of eight equal bytes, of spaces and of anything else.
    """

    pairs: npt.NDArray[np.float64]
    blank_run_bytes: float
    run_bytes: float


def sample(text: bytes) -> bytes:
    """Return `text`, or evenly spread blocks of it (SAMPLE_BYTES in all) when it is longer than that."""
    if len(text) <= SAMPLE_BYTES:
        return text
    blocks = SAMPLE_BYTES // SAMPLE_BLOCK_BYTES
    step = (len(text) - SAMPLE_BLOCK_BYTES) / (blocks - 1)
    starts = (int(i * step) for i in range(blocks))
    return b"".join([text[start : start + SAMPLE_BLOCK_BYTES] for start in starts])


def look(text: bytes) -> Look:
    """Look at a text, which is taken to follow a line end."""
    seen = sample(text)
    led = b"\n" + seen
    pairs = np.bincount(
        np.concatenate(
            [
                _CODE_OF[np.frombuffer(led, "<u2", len(led) // 2)],
                _CODE_OF[np.frombuffer(seen, "<u2", len(seen) // 2)],
            ]
        ),
        minlength=len(CODES.before),
    ).astype(np.float64)
    words = np.frombuffer(seen, "<u8", len(seen) // WORD)
    runs = words[words == (words & 0xFF) * _REPEATED]
    blanks = WORD * int(np.count_nonzero(runs == _REPEATED * ord(" ")))
    scale = len(text) / len(seen) if seen else 1.0
    if scale > 1:
        pairs *= scale
    return Look(pairs, blanks * scale, (WORD * runs.size - blanks) * scale)


def main_script(seen: Look) -> Script:
    """Return the script that most characters outside ASCII are of; NONE where there are none."""
    return Script(int(seen.pairs.dot(_SCRIPT_COUNTS).argmax()))


def text_kind(seen: Look) -> TextKind:
    """Tell the kind of text by its dominant bytes (bytes of each script; ASCII by its punctuation)."""
    ascii_bytes, marks, two_byte, indic, cjk, latin_marks = seen.pairs.dot(_KIND_WEIGHTS).tolist()
    scripts = ((two_byte, TextKind.TWO_BYTE), (indic, TextKind.INDIC), (cjk, TextKind.CJK))
    script_bytes, kind = max(scripts)
    if script_bytes > ascii_bytes:
        return kind
    if ascii_bytes == 0:
        return TextKind.LATIN if latin_marks else TextKind.NONE
    return TextKind.MARKUP if marks > MARKUP_SHARE * ascii_bytes else TextKind.LATIN


# English prose holds about 3 % of these bytes, Python source about 15 %, compact JSON and CSV 25 % and more.
MARKUP_SHARE = 0.10

_REPEATED = np.uint64(0x0101_0101_0101_0101)
_CLASS_MEMBERS: dict[ByteClass, bytes] = {
    ByteClass.VOWEL: b"aeiou",
    ByteClass.CONSONANT: b"bcdfghlmnprstvwy",
    ByteClass.RARE_LETTER: b"jkqxz",
    ByteClass.UPPER: bytes(range(0x41, 0x5B)),
    ByteClass.DIGIT: b"0123456789",
    ByteClass.SPACE: b" ",
    ByteClass.LINE: b"\t\n\r",
    ByteClass.BRACKET: b"{}[]()<>\"'`",
    ByteClass.JOINER: b"_-/.,",
    ByteClass.CONTINUATION: bytes(range(0x80, 0xC0)),
    ByteClass.LEAD: bytes(range(0xC0, 0x100)),
}
# Script, its first pair of bytes; each reaches up to the next one. Unicode's blocks, as UTF-8 encodes them.
_FIRST_PAIRS = (
    (Script.LATIN_1, 0xC200), (Script.LATIN_EXTENDED, 0xC400), (Script.COMBINING, 0xCC80),
    (Script.GREEK, 0xCDB0), (Script.CYRILLIC, 0xD080), (Script.CYRILLIC_EXTENDED, 0xD280),
    (Script.ARMENIAN, 0xD4B0), (Script.HEBREW, 0xD690), (Script.ARABIC, 0xD880),
    (Script.ARABIC_EXTENDED, 0xDA80), (Script.OTHER_TWO_BYTE, 0xDC80), (Script.DEVANAGARI, 0xE0A4),
    (Script.BENGALI, 0xE0A6), (Script.GURMUKHI, 0xE0A8), (Script.GUJARATI, 0xE0AA), (Script.ORIYA, 0xE0AC),
    (Script.TAMIL, 0xE0AE), (Script.TELUGU, 0xE0B0), (Script.KANNADA, 0xE0B2), (Script.MALAYALAM, 0xE0B4),
    (Script.SINHALA, 0xE0B6), (Script.THAI, 0xE0B8), (Script.LAO, 0xE0BA), (Script.TIBETAN, 0xE0BC),
    (Script.MYANMAR, 0xE180), (Script.GEORGIAN, 0xE182), (Script.HANGUL, 0xE184), (Script.ETHIOPIC, 0xE188),
    (Script.OTHER_SOUTHERN, 0xE18E), (Script.KHMER, 0xE19E), (Script.OTHER_SOUTHERN, 0xE1A0),
    (Script.VIETNAMESE, 0xE1B8), (Script.POLYTONIC, 0xE1BC), (Script.DASH, 0xE280), (Script.SYMBOL, 0xE282),
    (Script.BOX, 0xE294), (Script.SYMBOL, 0xE298), (Script.BRAILLE, 0xE2A0), (Script.SYMBOL, 0xE2A4),
    (Script.CJK_MARK, 0xE380), (Script.KANA, 0xE381), (Script.CJK_MARK, 0xE384), (Script.RARE_HAN, 0xE390),
    (Script.HAN, 0xE4B8), (Script.OTHER_THREE_BYTE, 0xEA80), (Script.HANGUL, 0xEAB0),
    (Script.OTHER_THREE_BYTE, 0xED9F), (Script.FULL_WIDTH, 0xEFBC), (Script.EMOJI, 0xF09F),
    (Script.OTHER_FOUR_BYTE, 0xF0A0),
)  # fmt: skip
_LETTERS = range(ord("a"), ord("z") + 1)
_HASH = 2_654_435_761  # Knuth's multiplicative hash: 2^32 / golden ratio


def _class_of() -> npt.NDArray[np.intp]:
    table = np.full(256, ByteClass.PUNCTUATION, np.intp)
    for byte_class, members in _CLASS_MEMBERS.items():
        table[list(members)] = byte_class
    return table


def _codes() -> tuple[npt.NDArray[np.uint16], Codes]:
    """Return the code of each pair, by the pair as a little-endian number, and what the codes stand for."""
    before, after = (axis.ravel() for axis in np.meshgrid(np.arange(256), np.arange(256), indexing="ij"))
    classes = _class_of()
    firsts = np.array([0, *(first for _, first in _FIRST_PAIRS)])
    scripts = np.array([Script.NONE, *(script for script, _ in _FIRST_PAIRS)])
    script = scripts[np.searchsorted(firsts, before * 256 + after, side="right") - 1]
    script[classes[before] != ByteClass.LEAD] = Script.NONE
    letters = np.isin(before, _LETTERS) & np.isin(after, _LETTERS)
    bucket = np.where(letters, 1 + (((before * 256 + after) * _HASH & 0xFFFF_FFFF) >> 16) % BUCKETS, 0)
    meaning = np.stack([classes[before], classes[after], script, bucket])
    distinct, code = np.unique(meaning, axis=1, return_inverse=True)
    table = np.empty(256 * 256, np.uint16)
    table[after * 256 + before] = code.ravel()
    return table, Codes(*distinct)


_CODE_OF, CODES = _codes()


def _kind_weights() -> npt.NDArray[np.float64]:
    """Weights of codes, shape (codes, 6): a lead byte counts for all bytes of its character."""
    weights = np.zeros((len(CODES.before), 6))
    script = CODES.script
    weights[CODES.after < ByteClass.CONTINUATION, 0] = 1
    marks = (ByteClass.DIGIT, ByteClass.LINE, ByteClass.BRACKET, ByteClass.PUNCTUATION)
    weights[np.isin(CODES.after, marks), 1] = 1
    weights[(script >= Script.GREEK) & (script <= Script.OTHER_TWO_BYTE), 2] = 2
    weights[(script >= Script.DEVANAGARI) & (script <= Script.TIBETAN), 3] = 3
    weights[(script >= Script.DASH) & (script <= Script.OTHER_THREE_BYTE), 4] = 3
    weights[script >= Script.EMOJI, 4] = 4
    weights[(script >= Script.LATIN_1) & (script <= Script.COMBINING), 5] = 2
    weights[(script >= Script.MYANMAR) & (script <= Script.POLYTONIC), 5] = 3
    return weights


_KIND_WEIGHTS = _kind_weights()
_SCRIPT_COUNTS = np.array([CODES.script == script for script in Script if script], np.float64)
_SCRIPT_COUNTS = np.vstack([np.zeros(len(CODES.before)), _SCRIPT_COUNTS]).T.copy()
