"""Gathering the prompt of one request: its texts, and what stands in it beside text."""

from typing import Final

import msgspec

from extproc.core.apis.bodies import compact_json, decode_body, has_long_numbers, is_set
from extproc.core.apis.image_size import image_pixels, pixels_by_bytes, size_of
from extproc.core.errors import BodyFault, BodyNotUnderstood
from extproc.core.facts import NO_MEDIA, ImageSize, MediaCount

__all__ = ["Prompt"]

# Qwen2-VL and Qwen2.5-VL take a token for each, and at most so many (preprocessor_config.json); other models have
# patches of other sizes, and then another price.
PATCH_PIXELS = 28 * 28
MAX_PATCHES = 16_384


# Beyond what fits a smaller pool: 64 tokens each make 64K. A step takes about a microsecond.
MAX_STEPS: Final = 1024
UNDONE_BYTES_PER_STEP: Final = 256
# JSON within the body that is read once more: 64K tokens of it are about as many.
MAX_REREAD_BYTES: Final = 256 << 10
# More than models take in one request; the size of those beyond is guessed from their bytes.
MAX_MEASURED_IMAGES: Final = 32


class Prompt(msgspec.Struct):
    """What has been found of a prompt so far; grows as a body is walked through once.

    `marks` are the role of each message of a conversation, and how many texts there are with it.
    `dropped` are texts that a template may leave out, `images` pixels (0: not known), `opening` is the first
    question. `unseen` says that a part of the prompt is not in the body, or is of a kind that we cannot measure.
    `steps_left` bounds the walk: each message, part and call is a step. `reread_left` bounds, in bytes, what is
    read again: values that were skipped at first, and those in them.
    """

    texts: list[str] = []
    dropped: list[str] = []
    images: list[int] = []
    audio: int = 0
    video: int = 0
    tools: int = 0
    tool_calls: int = 0
    unseen: bool = False
    steps_left: int = MAX_STEPS
    reread_left: int = MAX_REREAD_BYTES
    opening: str = ""
    marks: list[tuple[str, int]] = []

    def step(self, count: int) -> None:
        """Take so many steps, before they are taken. Raises BodyNotUnderstood (TOO_MANY)."""
        self.steps_left -= count
        if self.steps_left < 0:
            raise BodyNotUnderstood(BodyFault.TOO_MANY, f"more than {MAX_STEPS} messages, parts and calls")

    def reread(self, value: msgspec.Raw) -> msgspec.Raw:
        """Return a value that is about to be read again. Raises BodyNotUnderstood (TOO_MANY)."""
        self.reread_left -= len(value)
        if self.reread_left < 0:
            detail = f"more than {MAX_REREAD_BYTES} bytes of tools, inputs and documents"
            raise BodyNotUnderstood(BodyFault.TOO_MANY, detail)
        return value

    def json_text(self, value: msgspec.Raw) -> str:
        r"""Return a value as models see it: compact, and without \uXXXX escapes unless it has too many values.

        Escapes left in make the text longer than it is, which is the safe side. Raises BodyNotUnderstood.
        """
        return self._json_text(self.reread(value))

    def _json_text(self, value: msgspec.Raw) -> str:
        text = bytes(value)
        return compact_json(value, unescape=b"\\u" in text and self._may_undo(text))

    def _may_undo(self, text: bytes) -> bool:
        """Tell whether the escapes in a JSON text are undone: each value is a step, and so are some bytes."""
        steps = 1 + text.count(b",") + len(text) // UNDONE_BYTES_PER_STEP
        if steps > self.steps_left or has_long_numbers(text):
            return False
        self.steps_left -= steps
        return True

    def add(self, *texts: str | None) -> None:
        """Add the texts that are there."""
        self.texts += filter(None, texts)

    def add_json(self, values: msgspec.Raw) -> None:
        """Add a list of values that models see as JSON text. Raises BodyNotUnderstood."""
        if is_set(values):
            self.texts.append(self.json_text(values)[1:-1])

    def add_tools(self, tools: msgspec.Raw) -> None:
        """Add and count the tools that a request offers. Raises BodyNotUnderstood when they are no list.

        What a tool brings that the pool itself runs comes into the prompt later, and is not in the body.
        """
        if not is_set(tools):
            return
        offered = decode_body(_TOOLS, self.reread(tools))
        self.texts.append(self._json_text(tools)[1:-1])
        self.unseen = self.unseen or not all(map(_is_run_by_client, {tool.type for tool in offered}))
        self.tools += len(offered)

    def add_call(self, name: str | None, arguments: str | None) -> None:
        r"""Add a tool call whose arguments are JSON inside a string.

        Servers parse the arguments and write them anew, so that \uXXXX escapes in them do not reach the model.
        """
        self.tool_calls += 1
        if arguments and "\\u" in arguments and self._may_undo(arguments.encode()):
            arguments = _unescaped(arguments)
        self.add(name, arguments)

    def add_image(self, source: msgspec.Raw) -> None:
        """Add an image; `source` is the JSON that holds it or says where it is, empty where there is none."""
        measured = len(self.images) < MAX_MEASURED_IMAGES
        self.images.append(image_pixels(source) if measured else pixels_by_bytes(len(source)))

    def open_with(self, texts_before: int) -> None:
        """Take the first text after so many as the conversation's first question, if there is one."""
        if len(self.texts) > texts_before:
            self.opening = self.texts[texts_before]

    def text_and_turns(self) -> tuple[bytes, tuple[tuple[str, int], ...]]:
        """Return all text as UTF-8, and the role of each message that was marked with where it ends in there."""
        texts = list(map(str.encode, self.texts))
        turns, first, end = [], 0, 0
        for role, last in self.marks:
            end += len(texts[first]) if last == first + 1 else sum(map(len, texts[first:last]))
            turns.append((role, end))
            first = last
        return b"".join(texts), tuple(turns)

    def dropped_text(self) -> bytes:
        """Return all text that a template may leave out, as UTF-8."""
        return "".join(self.dropped).encode()

    def media(self) -> MediaCount:
        """Return how many items are not text."""
        if self.images or self.audio or self.video:
            of_size = [size_of(pixels) for pixels in self.images].count
            return MediaCount(
                small_images=of_size(ImageSize.SMALL),
                medium_images=of_size(ImageSize.MEDIUM),
                large_images=of_size(ImageSize.LARGE),
                unknown_images=of_size(ImageSize.UNKNOWN),
                audio=self.audio,
                video=self.video,
                image_patches=sum(min(pixels / PATCH_PIXELS, MAX_PATCHES) for pixels in self.images),
            )
        return NO_MEDIA


class _Tool(msgspec.Struct, frozen=True, gc=False):
    type: str | None = None


_TOOLS: Final = msgspec.json.Decoder(list[_Tool])
# OpenAI's, and Anthropic's, whose names end in a date; all others (mcp, web_search*, code_interpreter,
# file_search, container, ...) are run by the server, or not known.
_CLIENT_TOOLS: Final = frozenset(
    {None, "", "function", "custom", "local_shell", "apply_patch", "computer", "computer_use_preview"}
)
_DATED_CLIENT_TOOLS: Final = ("bash_", "computer_", "memory_", "text_editor_")


def _is_run_by_client(kind: str | None) -> bool:
    return kind in _CLIENT_TOOLS or (kind is not None and kind.startswith(_DATED_CLIENT_TOOLS))


def _unescaped(arguments: str) -> str:
    try:
        return msgspec.json.encode(msgspec.json.decode(arguments)).decode()
    except msgspec.DecodeError:
        return arguments  # not JSON after all: the model gets it as it is
