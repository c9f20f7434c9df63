import json
import os
import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.estimator.codes import CODE_OF, CODES, ByteClass, Script
from extproc.core.estimator.sampling import sample
from extproc.core.estimator.text import (
    BLANK_RUN,
    CLASSES,
    KIND_WEIGHTS,
    OF_SCRIPTS,
    OF_UNREPEATED,
    RUN,
    RUNS,
    TEXT_NAMES,
    TRANSITIONS,
    WORD,
    TextKind,
    look,
    main_script,
    text_kind,
)

DATA = Path(os.environ.get("DUALPOOL_DATA", "."))
PHRASES = {
    "The quick brown fox jumps over the lazy dog.": TextKind.LATIN,
    "Größere Übungen für geübte Bäcker": TextKind.LATIN,
    "Съешь же ещё этих мягких французских булок": TextKind.TWO_BYTE,
    "כל בני האדם נולדו בני חורין": TextKind.TWO_BYTE,
    "सभी मनुष्यों को गौरव": TextKind.INDIC,
    "人人生而自由,在尊严和权利上一律平等。": TextKind.CJK,
    "모든 인간은 태어날 때부터 자유로우며": TextKind.CJK,
    "လူတိုင်းသည်": TextKind.LATIN,  # a three-byte script without a kind of its own
    json.dumps({"a": [1, 2, 3], "b": {"c": None}}): TextKind.MARKUP,
    "": TextKind.NONE,
}


@pytest.mark.parametrize(
    ("characters", "column"),
    [("αβ", 2), ("ךב", 2), ("हभ", 3), ("ངཅ", 3), ("—―", 4), ("人生", 4), ("😀🚀", 4), ("öß", 5), ("ကခ", 5)],
)
def test_a_script_counts_for_the_bytes_of_its_kind_only(characters: str, column: int) -> None:
    """All bytes of its characters count for one kind of text, and none for another."""
    text = (characters * 9).encode()
    of_kinds = look(text).dot(KIND_WEIGHTS)
    assert len(text) == pytest.approx(of_kinds[column])
    assert len(text) == pytest.approx(of_kinds.sum())


@pytest.mark.parametrize(
    ("character", "letters", "kind"),
    [
        ("\u03b1", 19, TextKind.TWO_BYTE),
        ("\u03b1", 21, TextKind.LATIN),
        ("\u0905", 29, TextKind.INDIC),
        ("\u0905", 31, TextKind.LATIN),
        ("\u4eba", 29, TextKind.CJK),
        ("\u4eba", 31, TextKind.LATIN),
        ("\U0001f600", 39, TextKind.CJK),
        ("\U0001f600", 41, TextKind.LATIN),
    ],
)
def test_a_script_counts_for_all_bytes_of_its_characters(character: str, letters: int, kind: TextKind) -> None:
    """Ten characters of two, three or four bytes each, against one byte for each letter."""
    assert kind == text_kind(look((10 * character + (6 * "abcdefgh")[:letters]).encode()))


@pytest.mark.parametrize(("text", "kind"), PHRASES.items(), ids=list(PHRASES.values()))
def test_the_kind_of_a_text_is_recognised_by_its_bytes(text: str, kind: TextKind) -> None:
    """Scripts, code and prose are distinguished by pairs of bytes alone."""
    assert kind == text_kind(look(text.encode()))


@pytest.mark.parametrize(
    ("language", "kind"),
    [
        ("en", "latin"),
        ("fr", "latin"),
        ("vi", "latin"),
        ("ru", "two_byte"),
        ("ar", "two_byte"),
        ("el", "two_byte"),
        ("hi", "indic"),
        ("th", "indic"),
        ("zh", "cjk"),
        ("ja", "cjk"),
        ("ko", "cjk"),
    ],
)
def test_real_texts_are_of_their_kind(language: str, kind: str) -> None:
    """In each language, the Declaration of Human Rights has the expected kind."""
    path = DATA / "udhr" / f"{language}.txt"
    if not path.exists():
        pytest.skip(f"{path} is not there; set DUALPOOL_DATA")
    assert kind == text_kind(look(path.read_bytes()))


