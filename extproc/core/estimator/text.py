"""Looking at the bytes of a prompt: which classes of byte follow which, and the kind of text that they are.

Tokenizers cut text where the kind of character changes (a word begins, digits follow letters, punctuation follows
punctuation) before they look at any vocabulary. So the count of each pair of neighbouring byte classes tells
nearly all that can be known of the number of tokens without the vocabulary. It is one pass in C. Very long texts
are sampled in evenly spread blocks, so that the cost of a look is bounded.
"""

from collections.abc import Iterable
from enum import IntEnum, StrEnum

import numpy as np
import numpy.typing as npt

__all__ = ["CLASSES", "ByteClass", "Digrams", "TextKind", "digrams", "sample", "text_kind"]

Digrams = npt.NDArray[np.float64]

SAMPLE_BYTES = 32 * 1024
SAMPLE_BLOCK_BYTES = 256  # many small blocks see more of a text's parts than few large ones


class ByteClass(IntEnum):
    """Classes of byte; outside ASCII the lead byte stands for its whole character.

    A tokenizer of Latin text merges frequent letter pairs, so vowels, frequent and rare consonants differ.
    """

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
    LOW_CONTINUATION = 10
    HIGH_CONTINUATION = 11  # after E0: Telugu, Kannada, Thai, Lao; else the northern Indic scripts and Tamil
    LATIN_1 = 12
    LATIN_EXTENDED = 13  # and combining marks
    GREEK = 14
    CYRILLIC = 15  # and Armenian
    HEBREW = 16
    ARABIC = 17
    INDIC = 18  # and Thai, Lao
    SOUTH_EAST = 19  # Vietnamese, Georgian, Khmer, Ethiopic
    SYMBOL = 20  # dashes, curly quotes, arrows
    KANA = 21  # and East Asian punctuation
    HAN = 22
    HANGUL = 23  # and private use, full width
    EMOJI = 24


CLASSES = len(ByteClass)

_MEMBERS: dict[ByteClass, Iterable[int]] = {
    ByteClass.PUNCTUATION: range(0x80),  # what the next ones do not take
    ByteClass.VOWEL: b"aeiou",
    ByteClass.CONSONANT: b"bcdfghlmnprstvwy",
    ByteClass.RARE_LETTER: b"jkqxz",
    ByteClass.UPPER: range(0x41, 0x5B),
    ByteClass.DIGIT: range(0x30, 0x3A),
    ByteClass.SPACE: b" ",
    ByteClass.LINE: b"\t\n\r",
    ByteClass.BRACKET: b"{}[]()<>\"'`",
    ByteClass.JOINER: b"_-/.,",
    ByteClass.LOW_CONTINUATION: range(0x80, 0xB0),
    ByteClass.HIGH_CONTINUATION: range(0xB0, 0xC0),
    ByteClass.LATIN_1: range(0xC0, 0xC4),
    ByteClass.LATIN_EXTENDED: range(0xC4, 0xCD),
    ByteClass.GREEK: range(0xCD, 0xD0),
    ByteClass.CYRILLIC: range(0xD0, 0xD6),
    ByteClass.HEBREW: range(0xD6, 0xD8),
    ByteClass.ARABIC: range(0xD8, 0xE0),
    ByteClass.INDIC: range(0xE0, 0xE1),
    ByteClass.SOUTH_EAST: range(0xE1, 0xE2),
    ByteClass.SYMBOL: range(0xE2, 0xE3),
    ByteClass.KANA: range(0xE3, 0xE4),
    ByteClass.HAN: range(0xE4, 0xEA),
    ByteClass.HANGUL: range(0xEA, 0xF0),
    ByteClass.EMOJI: range(0xF0, 0x100),
}


class TextKind(StrEnum):
    """Kinds of text that differ in bytes per token."""

    LATIN = "latin"
    MARKUP = "markup"  # code, JSON, tables: much punctuation, digits and line ends
    TWO_BYTE = "two_byte"  # Greek, Cyrillic, Hebrew, Arabic
    INDIC = "indic"  # Indic scripts and Thai
    CJK = "cjk"  # kana, Han, Hangul, emoji
    NONE = "none"  # no text at all


def sample(text: bytes) -> bytes:
    """Return `text`, or evenly spread blocks of it (SAMPLE_BYTES in all) when it is longer than that."""
    if len(text) <= SAMPLE_BYTES:
        return text
    blocks = SAMPLE_BYTES // SAMPLE_BLOCK_BYTES
    step = (len(text) - SAMPLE_BLOCK_BYTES) / (blocks - 1)
    starts = (int(i * step) for i in range(blocks))
    return b"".join([text[start : start + SAMPLE_BLOCK_BYTES] for start in starts])


def digrams(text: bytes) -> Digrams:
    """Count each pair (class of the byte before, class of the byte): float64, shape (CLASSES, CLASSES).

    The text is taken to follow a line end, so that the counts sum up to len(text), also when it was sampled.
    """
    seen = sample(text)
    classes = np.frombuffer((b"\n" + seen).translate(_CLASS_OF), np.uint8)
    pairs = np.multiply(classes[:-1], CLASSES, dtype=np.intp)
    pairs += classes[1:]
    counts = np.bincount(pairs, minlength=CLASSES * CLASSES).astype(np.float64)
    if len(seen) < len(text):
        counts *= len(text) / len(seen)
    return counts.reshape(CLASSES, CLASSES)


def text_kind(counts: Digrams) -> TextKind:
    """Tell the kind of text by its dominant bytes (bytes of each script; ASCII by its punctuation)."""
    ascii_bytes, marks, two_byte, indic, cjk, latin_marks = counts.ravel().dot(_SCRIPTS).tolist()
    scripts = ((two_byte, TextKind.TWO_BYTE), (indic, TextKind.INDIC), (cjk, TextKind.CJK))
    script_bytes, kind = max(scripts)
    if script_bytes > ascii_bytes:
        return kind
    if ascii_bytes == 0:
        return TextKind.LATIN if latin_marks else TextKind.NONE
    return TextKind.MARKUP if marks > MARKUP_SHARE * ascii_bytes else TextKind.LATIN


# English prose holds about 3 % of these bytes, Python source about 15 %, compact JSON and CSV 25 % and more.
MARKUP_SHARE = 0.10


def _class_of() -> bytes:
    """Return the table for bytes.translate: byte value to class."""
    table = bytearray(256)
    for byte_class, members in _MEMBERS.items():
        for member in members:
            table[member] = byte_class
    return bytes(table)


def _scripts() -> npt.NDArray[np.float64]:
    """Weights of digrams, shape (CLASSES ** 2, 6): a lead byte counts for all bytes of its character."""
    weights = np.zeros((CLASSES, 6))
    weights[: ByteClass.LOW_CONTINUATION, 0] = 1
    weights[[ByteClass.DIGIT, ByteClass.LINE, ByteClass.BRACKET, ByteClass.PUNCTUATION], 1] = 1
    weights[ByteClass.GREEK : ByteClass.INDIC, 2] = 2
    weights[ByteClass.INDIC, 3] = 3
    weights[ByteClass.SYMBOL : ByteClass.EMOJI, 4] = 3
    weights[ByteClass.EMOJI, 4] = 4
    weights[[ByteClass.LATIN_1, ByteClass.LATIN_EXTENDED], 5] = 2
    weights[ByteClass.SOUTH_EAST, 5] = 3
    return np.tile(weights, (CLASSES, 1))  # whatever came before


_CLASS_OF = _class_of()
_SCRIPTS = _scripts()
