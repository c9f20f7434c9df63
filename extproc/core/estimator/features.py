"""What a request is to the byte-class model: a vector of counts, each with a price in tokens.

What stands in the text (text.py), and *structure*: what a chat template and the media add. The features fall into
groups, whose shares of the tokens tell what kind of request it is.
"""

import numpy as np
import numpy.typing as npt

from extproc.core.estimator.prices import MEDIA, STRUCTURE, TEXT_PRICES
from extproc.core.estimator.text import RUNS, SCRIPTS, TEXT_FEATURES, TEXT_NAMES, UNREPEATED, Counts, look
from extproc.core.facts import RequestFacts

__all__ = [
    "FEATURE_NAMES",
    "GROUP_COUNT",
    "OF_MEDIA",
    "OF_STRUCTURE",
    "Features",
    "features",
    "group_tokens",
    "structure_tokens",
]

Features = npt.NDArray[np.float64]  # shape (len(FEATURE_NAMES),), counts

FEATURE_NAMES = (*TEXT_NAMES, *(name for name, _, _ in STRUCTURE), *MEDIA)


def features(facts: RequestFacts, counts: Counts) -> Features:
    """Return the feature vector of a request from its facts and what stands in its text."""
    x = np.empty(len(FEATURE_NAMES))
    x[:TEXT_FEATURES] = counts
    dropped = _usual_tokens(facts.dropped_text) if facts.dropped_text else 0.0
    structure = (1, facts.messages, facts.tools > 0, facts.tools, facts.tool_calls, dropped)
    media = facts.media
    x[TEXT_FEATURES:] = (
        *structure,
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


def structure_tokens(x: Features, prices: Features) -> float:
    """Return what a request costs beside its text at the given prices, in tokens."""
    return float(x[TEXT_FEATURES:].dot(prices[TEXT_FEATURES:]))


def group_tokens(x: Features, prices: Features) -> list[float]:
    """Return what each group of features costs, in tokens; together they are all that the request costs."""
    costs: list[float] = _GROUPS.dot(prices * x).tolist()
    return costs


def _groups() -> npt.NDArray[np.float64]:
    """Return which features are of which of GROUP_COUNT groups: shape (groups, features). Each is of one."""
    of_latin = {"vowel", "consonant", "rare_letter", "vowels", "consonants", "word start"}
    of_blanks = {"space", "line", "indentation", "blank line", *RUNS[:2]}
    named: tuple[set[str], ...] = (
        of_latin | {name for name in FEATURE_NAMES if name.startswith("letter pair")},
        {"upper", "capitals"},
        {"digit", "number start", RUNS[2]},
        {"bracket", "joiner", "punctuation", "marks", "spaced mark"},
        of_blanks,
        {"foreign word start", *(script.name.lower() for script in SCRIPTS)},
        set(UNREPEATED),
        {name for name, _, _ in STRUCTURE},
        set(MEDIA),
    )
    return np.array([[name in names for name in FEATURE_NAMES] for names in named], np.float64)


_GROUPS = _groups()
GROUP_COUNT = len(_GROUPS)
OF_STRUCTURE, OF_MEDIA = GROUP_COUNT - 2, GROUP_COUNT - 1