@given(text=st.binary(max_size=2_000))
def test_every_byte_is_counted_once_and_any_bytes_have_a_kind(text: bytes) -> None:
    """Each ASCII byte is counted once, no more bytes are in runs than there are, and any bytes have a kind."""
    counts = look(text)
    assert counts[: len(CLASSES)].sum() == sum(byte < 0x80 for byte in text)
    assert 0 <= counts[BLANK_RUN] + counts[RUN] <= len(text)
    assert text_kind(counts) in TextKind


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("abc", Script.NONE),
        ("ქართული", Script.GEORGIAN),
        ("አማርኛ", Script.ETHIOPIC),
        ("ខ្មែរ", Script.KHMER),
        ("தமிழ்", Script.TAMIL),
        ("বাংলা", Script.BENGALI),
        ("ไทย", Script.THAI),
        ("汉字", Script.HAN),
        ("한글", Script.HANGUL),
        ("кириллица", Script.CYRILLIC),
        ("ہیںڑڈ", Script.ARABIC_EXTENDED),
        ("😀", Script.EMOJI),
    ],
)
def test_scripts_are_recognised_by_two_bytes(text: str, script: Script) -> None:
    """Each character counts once, for the script of its Unicode block."""
    counts = look(text.encode())
    assert main_script(counts) is script
    assert script is Script.NONE or counts[TEXT_NAMES.index(script.name.lower())] == len(text)


# The first code point of each block and its script; a block extends to the start of the next one.
BLOCKS = (
    (0x0080, Script.LATIN_1),
    (0x0100, Script.LATIN_EXTENDED),
    (0x0300, Script.COMBINING),
    (0x0370, Script.GREEK),
    (0x0400, Script.CYRILLIC),
    (0x0480, Script.CYRILLIC_EXTENDED),
    (0x0530, Script.ARMENIAN),
    (0x0590, Script.HEBREW),
    (0x0600, Script.ARABIC),
    (0x0680, Script.ARABIC_EXTENDED),
    (0x0700, Script.OTHER_TWO_BYTE),
    (0x0900, Script.DEVANAGARI),
    (0x0980, Script.BENGALI),
    (0x0A00, Script.GURMUKHI),
    (0x0A80, Script.GUJARATI),
    (0x0B00, Script.ORIYA),
    (0x0B80, Script.TAMIL),
    (0x0C00, Script.TELUGU),
    (0x0C80, Script.KANNADA),
    (0x0D00, Script.MALAYALAM),
    (0x0D80, Script.SINHALA),
    (0x0E00, Script.THAI),
    (0x0E80, Script.LAO),
    (0x0F00, Script.TIBETAN),
    (0x1000, Script.MYANMAR),
    (0x1080, Script.GEORGIAN),
    (0x1100, Script.OTHER_THREE_BYTE),
    (0x1200, Script.ETHIOPIC),
    (0x1380, Script.OTHER_SOUTHERN),
    (0x1780, Script.KHMER),
    (0x1800, Script.OTHER_SOUTHERN),
    (0x1E00, Script.VIETNAMESE),
    (0x1F00, Script.POLYTONIC),
    (0x2000, Script.DASH),
    (0x2080, Script.SYMBOL),
    (0x2500, Script.BOX),
    (0x2600, Script.SYMBOL),
    (0x2800, Script.BRAILLE),
    (0x2900, Script.SYMBOL),
    (0x3000, Script.CJK_MARK),
    (0x3040, Script.KANA),
    (0x3100, Script.CJK_MARK),
    (0x3400, Script.RARE_HAN),
    (0x4E00, Script.HAN),
    (0xA000, Script.OTHER_THREE_BYTE),
    (0xAC00, Script.HANGUL),
    (0xD7C0, Script.OTHER_THREE_BYTE),
    (0xFF00, Script.FULL_WIDTH),
    (0x10000, Script.OTHER_FOUR_BYTE),
    (0x1F000, Script.EMOJI),
    (0x20000, Script.OTHER_FOUR_BYTE),
)


@pytest.mark.parametrize(
    ("block", "script"),
    [((start, end - 1), script) for (start, script), (end, _) in pairwise((*BLOCKS, (0x110000, Script.NONE)))],
)
def test_a_script_has_its_blocks_of_unicode(block: tuple[int, int], script: Script) -> None:
    """The first and the last character of each block belong to its script."""
    for code_point in block:
        assert main_script(look(chr(code_point).encode())) is script


