"""Looking at the bytes of a prompt: their histogram, and the kind of text that they are.

A histogram of byte values is one pass in C and is all that the estimators need of the text. Very long texts are
sampled in evenly spread blocks, so that the cost of a look is bounded.
"""

from enum import StrEnum

import numpy as np
import numpy.typing as npt

__all__ = ["Histogram", "TextKind", "byte_histogram", "sample", "text_kind"]

Histogram = npt.NDArray[np.float64]

SAMPLE_BYTES = 64 * 1024
SAMPLE_BLOCK_BYTES = 1024


class TextKind(StrEnum):
    """Kinds of text that differ in bytes per token; each needs only the histogram to be told apart."""

    LATIN = "latin"
    MARKUP = "markup"  # code, JSON, tables: much punctuation, digits and indentation
    TWO_BYTE = "two_byte"  # Greek, Cyrillic, Hebrew, Arabic
    INDIC = "indic"  # Indic scripts and Thai
    CJK = "cjk"  # kana, Han, Hangul, emoji
    NONE = "none"  # no text at all


def sample(text: bytes) -> bytes:
    """Return `text`, or evenly spread blocks of it (SAMPLE_BYTES in all) when it is longer than that."""
    if len(text) <= SAMPLE_BYTES:
        return text
    blocks = SAMPLE_BYTES // SAMPLE_BLOCK_BYTES
    step = (len(text) - SAMPLE_BLOCK_BYTES) / (blocks - 1)
    starts = (int(i * step) for i in range(blocks))
    return b"".join(text[start : start + SAMPLE_BLOCK_BYTES] for start in starts)


def byte_histogram(text: bytes) -> Histogram:
    """Count each byte value: float64, shape (256,), its sum is len(text) also when the text was sampled."""
    seen = sample(text)
    counts = np.bincount(np.frombuffer(seen, np.uint8), minlength=256).astype(np.float64)
    if len(seen) < len(text):
        counts *= len(text) / len(seen)
    return counts


def text_kind(histogram: Histogram) -> TextKind:
    """Tell the kind of text by its dominant bytes (bytes of each script; ASCII by its punctuation)."""
    ascii_bytes, marks, two_byte, indic, cjk, latin_marks = (histogram @ _SCRIPTS).tolist()
    scripts = ((two_byte, TextKind.TWO_BYTE), (indic, TextKind.INDIC), (cjk, TextKind.CJK))
    script_bytes, kind = max(scripts)
    if script_bytes > ascii_bytes:
        return kind
    if ascii_bytes == 0:
        return TextKind.LATIN if latin_marks else TextKind.NONE
    return TextKind.MARKUP if marks > MARKUP_SHARE * ascii_bytes else TextKind.LATIN


# English prose holds about 4 % of these bytes, Python source about 20 %, compact JSON and CSV 25 % and more.
MARKUP_SHARE = 0.10


def _scripts() -> npt.NDArray[np.float64]:
    """Weights, shape (256, 6): a lead byte counts for all bytes of its character."""
    weights = np.zeros((256, 6))
    weights[:0x80, 0] = 1
    weights[[*b'0123456789{}[]()<>=_/\\"#:;|&*+$%@^~`\n\t'], 1] = 1
    weights[0xCD:0xE0, 2] = 2  # Greek, Cyrillic, Hebrew, Arabic
    weights[0xE0, 3] = 3  # Indic, Thai
    weights[0xE1:0xF0, 4] = 3  # kana, Han, Hangul
    weights[0xF0:0xF8, 4] = 4  # emoji
    weights[0xC2:0xCD, 5] = 2  # Latin with marks
    return weights


_SCRIPTS = _scripts()
