"""Classification of a pair of neighbouring bytes: their classes, a script, a bucket of letter pairs."""

from enum import IntEnum
from itertools import pairwise

import pytest

from extproc.core.estimator.codes import BUCKETS, CODE_OF, CODES, ByteClass, Script
from extproc.core.estimator.text import TextKind, look, text_kind

# Each script starts at its first character and ends before the next one's.
FIRST_CHARACTERS = (
    (Script.LATIN_1, 0x80), (Script.LATIN_EXTENDED, 0x100), (Script.COMBINING, 0x300), (Script.GREEK, 0x370),
    (Script.CYRILLIC, 0x400), (Script.CYRILLIC_EXTENDED, 0x480), (Script.ARMENIAN, 0x530), (Script.HEBREW, 0x590),
    (Script.ARABIC, 0x600), (Script.ARABIC_EXTENDED, 0x680), (Script.OTHER_TWO_BYTE, 0x700),
    (Script.DEVANAGARI, 0x900), (Script.BENGALI, 0x980), (Script.GURMUKHI, 0xA00), (Script.GUJARATI, 0xA80),
    (Script.ORIYA, 0xB00), (Script.TAMIL, 0xB80), (Script.TELUGU, 0xC00), (Script.KANNADA, 0xC80),
    (Script.MALAYALAM, 0xD00), (Script.SINHALA, 0xD80), (Script.THAI, 0xE00), (Script.LAO, 0xE80),
    (Script.TIBETAN, 0xF00), (Script.MYANMAR, 0x1000), (Script.GEORGIAN, 0x1080), (Script.ETHIOPIC, 0x1200),
    (Script.OTHER_SOUTHERN, 0x1380), (Script.KHMER, 0x1780), (Script.OTHER_SOUTHERN, 0x1800),
    (Script.VIETNAMESE, 0x1E00), (Script.POLYTONIC, 0x1F00), (Script.DASH, 0x2000), (Script.SYMBOL, 0x2080),
    (Script.BOX, 0x2500), (Script.SYMBOL, 0x2600), (Script.BRAILLE, 0x2800), (Script.SYMBOL, 0x2900),
    (Script.CJK_MARK, 0x3000), (Script.KANA, 0x3040), (Script.CJK_MARK, 0x3100), (Script.RARE_HAN, 0x3400),
    (Script.HAN, 0x4E00), (Script.OTHER_THREE_BYTE, 0xA000), (Script.HANGUL, 0xAC00),
    (Script.OTHER_THREE_BYTE, 0xD7C0), (Script.FULL_WIDTH, 0xFF00), (Script.EMOJI, 0x1F000),
    (Script.OTHER_FOUR_BYTE, 0x20000), (Script.OTHER_FOUR_BYTE, 0x110000),
)  # fmt: skip


def code_of(pair: bytes) -> int:
    """Return the code of two bytes."""
    return int(CODE_OF[int.from_bytes(pair[:2], "little")])


def script_of(character: int) -> int:
    """Return the script of a character, which its first two bytes determine."""
    return int(CODES.script[code_of(chr(character).encode())])


@pytest.mark.parametrize("members", [ByteClass, Script])
def test_classes_and_scripts_are_numbered_without_gaps(members: type[IntEnum]) -> None:
    """They are numbered from 0 without gaps, because their counts are arrays."""
    assert list(range(len(members.__members__))) == sorted(members)


@pytest.mark.parametrize(
    ("script", "first", "last"),
    [
        # Georgian is followed by old Korean letters, full width by rarely used characters.
        (script, first, {Script.GEORGIAN: 0x10FF, Script.FULL_WIDTH: 0xFFFF}.get(script, following - 1))
        for (script, first), (_, following) in pairwise(FIRST_CHARACTERS)
    ],
)
def test_a_script_extends_as_far_as_its_blocks(script: Script, first: int, last: int) -> None:
    """Its first and last characters belong to it, and the character before them belongs to another."""
    assert [script, script] == [script_of(first), script_of(last)]
    assert script != script_of(first - 1)


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        (b"aeiou", ByteClass.VOWEL),
        (b"bcdfghlmnprstvwy", ByteClass.CONSONANT),
        (b"jkqxz", ByteClass.RARE_LETTER),
        (b"AMZ", ByteClass.UPPER),
        (b"0189", ByteClass.DIGIT),
        (b" ", ByteClass.SPACE),
        (b"\t\n\r", ByteClass.LINE),
        (b"{}[]()<>\"'`", ByteClass.BRACKET),
        (b"_-/.,", ByteClass.JOINER),
        (b"@\\^|~:;!?&*+=#$%\0\x7f", ByteClass.PUNCTUATION),
        (b"\x80\xbf", ByteClass.CONTINUATION),
        (b"\xc0\xff", ByteClass.LEAD),
    ],
)
def test_bytes_have_the_class_that_tokenizers_distinguish(members: bytes, expected: ByteClass) -> None:
    """The class is the same on either side of a pair."""
    for byte in members:
        assert expected == CODES.before[code_of(bytes((byte, ord("a"))))]
        assert expected == CODES.after[code_of(bytes((ord("a"), byte)))]


def test_only_pairs_of_lower_case_letters_have_buckets() -> None:
    """All buckets are used about equally; learned prices are stored by bucket, so none may change."""
    letters = range(ord("a"), ord("z") + 1)
    buckets = [int(CODES.bucket[code_of(bytes((one, other)))]) for one in letters for other in letters]
    assert set(range(1, BUCKETS + 1)) == set(buckets)
    assert max(map(buckets.count, set(buckets))) <= 3 * 26 * 26 / BUCKETS
    assert [0] * 5 == [int(CODES.bucket[code_of(pair)]) for pair in (b"a`", b"z{", b"`a", b"{z", b"aA")]
    assert [14, 16, 40, 15] == [int(CODES.bucket[code_of(pair)]) for pair in (b"th", b"er", b"in", b"zz")]


@pytest.mark.parametrize(
    ("characters", "expected"),
    [
        ("aZ", TextKind.LATIN),
        ("{};\n12", TextKind.MARKUP),
        ("\u0370\u0400\u05d0\u0600\u07ff", TextKind.TWO_BYTE),
        ("\u0900\u0f00\u0e01", TextKind.INDIC),
        ("\u3040\u4e00\uac00\uff01", TextKind.CJK),
        ("\U0001f600\U00020000", TextKind.CJK),
        ("\u00e9\u0100\u0300\u1780\u1e00\u1f00", TextKind.LATIN),
        ("", TextKind.NONE),
    ],
)
def test_a_texts_kind_is_that_of_most_of_its_bytes(characters: str, expected: TextKind) -> None:
    """A text of any of these characters alone has their kind."""
    for text in characters or [""]:
        assert expected == text_kind(look((text * 100).encode()))