@pytest.mark.parametrize(
    ("byte_class", "members"),
    [
        ("vowel", "aeiou"),
        ("consonant", "bcdfghlmnprstvwy"),
        ("rare_letter", "jkqxz"),
        ("upper", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
        ("digit", "0123456789"),
        ("space", " "),
        ("line", "\t\n\r"),
        ("bracket", "{}[]()<>\"'`"),
        ("joiner", "_-/.,"),
    ],
)
def test_each_byte_of_ascii_is_in_its_class(byte_class: str, members: str) -> None:
    """ASCII bytes that are in no other class are punctuation."""
    for byte in range(0x80):
        counts = dict(zip(TEXT_NAMES, look(bytes([byte])).tolist(), strict=True))
        assert (chr(byte) in members) == (counts[byte_class] == 1)


def test_letter_pairs_fall_into_buckets() -> None:
    """A pair of lowercase letters always has the same bucket; other pairs have none."""
    assert look(b"the")[OF_SCRIPTS.stop : OF_UNREPEATED.start].sum() == 2
    assert look(b"T1-e ")[OF_SCRIPTS.stop : OF_UNREPEATED.start].sum() == 0


def unrepeated(text: bytes) -> tuple[float, float]:
    """Return the shares of bytes, and of characters outside ASCII, that are counted as not repeated."""
    counts = look(text)
    of_bytes, of_characters = counts[OF_UNREPEATED].tolist()
    return (
        of_bytes / max(counts[: len(CLASSES)].sum(), 1),
        of_characters / max(counts[OF_SCRIPTS].sum(), 1),
    )


@pytest.mark.parametrize("size", [400, 1_500, 4_096, 9_000, 100_000])
def test_text_repeats_itself_and_random_letters_do_not(size: int) -> None:
    """Text made of words repeats itself from its first hundred bytes; random letters never do."""
    generator = random.Random(2)
    words = " ".join(generator.choices(["request", "handler", "of", "the", "session", "that"], k=size)).encode()
    letters = bytes(generator.choices(b"abcdefghijklmnopqrstuvwxyz", k=size))
    assert (0.0, 0.0) == unrepeated(words[:size])
    assert unrepeated(letters)[0] > (0.5 if size < 1_000 else 0.8)


def test_characters_outside_ascii_count_by_themselves() -> None:
    """Random syllables count as characters and the ASCII next to them as bytes, with the same share."""
    generator = random.Random(3)
    syllables = "".join(chr(generator.randrange(0xAC00, 0xD7A0)) for _ in range(600)) + "abc"
    of_bytes, of_characters = unrepeated(syllables.encode())
    assert of_bytes == pytest.approx(of_characters)
    assert of_bytes > 0.6


@pytest.mark.parametrize(("first", "count"), [(0x5D0, 22), (0x3B1, 24), (0xE01, 58), (0x905, 52)])
def test_random_letters_of_other_scripts_do_not_count_as_repetition(first: int, count: int) -> None:
    """Half of the bytes of Hebrew, Greek, Thai or Hindi only identify the script; these are not repetitions."""
    generator = random.Random(4)
    letters = "".join(chr(first + generator.randrange(count)) for _ in range(1_500))
    words = " ".join(generator.choices([letters[i : i + 5] for i in range(0, 200, 5)], k=400))
    assert unrepeated(letters.encode())[1] > 0.35
    assert (0.0, 0.0) == unrepeated(words.encode())


def test_four_bytes_are_compared_unless_most_characters_are_of_another_script() -> None:
    """With as many Hebrew letters as ASCII letters, sequences of four bytes are
    compared; with one more, sequences of eight.
    """
    generator = random.Random(8)
    halves = "".join(chr(0x5D0 + generator.randrange(22)) + chr(97 + generator.randrange(26)) for _ in range(300))
    assert unrepeated(halves.encode())[0] == pytest.approx(0.433, abs=0.01)
    assert unrepeated(f"{halves}a".encode())[0] == pytest.approx(0.433, abs=0.01)
    assert unrepeated(f"{halves}\u05d0".encode())[0] == pytest.approx(0.683, abs=0.01)


def marks(generator: random.Random, size: int) -> bytes:
    """Return bytes without digits in which no sequence of four occurs twice."""
    return bytes(generator.choices([byte for byte in range(33, 127) if not chr(byte).isdigit()], k=size))


def test_digits_are_not_counted_as_unrepeated() -> None:
    """If nothing is repeated, all bytes except digits are counted."""
    text = marks(random.Random(5), 500) + b"0123456789" * 2 + marks(random.Random(6), 504)
    usual = 510 * 509 / 2 / 1_500 + 8  # four-byte sequences at 510 positions of a block
    again = 4 + 8  # from the digits
    assert look(text)[OF_UNREPEATED.start] == pytest.approx(1_004 * (1 - again / usual - 0.15) / 0.85)


@pytest.mark.parametrize(("again", "counted"), [(73, 0.0), (71, 0.0168), (53, 0.2408)])
def test_a_usual_lack_of_repeats_is_not_counted(again: int, counted: float) -> None:
    """Up to .15 of the usual repeats may be missing; what exceeds that is counted as a share of the rest."""
    repeated = b"abcd" * ((again + 3) // 2)
    text = repeated + marks(random.Random(7), 1_024 - len(repeated))
    assert unrepeated(text)[0] == pytest.approx(counted, abs=0.0005)


@pytest.mark.parametrize("byte", [b"!", b"~"])
def test_repeats_are_counted_separately_in_each_kilobyte(byte: bytes) -> None:
    """The lowest and the highest byte value count like all others; repeats in the next kilobyte do not count."""
    once = [other for other in range(34, 126) if not chr(other).isdigit()]
    text = byte * 8 + bytes(random.Random(9).choices(once, k=1_012)) + byte * 1_028
    usual = 511 * 510 / 2 / 1_500 + 8  # four-byte sequences at 511 positions of a block
    missing = (1 - (3 + 8) / usual) / 2  # the second block lacks none
    assert unrepeated(text)[0] == pytest.approx((missing - 0.15) / 0.85, rel=1e-9)


@pytest.mark.parametrize("size", range(0, 150, 7))
def test_a_short_text_counts_as_repeated(size: int) -> None:
    """A hundred bytes need not contain any repetition."""
    assert (0.0, 0.0) == unrepeated(bytes(range(33, 127))[:size] + b"~" * max(0, size - 94))


def test_padding_is_seen_as_runs() -> None:
    """Runs of one character are counted in words of eight bytes, separately for spaces, digits and others."""
    counts = look(b" " * 64 + b"-" * 32 + b"0" * 16 + b"word")
    assert (counts[BLANK_RUN], counts[RUN], counts[RUN + 1]) == (64, 32, 16)


def test_a_long_text_is_sampled_evenly() -> None:
    """A megabyte is sampled from beginning to end, and the counts are scaled to a megabyte."""
    generator = random.Random(1)
    text = bytes(generator.choices(b"abcdefgh", k=1_000_000))
    seen = sample(text)
    assert (len(seen), seen[:100], seen[-100:]) == (32 * 1024, text[:100], text[-100:])
    counts = look(text)
    assert len(text) == pytest.approx(counts[: len(CLASSES)].sum())
    assert 250_000 == pytest.approx(counts[TEXT_NAMES.index("vowel")], rel=0.05)


def of_pair(before: int, after: int) -> Iterator[str]:
    """Yield the names of the counts that a pair of neighbouring bytes adds to."""
    code = CODE_OF[after * 256 + before]
    classes = CODES.before[code], CODES.after[code]
    if classes[1] < len(CLASSES):
        yield ByteClass(classes[1]).name.lower()
    for name, cells in TRANSITIONS:
        if any(classes[0] in first and classes[1] in then for first, then in cells):
            yield name
    if script := CODES.script[code]:
        yield Script(script).name.lower()
    if bucket := CODES.bucket[code]:
        yield f"letter pair {bucket}"


@given(text=st.one_of(st.binary(max_size=600), st.text(max_size=300).map(str.encode)))
def test_counts_equal_those_of_a_walk_over_all_pairs(text: bytes) -> None:
    """For any bytes, all counts of pairs equal exactly those of a walk over all pairs of neighbours."""
    expected = dict.fromkeys(TEXT_NAMES[: OF_UNREPEATED.start], 0.0)
    for before, after in pairwise(b"\n" + text):
        for name in of_pair(before, after):
            expected[name] += 1
    for start in range(0, len(text) - WORD + 1, WORD):
        if len(set(text[start : start + WORD])) == 1:
            byte = text[start : start + 1]
            expected[RUNS[0 if byte == b" " else 2 if byte.isdigit() else 1]] += WORD
            for name in of_pair(text[start], text[start]):
                expected[name] -= WORD - 1
    assert expected == dict(zip(expected, look(text).tolist(), strict=False))


def test_letter_pairs_belong_to_no_script() -> None:
    """Pure ASCII text has no script, whatever letters follow each other."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    assert Script.NONE is main_script(look("".join(a + b for a in letters for b in letters).encode()))
