"""OpenAI's `/v1/chat/completions`, as vLLM serves it.

The prompt text is what a chat template passes to the model: contents of all roles, names, tool definitions and
calls, reasoning that the client sends back, and vLLM's `documents`. Role names and template markers are a constant
per message, which the estimator accounts for. Images (by size), audio and video are counted, their `data:` bytes
skipped without being decoded; a `data:` URL inside plain text stays, since the model reads it as text. The size of
files, embeddings and parts of unknown type cannot be determined here.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from extproc.core.apis.bodies import (
    Flag,
    Number,
    decode_body,
    is_set,
    model_key,
    prompt_cap,
    read_flag,
    read_number,
)
from extproc.core.apis.chunks import ChunkReader, read_response
from extproc.core.apis.family import Family
from extproc.core.apis.prompt import Prompt
from extproc.core.facts import Api, RequestFacts

__all__ = ["FAMILY", "Message", "StreamOptions", "add_messages", "read_sequences", "reports_usage"]


class StreamOptions(msgspec.Struct, frozen=True, gc=False):
    """The options of a stream; in vLLM their presence alone requests usage.

    vLLM's continuous_usage_stats has an effect only together with include_usage.
    """

    include_usage: Flag = True


class _Part(msgspec.Struct, frozen=True, gc=False):
    type: str | None = None
    text: str | None = None
    refusal: str | None = None
    thinking: str | None = None
    # vLLM accepts media without a `type`, too.
    image_url: msgspec.Raw = msgspec.Raw()
    audio_url: msgspec.Raw = msgspec.Raw()
    input_audio: msgspec.Raw = msgspec.Raw()
    video_url: msgspec.Raw = msgspec.Raw()

    def kind(self) -> str:
        if self.type:
            return self.type
        if self.text is None:
            if self.image_url and is_set(self.image_url):
                return "image_url"
            if self.audio_url and is_set(self.audio_url):
                return "audio_url"
            if self.input_audio and is_set(self.input_audio):
                return "input_audio"
            if self.video_url and is_set(self.video_url):
                return "video_url"
        return "text"


class _Function(msgspec.Struct, frozen=True, gc=False):
    name: str | None = None
    arguments: str | None = None


class _Custom(msgspec.Struct, frozen=True, gc=False):
    """A call of a custom tool, whose input is plain text."""

    name: str | None = None
    input: str | None = None


class _ToolCall(msgspec.Struct, frozen=True, gc=False):
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
    function_call: _Function | None = None
    tools: msgspec.Raw = msgspec.Raw()


class _Request(msgspec.Struct, frozen=True, gc=False):
    messages: list[Message]
    model: str | None = None
    max_tokens: Number = None
    max_completion_tokens: Number = None
    n: Number = None
    best_of: Number = None
    stream: Flag = None
    stream_options: StreamOptions | None = None
    truncate_prompt_tokens: Number = None
    tools: msgspec.Raw = msgspec.Raw()
    functions: msgspec.Raw = msgspec.Raw()
    documents: msgspec.Raw = msgspec.Raw()
    store: Flag = None
    web_search_options: msgspec.Raw = msgspec.Raw()
    chat_template: msgspec.Raw = msgspec.Raw()
    session_params: msgspec.Raw = msgspec.Raw()  # SGLang's, like `input_ids`
    input_ids: msgspec.Raw = msgspec.Raw()

    def has_more_than_messages(self) -> bool:
        """Return whether the prompt depends on more than messages: a search, a session, token ids, a template."""
        return any(map(is_set, (self.web_search_options, self.chat_template, self.session_params, self.input_ids)))


_REQUEST = msgspec.json.Decoder(_Request)


def read_request(body: bytes) -> RequestFacts:
    """Read the facts of a chat completion request. Raises BodyNotUnderstood.

    Most bodies have few of the fields; absent ones are skipped before any call, for speed.
    """
    request = decode_body(_REQUEST, body)
    prompt = Prompt()
    add_messages(prompt, request.messages)
    if request.tools or request.functions:
        prompt.add_tools(request.tools)
        prompt.add_tools(request.functions)
    if request.documents:
        prompt.add_json(request.documents)
    limit, cap, sequences = _limit(request), request.truncate_prompt_tokens, 1
    if request.n is not None or request.best_of is not None:
        sequences = read_sequences(request.n, request.best_of)
    stream = request.stream is not None and read_flag(request.stream, "stream")
    text, turns = prompt.text_and_turns()
    if request.web_search_options or request.session_params or request.input_ids or request.chat_template:
        prompt.unseen = prompt.unseen or request.has_more_than_messages()
    return RequestFacts(
        api=Api.CHAT,
        model=model_key(request.model),
        text=text,
        dropped_text=prompt.dropped_text() if prompt.dropped else b"",
        opening=prompt.opening,
        turns=turns,
        messages=len(request.messages),
        tools=prompt.tools,
        tool_calls=prompt.tool_calls,
        media=prompt.media(),
        max_output_tokens=limit,
        sequences=sequences,
        stream=stream,
        usage_in_response=not stream or reports_usage(request.stream_options),
        truncate_prompt_tokens=None if cap is None else prompt_cap(cap),
        unseen_history=prompt.unseen,
        stored=request.store is not None and read_flag(request.store, "store"),
    )


def _limit(request: _Request) -> int | None:
    """Return the limit of an output, in tokens; max_tokens counts only if max_completion_tokens is absent."""
    limit, older = request.max_completion_tokens, request.max_tokens
    if older is not None:
        older = read_number(older, "max_tokens", 0)
    return older if limit is None else read_number(limit, "max_completion_tokens", 0)


def read_sequences(n: Number, best_of: Number) -> int:
    """Return the number of outputs per prompt. Raises BodyNotUnderstood."""
    return max(read_number(n, "n", 1) or 1, read_number(best_of, "best_of", 1) or 1)


def reports_usage(options: StreamOptions | None) -> bool:
    """Return whether a stream was asked to report usage. Raises BodyNotUnderstood."""
    return options is not None and read_flag(options.include_usage, "include_usage")


def add_messages(prompt: Prompt, messages: list[Message]) -> None:
    """Add a conversation to a prompt. Raises BodyNotUnderstood if it has too many parts.

    Chat templates of reasoning models drop reasoning before the last user message and keep it after that.
    """
    prompt.step(len(messages))
    last_question = _last_question(prompt, messages)
    for position, message in enumerate(messages):
        thoughts = prompt.dropped if position < last_question else prompt.texts
        if type(content := message.content) is str:
            if content.startswith(THINK) and message.role == "assistant":
                content = _without_thought(content, thoughts)
            prompt.texts.append(content)
        elif content:
            _add_parts(prompt, content)
        if message.name or message.refusal:
            prompt.add(message.name, message.refusal)
        if reasoning := message.reasoning or message.reasoning_content:
            thoughts.append(reasoning)
        if message.tool_calls or message.function_call:
            _add_calls(prompt, message)
        if message.tools:
            prompt.step(2)  # in all it costs as much as three messages
            prompt.add_tools(message.tools)
        prompt.marks.append((message.role or "", len(prompt.texts)))


def _add_calls(prompt: Prompt, message: Message) -> None:
    calls = message.tool_calls or ()
    prompt.step(len(calls))
    for call in calls:
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


def _without_thought(content: str, thoughts: list[str]) -> str:
    thought, end, said = content.rpartition(END_OF_THOUGHT)
    thoughts.append(thought + end)
    return said


# The tags of Qwen3 and DeepSeek-R1, which stay in the content if the server runs no reasoning parser.
THINK = "<think>"
END_OF_THOUGHT = "</think>"


def _add_part(prompt: Prompt, part: _Part | str) -> None:
    if isinstance(part, str):
        prompt.texts.append(part)
        return
    match part.kind():
        case "text" | "input_text" | "output_text" | "refusal" | "thinking":
            prompt.add(part.text, part.refusal, part.thinking)
        case "image_url" | "image_embeds" | "image_pil" | "input_image":
            prompt.add_image(part.image_url)
        case "input_audio" | "audio_url" | "audio_embeds":
            prompt.audio += 1
        case "video_url" | "video_embeds":
            prompt.video += 1
        case _:
            prompt.unseen = True


def _add_call(prompt: Prompt, function: _Function | None) -> None:
    if function is not None:
        prompt.add_call(function.name, function.arguments)


FAMILY: Final = Family(Api.CHAT, "chat/completions", read_request, read_response, ChunkReader, operation="chat")
