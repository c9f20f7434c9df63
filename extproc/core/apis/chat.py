"""OpenAI's `/v1/chat/completions`, as vLLM serves it.

The prompt text is what a chat template puts before the model: contents of all roles, names, tool definitions and
calls, reasoning handed back, and vLLM's `documents`. Role words and template marks are a constant per message and
left to the estimator. Images, audio and video are counted, their `data:` bytes skipped without being decoded. A
`data:` URL inside plain text stays: the model reads it as text. Files are not text that we can see.
"""

import msgspec

from extproc.core.apis.bodies import (
    AtLeastMinusOne,
    Count,
    NotNegative,
    decode_body,
    model_key,
    normal_arguments,
)
from extproc.core.apis.prompt import Prompt
from extproc.core.facts import Api, RequestFacts

__all__ = ["read_request"]


def read_request(body: bytes) -> RequestFacts:
    """Read a chat completion's facts. Raises BodyNotUnderstood."""
    request = decode_body(_REQUEST, body)
    prompt = Prompt()
    for message in request.messages:
        _add_message(prompt, message)
    prompt.tools = prompt.add_json(request.tools) + prompt.add_json(request.functions)
    prompt.add_json(request.documents)
    limit = request.max_completion_tokens
    cap = request.truncate_prompt_tokens
    return RequestFacts(
        api=Api.CHAT,
        model=model_key(request.model),
        text=prompt.text(),
        messages=len(request.messages),
        tools=prompt.tools,
        tool_calls=prompt.tool_calls,
        media=prompt.media(),
        max_output_tokens=request.max_tokens if limit is None else limit,
        sequences=max(request.n or 1, request.best_of or 1),
        stream=bool(request.stream),
        usage_in_answer=not request.stream or reports_usage(request.stream_options),
        truncate_prompt_tokens=None if cap == -1 else cap,
        unseen_history=prompt.unseen,
    )


class StreamOptions(msgspec.Struct, frozen=True, gc=False):
    """What a stream was asked to report."""

    include_usage: bool | None = None


def reports_usage(options: StreamOptions | None) -> bool:
    """Tell whether a stream was asked for its usage (vLLM's continuous_usage_stats needs include_usage too)."""
    return options is not None and bool(options.include_usage)


class _Part(msgspec.Struct, frozen=True, gc=False):
    type: str | None = None
    text: str | None = None
    refusal: str | None = None


class _Function(msgspec.Struct, frozen=True, gc=False):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct, frozen=True, gc=False):
    function: _Function | None = None


class _Message(msgspec.Struct, frozen=True, gc=False):
    content: str | list[_Part | str] | None = None
    name: str | None = None
    refusal: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None  # the older name of the same
    tool_calls: list[_ToolCall] | None = None
    function_call: _Function | None = None


class _Request(msgspec.Struct, frozen=True, gc=False):
    messages: list[_Message]
    model: str | None = None
    max_tokens: NotNegative | None = None
    max_completion_tokens: NotNegative | None = None
    n: Count | None = None
    best_of: Count | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    truncate_prompt_tokens: AtLeastMinusOne | None = None
    tools: list[msgspec.Raw] | None = None
    functions: list[msgspec.Raw] | None = None
    documents: list[msgspec.Raw] | None = None


_REQUEST = msgspec.json.Decoder(_Request)


def _add_message(prompt: Prompt, message: _Message) -> None:
    content = message.content
    if isinstance(content, str):
        prompt.texts.append(content)
    elif content:
        for part in content:
            _add_part(prompt, part)
    reasoning = message.reasoning or message.reasoning_content
    prompt.texts += filter(None, (message.name, message.refusal, reasoning))
    for call in message.tool_calls or ():
        _add_call(prompt, call.function)
    if message.function_call is not None:
        _add_call(prompt, message.function_call)


def _add_part(prompt: Prompt, part: _Part | str) -> None:
    if isinstance(part, str):
        prompt.texts.append(part)
        return
    if part.text:
        prompt.texts.append(part.text)
    elif part.refusal:
        prompt.texts.append(part.refusal)
    match part.type:
        case "image_url" | "image_embeds" | "image_pil" | "input_image":
            prompt.images += 1
        case "input_audio" | "audio_url" | "audio_embeds":
            prompt.audio += 1
        case "video_url":
            prompt.video += 1
        case "file":
            prompt.unseen = True


def _add_call(prompt: Prompt, function: _Function | None) -> None:
    prompt.tool_calls += 1
    if function is not None:
        prompt.texts += filter(None, (function.name, normal_arguments(function.arguments or "")))
