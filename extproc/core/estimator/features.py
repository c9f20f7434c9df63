"""The byte-class model's view of a request: a vector of counts, each with a price in tokens.

It holds the content of the text (text.py) and the *structure*: what a chat template and the media add. The
features are divided into groups, whose shares of the tokens describe what kind of request it is.
"""

import numpy as np
import numpy.typing as npt

from extproc.core.estimator.prices import MEDIA, STRUCTURE, TEXT_PRICES
from extproc.core.estimator.text import (
    BLANK_RUN,
    KIND_WEIGHTS,
    RUN,
    RUNS,
    SCRIPTS,
    TEXT_FEATURES,
    TEXT_NAMES,
    UNREPEATED,
    Counts,
    look,
)
from extproc.core.facts import NO_MEDIA, RequestFacts

__all__ = [
    "FEATURE_NAMES",
    "GROUP_COUNT",
    "OF_KIND",
    "OF_MEDIA",
    "OF_STRUCTURE",
    "Features",
    "Views",
    "features",
]

Features = npt.NDArray[np.float64]  # shape (len(FEATURE_NAMES),), counts

FEATURE_NAMES = (*TEXT_NAMES, *(name for name, _, _ in STRUCTURE), *MEDIA)
OF_MEDIA_COUNTS = slice(len(FEATURE_NAMES) - len(MEDIA), len(FEATURE_NAMES))


def features(facts: RequestFacts, counts: Counts) -> Features:
    """Return the feature vector of a request from its facts and the counts of its text."""
    x = np.zeros(len(FEATURE_NAMES))
    x[:TEXT_FEATURES] = counts
    x[TEXT_FEATURES] = 1
    x[TEXT_FEATURES + 1] = facts.messages
    # Features that most requests lack are skipped: writing one number takes as long as copying all counts.
    if facts.tools or facts.tool_calls or facts.dropped_text:
        dropped = _usual_tokens(facts.dropped_text) if facts.dropped_text else 0.0
        x[TEXT_FEATURES + 2 : OF_MEDIA_COUNTS.start] = facts.tools > 0, facts.tools, facts.tool_calls, dropped
    if facts.media is not NO_MEDIA:
        media = facts.media
        x[OF_MEDIA_COUNTS] = (
            media.image_patches,
            media.small_images,
            media.medium_images,
            media.large_images,
            media.unknown_images,
            media.audio,
            media.video,
        )
    return x


def _usual_tokens(text: bytes) -> float:
    """Return what a text costs at the prior prices, in tokens."""
    return max(float(look(text).dot(TEXT_PRICES)), 0.0)


class Views:
    """The sums over features that a model's estimates are made from; one product computes all of them."""

    def __init__(self, prior_prices: Features) -> None:
        self._prices: Features | None = None
        self._weights = np.zeros((OF_KIND.start + KIND_WEIGHTS.shape[1], len(FEATURE_NAMES)))
        self._flat = self._weights.reshape(-1)  # a view
        self._weights[GROUP_COUNT, TEXT_FEATURES:] = prior_prices[TEXT_FEATURES:]
        self._weights[GROUP_COUNT + 1, [BLANK_RUN, RUN]] = 1
        self._weights[OF_KIND, :TEXT_FEATURES] = KIND_WEIGHTS.T

    def of(self, x: Features, prices: Features) -> list[float]:
        """Return the tokens of each group, whose sum is the cost of the request; then other sums.

        These are the tokens of structure and media at the prior prices, the bytes of padding, and at OF_KIND what
        shows the kind of text. The array of prices must not be modified: what is computed from it is cached until
        another array is passed.
        """
        if prices is not self._prices:
            self._prices = prices
            self._flat[_PLACES] = prices
        sums: list[float] = self._weights.dot(x).tolist()
        return sums


def _groups() -> tuple[set[str], ...]:
    """Return the names of the features in each group; every feature is in exactly one."""
    of_latin = {"vowel", "consonant", "rare_letter", "vowels", "consonants", "word start"}
    return (
        of_latin | {name for name in FEATURE_NAMES if name.startswith("letter pair")},
        {"upper", "capitals"},
        {"digit", "number start", RUNS[2]},
        {"bracket", "joiner", "punctuation", "marks", "spaced mark"},
        {"space", "line", "indentation", "blank line", *RUNS[:2]},
        {"foreign word start", *(script.name.lower() for script in SCRIPTS)},
        set(UNREPEATED),
        {name for name, _, _ in STRUCTURE},
        set(MEDIA),
    )


_GROUPS = _groups()
GROUP_COUNT = len(_GROUPS)
OF_STRUCTURE, OF_MEDIA = GROUP_COUNT - 2, GROUP_COUNT - 1
OF_KIND = slice(GROUP_COUNT + 2, None)
# For each feature the place of its price in the weights of all groups, one row after the other.
_PLACES = np.array(
    [
        group * len(FEATURE_NAMES) + column
        for column, name in enumerate(FEATURE_NAMES)
        for group, names in enumerate(_GROUPS)
        if name in names
    ]
)
