"""The messages of a conversation, as chat completions and embeddings have them, added to a prompt.

Images (by size), audio and video are counted, their `data:` bytes skipped without being decoded; a `data:` URL
inside plain text stays, since the model reads it as text. The size of files, embeddings and parts of unknown type
cannot be determined here.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from extproc.core.apis.bodies import decode_body, is_set
from extproc.core.apis.prompt import MAX_ROLE_CHARS, Prompt

__all__ = ["Message", "add_messages"]


class _Part(msgspec.Struct, frozen=True, gc=False):
    type: str | None = None
    text: str | None = None
    refusal: str | None = None
    thinking: str | None = None
    uuid: msgspec.Raw = msgspec.Raw()
    # These make a part more than text, and are types, too.
    image_url: msgspec.Raw = msgspec.Raw()
    image_pil: msgspec.Raw = msgspec.Raw()
    image_embeds: msgspec.Raw = msgspec.Raw()
    video_embeds: msgspec.Raw = msgspec.Raw()
    audio_embeds: msgspec.Raw = msgspec.Raw()
    prompt_embeds: msgspec.Raw = msgspec.Raw()
    audio_url: msgspec.Raw = msgspec.Raw()
    input_audio: msgspec.Raw = msgspec.Raw()
    video_url: msgspec.Raw = msgspec.Raw()
    tool_reference: msgspec.Raw = msgspec.Raw()

    def kind(self) -> str:
        """Return the type or, without one, the first field that tells it; "" if it may be two things.

        With a `uuid` vLLM goes by the field, also if it is null, for media that it has cached; others by the type.
        """
        by_field = self.uuid and self.uuid != _NULL
        if self.type and not by_field:
            return self.type
        for name, value in (  # in vLLM's order, but for a video, which comes before the sound that counts with it
            ("image_url", self.image_url),
            ("image_pil", self.image_pil),
            ("image_embeds", self.image_embeds),
            ("video_embeds", self.video_embeds),
            ("audio_embeds", self.audio_embeds),
            ("prompt_embeds", self.prompt_embeds),
            ("audio_url", self.audio_url),
            ("input_audio", self.input_audio),
            ("video_url", self.video_url),
            ("tool_reference", self.tool_reference),
        ):
            if value and (by_field or value != _NULL):
                is_clear = self.type in (None, "", name) or (self.type, name) == ("input_image", "image_url")
                return name if is_clear else ""
        return self.type or "text"


class _Function(msgspec.Struct, frozen=True, gc=False):
    name: str | None = None
    arguments: msgspec.Raw = msgspec.Raw()  # text, or in SGLang an object


class _Custom(msgspec.Struct, frozen=True, gc=False):
    """A call of a custom tool, whose input is plain text."""

    name: str | None = None
    input: str | None = None


class _ToolCall(msgspec.Struct, frozen=True, gc=False):
    id: str | None = None
    function: _Function | None = None
    custom: _Custom | None = None


class Message(msgspec.Struct, frozen=True, gc=False):
    """One message of a conversation."""

    role: str | None = None
    content: str | list[_Part | str] | None = None
    name: str | None = None
    refusal: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None  # the older name of `reasoning`
    tool_calls: list[_ToolCall] | None = None
    tool_call_id: str | None = None
    audio: msgspec.Raw = msgspec.Raw()  # refers to an earlier output that the server keeps
    function_call: _Function | None = None
    tools: msgspec.Raw = msgspec.Raw()


def add_messages(prompt: Prompt, messages: list[Message], *, keeps_thoughts: bool = False) -> None:
    """Add a conversation to a prompt. Raises BodyNotUnderstood if it has too many parts.

    Chat templates of reasoning models drop reasoning before the last user message and keep it after that;
    with `keeps_thoughts` they were asked to keep all of it.
    """
    prompt.step(len(messages))
    asked = _last_question(prompt, messages)
    last_question = 0 if keeps_thoughts else asked
    for position, message in enumerate(messages):
        is_earlier, texts_before = position < last_question, len(prompt.texts)
        thoughts = prompt.dropped if is_earlier else prompt.texts
        if type(content := message.content) is str:
            prompt.texts.append(content)
        elif content:
            _add_parts(prompt, content)
        if is_earlier and message.role == "assistant":
            prompt.drop_thoughts(texts_before)
        if message.name or message.refusal:
            prompt.add(message.name, message.refusal)
        if reasoning := message.reasoning or message.reasoning_content:
            thoughts.append(reasoning)
        if message.tool_calls or message.function_call:
            _add_calls(prompt, message)
        if message.tool_call_id or message.audio or message.tools:
            _add_rare_fields(prompt, message)
        # As in Prompt.end_message; the call would be the only one for most messages.
        if len(role := message.role or "") > MAX_ROLE_CHARS:
            prompt.texts.append(role)
        prompt.marks.append((role, len(prompt.texts)))


def _add_rare_fields(prompt: Prompt, message: Message) -> None:
    prompt.add_id(message.tool_call_id)
    prompt.unseen = prompt.unseen or is_set(message.audio)
    if message.tools:
        prompt.step(2)  # in all it costs as much as three messages
        prompt.add_tools(message.tools)


def _add_calls(prompt: Prompt, message: Message) -> None:
    calls = message.tool_calls or ()
    prompt.step(len(calls))
    for call in calls:
        prompt.add_id(call.id)
        _add_call(prompt, call.function)
        if call.custom is not None:
            prompt.add_call(call.custom.name, call.custom.input)
    _add_call(prompt, message.function_call)


def _first_text(content: str | list[_Part | str] | None) -> str:
    if not content:
        return ""
    if isinstance(content, str):
        return content
    first = content[0]
    return first if isinstance(first, str) else first.text or ""


def _add_parts(prompt: Prompt, parts: Sequence[_Part | str]) -> None:
    prompt.step(len(parts))
    for part in parts:
        _add_part(prompt, part)


def _last_question(prompt: Prompt, messages: list[Message]) -> int:
    """Set the prompt's opening to the first user message; return the index of the last one, 0 if there is none."""
    last = len(messages) - 1
    while last > 0 and messages[last].role != "user":
        last -= 1
    for message in messages:
        if message.role == "user":
            prompt.opening = _first_text(message.content)
            break
    return last


def _add_part(prompt: Prompt, part: _Part | str) -> None:
    if isinstance(part, str):
        prompt.texts.append(part)
        return
    prompt.add(part.text, part.refusal, part.thinking)
    match part.kind():
        case "text" | "input_text" | "output_text" | "refusal" | "thinking" | "reasoning":
            pass
        case "image_url" | "image_embeds" | "image_pil" | "input_image":
            prompt.add_image(part.image_url)
        case "input_audio" | "audio_url" | "audio_embeds":
            prompt.audio += 1
        case "video_url" | "video_embeds":
            prompt.add_video(part.video_url)
            prompt.audio += is_set(part.audio_embeds)  # the video's sound
        case _:
            prompt.unseen = True


def _add_call(prompt: Prompt, function: _Function | None) -> None:
    if function is None:
        return
    said = function.arguments
    is_object = said and memoryview(said)[0] == _OBJECT
    prompt.add_call(function.name, prompt.json_text(said) if is_object else decode_body(_TEXT, said or _NULL))


_TEXT: Final = msgspec.json.Decoder(str | None)
_NULL: Final = msgspec.Raw(b"null")
_OBJECT: Final = ord("{")
