"""The features of a request, and the prior prices of them."""

import numpy as np
import pytest

from extproc.core.estimator.features import FEATURE_NAMES, features, structure_tokens
from extproc.core.estimator.prices import MEDIA, SCRIPT_PRICES, STRUCTURE, prior
from extproc.core.estimator.settings import MediaTokens
from extproc.core.estimator.text import TEXT_FEATURES, look
from extproc.core.facts import Api, MediaCount, RequestFacts


def counted(text: str, **fields: object) -> dict[str, float]:
    """Return the features that are not zero, by name."""
    facts = RequestFacts(Api.CHAT, "m", text.encode(), **fields)  # type: ignore[arg-type]
    x = features(facts, look(facts.text))
    counts = zip(FEATURE_NAMES, x.tolist(), strict=True)
    return {name: count for name, count in counts if count and not name.startswith("letter pair")}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("aeb", {"vowel": 2, "consonant": 1, "word start": 1, "vowels": 1}),
        ("aB", {"vowel": 1, "upper": 1, "word start": 2}),
        ("AB", {"upper": 2, "word start": 1, "capitals": 1}),
        ("bzk", {"consonant": 1, "rare_letter": 2, "word start": 1, "consonants": 2}),
        ("a1", {"vowel": 1, "digit": 1, "word start": 1, "number start": 1}),
        ("12", {"digit": 2, "number start": 1}),
        ("1a", {"digit": 1, "vowel": 1, "number start": 1, "word start": 1}),
        (" (", {"space": 1, "bracket": 1, "spaced mark": 1, "indentation": 1}),
        ("!?", {"punctuation": 2, "marks": 1}),
        ("  ", {"space": 2, "indentation": 2}),
        ("\n", {"line": 1, "blank line": 1}),
        ("\n a", {"line": 1, "space": 1, "vowel": 1, "blank line": 1, "indentation": 1, "word start": 1}),
        ("世界", {"han": 2, "foreign word start": 1}),
        ("ф", {"cyrillic": 1, "foreign word start": 1}),
        ("ண", {"tamil": 1, "foreign word start": 1}),
        ("ก", {"thai": 1, "foreign word start": 1}),
        (" " * 8, {"space": 8, "indentation": 8, "byte in a run of blanks": 8}),
        ("-" * 8, {"joiner": 8, "marks": 7, "byte in a run": 8}),
        ("🌍", {"emoji": 1, "foreign word start": 1}),
    ],
)
def test_what_stands_in_a_text(text: str, expected: dict[str, float]) -> None:
    """Bytes are counted by their class, and transitions where a tokenizer would cut or merge."""
    assert expected | {"request": 1} == counted(text)


def test_what_stands_beside_the_text() -> None:
    """Messages, tools, calls and media are counted; that tools are offered at all is a feature of its own."""
    media = MediaCount(2, 3, 4, 5, 6, 7, image_patches=1)
    expected = {"request": 1, "message": 7, "tools offered": 1, "tool": 8, "tool call": 9}
    assert expected | dict(zip(MEDIA, range(1, 8), strict=True)) == counted(
        "", messages=7, tools=8, tool_calls=9, media=media
    )


def test_the_prior_prices_media_as_configured() -> None:
    """What is not text costs what the operator says, give or take the half of it, and at least one token."""
    believed = prior(MediaTokens(10, 20, 30, 40, 50, 0))
    assert [10, 20, 30, 40, 50, 0] == believed.mean[-6:].tolist()
    assert [25, 100, 225, 400, 625, 1] == believed.covariance.diagonal()[-6:].tolist()


def test_the_prior_of_structure_is_the_table_s() -> None:
    """Template tokens have the prices and deviations that the table gives them."""
    believed = prior(MediaTokens())
    structure = slice(TEXT_FEATURES, TEXT_FEATURES + len(STRUCTURE))
    assert [price for _, price, _ in STRUCTURE] == believed.mean[structure].tolist()
    assert [deviation**2 for _, _, deviation in STRUCTURE] == believed.covariance.diagonal()[structure].tolist()


def test_vocabularies_that_are_thrifty_with_one_script_are_so_with_others() -> None:
    """Prices of other scripts are believed to go up and down together; those of ASCII each by itself."""
    believed = prior(MediaTokens())
    han, kana, vowel = (FEATURE_NAMES.index(name) for name in ("han", "kana", "vowel"))
    covariance, mean = believed.covariance, believed.mean
    assert 0.3**2 * mean[han] * mean[kana] == pytest.approx(covariance[han, kana])
    assert (0.5**2 + 0.3**2) * mean[han] ** 2 == pytest.approx(covariance[han, han])
    assert [0.0, 0.09] == pytest.approx([covariance[vowel, han], covariance[vowel, vowel]])
    cyrillic = FEATURE_NAMES.index("cyrillic")
    assert (0.5**2 + 0.3**2) * mean[cyrillic] ** 2 == pytest.approx(covariance[cyrillic, cyrillic])
    assert np.allclose(believed.precision @ covariance, np.eye(len(mean)))
    assert len(SCRIPT_PRICES) == np.count_nonzero(covariance[han])


def test_prices_of_text_may_be_others() -> None:
    """An evaluation brings its own prices of text; those of structure and media stay, and deviations follow."""
    ours, others = prior(MediaTokens()), prior(MediaTokens(), np.full(TEXT_FEATURES, 0.1))
    assert [0.1] * TEXT_FEATURES == others.mean[:TEXT_FEATURES].tolist()
    assert ours.mean[TEXT_FEATURES:].tolist() == others.mean[TEXT_FEATURES:].tolist()
    han = FEATURE_NAMES.index("han")
    assert 0.1**2 + 0.03**2 == pytest.approx(others.covariance[han, han])


def test_structure_is_priced_without_the_text() -> None:
    """What a request costs beside its text is the sum of its structure and media at the given prices."""
    facts = RequestFacts(Api.CHAT, "m", b"some text", messages=2, tools=3, media=MediaCount(small_images=1))
    x = features(facts, look(facts.text))
    assert 4 + 2 * 4 + 100 + 3 * 4 + 256 == structure_tokens(x, prior(MediaTokens()).mean)
