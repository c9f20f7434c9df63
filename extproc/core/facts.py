"""The facts of one request and of its response's head: all that estimators and policies see of them.

Objects created per request are frozen msgspec structs, here and elsewhere: a frozen dataclass costs several times
as much to create.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import msgspec

__all__ = [
    "CUT_TO_FIT",
    "NO_MEDIA",
    "Api",
    "ImageSize",
    "MediaCount",
    "RequestFacts",
    "RequestHead",
    "ResponseHead",
]


class Api(StrEnum):
    """The API families whose bodies we understand; a metric label."""

    CHAT = "chat_completions"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    RESPONSES = "responses"
    MESSAGES = "messages"
    RERANK = "rerank"
    SCORE = "score"
    GENERATE = "generate"


class RequestHead(msgspec.Struct, frozen=True, gc=False):
    """The few request headers that matter here; values are "" when absent."""

    method: str = ""
    path: str = ""
    content_encoding: str = ""
    tenant: str = ""  # value of the configured category header
    request_id: str = ""  # the gateway's x-request-id, for logs
    traceparent: str = ""  # W3C Trace Context; read only if traces are enabled
    arrived_ns: int = 0  # wall clock; set only if traces are enabled


class ResponseHead(msgspec.Struct, frozen=True, gc=False):
    """The few response headers that matter here. `attempts` is Envoy's x-envoy-attempt-count, 1 when absent."""

    status: int
    content_type: str = ""
    content_encoding: str = ""
    attempts: int = 1

    @property
    def succeeded(self) -> bool:
        """Whether the status is a 2xx."""
        return 200 <= self.status < 300  # noqa: PLR2004


class ImageSize(StrEnum):
    """The size class of an image by pixels: up to 512 x 512, 1024 x 1024, more; unknown if not in the body."""

    SMALL = "small"
    MEDIUM = "medium"
    LARGE = "large"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class MediaCount:
    """The number of items that are not text, images by ImageSize; their `data:` bytes are not in the prompt text.

    `image_patches` is the area of all images whose size is known from the body, in patches of 28 x 28 pixels.
    """

    small_images: int = 0
    medium_images: int = 0
    large_images: int = 0
    unknown_images: int = 0
    audio: int = 0
    video: int = 0
    image_patches: float = field(default=0.0, compare=False)  # equality is about the number of items

    @property
    def images(self) -> int:
        """Images of any size."""
        return self.small_images + self.medium_images + self.large_images + self.unknown_images


NO_MEDIA: Final = MediaCount()
# As `truncate_prompt_tokens`: the server keeps as much of the prompt as its context, and the output limit, allow.
CUT_TO_FIT: Final = -1


class RequestFacts(msgspec.Struct, frozen=True, gc=False):
    """The facts of one request body.

    `model` is the name that the client sent, bounded (names.py), or "".
    `text` is the prompt text as UTF-8 bytes after JSON decoding: the contents of every role, names, tool
    definitions, tool calls and structured content, without the envelope's keys and punctuation and without the
    `data:` URLs of media. `dropped_text` is text not included there, because a template may drop it: the reasoning
    of earlier turns.
    `opening` is the first question of a conversation, or its first text, which does not change from turn to turn;
    "" if there is none. `turns` lists the messages of a conversation: the role of each and its end in `text`, in
    bytes; tools and documents follow the last one.
    `exact_prompt_tokens` is set when the prompt came as token ids. A body may hold several prompts (a list): the
    counts above are totals over all of them, as in reported usage, and `longest_share` is the share of the
    longest. `max_output_tokens` is None when the client declared no limit. `sequences` is the number of outputs:
    max(n, best_of) for each prompt. `truncate_prompt_tokens` is how much of a prompt the server keeps, at most,
    and may be CUT_TO_FIT; it is None when the server cuts nothing. `usage_in_response` is False for a stream that
    was not asked to report usage. `unseen_history` is True when the pool will add content that is not in this
    body, or parts of the body cannot be measured. `output_forced` is True when the client keeps the model from
    ending its output, so that its length says nothing about other outputs. `stored` is True when the server stores
    the response for later requests or has stored an earlier one, and None when the request leaves that to the
    server. `unused_tools_bytes` is how much of the end of `text` are tools which the request forbids to call:
    servers may leave them out.
    """

    api: Api
    model: str
    text: bytes
    exact_prompt_tokens: int | None = None
    longest_share: float = 1.0
    messages: int = 0
    tools: int = 0
    tool_calls: int = 0
    media: MediaCount = NO_MEDIA
    max_output_tokens: int | None = None
    sequences: int = 1
    stream: bool = False
    usage_in_response: bool = True
    truncate_prompt_tokens: int | None = None
    unseen_history: bool = False
    output_forced: bool = False
    stored: bool | None = False
    dropped_text: bytes = b""
    opening: str = ""
    turns: tuple[tuple[str, int], ...] = ()
    unused_tools_bytes: int = 0

    @property
    def text_bytes(self) -> int:
        """Prompt text bytes, the |r| of the paper."""
        return len(self.text)
