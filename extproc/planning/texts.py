"""The text that simulated requests carry, so that the real estimator has something to count and to learn from.

Each request is of one kind. Its bytes per token are drawn around the kind's mean; its bytes are a piece of one
sample of that kind, cut to prompt tokens x bytes per token. Means and deviations are those of the Qwen3
tokenizer on
4 KiB pieces of real text (measured for the estimators); the shares of the kinds are an assumption, stated here.
"""

from dataclasses import dataclass

import numpy as np

from extproc.planning.lengths import Floats, Tokens

__all__ = ["KINDS", "TextKindProfile", "Texts", "draw_texts"]

MIN_BYTES_PER_TOKEN = 1.0


@dataclass(frozen=True, slots=True)
class TextKindProfile:
    """One kind of text: its share of requests, bytes per token (mean and deviation), and a piece of it."""

    name: str
    share: float
    bytes_per_token: float
    deviation: float
    sample: bytes


KINDS = (
    TextKindProfile(
        "english", 0.55, 3.92, 0.28, b"The harbour was quiet before the first boats came in from the sea. "
    ),
    TextKindProfile(
        "german", 0.08, 3.84, 0.33, "Der Hafen war ruhig, bevor die ersten Boote zurückkamen. ".encode()
    ),
    TextKindProfile(
        "python", 0.17, 4.38, 0.53, b"    for key, value in rows.items():\n        total[key] += value * 0.5\n"
    ),
    TextKindProfile("json", 0.08, 3.03, 0.31, b'{"id":4711,"name":"harbour","tags":["a","b"],"open":true},'),
    TextKindProfile("chinese", 0.07, 4.24, 0.38, "清晨的港口在第一批渔船归来之前十分安静。".encode()),
    TextKindProfile("russian", 0.05, 5.80, 0.54, "Гавань была тихой, пока не пришли первые лодки. ".encode()),
)


@dataclass(frozen=True, slots=True, eq=False)
class Texts:
    """The kind (index into KINDS) and the bytes of each request's prompt text, int64 arrays of shape
    (requests,).
    """

    kind: Tokens
    text_bytes: Tokens
    samples: tuple[bytes, ...]

    def text(self, request: int) -> bytes:
        """Return the prompt text of one request."""
        return self.samples[int(self.kind[request])][: int(self.text_bytes[request])]


def draw_texts(prompt: Tokens, rng: np.random.Generator) -> Texts:
    """Draw the kind and the bytes of each prompt; `prompt` holds tokens, shape (requests,)."""
    shares = np.array([kind.share for kind in KINDS])
    kind = rng.choice(len(KINDS), len(prompt), p=shares / shares.sum())
    means = np.array([profile.bytes_per_token for profile in KINDS])
    deviations = np.array([profile.deviation for profile in KINDS])
    ratio: Floats = np.maximum(rng.normal(means[kind], deviations[kind]), MIN_BYTES_PER_TOKEN)
    text_bytes = np.maximum(np.rint(prompt * ratio).astype(np.int64), 1)
    longest = int(text_bytes.max())
    samples = tuple(profile.sample * (longest // len(profile.sample) + 1) for profile in KINDS)
    return Texts(kind, text_bytes, samples)
