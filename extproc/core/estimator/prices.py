"""What each feature is believed to cost before any response tells, and how far that may be wrong.

The prior prices of text are what four public vocabularies (cl100k, o200k, Qwen 3.6, DeepSeek V3) cost on the
texts of `dualpool evaluate`, averaged and rounded; docs/estimator.md tells what that means for the figures of a
cold start.
"""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from extproc.core.estimator.codes import ByteClass, Script
from extproc.core.estimator.settings import MediaTokens
from extproc.core.estimator.text import OF_SCRIPTS, OF_UNREPEATED, TEXT_FEATURES, Counts

__all__ = ["MEDIA", "SCRIPT_PRICES", "STRUCTURE", "TEXT_PRICES", "Prior", "prior"]

B, S = ByteClass, Script

# Prior price, in tokens, of one byte of a class.
BYTE_PRICES = {
    B.VOWEL: 0.1,
    B.CONSONANT: 0.1,
    B.RARE_LETTER: 1.2,
    B.UPPER: 0.1,
    B.DIGIT: 0.45,
    B.SPACE: 0.1,
    B.LINE: 1.05,
    B.BRACKET: 0.0,
    B.JOINER: 0.3,
    B.PUNCTUATION: 0.4,
}

TRANSITION_PRICES = {
    "word start": 0.55,
    "foreign word start": -0.1,
    "number start": 1.0,
    "spaced mark": 0.65,
    "capitals": 0.4,
    "vowels": 0.6,
    "consonants": -0.2,
    "marks": 0.35,
    "indentation": 0.1,
    "blank line": 0.7,
}
RUN_PRICES = {"byte in a run of blanks": -0.2, "byte in a run": -0.75}

# Prior price, in tokens, of one character of a script.
SCRIPT_PRICES = {
    S.LATIN_1: 1.2,
    S.LATIN_EXTENDED: 1.1,
    S.COMBINING: 1.45,
    S.GREEK: 0.6,
    S.CYRILLIC: 0.4,
    S.CYRILLIC_EXTENDED: 0.8,
    S.ARMENIAN: 0.95,
    S.HEBREW: 0.7,
    S.ARABIC: 0.5,
    S.ARABIC_EXTENDED: 1.0,
    S.OTHER_TWO_BYTE: 2.0,
    S.DEVANAGARI: 0.7,
    S.BENGALI: 0.7,
    S.GURMUKHI: 1.2,
    S.GUJARATI: 1.05,
    S.ORIYA: 1.8,
    S.TAMIL: 0.75,
    S.TELUGU: 1.0,
    S.KANNADA: 1.0,
    S.MALAYALAM: 0.9,
    S.SINHALA: 1.2,
    S.THAI: 0.5,
    S.LAO: 1.75,
    S.TIBETAN: 1.55,
    S.MYANMAR: 1.05,
    S.GEORGIAN: 0.95,
    S.ETHIOPIC: 2.25,
    S.KHMER: 1.15,
    S.OTHER_SOUTHERN: 2.5,
    S.VIETNAMESE: 1.0,
    S.POLYTONIC: 2.15,
    S.DASH: 0.6,
    S.SYMBOL: 0.9,
    S.BOX: 1.65,
    S.BRAILLE: 2.9,
    S.CJK_MARK: 0.8,
    S.KANA: 0.8,
    S.HAN: 0.8,
    S.RARE_HAN: 3.0,
    S.HANGUL: 0.95,
    S.FULL_WIDTH: 0.9,
    S.OTHER_THREE_BYTE: 2.5,
    S.EMOJI: 2.5,
    S.OTHER_FOUR_BYTE: 3.5,
}
# By bucket of letter pairs: pairs that make up words cost less than those that do not.
BUCKET_PRICES = (
    0.0, 0.25, -0.05, 0.0, 0.0, 0.1, 0.0, 0.1, 0.0, -0.1, 0.05, -0.05, 0.1, -0.15, -0.05, -0.1, -0.1, 0.0,
    -0.1, 0.0, -0.05, -0.05, 0.05, 0.0, 0.05, 0.05, 0.0, 0.2, -0.1, -0.05, 0.0, -0.05, -0.05, 0.0, 0.05,
    0.05, -0.05, 0.05, 0.0, 0.05,
)  # fmt: skip
# What random bytes and characters cost beside what words of them would: the medians over the same vocabularies of
# what was missing on one half of the kinds of unseen.py and odd.py.
UNREPEATED_PRICES = {"unrepeated byte": 0.15, "unrepeated character": 0.75}
TEXT_PRICES: Final = np.array(  # in the order of TEXT_NAMES
    [
        *BYTE_PRICES.values(),
        *TRANSITION_PRICES.values(),
        *RUN_PRICES.values(),
        *SCRIPT_PRICES.values(),
        *BUCKET_PRICES,
        *UNREPEATED_PRICES.values(),
    ]
)

