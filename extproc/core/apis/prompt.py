"""Collection of one request's prompt: its texts, and everything in it that is not text."""

import re
from typing import Final

import msgspec

from extproc.core.apis.bodies import compact_json, costly_numbers, decode_body, holds_any, is_set
from extproc.core.apis.claude_header import HEADER, drop_header
from extproc.core.apis.image_size import image_pixels, pixels_by_bytes, size_of
from extproc.core.apis.media_settings import has_settings
from extproc.core.errors import BodyFault, BodyNotUnderstood
from extproc.core.facts import NO_MEDIA, ImageSize, MediaCount

__all__ = ["MAX_ROLE_CHARS", "Prompt"]

# Qwen2-VL and Qwen2.5-VL use one token per patch, and at most MAX_PATCHES (preprocessor_config.json). For models
# with other patch sizes, the estimator learns another number of tokens per patch.
PATCH_PIXELS = 28 * 28
MAX_PATCHES = 16_384


# More than a smaller pool holds: at 64 tokens each, 1,024 steps are 64K. A step takes about a microsecond.
MAX_STEPS: Final = 1024
UNDONE_BYTES_PER_STEP: Final = 256
STEPS_PER_COSTLY_NUMBER: Final = 8
# JSON inside the body that is decoded a second time: 64K tokens are about this many bytes.
MAX_REREAD_BYTES: Final = 256 << 10
# More than models accept in one request; the size of further images is guessed from their bytes, and settings of
# their own, or of further videos, are not looked for: clients set all alike, and each search takes 2 microseconds.
MAX_MEASURED_IMAGES: Final = 32
# Those of usual roles, types of items and ids of calls; they are part of a message's constant number of tokens.
MAX_ROLE_CHARS: Final = 24
MAX_ID_CHARS: Final = 64
# The tag of Qwen3 and DeepSeek-R1, which stays in the content if the server runs no reasoning parser. The opening
# tag need not be there: many templates put it into the prompt.
END_OF_THOUGHT: Final = "</think>"


