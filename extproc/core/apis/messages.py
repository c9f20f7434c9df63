"""Anthropic's `/v1/messages`, as vLLM serves it.

The prompt consists of the system text, the blocks of all messages and the tools. Images are counted by size; only
documents that come as text can be measured here. Redacted thinking is ignored: vLLM does not pass it to the model.
Chat templates drop the thinking of earlier turns, and keep it after the last question (conversation.py).
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from extproc.core.apis.bodies import (
    Flag,
    Number,
    decode_body,
    forbids_tools,
    holds_any,
    is_set,
    model_key,
    read_flag,
    read_limit,
)
from extproc.core.apis.family import Family
from extproc.core.apis.messages_usage import MessageReader, read_response
from extproc.core.apis.prompt import Prompt
from extproc.core.apis.template_values import adds_to_prompt, keeps_thoughts
from extproc.core.facts import Api, RequestFacts

__all__ = ["FAMILY"]


class _Block(msgspec.Struct, frozen=True, gc=False):
    type: str | None = None
    id: str | None = None
    tool_use_id: str | None = None
    text: str | None = None
    thinking: str | None = None
    name: str | None = None
    tool_name: str | None = None
    title: str | None = None
    context: str | None = None
    input: msgspec.Raw = msgspec.Raw()
    source: msgspec.Raw = msgspec.Raw()
    content: "_Content" = None
    tool: msgspec.Raw = msgspec.Raw()  # what the conversation adds or removes


_Content = str | list[_Block] | _Block | None


class _Source(msgspec.Struct, frozen=True, gc=False):
    type: str | None = None
    data: str | None = None
    content: _Content = None


class _ToolChange(msgspec.Struct, frozen=True, gc=False):
    """A tool by its name, or by value."""

    type: str | None = None
    definition: msgspec.Raw = msgspec.Raw()


class _Message(msgspec.Struct, frozen=True, gc=False):
    role: str | None = None
    content: _Content = None


class _Thread(msgspec.Struct, frozen=True, gc=False):
    """A conversation that the server holds: one that begins, or, with an id, one that goes on."""

    previous_message_id: msgspec.Raw = msgspec.Raw()


class _Request(msgspec.Struct, frozen=True, gc=False):
    messages: list[_Message]
    system: _Content = None
    tools: msgspec.Raw = msgspec.Raw()
    tool_choice: msgspec.Raw = msgspec.Raw()
    model: str | None = None
    max_tokens: Number = msgspec.Raw()
    stream: Flag = msgspec.Raw()
    mcp_servers: msgspec.Raw = msgspec.Raw()
    container: msgspec.Raw = msgspec.Raw()
    compaction: msgspec.Raw = msgspec.Raw()  # asks for a summary, whose instructions are the server's
    thread: _Thread | None = None
    chat_template_kwargs: msgspec.Raw = msgspec.Raw()  # vLLM's

    def has_more_than_messages(self) -> bool:
        """Return whether the server adds to the prompt: results of tools, its instructions, or earlier turns."""
        return (
            any(map(holds_any, (self.mcp_servers, self.container, self.compaction)))
            or (self.thread is not None and is_set(self.thread.previous_message_id))
            or adds_to_prompt(self.chat_template_kwargs)
        )


_REQUEST = msgspec.json.Decoder(_Request)
_SOURCE = msgspec.json.Decoder(_Source)
_TOOL_CHANGE = msgspec.json.Decoder(_ToolChange)


def read_request(body: bytes) -> RequestFacts:
    """Read the facts of a messages request. Raises BodyNotUnderstood."""
    request = decode_body(_REQUEST, body)
    prompt = Prompt()
    _add_content(prompt, request.system, prompt.texts)
    texts_before = len(prompt.texts)
    prompt.marks.append(("system", texts_before))
    prompt.step(len(request.messages))
    last_question = 0 if keeps_thoughts(request.chat_template_kwargs) else _last_question(request.messages)
    for position, message in enumerate(request.messages):
        if position < last_question and message.role == "assistant":
            _add_earlier_answer(prompt, message.content)
        else:
            _add_content(prompt, message.content, prompt.texts)
        prompt.end_message(message.role)
    prompt.open_with(texts_before)
    add_tools = prompt.add_unused_tools if forbids_tools(request.tool_choice) else prompt.add_tools
    add_tools(request.tools)
    text, turns = prompt.text_and_turns()
    return RequestFacts(
        api=Api.MESSAGES,
        model=model_key(request.model),
        tools=prompt.tools,
        text=text,
        dropped_text=prompt.dropped_text() if prompt.dropped else b"",
        turns=turns,
        opening=prompt.opening,
        messages=len(request.messages) + bool(request.system),
        tool_calls=prompt.tool_calls,
        media=prompt.media(),
        max_output_tokens=read_limit(request.max_tokens, "max_tokens"),
        stream=read_flag(request.stream, "stream"),
        unseen_history=prompt.unseen or request.has_more_than_messages(),
        stored=request.thread is not None,
        unused_tools_bytes=prompt.unused_tools_bytes,
    )


def _last_question(messages: Sequence[_Message]) -> int:
    """Return the index of the last message that asks, 0 if there is none: results of tools are no question."""
    last = len(messages) - 1
    while last > 0 and not _asks(messages[last]):
        last -= 1
    return max(last, 0)


def _asks(message: _Message) -> bool:
    if message.role in _ANSWERING:
        return False
    content = message.content
    return not isinstance(content, list) or any(block.type != "tool_result" for block in content)


# All others are the user's, such as Claude Code's `ctx`.
_ANSWERING: Final = ("assistant", "system")


def _add_content(prompt: Prompt, content: _Content, thoughts: list[str]) -> None:
    if isinstance(content, str):
        prompt.texts.append(content)
    elif isinstance(content, _Block):
        _add_block(prompt, content, thoughts)
    elif content is not None:
        prompt.step(len(content))
        for block in content:
            _add_block(prompt, block, thoughts)


def _add_earlier_answer(prompt: Prompt, content: _Content) -> None:
    """Add an answer of an earlier turn without its reasoning, which ends before its first call of a tool.

    What a call writes, such as the code of a parser, may contain the tag that ends reasoning, and is kept.
    """
    first, calls = len(prompt.texts), None
    if isinstance(content, list):
        at = next((place for place, block in enumerate(content) if block.type not in _SAID), len(content))
        content, calls = content[:at], content[at:]
    _add_content(prompt, content, prompt.dropped)
    prompt.drop_thoughts(first)
    _add_content(prompt, calls, prompt.dropped)


_SAID: Final = (None, "", "text", "thinking", "redacted_thinking")


def _add_block(prompt: Prompt, block: _Block, thoughts: list[str]) -> None:
    match block.type or "text":
        case "text" | "tool_reference":
            prompt.add(block.text, block.tool_name or block.name)
        case "thinking":
            thoughts += filter(None, (block.thinking,))
        case "redacted_thinking":
            pass
        case "image":
            prompt.add_image(block.source)
        case "tool_use" | "server_tool_use" | "mcp_tool_use":
            prompt.step(1)  # in all it costs as much as two other blocks
            prompt.add_id(block.id)
            prompt.add_call(block.name, prompt.json_text(block.input))
        case "tool_result" | "mcp_tool_result":
            prompt.add_id(block.tool_use_id)
            _add_content(prompt, block.content, thoughts)
        case "search_result":
            prompt.add(block.title, prompt.json_text(block.source))
            _add_content(prompt, block.content, thoughts)
        case "document":
            _add_document(prompt, block, thoughts)
        case "tool_addition" | "tool_removal":
            _add_tool_change(prompt, block.tool)
        case _:
            prompt.unseen = True


def _add_document(prompt: Prompt, block: _Block, thoughts: list[str]) -> None:
    prompt.step(1)
    prompt.add(block.title, block.context)
    source = decode_body(_SOURCE, prompt.reread(block.source))
    match source.type:
        case "text":
            prompt.add(source.data)
        case "content":
            _add_content(prompt, source.content, thoughts)
        case _:
            prompt.unseen = True


def _add_tool_change(prompt: Prompt, tool: msgspec.Raw) -> None:
    """Add a tool that the conversation brings; one that it names is among the tools of the request.

    Removed ones count, too: vLLM does not render them, other servers may.
    """
    prompt.step(1)
    change = decode_body(_TOOL_CHANGE, prompt.reread(tool))
    match change.type:
        case "tool_definition":
            prompt.add_tools(msgspec.Raw(b"[%b]" % bytes(change.definition)))
        case "tool_reference":
            pass
        case _:
            prompt.unseen = True


FAMILY: Final = Family(Api.MESSAGES, "messages", read_request, read_response, MessageReader, operation="chat")
