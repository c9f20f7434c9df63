"""The features of a request, and their prior prices."""

import numpy as np
import pytest

from extproc.core.estimator.features import FEATURE_NAMES, GROUP_COUNT, Views, features
from extproc.core.estimator.prices import MEDIA, STRUCTURE, TEXT_PRICES, prior
from extproc.core.estimator.settings import MediaTokens
from extproc.core.estimator.text import TEXT_FEATURES, look
from extproc.core.estimator.vocabularies import PRICES
from extproc.core.facts import Api, MediaCount, RequestFacts
from tests.unit.byteclass_lessons import structure_tokens


def counted(text: str, **fields: object) -> dict[str, float]:
    """Return the nonzero features by name, without letter pairs."""
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
        (" " * 8, {"space": 1, "indentation": 1, "byte in a run of blanks": 8}),
        ("-" * 8, {"joiner": 1, "byte in a run": 8}),
        ("🌍", {"emoji": 1, "foreign word start": 1}),
    ],
)
def test_the_features_of_a_text(text: str, expected: dict[str, float]) -> None:
    """Bytes are counted by class, and so are transitions at which a tokenizer would split or merge."""
    assert expected | {"request": 1} == counted(text)


def test_the_features_besides_the_text() -> None:
    """Messages, tools, tool calls and media are counted; offering any tools is a feature of its own."""
    media = MediaCount(2, 3, 4, 5, 6, 7, image_patches=1)
    expected = {"request": 1, "message": 7, "tools offered": 1, "tool": 8, "tool call": 9}
    assert expected | dict(zip(MEDIA, range(1, 8), strict=True)) == counted(
        "", messages=7, tools=8, tool_calls=9, media=media
    )


def test_the_prior_prices_media_as_configured() -> None:
    """Media have the configured prices, with a standard deviation of half the price, but at least one token."""
    believed = prior(MediaTokens(10, 20, 30, 40, 50, 0))
    assert [10, 20, 30, 40, 50, 0] == believed.mean[-6:].tolist()
    assert [25, 100, 225, 400, 625, 1] == believed.covariance.diagonal()[-6:].tolist()


def test_the_prior_of_structure_is_that_of_the_table() -> None:
    """Tokens of the chat template have the prices and standard deviations of the table."""
    believed = prior(MediaTokens())
    structure = slice(TEXT_FEATURES, TEXT_FEATURES + len(STRUCTURE))
    assert [price for _, price, _ in STRUCTURE] == believed.mean[structure].tolist()
    assert [deviation**2 for _, _, deviation in STRUCTURE] == believed.covariance.diagonal()[structure].tolist()


def test_prior_prices_of_different_scripts_are_correlated() -> None:
    """The prior correlates the prices of non-Latin scripts; each has its own standard deviation."""
    believed = prior(MediaTokens())
    tamil, georgian, rare = (FEATURE_NAMES.index(name) for name in ("tamil", "georgian", "other_four_byte"))
    covariance, mean = believed.covariance, believed.mean
    together = covariance[tamil, georgian] / np.sqrt(covariance[tamil, tamil] * covariance[georgian, georgian])
    assert 0.5 < together < 1
    assert np.allclose(believed.precision @ covariance, np.eye(len(mean)))
    assert (0.5**2 + 0.3**2 * 40 / 50) * mean[rare] ** 2 == pytest.approx(covariance[rare, rare])


def test_a_vocabulary_may_be_left_out_with_its_family() -> None:
    """A prior without a vocabulary also leaves out the other vocabularies of the same family."""
    whole, without = prior(MediaTokens()), prior(MediaTokens(), "qwen")
    assert whole.mean[:TEXT_FEATURES].tolist() != without.mean[:TEXT_FEATURES].tolist()
    assert whole.mean[TEXT_FEATURES:].tolist() == without.mean[TEXT_FEATURES:].tolist()
    for name in ("qwen3", "qwen3.6"):
        assert without.mean.tolist() == prior(MediaTokens(), name).mean.tolist()
    han = FEATURE_NAMES.index("han")
    of_qwen, of_others = PRICES["han"][2:4], (*PRICES["han"][:2], *PRICES["han"][4:])
    assert sum(of_qwen) / 2 < sum(of_others) / 8
    assert without.mean[han] > whole.mean[han]
    assert whole.mean.tolist() == prior(MediaTokens(), "a vocabulary that nobody knows").mean.tolist()
    assert TEXT_PRICES.tolist() == whole.mean[:TEXT_FEATURES].tolist()


def test_structure_is_priced_without_the_text() -> None:
    """Structure and media cost at first what the prior says, whatever the text costs."""
    facts = RequestFacts(Api.CHAT, "m", b"some text", messages=2, tools=3, media=MediaCount(small_images=1))
    x, prices = features(facts, look(facts.text)), prior(MediaTokens()).mean
    assert 4 + 2 * 4 + 100 + 3 * 4 + 256 == structure_tokens(x, prices)


def test_each_feature_counts_in_one_group() -> None:
    """Whatever the latest prices, a feature costs its price in one group and nothing in the others."""
    views = Views(prior(MediaTokens()).mean)
    for first in (1.0, 1000.0):
        prices = np.arange(first, first + len(FEATURE_NAMES))
        for x, price in zip(np.eye(len(FEATURE_NAMES)), prices.tolist(), strict=True):
            costs = views.of(x, prices)[:GROUP_COUNT]
            assert [0.0] * (GROUP_COUNT - 1) + [price] == sorted(costs)
