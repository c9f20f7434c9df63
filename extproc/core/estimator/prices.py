"""Prior prices: what each feature is believed to cost before any response, and how far that may be wrong.

A new vocabulary is assumed to belong to the same population as the ten that are known (vocabularies.py): its
prices are expected to be the mean of theirs, and to deviate from it as theirs do, jointly. So the first responses
in Tamil and Georgian also say what Armenian costs. Ten vocabularies say little about the covariance of a hundred
prices, so theirs is pulled towards a plain one (shrinkage: Ledoit and Wolf, 2004; the whole is empirical Bayes:
Robbins, 1956). docs/estimator.md shows what this is worth for a vocabulary that is not one of the ten.
"""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from extproc.core.estimator.settings import MediaTokens
from extproc.core.estimator.text import OF_SCRIPTS, OF_UNREPEATED, TEXT_FEATURES, TEXT_NAMES
from extproc.core.estimator.vocabularies import PRICES, VOCABULARIES

__all__ = ["MEDIA", "STRUCTURE", "TEXT_PRICES", "Prior", "prior"]

Prices = npt.NDArray[np.float64]  # shape (vocabularies, TEXT_FEATURES)

# Vocabularies of one maker, which are alike.
FAMILIES = ({"qwen", "qwen3", "qwen3.6"}, {"gemma", "gemma3", "gemini"})

# Name, prior price and its deviation in tokens. Templates spend one to five tokens per message and about 100 on
# offering tools; some begin every chat with a built-in system prompt.
STRUCTURE = (
    ("request", 4.0, 50.0),
    ("message", 4.0, 4.0),
    ("tools offered", 100.0, 100.0),
    ("tool", 4.0, 10.0),
    ("tool call", 8.0, 10.0),
    ("token of dropped text", 0.5, 0.5),
)
MEDIA = ("image patch", "small image", "medium image", "large image", "image of unknown size", "audio", "video")

# How far one more vocabulary is believed to deviate from the mean, in tokens for ASCII and as a share of the price
# for other scripts. THRIFT_DEVIATION is common to all scripts: a vocabulary with low prices for one tends to have
# low prices for others.
TEXT_DEVIATION = 0.3
BUCKET_DEVIATION = 0.2
UNREPEATED_DEVIATIONS = (0.2, 0.6)
SCRIPT_DEVIATION = 0.5
MIN_SCRIPT_DEVIATION = 0.1
THRIFT_DEVIATION = 0.3
# The weight of those deviations, in vocabularies, relative to the ten. The joint deviations of the ten hold on the
# texts that they were fitted to; on other texts they mislead for hundreds of responses (docs/estimator.md).
BELIEVED = 40
# Minimum price, as a share of the median of a script's prices: the cheapest vocabularies reach it; a lower price
# comes from a fit that trades one price for another.
LEAST_SHARE = 0.5
UNSEEN = 0.05  # a feature whose fitted prices differ by less than this hardly occurred in the texts
MEDIA_DEVIATION = 0.5  # as a share of the configured price
PATCH_PRICE = 0.0  # per patch, added to an image's configured price until responses show it; its deviation is 1


@dataclass(frozen=True, slots=True, eq=False)
class Prior:
    """Prices as believed before any response, in tokens: mean (d,), covariance (d, d), and its inverse.

    The inverse is computed once: names come from clients, and every model without responses uses the prior.
    """

    mean: npt.NDArray[np.float64]
    covariance: npt.NDArray[np.float64]
    precision: npt.NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "precision", np.linalg.inv(self.covariance))


def prior(media: MediaTokens, left_out: str = "") -> Prior:
    """Return the prior; `media` has the configured prices of images, audio and video.

    `left_out` names a vocabulary to exclude, with all of its family: this is how a cold start is evaluated.
    """
    prices = _of_text(left_out)
    of_images = (media.image_small, media.image_medium, media.image_large, media.image_unknown)
    of_media = map(float, (PATCH_PRICE, *of_images, media.audio, media.video))
    mean = np.array([*_mean(prices).tolist(), *(price for _, price, _ in STRUCTURE), *of_media])
    own = np.full_like(mean, TEXT_DEVIATION)
    own[OF_SCRIPTS] = np.maximum(SCRIPT_DEVIATION * mean[OF_SCRIPTS], MIN_SCRIPT_DEVIATION)
    own[OF_SCRIPTS.stop : OF_UNREPEATED.start] = BUCKET_DEVIATION
    own[OF_UNREPEATED] = UNREPEATED_DEVIATIONS
    own[TEXT_FEATURES : -len(MEDIA)] = [deviation for _, _, deviation in STRUCTURE]
    own[-len(MEDIA) :] = np.maximum(MEDIA_DEVIATION * mean[-len(MEDIA) :], 1)
    thrift = np.zeros_like(mean)
    thrift[OF_SCRIPTS] = THRIFT_DEVIATION * mean[OF_SCRIPTS]
    covariance = np.diag(own**2) + np.outer(thrift, thrift)
    apart = prices - mean[:TEXT_FEATURES]
    of_text = BELIEVED * covariance[:TEXT_FEATURES, :TEXT_FEATURES] + apart.T @ apart
    unseen = np.flatnonzero(np.ptp(prices, axis=0) < UNSEEN)
    of_text[unseen, unseen] += len(prices) * own[unseen] ** 2
    covariance[:TEXT_FEATURES, :TEXT_FEATURES] = of_text / (BELIEVED + len(prices))
    return Prior(mean, covariance)


def _of_text(left_out: str = "") -> Prices:
    """Return the prices of all vocabularies but `left_out` and its family: shape (vocabularies, TEXT_FEATURES)."""
    family = next((names for names in FAMILIES if left_out in names), {left_out})
    known = [name not in family for name in VOCABULARIES]
    return np.array([PRICES[name] for name in TEXT_NAMES]).T[known]


def _mean(prices: Prices) -> npt.NDArray[np.float64]:
    """Return the prices that another vocabulary is believed to have: for ASCII the mean.

    The prices of a script differ by up to ten times, so the price with the least squared relative error is used:
    with prices p of one character and an estimate m, the sum of (1 - m / p)^2 is least at sum 1/p / sum 1/p^2.
    """
    mean: npt.NDArray[np.float64] = prices.mean(0)
    of_scripts = prices[:, OF_SCRIPTS]
    of_scripts = np.maximum(of_scripts, LEAST_SHARE * np.median(of_scripts, axis=0))
    mean[OF_SCRIPTS] = (1 / of_scripts).sum(0) / (1 / of_scripts**2).sum(0)
    return mean


TEXT_PRICES: Final = _mean(_of_text())  # in the order of TEXT_NAMES