class Prompt(msgspec.Struct):
    """The prompt collected so far; it grows during one walk over the body.

    `marks` has the role of each message of a conversation and the length of `texts` after it.
    `dropped` are texts that a template may drop, `images` are pixel counts (0: unknown), `opening` is the first
    question. `unused_tools_bytes` is the length of the last text if it holds tools that must not be called.
    `unseen` is True when a part of the prompt is not in the body or cannot be measured.
    `steps_left` bounds the walk: each message, part and call is a step. `reread_left` bounds the bytes that are
    decoded a second time: values that were skipped at first, and values nested in them.
    """

    texts: list[str] = []
    dropped: list[str] = []
    images: list[int] = []
    audio: int = 0
    video: int = 0
    tools: int = 0
    tool_calls: int = 0
    unused_tools_bytes: int = 0
    unseen: bool = False
    steps_left: int = MAX_STEPS
    reread_left: int = MAX_REREAD_BYTES
    opening: str = ""
    marks: list[tuple[str, int]] = []

    def step(self, count: int) -> None:
        """Charge `count` steps; called before the work is done. Raises BodyNotUnderstood (TOO_MANY)."""
        self.steps_left -= count
        if self.steps_left < 0:
            raise BodyNotUnderstood(BodyFault.TOO_MANY, f"more than {MAX_STEPS} messages, parts and calls")

    def reread(self, value: msgspec.Raw) -> msgspec.Raw:
        """Charge for decoding a value again; return the value. Raises BodyNotUnderstood (TOO_MANY)."""
        self.reread_left -= len(value)
        if self.reread_left < 0:
            detail = f"more than {MAX_REREAD_BYTES} bytes of tools, inputs and documents"
            raise BodyNotUnderstood(BodyFault.TOO_MANY, detail)
        return value

    def json_text(self, value: msgspec.Raw) -> str:
        r"""Return a value as models see it: compact, and without \uXXXX escapes unless decoding costs too much.

        Escapes that remain make the text longer than it really is, which is the safe side. Raises
        BodyNotUnderstood.
        """
        return self._json_text(self.reread(value))

    def _json_text(self, value: msgspec.Raw) -> str:
        text = bytes(value)
        return compact_json(value, unescape=b"\\u" in text and self._may_undo(text))

    def _may_undo(self, text: bytes) -> bool:
        """Return whether to decode the escapes in a JSON text, and charge steps for its values and bytes if so."""
        if (costly := costly_numbers(text)) is None:
            return False
        steps = 1 + text.count(b",") + len(text) // UNDONE_BYTES_PER_STEP + STEPS_PER_COSTLY_NUMBER * costly
        if steps > self.steps_left:
            return False
        self.steps_left -= steps
        return True

    def add(self, *texts: str | None) -> None:
        """Add the texts that are not None or empty."""
        self.texts += filter(None, texts)

    def drop_thoughts(self, first: int) -> None:
        """Set apart what a template may drop of an earlier answer: all up to its last END_OF_THOUGHT.

        The answer is in the texts from index `first` on.
        """
        for place in range(len(self.texts) - 1, first - 1, -1):
            thought, end, said = self.texts[place].rpartition(END_OF_THOUGHT)
            if end:
                self.dropped += (*self.texts[first:place], thought + end)
                self.texts[first : place + 1] = (said,)
                return

    def add_json(self, values: msgspec.Raw) -> None:
        """Add a list of values that models see as JSON text. Raises BodyNotUnderstood."""
        if is_set(values):
            self.texts.append(self.json_text(values)[1:-1])

    def add_tools(self, tools: msgspec.Raw) -> None:
        """Add and count the tools that a request offers. Raises BodyNotUnderstood if they are not a list.

        The results of tools that the pool itself runs are added to the prompt later and are not in the body.
        """
        if not is_set(tools):
            return
        offered = decode_body(_TOOLS, self.reread(tools))
        self.texts.append(self._json_text(tools)[1:-1])
        kinds = {tool.type for tool in offered if tool.execution != "client" or tool.type != "tool_search"}
        # In one pass with the others, each tool would take five times as long to look at.
        if namespaces := [tool.tools for tool in offered if tool.tools]:
            kinds |= {each.type for tools_of_one in namespaces for each in tools_of_one}
        self.unseen = self.unseen or not all(map(_is_run_by_client, kinds))
        self.tools += len(offered) - len(namespaces) + sum(map(len, namespaces))

    def add_unused_tools(self, tools: msgspec.Raw) -> None:
        """Add tools that the request forbids to call, after everything else. Raises BodyNotUnderstood."""
        before = len(self.texts)
        self.add_tools(tools)
        self.unused_tools_bytes = sum(len(text.encode()) for text in self.texts[before:])

    def add_call(self, name: str | None, arguments: str | None) -> None:
        r"""Add a tool call whose arguments are JSON inside a string.

        Servers parse and re-serialise the arguments, so \uXXXX escapes in them do not reach the model.
        """
        self.tool_calls += 1
        if arguments and "\\u" in arguments and self._may_undo(arguments.encode()):
            arguments = _unescaped(arguments)
        self.add(name, arguments)

    def add_image(self, source: msgspec.Raw) -> None:
        """Add an image; `source` is the JSON that holds it or its URL, empty if there is none."""
        measured = len(self.images) < MAX_MEASURED_IMAGES
        self.images.append(image_pixels(source) if measured else pixels_by_bytes(len(source)))
        if measured and has_settings(source):
            self.unseen = True

    def add_video(self, source: msgspec.Raw) -> None:
        """Add a video; `source` is the JSON that holds its URL, empty if there is none."""
        if self.video < MAX_MEASURED_IMAGES and has_settings(source):
            self.unseen = True
        self.video += 1

    def add_id(self, call_id: str | None) -> None:
        """Add the id of a tool call if it is long, since some templates render it as it is."""
        if call_id and len(call_id) > MAX_ID_CHARS:
            self.texts.append(call_id)

    def end_message(self, role: str | None) -> None:
        """Mark the end of a message. A long role is part of its text, since some templates render it as it is."""
        if role and len(role) > MAX_ROLE_CHARS:
            self.texts.append(role)
        self.marks.append((role or "", len(self.texts)))

    def see_media_settings(self, *settings: msgspec.Raw) -> None:
        """Note settings for reading media, after all were added: with them, sizes do not show tokens."""
        has_media = self.images or self.audio or self.video
        others = [each for each in settings if holds_any(each) and bytes(each) != b"false"]
        self.unseen = self.unseen or bool(has_media and others)

    def open_with(self, texts_before: int) -> None:
        """Make the first text after the first `texts_before` ones the conversation's opening, if there is one."""
        if len(self.texts) > texts_before:
            self.opening = self.texts[texts_before]

    def text_and_turns(self) -> tuple[bytes, tuple[tuple[str, int], ...]]:
        """Return all text as UTF-8, and the role of each marked message with its end in the text, in bytes.

        The header of Claude Code is left out.
        """
        texts = list(map(str.encode, self.texts))
        text = b"".join(texts)
        if HEADER in text:
            drop_header(texts, self.marks)
            text = b"".join(texts)
        turns, first, end = [], 0, 0
        for role, last in self.marks:
            end += len(texts[first]) if last == first + 1 else sum(map(len, texts[first:last]))
            turns.append((role, end))
            first = last
        return text, tuple(turns)

    def dropped_text(self) -> bytes:
        """Return all text that a template may drop, as UTF-8."""
        return "".join(self.dropped).encode()

    def media(self) -> MediaCount:
        """Return the number of items that are not text."""
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
    execution: str | None = None  # of a search for tools: by the "client", or by the server
    tools: "list[_Tool] | None" = None  # of a namespace, as Codex offers the tools of an MCP server


_TOOLS: Final = msgspec.json.Decoder(list[_Tool])
# OpenAI's client-side tools, and Anthropic's, whose names end in a date; all others (mcp, web_search*,
# code_interpreter, file_search, container, ...) are run by the server, or are unknown.
_CLIENT_TOOLS: Final = frozenset(
    {None, "", "function", "custom", "namespace", "local_shell", "apply_patch", "computer", "computer_use_preview"}
)
_DATED_CLIENT_TOOLS: Final = re.compile("(?:bash|computer|memory|text_editor)_[0-9]{8}")


def _is_run_by_client(kind: str | None) -> bool:
    return kind in _CLIENT_TOOLS or (kind is not None and _DATED_CLIENT_TOOLS.fullmatch(kind) is not None)


def _unescaped(arguments: str) -> str:
    try:
        return msgspec.json.encode(msgspec.json.decode(arguments)).decode()
    except msgspec.DecodeError:
        return arguments  # not JSON: the model sees it unchanged
