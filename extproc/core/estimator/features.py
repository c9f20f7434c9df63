"""What a request is to the byte-class model: a vector of counts, each with a prior price in tokens.

Three groups. *Bytes*: how many of each class. *Transitions*: how often one class follows another, where tokenizers
cut (a word or a number begins) or merge (capitals, indentation, punctuation in a row). *Structure*: what a chat
template and the media add. All transitions are sums of cells of one digram count, so a fixed matrix makes them.

The prior prices are what four public vocabularies (cl100k, Qwen 2.5 and 3.6, DeepSeek V3) cost on the texts of
`dualpool evaluate`, averaged and rounded; docs/estimator.md tells what that means for the figures of a cold start.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from extproc.core.estimator.settings import MediaTokens
from extproc.core.estimator.text import CLASSES, ByteClass, Digrams
from extproc.core.facts import RequestFacts

__all__ = ["FEATURE_NAMES", "TEXT_FEATURES", "Features", "Prior", "features", "prior", "structure_tokens"]

Features = npt.NDArray[np.float64]  # shape (len(FEATURE_NAMES),), counts

B = ByteClass
LOWER = (B.VOWEL, B.CONSONANT, B.RARE_LETTER)
LETTERS = (*LOWER, B.UPPER)
MARKS = (B.BRACKET, B.JOINER, B.PUNCTUATION)
BLANKS = (B.SPACE, B.LINE)
FOREIGN = tuple(B)[B.LATIN_1 :]

# Prior price, in tokens, of one byte of a class. Continuation bytes are paid for by their lead byte.
BYTE_PRICES = {
    B.VOWEL: 0.1,
    B.CONSONANT: 0.1,
    B.RARE_LETTER: 0.2,
    B.UPPER: 1.0,
    B.DIGIT: 0.6,
    B.SPACE: -0.1,
    B.LINE: 0.35,
    B.BRACKET: 0.5,
    B.JOINER: 0.4,
    B.PUNCTUATION: 0.5,
    B.LATIN_1: 2.0,
    B.LATIN_EXTENDED: 1.0,
    B.GREEK: 0.7,
    B.CYRILLIC: 0.3,
    B.HEBREW: 0.6,
    B.ARABIC: 0.45,
    B.INDIC: 0.8,
    B.SOUTH_EAST: 1.0,
    B.SYMBOL: 0.5,
    B.KANA: 0.8,
    B.HAN: 0.7,
    B.HANGUL: 0.8,
    B.EMOJI: 2.0,
}

# Name, what came before, what follows, prior price in tokens.
Cell = tuple[tuple[ByteClass, ...], tuple[ByteClass, ...]]
TRANSITIONS: tuple[tuple[str, tuple[Cell, ...], float], ...] = (
    ("word start", (((*BLANKS, B.DIGIT, *MARKS), LETTERS), (LOWER, (B.UPPER,))), 0.65),
    ("foreign word start", ((BLANKS, FOREIGN),), 0.5),
    ("number start", (((*BLANKS, *LETTERS, *MARKS), (B.DIGIT,)),), 0.85),
    ("spaced mark", (((B.SPACE,), MARKS),), 0.85),
    ("capitals", (((B.UPPER,), (B.UPPER,)),), -1.0),
    ("vowels", (((B.VOWEL,), (B.VOWEL,)),), 0.0),
    ("consonants", (((B.CONSONANT, B.RARE_LETTER), (B.CONSONANT, B.RARE_LETTER)),), 0.0),
    ("marks", ((MARKS, MARKS),), -0.25),
    ("indentation", ((BLANKS, (B.SPACE,)),), 0.15),
    ("blank line", (((B.LINE,), (B.LINE,)),), 0.0),
    ("southern indic", (((B.INDIC,), (B.HIGH_CONTINUATION,)),), -0.25),
)

# Name, prior price and its deviation in tokens. Templates spend one to five tokens on a message and some 100 on
# offering tools; some open every chat with a system prompt of their own.
STRUCTURE = (
    ("request", 4.0, 50.0),
    ("message", 4.0, 4.0),
    ("tools offered", 100.0, 100.0),
    ("tool", 4.0, 10.0),
    ("tool call", 8.0, 10.0),
)
MEDIA = ("small image", "medium image", "large image", "image of unknown size", "audio", "video")
TEXT_FEATURES = len(BYTE_PRICES) + len(TRANSITIONS)  # they come first

FEATURE_NAMES = (
    *(byte_class.name.lower() for byte_class in BYTE_PRICES),
    *(name for name, _, _ in TRANSITIONS),
    *(name for name, _, _ in STRUCTURE),
    *MEDIA,
)


@dataclass(frozen=True, slots=True)
class Prior:
    """What prices are believed to be before any response, in tokens: mean (d,), covariance (d, d), its inverse.

    The inverse is made once: requests of a model without responses look at the prior, and names are clients'.
    """

    mean: Features
    covariance: npt.NDArray[np.float64]
    precision: npt.NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "precision", np.linalg.inv(self.covariance))


def features(facts: RequestFacts, counts: Digrams) -> Features:
    """Return the feature vector of a request from its facts and the digrams of its text."""
    media = facts.media
    x = np.empty(len(FEATURE_NAMES))
    np.dot(_CELLS, counts.ravel(), out=x[:TEXT_FEATURES])
    structure = (1, facts.messages, facts.tools > 0, facts.tools, facts.tool_calls)
    images = (media.small_images, media.medium_images, media.large_images, media.unknown_images)
    x[TEXT_FEATURES:] = (*structure, *images, media.audio, media.video)
    return x


def prior(media: MediaTokens, text_prices: Features | None = None) -> Prior:
    """Return the prior; the configuration prices what is not text. `text_prices` replace those of this module."""
    of_images = (media.image_small, media.image_medium, media.image_large, media.image_unknown)
    of_media = map(float, (*of_images, media.audio, media.video))
    of_text = [*BYTE_PRICES.values(), *(price for _, _, price in TRANSITIONS)]
    mean = np.array([*of_text, *(price for _, price, _ in STRUCTURE), *of_media])
    if text_prices is not None:
        mean[:TEXT_FEATURES] = text_prices
    foreign = [list(BYTE_PRICES).index(byte_class) for byte_class in FOREIGN]
    own = np.full_like(mean, TEXT_DEVIATION)
    own[foreign] = np.maximum(FOREIGN_DEVIATION * mean[foreign], MIN_FOREIGN_DEVIATION)
    own[TEXT_FEATURES : -len(MEDIA)] = [deviation for _, _, deviation in STRUCTURE]
    own[-len(MEDIA) :] = np.maximum(MEDIA_DEVIATION * mean[-len(MEDIA) :], 1)
    thrift = np.zeros_like(mean)
    thrift[foreign] = THRIFT_DEVIATION * mean[foreign]
    return Prior(mean, np.diag(own**2) + np.outer(thrift, thrift))


# How far public vocabularies lie apart: in tokens for ASCII, and as a share of the price for other scripts. Those
# have something in common: a vocabulary that is thrifty with one script has room for the next. So one response in
# Thai says something of Hindi.
TEXT_DEVIATION = 0.3
FOREIGN_DEVIATION = 0.5
MIN_FOREIGN_DEVIATION = 0.1
THRIFT_DEVIATION = 0.5
MEDIA_DEVIATION = 0.5  # share of the configured price


def structure_tokens(x: Features, prices: Features) -> float:
    """Return what a request costs beside its text at the given prices, in tokens."""
    return float(x[TEXT_FEATURES:].dot(prices[TEXT_FEATURES:]))


def _cells() -> npt.NDArray[np.float64]:
    """Return the matrix from digram counts to byte and transition features: shape (features, CLASSES ** 2)."""
    matrix = np.zeros((TEXT_FEATURES, CLASSES, CLASSES))
    for row, byte_class in enumerate(BYTE_PRICES):
        matrix[row, :, byte_class] = 1
    for row, (_, cells, _) in enumerate(TRANSITIONS, start=len(BYTE_PRICES)):
        for before, after in cells:
            matrix[row][np.ix_(before, after)] = 1
    return matrix.reshape(TEXT_FEATURES, -1)


_CELLS = _cells()
