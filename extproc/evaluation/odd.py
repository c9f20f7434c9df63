"""Rare texts whose bytes say little about their tokens, so that estimates err on them."""

import base64
from collections.abc import Callable

import numpy as np

__all__ = ["ODD_KINDS", "odd_texts"]

ODD_BYTES = 120_000  # of each kind
LINE = 60
_ALPHABETS = {
    "dna": "ACGT",
    "protein": "ACDEFGHIKLMNPQRSTVWY",
    "random letters": "abcdefghijklmnopqrstuvwxyz",
    "random letters of both cases": "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
    "hex digits": "0123456789abcdef",
    "digits": "0123456789",
    "box drawing": "─│┌┐└┘├┤┬┴┼═║╔╗╚╝ ",
    "braille": "".join(chr(0x2800 + i) for i in range(256)),
    "marks": "!@#$%^&*()_+-=[]{};:,./<>?|~",
    "rare han": "".join(chr(0x3400 + 7 * i) for i in range(900)),
    "emoji": "".join(chr(0x1F300 + i) for i in range(700)),
}


def odd_texts(rng: np.random.Generator, korean: bytes | None) -> dict[str, bytes]:
    """Return a text of every odd kind; `korean` becomes the one without spaces."""
    texts = {kind: _random_lines(rng, alphabet) for kind, alphabet in _ALPHABETS.items()}
    texts |= {kind: make(rng).encode() for kind, make in _MAKERS.items()}
    if korean is not None:
        texts["unspaced hangul"] = b"".join(korean.split())
    return texts


def _random_lines(rng: np.random.Generator, alphabet: str) -> bytes:
    count = ODD_BYTES // len(alphabet[0].encode())
    drawn = rng.choice(list(alphabet), count)
    return "\n".join("".join(drawn[i : i + LINE]) for i in range(0, count, LINE)).encode()


def _base64(rng: np.random.Generator) -> str:
    return base64.b64encode(rng.bytes(ODD_BYTES * 3 // 4)).decode()


def _combining_marks(rng: np.random.Generator) -> str:
    letters = rng.choice(list("aeiounst"), ODD_BYTES // 7)
    marks = rng.integers(0x300, 0x340, (letters.size, 3))
    return "".join(letter + "".join(map(chr, row)) for letter, row in zip(letters, marks, strict=True))


def _repeated(rng: np.random.Generator) -> str:
    runs = (str(rng.choice(list("a=-. \n*#x0"))) * int(rng.integers(40, 900)) for _ in range(ODD_BYTES // 470))
    return "".join(runs)


def _one_word(rng: np.random.Generator) -> str:
    words = (str(rng.choice(("buy ", "la", "yes yes ", "spam ", "haha"))) for _ in range(200))
    return "\n".join(word * int(rng.integers(20, 300)) for word in words)[:ODD_BYTES]


def _identifiers(rng: np.random.Generator) -> str:
    return "\n".join(f"{rng.bytes(4).hex()}-{rng.bytes(2).hex()}-{rng.bytes(6).hex()}" for _ in range(4_000))


_MAKERS: dict[str, Callable[[np.random.Generator], str]] = {
    "base64": _base64,
    "combining marks": _combining_marks,
    "repeated characters": _repeated,
    "one word": _one_word,
    "identifiers": _identifiers,
}
ODD_KINDS = frozenset({*_ALPHABETS, *_MAKERS, "unspaced hangul"})
