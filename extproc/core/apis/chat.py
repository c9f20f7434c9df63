"""OpenAI's `/v1/chat/completions`, as vLLM serves it.

The prompt text is what a chat template passes to the model: contents of all roles, names, tool definitions and
calls, reasoning that the client sends back, and vLLM's `documents`. Role names and template markers are a constant
per message, which the estimator accounts for.
"""

from typing import Final

import msgspec

from extproc.core.apis.bodies import (
    Flag,
    Number,
    decode_body,
    forbids_tools,
    forces_output,
    is_set,
    larger_limit,
    model_key,
    prompt_cap,
    read_flag,
    read_number,
)
from extproc.core.apis.chunks import ChunkReader, read_response
from extproc.core.apis.conversation import Message, add_messages
from extproc.core.apis.family import Family
from extproc.core.apis.prompt import Prompt
from extproc.core.apis.template_values import adds_to_prompt, keeps_thoughts
from extproc.core.facts import Api, RequestFacts

__all__ = ["FAMILY", "StreamOptions", "read_sequences", "reports_usage"]


# More than any server generates for one prompt. It bounds the outputs of all prompts of a request.
MAX_OUTPUTS: Final = 1 << 20


class StreamOptions(msgspec.Struct, frozen=True, gc=False):
    """The options of a stream.

    vLLM's continuous_usage_stats has an effect only together with include_usage.
    """

    include_usage: Flag = msgspec.Raw(b"false")


class _Request(msgspec.Struct, frozen=True, gc=False):
    messages: list[Message]
    model: str | None = None
    max_tokens: Number = msgspec.Raw()
    max_completion_tokens: Number = msgspec.Raw()
    n: Number = msgspec.Raw()
    best_of: Number = msgspec.Raw()
    stream: Flag = msgspec.Raw()
    stream_options: StreamOptions | None = None
    truncate_prompt_tokens: Number = msgspec.Raw()
    tools: msgspec.Raw = msgspec.Raw()
    functions: msgspec.Raw = msgspec.Raw()
    tool_choice: msgspec.Raw = msgspec.Raw()
    documents: msgspec.Raw = msgspec.Raw()
    store: Flag = msgspec.Raw()
    web_search_options: msgspec.Raw = msgspec.Raw()
    chat_template: msgspec.Raw = msgspec.Raw()
    session_params: msgspec.Raw = msgspec.Raw()  # SGLang's, like `input_ids`
    input_ids: msgspec.Raw = msgspec.Raw()
    chat_template_kwargs: msgspec.Raw = msgspec.Raw()
    mm_processor_kwargs: msgspec.Raw = msgspec.Raw()
    media_io_kwargs: msgspec.Raw = msgspec.Raw()
    max_dynamic_patch: msgspec.Raw = msgspec.Raw()  # SGLang's settings for media
    min_dynamic_patch: msgspec.Raw = msgspec.Raw()
    images_config: msgspec.Raw = msgspec.Raw()
    video_config: msgspec.Raw = msgspec.Raw()
    use_audio_in_video: msgspec.Raw = msgspec.Raw()
    tool_prompt: str | None = None  # TGI's texts for the template
    guideline: str | None = None
    min_tokens: Number = msgspec.Raw()
    ignore_eos: Flag = msgspec.Raw()
    n_predict: Number = msgspec.Raw()  # llama.cpp's

    def media_settings(self) -> tuple[msgspec.Raw, ...]:
        """Return what decides how many tokens media take."""
        return (
            *(self.mm_processor_kwargs, self.media_io_kwargs, self.images_config, self.video_config),
            *(self.max_dynamic_patch, self.min_dynamic_patch, self.use_audio_in_video),
        )

    def has_more_than_messages(self) -> bool:
        """Return whether the prompt depends on more than messages: a search, a session, token ids, a template."""
        others = (self.web_search_options, self.chat_template, self.session_params, self.input_ids)
        return any(map(is_set, others)) or adds_to_prompt(self.chat_template_kwargs)


_REQUEST = msgspec.json.Decoder(_Request)


def read_request(body: bytes) -> RequestFacts:
    """Read the facts of a chat completion request. Raises BodyNotUnderstood.

    Most bodies have few of the fields; absent ones are skipped before any call, for speed.
    """
    request = decode_body(_REQUEST, body)
    prompt = Prompt()
    values = request.chat_template_kwargs
    add_messages(prompt, request.messages, keeps_thoughts=bool(values) and keeps_thoughts(values))
    unused = False
    if request.tools or request.functions:
        unused = bool(request.tool_choice) and forbids_tools(request.tool_choice)
        if not unused:
            prompt.add_tools(request.tools)
        prompt.add_tools(request.functions)
    if request.documents:
        prompt.add_json(request.documents)
    if request.tool_prompt or request.guideline:
        prompt.add(request.tool_prompt, request.guideline)
    if unused:
        prompt.add_unused_tools(request.tools)
    limit, cap, sequences = _limit(request), request.truncate_prompt_tokens, 1
    if request.n_predict:
        limit = larger_limit(limit, request.n_predict)
    if request.n or request.best_of:
        sequences = read_sequences(request.n, request.best_of)
    stream = bool(request.stream) and read_flag(request.stream, "stream")
    text, turns = prompt.text_and_turns()
    others = request.web_search_options or request.session_params or request.input_ids or request.chat_template
    if others or request.chat_template_kwargs:
        prompt.unseen = prompt.unseen or request.has_more_than_messages()
    if prompt.images or prompt.audio or prompt.video:
        prompt.see_media_settings(*request.media_settings())
    may_force = bool(request.min_tokens or request.ignore_eos)
    forced = may_force and forces_output(request.ignore_eos, request.min_tokens)
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
        truncate_prompt_tokens=prompt_cap(cap) if cap else None,
        unseen_history=prompt.unseen or (forced and limit is None),
        output_forced=forced,
        stored=bool(request.store) and read_flag(request.store, "store"),
        unused_tools_bytes=prompt.unused_tools_bytes,
    )


def _limit(request: _Request) -> int | None:
    """Return the limit of an output, in tokens.

    max_tokens counts only if max_completion_tokens is absent or 0: SGLang reads the latter as absent, too.
    """
    older = read_number(request.max_tokens, "max_tokens", 0) or None if request.max_tokens else None
    if not request.max_completion_tokens:
        return older
    return read_number(request.max_completion_tokens, "max_completion_tokens", 0) or older


def read_sequences(n: Number, best_of: Number) -> int:
    """Return the number of outputs per prompt, at most MAX_OUTPUTS. Raises BodyNotUnderstood."""
    return min(max(read_number(n, "n", 1) or 1, read_number(best_of, "best_of", 1) or 1), MAX_OUTPUTS)


def reports_usage(options: StreamOptions | None) -> bool:
    """Return whether a stream was asked to report usage. Raises BodyNotUnderstood."""
    return options is not None and read_flag(options.include_usage, "include_usage")


FAMILY: Final = Family(Api.CHAT, "chat/completions", read_request, read_response, ChunkReader, operation="chat")
