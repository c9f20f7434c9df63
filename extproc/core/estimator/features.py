"""What a request is to the byte-class model: a vector of counts, each with a prior price in tokens.

Groups. *Bytes*: how many of each class of ASCII. *Transitions*: how often one class follows another, where
tokenizers cut (a word or a number begins) or merge (capitals, indentation, punctuation in a row). *Runs* of one
character. *Scripts*: characters of each. *Letter pairs* in buckets by a fixed hash. *Structure*: what a chat
template and the media add. All that is of text is a sum of counts by code (text.py), so a fixed matrix makes it.

The prior prices are what four public vocabularies (cl100k, o200k, Qwen 3.6, DeepSeek V3) cost on the texts of
`dualpool evaluate`, averaged and rounded; docs/estimator.md tells what that means for the figures of a cold start.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from extproc.core.estimator.settings import MediaTokens
from extproc.core.estimator.text import BUCKETS, CODES, ByteClass, Look, Script, look
from extproc.core.facts import RequestFacts

__all__ = [
    "BLANK_RUN",
    "FEATURE_NAMES",
    "GROUP_COUNT",
    "RUN",
    "TEXT_FEATURES",
    "Features",
    "Prior",
    "features",
    "group_shares",
    "prior",
    "structure_tokens",
]

Features = npt.NDArray[np.float64]  # shape (len(FEATURE_NAMES),), counts

B, S = ByteClass, Script
LOWER = (B.VOWEL, B.CONSONANT, B.RARE_LETTER)
LETTERS = (*LOWER, B.UPPER)
MARKS = (B.BRACKET, B.JOINER, B.PUNCTUATION)
BLANKS = (B.SPACE, B.LINE)

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

# Name, what came before, what follows, prior price in tokens.
Cell = tuple[tuple[ByteClass, ...], tuple[ByteClass, ...]]
TRANSITIONS: tuple[tuple[str, tuple[Cell, ...], float], ...] = (
    ("word start", (((*BLANKS, B.DIGIT, *MARKS), LETTERS), (LOWER, (B.UPPER,))), 0.55),
    ("foreign word start", ((BLANKS, (B.LEAD,)),), -0.1),
    ("number start", (((*BLANKS, *LETTERS, *MARKS), (B.DIGIT,)),), 1.0),
    ("spaced mark", (((B.SPACE,), MARKS),), 0.65),
    ("capitals", (((B.UPPER,), (B.UPPER,)),), 0.4),
    ("vowels", (((B.VOWEL,), (B.VOWEL,)),), 0.6),
    ("consonants", (((B.CONSONANT, B.RARE_LETTER), (B.CONSONANT, B.RARE_LETTER)),), -0.2),
    ("marks", ((MARKS, MARKS),), 0.35),
    ("indentation", ((BLANKS, (B.SPACE,)),), 0.1),
    ("blank line", (((B.LINE,), (B.LINE,)),), 0.7),
)
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
TEXT_PRICES = (
    *BYTE_PRICES.values(),
    *(price for _, _, price in TRANSITIONS),
    *RUN_PRICES.values(),
    *SCRIPT_PRICES.values(),
    *BUCKET_PRICES,
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
TEXT_FEATURES = len(TEXT_PRICES)  # they come first
BLANK_RUN = len(BYTE_PRICES) + len(TRANSITIONS)
RUN = BLANK_RUN + 1

FEATURE_NAMES = (
    *(byte_class.name.lower() for byte_class in BYTE_PRICES),
    *(name for name, _, _ in TRANSITIONS),
    *RUN_PRICES,
    *(script.name.lower() for script in SCRIPT_PRICES),
    *(f"letter pair {bucket}" for bucket in range(1, BUCKETS + 1)),
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


def features(facts: RequestFacts, seen: Look) -> Features:
    """Return the feature vector of a request from its facts and what was seen of its text."""
    media = facts.media
    x = np.empty(len(FEATURE_NAMES))
    np.dot(seen.pairs, _MATRIX, out=x[:TEXT_FEATURES])
    x[BLANK_RUN], x[RUN] = seen.blank_run_bytes, seen.run_bytes
    dropped = _usual_tokens(facts.dropped_text) if facts.dropped_text else 0.0
    structure = (1, facts.messages, facts.tools > 0, facts.tools, facts.tool_calls, dropped)
    images = (
        media.image_patches,
        media.small_images,
        media.medium_images,
        media.large_images,
        media.unknown_images,
    )
    x[TEXT_FEATURES:] = (*structure, *images, media.audio, media.video)
    return x


def prior(media: MediaTokens, text_prices: Features | None = None) -> Prior:
    """Return the prior; the configuration prices what is not text. `text_prices` replace those of this module."""
    of_images = (media.image_small, media.image_medium, media.image_large, media.image_unknown)
    of_media = map(float, (PATCH_PRICE, *of_images, media.audio, media.video))
    mean = np.array([*TEXT_PRICES, *(price for _, price, _ in STRUCTURE), *of_media])
    if text_prices is not None:
        mean[:TEXT_FEATURES] = text_prices
    own = np.full_like(mean, TEXT_DEVIATION)
    own[_SCRIPTS] = np.maximum(SCRIPT_DEVIATION * mean[_SCRIPTS], MIN_SCRIPT_DEVIATION)
    own[_BUCKETS] = BUCKET_DEVIATION
    own[TEXT_FEATURES : -len(MEDIA)] = [deviation for _, _, deviation in STRUCTURE]
    own[-len(MEDIA) :] = np.maximum(MEDIA_DEVIATION * mean[-len(MEDIA) :], 1)
    thrift = np.zeros_like(mean)
    thrift[_SCRIPTS] = THRIFT_DEVIATION * mean[_SCRIPTS]
    return Prior(mean, np.diag(own**2) + np.outer(thrift, thrift))


# How far public vocabularies lie apart: in tokens for ASCII, and as a share of the price for other scripts. Those
# have something in common: a vocabulary that is thrifty with one script has room for the next. So one response in
# Thai says something of Hindi.
TEXT_DEVIATION = 0.3
BUCKET_DEVIATION = 0.2
SCRIPT_DEVIATION = 0.5
MIN_SCRIPT_DEVIATION = 0.1
THRIFT_DEVIATION = 0.3
MEDIA_DEVIATION = 0.5  # share of the configured price
PATCH_PRICE = 0.0  # beside the configured price of an image, until responses tell; it deviates by 1

_SCRIPTS = slice(RUN + 1, RUN + 1 + len(SCRIPT_PRICES))
_BUCKETS = slice(_SCRIPTS.stop, TEXT_FEATURES)


def structure_tokens(x: Features, prices: Features) -> float:
    """Return what a request costs beside its text at the given prices, in tokens."""
    return float(x[TEXT_FEATURES:].dot(prices[TEXT_FEATURES:]))


def _usual_tokens(text: bytes) -> float:
    """Return what a text costs at the prior prices, in tokens."""
    seen = look(text)
    in_runs = seen.blank_run_bytes * TEXT_PRICES[BLANK_RUN] + seen.run_bytes * TEXT_PRICES[RUN]
    return max(float(seen.pairs.dot(_MATRIX).dot(TEXT_PRICES)) + in_runs, 0.0)


def _matrix() -> npt.NDArray[np.float64]:
    """Return what one pair of each code adds to each feature of text: shape (codes, TEXT_FEATURES)."""
    of_byte = [CODES.after == byte_class for byte_class in BYTE_PRICES]
    of_transition = [
        np.any([np.isin(CODES.before, before) & np.isin(CODES.after, after) for before, after in cells], axis=0)
        for _, cells, _ in TRANSITIONS
    ]
    of_run = [np.zeros(len(CODES.before), bool) for _ in RUN_PRICES]
    of_script = [CODES.script == script for script in SCRIPT_PRICES]
    of_bucket = [CODES.bucket == bucket for bucket in range(1, BUCKETS + 1)]
    return np.array([*of_byte, *of_transition, *of_run, *of_script, *of_bucket], np.float64).T.copy()


_MATRIX = _matrix()


def _groups() -> npt.NDArray[np.float64]:
    """Return which features are of which of GROUP_COUNT groups: shape (groups, features)."""
    of_latin = {"vowel", "consonant", "rare_letter", "vowels", "consonants", "word start"}
    of_blanks = {"space", "line", "indentation", "blank line", *RUN_PRICES}
    named: tuple[set[str], ...] = (
        of_latin | {name for name in FEATURE_NAMES if name.startswith("letter pair")},
        {"upper", "capitals"},
        {"digit", "number start"},
        {"bracket", "joiner", "punctuation", "marks", "spaced mark"},
        of_blanks,
        {"foreign word start", *(script.name.lower() for script in SCRIPT_PRICES)},
        {name for name, _, _ in STRUCTURE},
        set(MEDIA),
    )
    return np.array([[name in names for name in FEATURE_NAMES] for names in named], np.float64)


_GROUPS = _groups()
GROUP_COUNT = len(_GROUPS)


def group_shares(x: Features, prices: Features, tokens: float) -> npt.NDArray[np.float64]:
    """Return the share of the tokens that each group of features costs; prices may be odd, so within 0 and 2."""
    shares: npt.NDArray[np.float64] = np.minimum(np.abs(_GROUPS.dot(prices * x)) / tokens, 2.0)
    return shares
