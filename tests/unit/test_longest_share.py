"""Lists of prompts: which one is the longest in tokens, before anything is estimated."""

import json
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.apis import read_request
from extproc.core.apis.shares import longest_share
from extproc.core.estimator.protocol import CategoryKey, Estimate, Source
from extproc.core.facts import Api
from extproc.core.placing.budget import token_budget
from tests.unit.byteclass_lessons import WORDS

PROSE: Final = (WORDS * 200).decode()[:9_900]
NUMBERS: Final = ",".join(f"{number * 7919 % 1_000_000 / 1000:.3f}" for number in range(2_000))[:9_900]
HEX: Final = "".join(f"{number * 2_654_435_761 % (1 << 32):08x}" for number in range(2_000))[:9_900]
THAI: Final = ("สวัสดีชาวโลก ยินดีที่ได้รู้จัก " * 200)[:3_300]


@pytest.mark.parametrize(("text", "tokens_per_byte"), [(NUMBERS, 1.0), (HEX, 0.9), (THAI, 0.5)])
@pytest.mark.parametrize("others", [2, 20, 60])
def test_a_dense_text_is_not_hidden_by_the_prose_around_it(text: str, tokens_per_byte: float, others: int) -> None:
    """If all prompts together are estimated exactly, the bound of the longest one covers it."""
    body = {"model": "m", "input": [*[PROSE] * others, text]}
    facts = read_request(Api.EMBEDDINGS, json.dumps(body).encode())
    of_text = tokens_per_byte * len(text.encode())
    whole = of_text + 0.2 * len(PROSE) * others
    estimate = Estimate(
        whole, whole, 0, output_declared=True, source=Source.LEARNED, category=CategoryKey("m", "")
    )
    assert token_budget(facts, estimate).prompt_bound >= of_text


def test_like_texts_have_like_shares() -> None:
    """Of a list of tables, each has its share of the bytes: only differences count."""
    rows = NUMBERS.encode()
    assert longest_share([rows, rows, rows[: len(rows) // 2]]) == pytest.approx(0.4, rel=0.01)


@pytest.mark.parametrize(
    ("text", "weight"),
    [
        (b"abCD", 4),
        (b"1", 4),
        (b"-+", 8),
        (b"    ", 4),
        (b"!~", 8),
        (b"\n\x7f", 5),
        ("é".encode(), 2),
        (b"a1 ", 6),
    ],
)
def test_a_digit_or_sign_weighs_as_much_as_four_letters(text: bytes, weight: int) -> None:
    """Blanks, and bytes beyond ASCII, weigh as much as letters."""
    letters = b"x" * 20
    assert longest_share([letters, text]) == pytest.approx(20 / (20 + weight))


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=6))
def test_the_longest_of_any_prompts_has_at_least_an_equal_share(texts: list[bytes]) -> None:
    """Whatever the prompts, the longest has from an equal share to all of the tokens; empty ones have none."""
    filled = [text for text in texts if text]
    share = longest_share(texts)
    assert 1 / max(len(filled), 1) <= share <= 1
    assert (share == 1) == (len(filled) <= 1)
    assert share == longest_share(filled or texts)


@given(st.lists(st.tuples(st.binary(max_size=40), st.binary(max_size=40)), min_size=1, max_size=6))
def test_parts_of_prompts_count_together(pairs: list[tuple[bytes, bytes]]) -> None:
    """A query and a document are one prompt."""
    parts = [one for one, _ in pairs] + [other for _, other in pairs]
    assert longest_share(parts, parts=2) == longest_share([one + other for one, other in pairs])
