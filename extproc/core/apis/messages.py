"""Anthropic's `/v1/messages`, as vLLM serves it.

The prompt consists of the system text, the blocks of all messages and the tools. Images are counted by size; only
documents that come as text can be measured here. Redacted thinking is ignored: vLLM does not pass it to the model.
"""

from typing import Final

import msgspec

from extproc.core.apis.bodies import (
    Flag,
    Number,
    adds_to_prompt,
    decode_body,
    holds_any,
    model_key,
    read_flag,
    read_limit,
)
from extproc.core.apis.family import Family
from extproc.core.apis.prompt import Prompt
from extproc.core.errors import ResponseFault, ResponseNotUnderstood
from extproc.core.facts import Api, RequestFacts
from extproc.core.reading.reader import EventReader
from extproc.core.reading.sse import SseEvent
from extproc.core.reading.usages import checked_usage, decode_response
from extproc.core.usage import Usage

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


_Content = str | list[_Block] | _Block | None


class _Source(msgspec.Struct, frozen=True, gc=False):
    type: str | None = None
    data: str | None = None
    content: _Content = None


class _Message(msgspec.Struct, frozen=True, gc=False):
    role: str | None = None
    content: _Content = None


class _Request(msgspec.Struct, frozen=True, gc=False):
    messages: list[_Message]
    system: _Content = None
    tools: msgspec.Raw = msgspec.Raw()
    model: str | None = None
    max_tokens: Number = msgspec.Raw()
    stream: Flag = msgspec.Raw()
    mcp_servers: msgspec.Raw = msgspec.Raw()
    container: msgspec.Raw = msgspec.Raw()
    chat_template_kwargs: msgspec.Raw = msgspec.Raw()  # vLLM's


_REQUEST = msgspec.json.Decoder(_Request)
_SOURCE = msgspec.json.Decoder(_Source)


def read_request(body: bytes) -> RequestFacts:
    """Read the facts of a messages request. Raises BodyNotUnderstood."""
    request = decode_body(_REQUEST, body)
    prompt = Prompt()
    _add_content(prompt, request.system)
    texts_before = len(prompt.texts)
    prompt.marks.append(("system", texts_before))
    prompt.step(len(request.messages))
    for message in request.messages:
        _add_content(prompt, message.content)
        prompt.end_message(message.role)
    prompt.open_with(texts_before)
    prompt.add_tools(request.tools)
    text, turns = prompt.text_and_turns()
    return RequestFacts(
        api=Api.MESSAGES,
        model=model_key(request.model),
        tools=prompt.tools,
        text=text,
        turns=turns,
        opening=prompt.opening,
        messages=len(request.messages) + bool(request.system),
        tool_calls=prompt.tool_calls,
        media=prompt.media(),
        max_output_tokens=read_limit(request.max_tokens, "max_tokens"),
        stream=read_flag(request.stream, "stream"),
        unseen_history=prompt.unseen
        or holds_any(request.mcp_servers)
        or holds_any(request.container)
        or adds_to_prompt(request.chat_template_kwargs),
    )


def _add_content(prompt: Prompt, content: _Content) -> None:
    if isinstance(content, str):
        prompt.texts.append(content)
    elif isinstance(content, _Block):
        _add_block(prompt, content)
    elif content is not None:
        prompt.step(len(content))
        for block in content:
            _add_block(prompt, block)


def _add_block(prompt: Prompt, block: _Block) -> None:
    match block.type or "text":
        case "text" | "thinking" | "tool_reference":
            prompt.add(block.text, block.thinking, block.tool_name)
        case "redacted_thinking":
            pass
        case "image":
            prompt.add_image(block.source)
        case "tool_use" | "server_tool_use" | "mcp_tool_use":
            prompt.step(1)  # in all it costs as much as two other blocks
            prompt.add_id(block.id)
            prompt.add_call(block.name, prompt.json_text(block.input))
        case "tool_result" | "mcp_tool_result" | "search_result":
            prompt.add_id(block.tool_use_id)
            prompt.add(block.title)
            _add_content(prompt, block.content)
        case "document":
            _add_document(prompt, block)
        case _:
            prompt.unseen = True


