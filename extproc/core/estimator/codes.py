"""Codes of pairs of neighbouring bytes: what each of the 65,536 pairs says about the tokens.

Before they consult any vocabulary, tokenizers cut text where the kind of character changes (a word begins, digits
follow letters, punctuation follows punctuation); then they merge what is frequent. So the counts of pairs of
neighbouring bytes contain nearly everything that can be known about the number of tokens without the vocabulary.
Most pairs mean the same as others: a table maps each pair to a code, which stands for

    the classes of both bytes     where words, numbers and runs of marks begin and end
    a script                      of a lead byte and the byte after it: UTF-8 has a block of 64 characters for
                                  each second byte after E0 to EF, which distinguishes Tamil, Khmer and Han
    a bucket                      of a pair of lower-case letters, by a fixed hash: letter pairs have other
                                  frequencies in a language's words than in text that only looks like it
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

__all__ = ["BUCKETS", "CODES", "CODE_OF", "ByteClass", "Codes", "Script"]

BUCKETS = 40  # of letter pairs; docs/estimator.md compares other numbers


class ByteClass(IntEnum):
    """Classes of bytes. A tokenizer of Latin text merges frequent letter pairs, so letters differ."""

    VOWEL = 0
    CONSONANT = 1
    RARE_LETTER = 2
    UPPER = 3
    DIGIT = 4
    SPACE = 5
    LINE = 6  # tab and line ends
    BRACKET = 7  # and quotes
    JOINER = 8  # characters that join words: _ - / . ,
    PUNCTUATION = 9  # all other ASCII
    CONTINUATION = 10  # byte of a character outside ASCII
    LEAD = 11  # byte of a character outside ASCII


class Script(IntEnum):
    """Scripts, identified by the first two bytes of a character."""

    NONE = 0
    LATIN_1 = 1
    LATIN_EXTENDED = 2
    COMBINING = 3
    GREEK = 4
    CYRILLIC = 5
    CYRILLIC_EXTENDED = 6  # letters that Russian and Ukrainian do not use
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


@dataclass(frozen=True, slots=True)
class Codes:
    """The meaning of each code; arrays of equal length, indexed by code."""

    before: npt.NDArray[np.intp]  # ByteClass
    after: npt.NDArray[np.intp]  # ByteClass
    script: npt.NDArray[np.intp]  # Script of the character that begins with the first byte
    bucket: npt.NDArray[np.intp]  # letter pairs from 1 on, 0 for all other pairs


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
# Each script and its first pair of bytes; it extends to the next entry. Unicode's blocks, encoded in UTF-8.
_FIRST_PAIRS = (
    (Script.LATIN_1, 0xC200), (Script.LATIN_EXTENDED, 0xC400), (Script.COMBINING, 0xCC80),
    (Script.GREEK, 0xCDB0), (Script.CYRILLIC, 0xD080), (Script.CYRILLIC_EXTENDED, 0xD280),
    (Script.ARMENIAN, 0xD4B0), (Script.HEBREW, 0xD690), (Script.ARABIC, 0xD880),
    (Script.ARABIC_EXTENDED, 0xDA80), (Script.OTHER_TWO_BYTE, 0xDC80), (Script.DEVANAGARI, 0xE0A4),
    (Script.BENGALI, 0xE0A6), (Script.GURMUKHI, 0xE0A8), (Script.GUJARATI, 0xE0AA), (Script.ORIYA, 0xE0AC),
    (Script.TAMIL, 0xE0AE), (Script.TELUGU, 0xE0B0), (Script.KANNADA, 0xE0B2), (Script.MALAYALAM, 0xE0B4),
    (Script.SINHALA, 0xE0B6), (Script.THAI, 0xE0B8), (Script.LAO, 0xE0BA), (Script.TIBETAN, 0xE0BC),
    (Script.MYANMAR, 0xE180), (Script.GEORGIAN, 0xE182), (Script.OTHER_THREE_BYTE, 0xE184),
    (Script.ETHIOPIC, 0xE188), (Script.OTHER_SOUTHERN, 0xE18E), (Script.KHMER, 0xE19E),
    (Script.OTHER_SOUTHERN, 0xE1A0),
    (Script.VIETNAMESE, 0xE1B8), (Script.POLYTONIC, 0xE1BC), (Script.DASH, 0xE280), (Script.SYMBOL, 0xE282),
    (Script.BOX, 0xE294), (Script.SYMBOL, 0xE298), (Script.BRAILLE, 0xE2A0), (Script.SYMBOL, 0xE2A4),
    (Script.CJK_MARK, 0xE380), (Script.KANA, 0xE381), (Script.CJK_MARK, 0xE384), (Script.RARE_HAN, 0xE390),
    (Script.HAN, 0xE4B8), (Script.OTHER_THREE_BYTE, 0xEA80), (Script.HANGUL, 0xEAB0),
    (Script.OTHER_THREE_BYTE, 0xED9F), (Script.FULL_WIDTH, 0xEFBC), (Script.OTHER_FOUR_BYTE, 0xF000),
    (Script.EMOJI, 0xF09F), (Script.OTHER_FOUR_BYTE, 0xF0A0),
)  # fmt: skip
_LETTERS = range(ord("a"), ord("z") + 1)
_HASH = 2_654_435_761  # Knuth's multiplicative hash: 2^32 / golden ratio


def _class_of() -> npt.NDArray[np.intp]:
    table = np.full(256, ByteClass.PUNCTUATION, np.intp)
    for byte_class, members in _CLASS_MEMBERS.items():
        table[list(members)] = byte_class
    return table


def _codes() -> tuple[npt.NDArray[np.uint16], Codes]:
    """Return the code of each pair, indexed by the pair as a little-endian number, and the codes' meanings."""
    before, after = (axis.ravel() for axis in np.meshgrid(np.arange(256), np.arange(256), indexing="ij"))
    classes = _class_of()
    firsts = np.array([0, *(first for _, first in _FIRST_PAIRS)])
    scripts = np.array([Script.NONE, *(script for script, _ in _FIRST_PAIRS)])
    script = scripts[np.searchsorted(firsts, before * 256 + after, side="right") - 1]
    script[classes[before] != ByteClass.LEAD] = Script.NONE
    letters = np.isin(before, _LETTERS) & np.isin(after, _LETTERS)
    bucket = np.where(letters, 1 + (((before * 256 + after) * _HASH & 0xFFFF_FFFF) >> 16) % BUCKETS, 0)
    # One number for all four: sorting it takes a twentieth of the time.
    shape = (len(ByteClass), len(ByteClass), len(Script), 1 + BUCKETS)
    meaning = np.ravel_multi_index((classes[before], classes[after], script, bucket), shape)
    distinct, code = np.unique(meaning, return_inverse=True)
    table = np.empty(256 * 256, np.uint16)
    table[after * 256 + before] = code
    return table, Codes(*np.unravel_index(distinct, shape))


CODE_OF, CODES = _codes()
