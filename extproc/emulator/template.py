"""The chat template, which turns messages into the text that a model reads.

ChatML, as used by Qwen and others: each turn is a start mark, the role, a line break, the content, an end mark and
a line break; the prompt ends with an open assistant turn. Marks are single special tokens, so the texts between
them are tokenised separately. Tool definitions are JSON, one per line, in a system turn with instructions around
them; calls are JSON between marks of their own.
"""

import json
from base64 import b64decode
from collections.abc import Sequence

from extproc.emulator.work import Prompt

__all__ = ["ChatTemplate"]

TURN_MARKS = 3  # start, end, line break
CALL_MARKS = 4  # start and end of a call, each with its line break
DEFAULT_IMAGE_TOKENS = 258
AUDIO_TOKENS = 300
VIDEO_TOKENS = 2048
TOOLS_INTRODUCTION = (
    "\n\nTools that can help with the user's request are listed below, one signature per line, as JSON:\n<tools>\n"
)
TOOLS_INSTRUCTION = (
    "\n</tools>\n\nTo call one, answer with a JSON object that holds the function's name and its arguments, "
    'between call marks:\n{"name": <name>, "arguments": <object>}'
)


class ChatTemplate:
    """Collects turns; `prompt` returns the result."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._special_tokens = 0
        self._seeds: list[str] = []

    def tools(self, definitions: Sequence[object]) -> None:
        """Add a system turn with the tool definitions, if there are any."""
        if definitions:
            lines = "\n".join(_json(each) for each in definitions)
            self.turn("system", TOOLS_INTRODUCTION + lines + TOOLS_INSTRUCTION)

    def turn(self, role: str, content: str) -> None:
        """Add a turn."""
        self._texts.append(f"{role}\n{content}")
        self._special_tokens += TURN_MARKS

    def call(self, name: str, arguments: object) -> str:
        """Return a tool call as text for the content of a turn."""
        self._special_tokens += CALL_MARKS
        return _json({"name": name, "arguments": arguments})

    def image(self, url: str) -> None:
        """Add an image: a token per 28 x 28 pixels of a PNG (as in Qwen2-VL), else DEFAULT_IMAGE_TOKENS."""
        self._seeds.append(url[-64:])
        self._special_tokens += _image_tokens(url)

    def audio(self) -> None:
        """Add an audio clip."""
        self._special_tokens += AUDIO_TOKENS

    def video(self) -> None:
        """Add a video."""
        self._special_tokens += VIDEO_TOKENS

    def prompt(self, *, opens: bool = True, continues: bool = False) -> Prompt:
        """Return the prompt; it `opens` the assistant's turn, or `continues` the last one, which is left open."""
        texts, special_tokens = self._texts, self._special_tokens
        if opens:
            texts, special_tokens = [*texts, "assistant\n"], special_tokens + 1
        elif continues:
            special_tokens -= TURN_MARKS - 1
        return Prompt(tuple(texts), special_tokens, seed="".join(self._seeds))


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _image_tokens(url: str) -> int:
    marks = 2
    _, found, data = url.partition(";base64,")
    if not found:
        return DEFAULT_IMAGE_TOKENS + marks
    try:
        head = b64decode(data[:32])
    except ValueError:  # not base64, or not even ASCII
        return DEFAULT_IMAGE_TOKENS + marks
    if len(head) < 24 or not head.startswith(b"\x89PNG"):  # noqa: PLR2004  (the size ends at byte 24 of a PNG)
        return DEFAULT_IMAGE_TOKENS + marks
    width, height = int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    return min(max(-(-width // 28) * -(-height // 28), 4), 16384) + marks
