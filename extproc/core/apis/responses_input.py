"""The input items of `/v1/responses`, added to a prompt: messages, reasoning, calls of tools and their results.

Encrypted content, files, references to items that the server stores, and items of unknown type cannot be measured.
Chat templates drop the reasoning of earlier turns, and keep it after the last question (conversation.py).
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from extproc.core.apis.bodies import decode_body, is_set
from extproc.core.apis.prompt import Prompt

__all__ = ["Item", "add_items"]


class _Part(msgspec.Struct, frozen=True, gc=False):
    type: str | None = None
    text: str | None = None
    refusal: str | None = None
    image_url: msgspec.Raw = msgspec.Raw()
    max_dynamic_patch: msgspec.Raw = msgspec.Raw()  # SGLang's settings for an image
    min_dynamic_patch: msgspec.Raw = msgspec.Raw()
    max_long_side_pixel: msgspec.Raw = msgspec.Raw()


class Item(msgspec.Struct, frozen=True, gc=False):
    """One item; which fields it has depends on its type."""

    type: str | None = None
    role: str | None = None
    content: str | list[_Part | str] | None = None
    name: str | None = None
    namespace: str | None = None  # of a function that a namespace of tools offers
    arguments: msgspec.Raw = msgspec.Raw()  # text, or of a search for tools an object
    call_id: str | None = None
    input: str | None = None
    output: str | list[_Part] | _Part | None = None
    summary: list[_Part] | None = None
    encrypted_content: str | None = None
    execution: str | None = None
    tools: msgspec.Raw = msgspec.Raw()  # what a search for tools has found


class _Found(msgspec.Struct, frozen=True, gc=False):
    """A tool that a search has found, or a namespace of them."""

    name: str | None = None
    description: str | None = None
    tools: "list[_Found] | None" = None


def add_items(prompt: Prompt, items: Sequence[Item | str], *, keeps_thoughts: bool) -> None:
    """Add the items of a request; with `keeps_thoughts` all reasoning is kept. Raises BodyNotUnderstood."""
    prompt.step(len(items))
    last_question = 0 if keeps_thoughts else _last_question(items)
    for position, item in enumerate(items):
        if isinstance(item, str):
            prompt.texts.append(item)
        elif item.type == "reasoning":
            _add_reasoning(prompt, item, is_earlier=position < last_question)
        else:
            first = len(prompt.texts)
            _add_item(prompt, item)
            if item.role == "assistant" and position < last_question and item.type in _MESSAGE:
                prompt.drop_thoughts(first)
        prompt.end_message(_said_by(item))


_MESSAGE: Final = (None, "", "message")


def _said_by(item: Item | str) -> str:
    """Return the role of a message, or the type of any other item."""
    return "" if isinstance(item, str) else item.role or item.type or ""


def _last_question(items: Sequence[Item | str]) -> int:
    """Return the index of the user's last message, 0 if there is none."""
    last = len(items) - 1
    while last > 0 and _said_by(items[last]) not in ("user", ""):
        last -= 1
    return max(last, 0)


def _add_reasoning(prompt: Prompt, item: Item, *, is_earlier: bool) -> None:
    texts_before = len(prompt.texts)
    _add_content(prompt, item.summary)
    _add_content(prompt, item.content)
    if is_earlier:
        prompt.dropped += prompt.texts[texts_before:]
        del prompt.texts[texts_before:]
    prompt.unseen = prompt.unseen or bool(item.encrypted_content)


def _add_item(prompt: Prompt, item: Item) -> None:
    prompt.add_id(item.call_id)
    said = item.input
    if item.arguments:
        is_object = memoryview(item.arguments)[0] == _OBJECT
        said = prompt.json_text(item.arguments) if is_object else decode_body(_TEXT, item.arguments) or said
    match item.type or "message":
        case "message":
            _add_content(prompt, item.content)
            prompt.unseen = prompt.unseen or item.content is None  # a reference to an item that is stored
        case "function_call" | "custom_tool_call" | "mcp_call":
            prompt.add(item.namespace)
            prompt.add_call(item.name, said)
            _add_content(prompt, item.output)
        case "tool_search_call" if item.execution == "client":
            prompt.add_call("tool_search", said)
        case "tool_search_output" if item.execution == "client":
            _add_found(prompt, item.tools)
        case (
            "function_call_output" | "custom_tool_call_output" | "local_shell_call_output" | "computer_call_output"
        ):
            _add_content(prompt, item.output)
        case _:
            prompt.unseen = True


def _add_found(prompt: Prompt, tools: msgspec.Raw) -> None:
    """Add tools that the client has found: from then on the request offers them, and the result names them."""
    prompt.step(2)
    prompt.add_tools(tools)
    for tool in decode_body(_FOUND, prompt.reread(tools)) if is_set(tools) else ():
        for each in tool.tools or (tool,):
            prompt.add(each.name, each.description)


_FOUND: Final = msgspec.json.Decoder(list[_Found])
_TEXT: msgspec.json.Decoder[str | None] = msgspec.json.Decoder(str | None)
_OBJECT: Final = ord("{")


def _add_content(prompt: Prompt, content: str | Sequence[_Part | str] | _Part | None) -> None:
    if isinstance(content, str):
        prompt.texts.append(content)
    elif isinstance(content, _Part):
        _add_part(prompt, content)
    elif content is not None:
        prompt.step(len(content))
        for part in content:
            _add_content(prompt, part)


def _add_part(prompt: Prompt, part: _Part) -> None:
    match part.type or "text":
        case "text" | "input_text" | "output_text" | "summary_text" | "reasoning_text" | "refusal":
            prompt.add(part.text, part.refusal)
        case "input_image" | "computer_screenshot":
            prompt.add_image(part.image_url)
            if part.max_dynamic_patch or part.min_dynamic_patch or part.max_long_side_pixel:
                prompt.see_media_settings(part.max_dynamic_patch, part.min_dynamic_patch, part.max_long_side_pixel)
        case "input_audio":
            prompt.audio += 1
        case _:
            prompt.unseen = True
