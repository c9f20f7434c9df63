import json
import os
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.estimator.text import (
    CODES,
    ByteClass,
    Script,
    TextKind,
    look,
    main_script,
    sample,
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
    json.dumps({"a": [1, 2, 3], "b": {"c": None}}): TextKind.MARKUP,
    "": TextKind.NONE,
}


@pytest.mark.parametrize(("text", "kind"), PHRASES.items(), ids=list(PHRASES.values()))
def test_the_kind_of_a_text_is_told_by_its_bytes(text: str, kind: TextKind) -> None:
    """Scripts, code and prose are told apart from pairs of bytes alone."""
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
    """The Declaration of Human Rights is of one kind in each language."""
    path = DATA / "udhr" / f"{language}.txt"
    if not path.exists():
        pytest.skip(f"{path} is not there; set DUALPOOL_DATA")
    assert kind == text_kind(look(path.read_bytes()))


@given(text=st.binary(max_size=2_000))
def test_every_byte_is_counted_once_and_a_kind_is_told(text: bytes) -> None:
    """Any bytes have pairs with their number as the sum, no more bytes in runs than there are, and a kind."""
    seen = look(text)
    assert (seen.pairs.shape, seen.pairs.sum()) == (CODES.before.shape, len(text))
    assert 0 <= seen.blank_run_bytes + seen.run_bytes <= len(text)
    assert text_kind(seen) in TextKind


def test_a_code_tells_the_class_before_and_the_class() -> None:
    """Counts are by the pair of neighbours; the first byte follows a line end."""
    codes = look(b"a Bc").pairs.nonzero()[0]
    pairs = {(CODES.before[code], CODES.after[code]) for code in codes}
    assert pairs == {
        (ByteClass.LINE, ByteClass.VOWEL),
        (ByteClass.VOWEL, ByteClass.SPACE),
        (ByteClass.SPACE, ByteClass.UPPER),
        (ByteClass.UPPER, ByteClass.CONSONANT),
    }


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
def test_scripts_are_told_by_two_bytes(text: str, script: Script) -> None:
    """Each character counts once, for the script of its Unicode block."""
    seen = look(text.encode())
    assert main_script(seen) is script
    assert script is Script.NONE or seen.pairs[CODES.script == script].sum() == len(text)


def test_letter_pairs_fall_into_buckets() -> None:
    """Pairs of small letters have a bucket, always the same one; others have none."""
    assert look(b"the").pairs[CODES.bucket > 0].sum() == 2
    assert look(b"T1-e ").pairs[CODES.bucket > 0].sum() == 0


def test_padding_is_seen_as_runs() -> None:
    """Runs of one character are counted in words of eight bytes, those of spaces apart."""
    seen = look(b" " * 64 + b"-" * 32 + b"word")
    assert (seen.blank_run_bytes, seen.run_bytes) == (64, 32)


def test_a_long_text_is_sampled_evenly() -> None:
    """A megabyte is looked at in part, from its beginning to its end, and counted as a megabyte."""
    generator = random.Random(1)
    text = bytes(generator.choices(b"abcdefgh", k=1_000_000))
    seen = sample(text)
    assert (len(seen), seen[:100], seen[-100:]) == (32 * 1024, text[:100], text[-100:])
    counts = look(text).pairs
    assert len(text) == pytest.approx(counts.sum())
    assert 250_000 == pytest.approx(counts[CODES.after == ByteClass.VOWEL].sum(), rel=0.05)
