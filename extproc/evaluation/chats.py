"""Chats as people and programs send them: of several shapes, with tools, images and growing histories.

The shapes of single requests: *plain* is one user message; *with_system* begins with a system prompt of 200-800
bytes of English; a *conversation* has 3-9 turns; *with_tools* offers 1-6 tools. A `Session` is a chat that is sent
repeatedly, each time with its history and one more exchange, by an agent (with a system prompt, tools, calls and
their results) or a person.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from extproc.evaluation.made import made_tool_json
from extproc.evaluation.texts import Texts, window

__all__ = ["Chat", "Session", "Turn", "shaped", "with_image", "with_reasoning", "with_video"]

SYSTEM_BYTES = (200, 800)
AGENT_SYSTEM_BYTES = (2_000, 8_000)
AGENT_TOOLS = (4, 24)
TURN_BYTES = (6.2, 1.2)  # of a turn in a session: mu and sigma of a log-normal, median 500 bytes
REASONING_BYTES = (7.3, 0.6)  # median 1,500 bytes
# Qwen2.5-VL (preprocessor_config.json): patches of 14 x 14 pixels, merged 2 x 2; sides are rounded to 28 pixels.
PATCH = 28
MAX_IMAGE_TOKENS = 16_384


@dataclass(frozen=True, slots=True)
class Turn:
    """One message; `reasoning` is the model's reasoning before its response, sent back by the client."""

    role: str
    content: str
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class Chat:
    """A prompt: turns, tool definitions in JSON, image sizes in pixels, number of videos, tokens of all media."""

    turns: tuple[Turn, ...]
    tools: tuple[str, ...] = ()
    images: tuple[tuple[int, int], ...] = ()
    videos: int = 0
    media_tokens: tuple[int, ...] = ()


def shaped(text: str, texts: Texts, rng: np.random.Generator) -> Chat:
    """Return a text as a chat of one of the four shapes."""
    shape = _SHAPES[int(rng.choice(len(_SHAPES), p=_SHARES))]
    return shape(text, texts, rng)


def with_reasoning(chat: Chat, texts: Texts, rng: np.random.Generator) -> Chat:
    """Return a chat that carries the reasoning of two to five earlier responses."""
    history: list[Turn] = []
    for _ in range(int(rng.integers(2, 6))):
        history.append(Turn("user", _english(texts, _log_normal(TURN_BYTES, rng), rng)))
        thought = _english(texts, _log_normal(REASONING_BYTES, rng), rng)
        history.append(Turn("assistant", _english(texts, _log_normal(TURN_BYTES, rng), rng), thought))
    return replace(chat, turns=(*history, *chat.turns))


def with_image(chat: Chat, rng: np.random.Generator) -> Chat:
    """Return a chat with one to three images of 200 to 4,000 pixels per side, of any aspect ratio."""
    sides = np.exp(rng.uniform(np.log(200), np.log(4_000), (int(rng.integers(1, 4)), 2))).astype(int)
    images = tuple((int(width), int(height)) for width, height in sides)
    tokens = (max(4, round(width / PATCH) * round(height / PATCH)) for width, height in images)
    return replace(chat, images=images, media_tokens=tuple(min(count, MAX_IMAGE_TOKENS) for count in tokens))


def with_video(chat: Chat, rng: np.random.Generator) -> Chat:
    """Return a chat with a video of 2,000 to 16,000 tokens, a number that the request's body does not show."""
    return replace(chat, videos=1, media_tokens=(int(np.exp(rng.uniform(np.log(2_000), np.log(16_000)))),))


@dataclass(slots=True)
class Session:
    """A chat that grows by two turns each time it is sent."""

    texts: Texts
    kinds: Sequence[str]
    rng: np.random.Generator
    agent: bool
    chat: Chat = field(init=False)

    def __post_init__(self) -> None:
        low, high = AGENT_SYSTEM_BYTES if self.agent else SYSTEM_BYTES
        system = Turn("system", _english(self.texts, int(self.rng.integers(low, high)), self.rng))
        count = int(self.rng.integers(*AGENT_TOOLS)) if self.agent else 0
        self.chat = Chat((system,), tuple(made_tool_json(self.rng) for _ in range(count)))

    def next(self) -> Chat:
        """Return the chat extended by the next question, or by the result of the last call."""
        answers = () if len(self.chat.turns) == 1 else (Turn("assistant", self._piece()),)
        question = Turn("tool" if self.agent and answers else "user", self._piece())
        self.chat = replace(self.chat, turns=(*self.chat.turns, *answers, question))
        return self.chat

    def _piece(self) -> str:
        kind = self.kinds[int(self.rng.integers(len(self.kinds)))]
        return window(self.texts[kind], _log_normal(TURN_BYTES, self.rng), self.rng)


def _plain(text: str, _texts: Texts, _rng: np.random.Generator) -> Chat:
    return Chat((Turn("user", text),))


def _with_system(text: str, texts: Texts, rng: np.random.Generator) -> Chat:
    return Chat((Turn("system", _english(texts, int(rng.integers(*SYSTEM_BYTES)), rng)), Turn("user", text)))


def _conversation(text: str, _texts: Texts, rng: np.random.Generator) -> Chat:
    turns = 2 * int(rng.integers(1, 5)) + 1
    cuts = [0, *sorted(rng.integers(0, len(text) + 1, turns - 1).tolist()), len(text)]
    roles = ("user", "assistant")
    return Chat(tuple(Turn(roles[i % 2], text[a:b]) for i, (a, b) in enumerate(pairwise(cuts))))


def _with_tools(text: str, _texts: Texts, rng: np.random.Generator) -> Chat:
    return Chat((Turn("user", text),), tuple(made_tool_json(rng) for _ in range(int(rng.integers(1, 7)))))


_SHAPES: tuple[Callable[[str, Texts, np.random.Generator], Chat], ...] = (
    _plain,
    _with_system,
    _conversation,
    _with_tools,
)
_SHARES = (0.30, 0.30, 0.25, 0.15)


def _english(texts: Texts, size_bytes: int, rng: np.random.Generator) -> str:
    return window(texts.get("prose", next(iter(texts.values()))), size_bytes, rng)


def _log_normal(mu_sigma: tuple[float, float], rng: np.random.Generator) -> int:
    return max(16, int(rng.lognormal(*mu_sigma)))
