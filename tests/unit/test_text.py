"""Digrams of byte classes, sampling, and kinds of text."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.core.text import CLASSES, SAMPLE_BYTES, ByteClass, TextKind, digrams, sample, text_kind


@given(st.binary(max_size=2_000))
@settings(max_examples=50)
def test_digrams_count_every_byte_once(text: bytes) -> None:
    """The cells sum up to the number of bytes, for any bytes."""
    assert digrams(text).sum() == len(text)
    assert digrams(text).shape == (CLASSES, CLASSES)


def test_a_digram_is_the_class_before_and_the_class() -> None:
    """Counts are by the pair of neighbours; the first byte follows a line end."""
    counts = digrams(b"a Bc")
    pairs = [
        (ByteClass.LINE, ByteClass.VOWEL),
        (ByteClass.VOWEL, ByteClass.SPACE),
        (ByteClass.SPACE, ByteClass.UPPER),
        (ByteClass.UPPER, ByteClass.CONSONANT),
    ]
    assert [counts[pair] for pair in pairs] == [1, 1, 1, 1]


def test_long_text_is_sampled_and_scaled_up() -> None:
    """A text beyond the sample keeps its length in the counts, and about its mix."""
    text = b"word 1234\n" * 100_000
    counts = digrams(text)
    assert len(sample(text)) == SAMPLE_BYTES
    assert counts.sum() == pytest.approx(len(text))
    assert counts[:, ByteClass.DIGIT].sum() == pytest.approx(0.4 * len(text), rel=0.01)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (
            "Whereas recognition of the inherent dignity, and of equal rights, is the foundation of freedom.",
            "latin",
        ),
        ('{"id": 17, "name": "x", "tags": ["a", "b"], "size": 3.5}', "markup"),
        ("def f(x):\n    return x[0] + g(x)\n", "markup"),
        ("يولد جميع الناس أحرارا متساوين", "two_byte"),
        ("सभी मनुष्यों को गौरव", "indic"),
        ("人人生而自由在尊严和权利上一律平等", "cjk"),
        ("", "none"),
    ],
)
def test_kinds_are_told_apart(text: str, kind: str) -> None:
    """The dominant bytes tell the kind of text."""
    assert text_kind(digrams(text.encode())) is TextKind(kind)
