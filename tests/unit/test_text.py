import json
import os
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.estimator.text import CLASSES, ByteClass, TextKind, digrams, sample, text_kind

DATA = Path(os.environ.get("DUALPOOL_DATA", Path(__file__).parents[3] / "shared" / "data"))
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
    """Scripts, code and prose are told apart from the digrams of byte classes alone."""
    assert kind == text_kind(digrams(text.encode()))


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
    assert kind == text_kind(digrams(path.read_bytes()))


@given(text=st.binary(max_size=2_000))
def test_digrams_count_every_byte_once_and_tell_a_kind(text: bytes) -> None:
    """Any bytes have digrams with their number as the sum, and a kind."""
    counts = digrams(text)
    assert (counts.shape, counts.sum()) == ((CLASSES, CLASSES), len(text))
    assert text_kind(counts) in TextKind


def test_a_digram_is_the_class_before_and_the_class() -> None:
    """Counts are by the pair of neighbours; the first byte follows a line end."""
    counts = digrams(b"a Bc")
    pairs = [
        (ByteClass.LINE, ByteClass.VOWEL),
        (ByteClass.VOWEL, ByteClass.SPACE),
        (ByteClass.SPACE, ByteClass.UPPER),
        (ByteClass.UPPER, ByteClass.CONSONANT),
    ]
    assert [1, 1, 1, 1] == [counts[pair] for pair in pairs]


def test_a_long_text_is_sampled_evenly() -> None:
    """A megabyte is looked at in part, from its beginning to its end, and counted as a megabyte."""
    generator = random.Random(1)
    text = bytes(generator.choices(b"abcdefgh", k=1_000_000))
    seen = sample(text)
    assert (len(seen), seen[:100], seen[-100:]) == (32 * 1024, text[:100], text[-100:])
    counts = digrams(text)
    assert len(text) == pytest.approx(counts.sum())
    assert 250_000 == pytest.approx(counts[:, ByteClass.VOWEL].sum(), rel=0.05)
