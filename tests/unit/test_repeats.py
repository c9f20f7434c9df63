"""How far a text falls short of the usual repetition, by which random letters are told from words."""

import random

import pytest

from extproc.core.estimator.repeats import GRAM, LONG_GRAM, missing_repeats
from tests.unit.byteclass_lessons import WORDS

ARABIC = "ابتثجحخدذرزسشصضطظعغفقكلمنهوي"
SENTENCE = "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق "


def of_letters(letters: str, count: int) -> bytes:
    """Return random letters, the same ones each time."""
    return "".join(random.Random(0).choices(letters, k=count)).encode()


@pytest.mark.parametrize("count", [512, 2_000, 20_000])
@pytest.mark.parametrize(
    ("letters", "words", "gram"),
    [("abcdefghijklmnopqrstuvwxyz", WORDS.decode(), GRAM), (ARABIC, SENTENCE, LONG_GRAM)],
)
def test_random_letters_lack_the_usual_repetition(letters: str, words: str, gram: int, count: int) -> None:
    """In the script of each gram, random letters lack more than half of it, and words lack nothing."""
    assert 0.5 < missing_repeats(of_letters(letters, count), gram) <= 1
    assert 0 == missing_repeats((words * count).encode()[: 2 * count], gram)
