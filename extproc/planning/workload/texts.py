"""Prompt texts of simulated requests, so that the real estimator has bytes to count and to learn from.

Each request has one kind of text. Its bytes per token are drawn around the kind's mean; means and deviations are
those of the Qwen3 tokenizer on 4 KiB pieces of real text (measured for the estimators). The shares of the kinds
are an assumption, stated here.

The bytes must carry as much information about the tokens as real bytes do, or an estimator that looks at them
could not learn anything. So each kind has two samples, one of long common words and one of rare words and
punctuation, with the bytes per token that the same tokenizer counts in them; a text mixes both to give the drawn
bytes per token. A part of the deviation, UNSEEN, is not visible in the bytes: it is the error that the byte
classes leave on mixed real traffic, a mean absolute error of 2.0 to 2.7 % (bench/estimator.md). Rejected
alternatives: real texts, which are not shipped, and one repeated sentence per kind, whose bytes never change, so
that all of the deviation would be noise.
"""

from dataclasses import dataclass, field

import numpy as np

from extproc.core.estimator.text import look, text_kind
from extproc.planning.workload.lengths import Floats, Tokens

__all__ = ["KINDS", "Sample", "TextKindProfile", "Texts", "draw_texts"]

MIN_BYTES_PER_TOKEN = 1.0
UNSEEN = 0.03  # standard deviation of the relative error; 1.25 times the mean absolute error if normal


@dataclass(frozen=True, slots=True)
class Sample:
    """A piece of text and the bytes per token of its repetition."""

    text: str
    bytes_per_token: float

    def repeated(self, size: int) -> bytes:
        """Return at least `size` bytes of the repeated text."""
        text = self.text.encode()
        return text * (size // len(text) + 1)


@dataclass(frozen=True, slots=True)
class TextKindProfile:
    """One kind of text: its share of requests, bytes per token (mean and deviation), and two samples."""

    name: str
    share: float
    bytes_per_token: float
    deviation: float
    thrifty: Sample
    dense: Sample


KINDS = (
    TextKindProfile(
        "english",
        0.55,
        3.92,
        0.28,
        Sample(
            "The harbour was quiet before the first boats came in from the sea, and nothing else could be heard. ",
            4.76,
        ),
        Sample("Ms Okoro's assay re-ran; cf. Hsu et al. It was ok, so we opted to redo it as is. ", 2.79),
    ),
    TextKindProfile(
        "german",
        0.08,
        3.84,
        0.33,
        Sample(
            "Der Hafen war ruhig, bevor die ersten Boote am Morgen zurückkamen, und niemand wollte sprechen. ",
            4.61,
        ),
        Sample("Frl. Böhm übt öfter Pläne; z. B. für Gänse, Öl und Rüben. ", 2.54),
    ),
    TextKindProfile(
        "python",
        0.17,
        4.38,
        0.53,
        Sample(
            "            self.assertEqual(response.status_code(), None)\n\n"
            "            if not isinstance(value, (list, tuple)):\n"
            "                raise NotImplementedError()\n\n",
            5.85,
        ),
        Sample(
            "for k, v in d.items():\n    x[k] += v * 0.5 - y[i:j]\n    if a < b: z = f(a, 'q')\n",
            1.95,
        ),
    ),
    TextKindProfile(
        "json",
        0.08,
        3.03,
        0.31,
        Sample('{"description":"harbour","properties":{"location":"unknown","available":true}},', 4.94),
        Sample('{"id":4711,"p":[0.25,17,-3],"key":"a9","open":true,"date":"2024-05-17"},', 1.76),
    ),
    TextKindProfile(
        "chinese",
        0.07,
        4.24,
        0.38,
        Sample("我们可以通过这个系统进行管理,提供服务,解决问题,因此他们已经开始使用。", 7.29),
        Sample("清晨渔港寂静,桅樯轻摇,鸥鹭栖岸,薄雾渐散,老翁徐徐收网。", 2.93),
    ),
    TextKindProfile(
        "russian",
        0.05,
        5.80,
        0.54,
        Sample(
            "Гавань была тихой, пока не пришли первые люди, которые только начинали работать вместе. ",
            7.61,
        ),
        Sample("Юный Щукин ел борщ, пил квас и чинил сеть у мыса, где выл ветер. ", 4.18),  # noqa: RUF001  (it is Russian)
    ),
)


@dataclass(frozen=True, slots=True, eq=False)
class Texts:
    """Prompt texts: the kind (index into KINDS), the bytes, and how many of them are from the thrifty sample.

    All are int64 arrays of shape (requests,). `samples` holds (thrifty, dense) of each kind, each at least as long
    as the longest text.
    """

    kind: Tokens
    text_bytes: Tokens
    thrifty_bytes: Tokens
    samples: tuple[tuple[bytes, bytes], ...]
    _category: dict[int, str] = field(default_factory=dict)

    def category(self, request: int) -> str:
        """Return the kind of text that the estimators detect in a request; cached across runs."""
        if request not in self._category:
            self._category[request] = text_kind(look(self.text(request))).value
        return self._category[request]

    def text(self, request: int) -> bytes:
        """Return the prompt text of one request."""
        thrifty, dense = self.samples[int(self.kind[request])]
        cut = int(self.thrifty_bytes[request])
        return thrifty[:cut] + dense[: int(self.text_bytes[request]) - cut]


def draw_texts(prompt: Tokens, rng: np.random.Generator) -> Texts:
    """Draw the kind and the bytes of each prompt; `prompt` holds tokens, shape (requests,)."""
    shares = np.array([kind.share for kind in KINDS])
    kind = rng.choice(len(KINDS), len(prompt), p=shares / shares.sum())
    means = np.array([profile.bytes_per_token for profile in KINDS])[kind]
    deviations = np.array([profile.deviation for profile in KINDS])[kind]
    ratio: Floats = np.maximum(rng.normal(means, deviations), MIN_BYTES_PER_TOKEN)
    text_bytes = np.maximum(np.rint(prompt * ratio).astype(np.int64), 1)
    seen = _seen(ratio, means, deviations, rng)
    thrifty_bytes = np.rint(text_bytes * _thrifty_share(seen, kind)).astype(np.int64)
    longest = int(text_bytes.max())
    samples = tuple((k.thrifty.repeated(longest), k.dense.repeated(longest)) for k in KINDS)
    return Texts(kind, text_bytes, thrifty_bytes, samples)


def _seen(ratio: Floats, means: Floats, deviations: Floats, rng: np.random.Generator) -> Floats:
    """Draw the part of each ratio that the bytes show: ratio = seen + unseen, both normal and independent."""
    unseen = (UNSEEN * means / deviations) ** 2  # share of the variance
    scatter = deviations * np.sqrt(unseen * (1 - unseen))
    return means + (1 - unseen) * (ratio - means) + rng.normal(0.0, scatter)


def _thrifty_share(ratio: Floats, kind: Tokens) -> Floats:
    """Return the share of bytes from the thrifty sample that gives a text this many bytes per token."""
    thrifty = np.array([profile.thrifty.bytes_per_token for profile in KINDS])[kind]
    dense = np.array([profile.dense.bytes_per_token for profile in KINDS])[kind]
    return np.clip((1 / dense - 1 / ratio) / (1 / dense - 1 / thrifty), 0, 1)