# Name, prior price and its deviation in tokens. Templates spend one to five tokens on a message and some 100 on
# offering tools; some open every chat with a system prompt of their own.
STRUCTURE = (
    ("request", 4.0, 50.0),
    ("message", 4.0, 4.0),
    ("tools offered", 100.0, 100.0),
    ("tool", 4.0, 10.0),
    ("tool call", 8.0, 10.0),
    ("token of dropped text", 0.5, 0.5),
)
MEDIA = ("image patch", "small image", "medium image", "large image", "image of unknown size", "audio", "video")

# How far public vocabularies lie apart: in tokens for ASCII, and as a share of the price for other scripts. Those
# have something in common: a vocabulary that is thrifty with one script has room for the next. So one response in
# Thai says something of Hindi.
TEXT_DEVIATION = 0.3
BUCKET_DEVIATION = 0.2
UNREPEATED_DEVIATIONS = (0.2, 0.6)
SCRIPT_DEVIATION = 0.5
MIN_SCRIPT_DEVIATION = 0.1
THRIFT_DEVIATION = 0.3
MEDIA_DEVIATION = 0.5  # share of the configured price
PATCH_PRICE = 0.0  # beside the configured price of an image, until responses tell; it deviates by 1


@dataclass(frozen=True, slots=True, eq=False)
class Prior:
    """What prices are believed to be before any response, in tokens: mean (d,), covariance (d, d), its inverse.

    The inverse is made once: requests of a model without responses look at the prior, and names are clients'.
    """

    mean: npt.NDArray[np.float64]
    covariance: npt.NDArray[np.float64]
    precision: npt.NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "precision", np.linalg.inv(self.covariance))


def prior(media: MediaTokens, text_prices: Counts | None = None) -> Prior:
    """Return the prior; the configuration prices what is not text. `text_prices` replace those of this module."""
    of_images = (media.image_small, media.image_medium, media.image_large, media.image_unknown)
    of_media = map(float, (PATCH_PRICE, *of_images, media.audio, media.video))
    mean = np.array([*TEXT_PRICES.tolist(), *(price for _, price, _ in STRUCTURE), *of_media])
    if text_prices is not None:
        mean[:TEXT_FEATURES] = text_prices
    own = np.full_like(mean, TEXT_DEVIATION)
    own[OF_SCRIPTS] = np.maximum(SCRIPT_DEVIATION * mean[OF_SCRIPTS], MIN_SCRIPT_DEVIATION)
    own[OF_SCRIPTS.stop : OF_UNREPEATED.start] = BUCKET_DEVIATION
    own[OF_UNREPEATED] = UNREPEATED_DEVIATIONS
    own[TEXT_FEATURES : -len(MEDIA)] = [deviation for _, _, deviation in STRUCTURE]
    own[-len(MEDIA) :] = np.maximum(MEDIA_DEVIATION * mean[-len(MEDIA) :], 1)
    thrift = np.zeros_like(mean)
    thrift[OF_SCRIPTS] = THRIFT_DEVIATION * mean[OF_SCRIPTS]
    return Prior(mean, np.diag(own**2) + np.outer(thrift, thrift))