def _add_document(prompt: Prompt, block: _Block) -> None:
    prompt.step(1)
    prompt.add(block.title, block.context)
    source = decode_body(_SOURCE, prompt.reread(block.source))
    match source.type:
        case "text":
            prompt.add(source.data)
        case "content":
            _add_content(prompt, source.content)
        case _:
            prompt.unseen = True


class _TokenCounts(msgspec.Struct, frozen=True, gc=False):
    """Anthropic's usage: cached tokens are not included in input_tokens."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None

    def prompt_tokens(self) -> int | None:
        if self.input_tokens is None:
            return None
        return self.input_tokens + (self.cache_read_input_tokens or 0) + (self.cache_creation_input_tokens or 0)


class _Response(msgspec.Struct, frozen=True, gc=False):
    usage: _TokenCounts | None = None
    stop_reason: str | None = None


_RESPONSE = msgspec.json.Decoder(_Response)


def read_response(body: bytes | bytearray) -> Usage:
    """Read the usage of a complete response. Raises ResponseNotUnderstood."""
    response = decode_response(_RESPONSE, body)
    if response.usage is None:
        raise ResponseNotUnderstood(ResponseFault.NO_USAGE)
    return _checked(response.usage, response.usage.output_tokens, response.stop_reason)


def _checked(prompt: _TokenCounts, output_tokens: int | None, stop_reason: str | None) -> Usage:
    cut = stop_reason in _CUT
    return checked_usage(prompt.prompt_tokens(), output_tokens, prompt.cache_read_input_tokens, cut_by_length=cut)


# The client's output limit, and the model's context length.
_CUT: Final = frozenset({"max_tokens", "model_context_window_exceeded"})


class _Event(msgspec.Struct, frozen=True, gc=False):
    type: str | None = None
    message: _Response | None = None
    delta: _Response | None = None
    usage: _TokenCounts | None = None


_EVENT = msgspec.json.Decoder(_Event)


class MessageReader(EventReader):
    """Reads the usage from a stream of message events.

    `message_start` has the prompt's counts. Each `message_delta` has the output tokens so far and, with newer
    servers, the prompt's counts again, which then take precedence. Blocks and their deltas are not decoded.
    """

    _prompt: _TokenCounts | None = None
    _output_tokens: int | None = None
    _stop_reason: str | None = None

    def see(self, events: list[SseEvent]) -> None:
        """Process the next events. Raises ResponseNotUnderstood if one of them is an error."""
        for event in events:
            if self.complete:
                return  # some servers append OpenAI's [DONE]
            if event.event in _COUNTED or (not event.event and b'"content_block_' not in event.data):
                self._look_into(event.data)

    def usage(self) -> Usage:
        """Return the usage of the complete stream. Raises ResponseNotUnderstood."""
        if not self.complete and (self._stop_reason is None or self._output_tokens is None):
            raise ResponseNotUnderstood(ResponseFault.CUT_SHORT, "no message_stop, and no stop reason with usage")
        if self._prompt is None:
            raise ResponseNotUnderstood(ResponseFault.NO_USAGE)
        return _checked(self._prompt, self._output_tokens, self._stop_reason)

    def _look_into(self, data: bytes) -> None:
        event = decode_response(_EVENT, data, ResponseFault.BROKEN_SSE)
        match event.type:
            case "message_start":
                self._prompt = event.message.usage if event.message else None
            case "message_delta":
                self._count(event.usage)
                self._stop_reason = (event.delta and event.delta.stop_reason) or self._stop_reason
            case "message_stop":
                self.complete = True
            case "error":
                raise ResponseNotUnderstood(ResponseFault.NO_USAGE, "the stream contains an error")

    def _count(self, usage: _TokenCounts | None) -> None:
        if usage is None:
            return
        if usage.output_tokens is not None:
            self._output_tokens = usage.output_tokens
        counted = self._prompt.prompt_tokens() if self._prompt else None
        if (usage.prompt_tokens() or 0) > (counted or 0):  # a lower count merely lacks the cached part
            self._prompt = usage


_COUNTED: Final = frozenset({b"message_start", b"message_delta", b"message_stop", b"error"})


FAMILY: Final = Family(Api.MESSAGES, "messages", read_request, read_response, MessageReader, operation="chat")
