"""Texts that occur in no stream; a model sees them for the first time after learning from ordinary requests.

A bound tuned to the odd kinds of odd.py alone would say little about the next odd kind. So there are many more
kinds here, from scripts that few vocabularies cover to encodings of bytes. A hash of its name puts each kind into
one of two halves: the constants of the method were chosen on one half, and the other was only looked at
afterwards.
"""

import base64
import binascii
import codecs
from collections.abc import Callable
from hashlib import blake2b
from urllib.parse import quote

import numpy as np

__all__ = ["held_out", "unseen_texts"]

UNSEEN_BYTES = 60_000  # of each kind
LINE = 60
# The first character and the number of characters of each script, set of symbols or letter form.
_BLOCKS = {
    "random greek": (0x3B1, 25),
    "random cyrillic": (0x430, 32),
    "random arabic": (0x627, 36),
    "random hebrew": (0x5D0, 27),
    "random devanagari": (0x905, 53),
    "random thai": (0xE01, 46),
    "random han": (0x4E00, 6_000),
    "random hangul": (0xAC00, 11_172),
    "hangul letters": (0x1100, 90),
    "cherokee": (0x13A0, 80),
    "canadian syllables": (0x1401, 600),
    "runes": (0x16A0, 75),
    "mongolian": (0x1820, 88),
    "full-width letters": (0xFF21, 26),
    "half-width kana": (0xFF66, 56),
    "arabic forms": (0xFB50, 90),
    "private use": (0xE000, 2_000),
    "radicals": (0x2F00, 214),
    "mathematical letters": (0x1D400, 80),
    "cuneiform": (0x12000, 900),
    "hieroglyphs": (0x13000, 1_000),
    "musical signs": (0x1D100, 38),
    "mahjong": (0x1F000, 44),
    "phonetic letters": (0x250, 90),
    "letters with marks": (0x100, 127),
    "arrows": (0x2190, 110),
    "zero width": (0x200B, 5),
}
_ALPHABETS = {
    "binary digits": "01",
    "random capitals": "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "consonants": "bcdfghjklmnpqrstvwxz",
    "vowels": "aeiou",
    "morse": ".- /",
    "brackets": "()[]{}<>",
    "blanks": " \t\n",
    "dna in small letters": "acgt",
    "any ascii": "".join(map(chr, range(32, 127))),
}


def held_out(kind: str) -> bool:
    """Return whether a kind is in the half on which no constant was chosen."""
    return bool(blake2b(kind.encode(), digest_size=1).digest()[0] & 1)


def unseen_texts(rng: np.random.Generator, prose: bytes) -> dict[str, bytes]:
    """Return a text of every kind; some are made from `prose`, an ordinary text."""
    letters = {kind: "".join(map(chr, range(first, first + count))) for kind, (first, count) in _BLOCKS.items()}
    texts = {kind: _random_lines(rng, alphabet) for kind, alphabet in (letters | _ALPHABETS).items()}
    words = prose[:UNSEEN_BYTES].decode("utf-8", errors="ignore")
    texts |= {kind: change(words).encode() for kind, change in _OF_WORDS.items()}
    payload = rng.bytes(UNSEEN_BYTES // 2)
    texts |= {kind: encode(payload).encode() for kind, encode in _OF_BYTES.items()}
    return texts | {kind: _lines(rng, line) for kind, line in _OF_LINES.items()}


def _random_lines(rng: np.random.Generator, alphabet: str) -> bytes:
    drawn = rng.choice(list(alphabet), UNSEEN_BYTES // len(alphabet[-1].encode()))
    return "\n".join("".join(drawn[i : i + LINE]) for i in range(0, drawn.size, LINE)).encode()


def _lines(rng: np.random.Generator, line: Callable[[np.random.Generator], str]) -> bytes:
    return "\n".join(line(rng) for _ in range(1_000)).encode()


def _with_lines(text: str) -> str:
    return "\n".join(text[i : i + LINE] for i in range(0, len(text), LINE))


def _uuencoded(payload: bytes) -> str:
    return "".join(binascii.b2a_uu(payload[i : i + 45]).decode() for i in range(0, len(payload), 45))


def _web_token(rng: np.random.Generator) -> str:
    return ".".join(base64.urlsafe_b64encode(rng.bytes(size)).decode().rstrip("=") for size in (27, 90, 32))


def _address(rng: np.random.Generator) -> str:
    return ":".join(f"{part:x}" for part in rng.integers(0, 1 << 16, 8))


def _moves(rng: np.random.Generator) -> str:
    squares = [f"{rng.choice(list('KQRBN'))}{rng.choice(list('abcdefgh'))}{rng.integers(1, 9)}" for _ in range(12)]
    return " ".join(
        f"{i + 1}.{white} {black}"
        for i, (white, black) in enumerate(zip(squares[::2], squares[1::2], strict=True))
    )


def _molecule(rng: np.random.Generator) -> str:
    return "".join(rng.choice(("C", "c1ccccc1", "N", "O", "(=O)", "[C@@H]", "S", "Cl", "(C)", "n2"), 14))


def _password(rng: np.random.Generator) -> str:
    return " ".join("".join(rng.choice(list(_ALPHABETS["any ascii"][1:]), 14)) for _ in range(4))


def _grid(rng: np.random.Generator) -> str:
    return " ".join(rng.choice(list("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), 20))


def _minified(rng: np.random.Generator) -> str:
    a, b, c, d = ("".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), 2)) for _ in range(4))
    return f"function {a}({b},{c}){{return {b}?{d}({c})||!{b}.{a}:{c}&&({b}={d}[{rng.integers(99)}])}}"


def _numbers(rng: np.random.Generator) -> str:
    return ",".join(f"{value:.12g}" for value in rng.normal(0, 1, 8))


_OF_WORDS: dict[str, Callable[[str], str]] = {
    "rotated prose": lambda text: codecs.encode(text, "rot13"),
    "reversed prose": lambda text: text[::-1],
    "capital prose": str.upper,
    "unspaced prose": lambda text: _with_lines("".join(text.split())),
    "spaced prose": " ".join,
    "leet": lambda text: text.translate(str.maketrans("aeiostlg", "43105719")),
    "mixed capitals": lambda text: "".join(c.upper() if i % 2 else c for i, c in enumerate(text)),
    "prose in full-width": lambda text: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text),
    "prose in mathematical letters": lambda text: "".join(
        chr(0x1D41A + ord(c) - ord("a")) if "a" <= c <= "z" else c for c in text
    ),
    "code points": lambda text: " ".join(f"U+{ord(c):04X}" for c in text[: UNSEEN_BYTES // 7]),
}
_OF_BYTES: dict[str, Callable[[bytes], str]] = {
    "ascii85": lambda payload: _with_lines(base64.a85encode(payload).decode()),
    "base32": lambda payload: _with_lines(base64.b32encode(payload).decode()),
    "uuencoded": _uuencoded,
    "escaped bytes": lambda payload: "".join(f"\\x{byte:02x}" for byte in payload),
    "percent encoded": quote,
    "octal": lambda payload: " ".join(f"{byte:03o}" for byte in payload),
    "bytes as decimals": lambda payload: ", ".join(map(str, payload)),
}
_OF_LINES: dict[str, Callable[[np.random.Generator], str]] = {
    "web tokens": _web_token,
    "network addresses": _address,
    "chess": _moves,
    "molecules": _molecule,
    "passwords": _password,
    "grid of letters": _grid,
    "minified code": _minified,
    "long numbers": _numbers,
}
