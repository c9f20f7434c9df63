"""OpenAI's `/v1/embeddings`, and vLLM's variant that takes messages: a prompt without output tokens."""

from typing import Final

import msgspec

from extproc.core.apis.bodies import (
    Number,
    decode_body,
    is_set,
    model_key,
    pads_prompt,
    prompt_cap,
)
from extproc.core.apis.chunks import TokenCounts
from extproc.core.apis.conversation import Message, add_messages
from extproc.core.apis.family import Family
from extproc.core.apis.plain_prompts import read_prompts
from extproc.core.apis.prompt import Prompt
from extproc.core.apis.template_values import adds_to_prompt
from extproc.core.errors import ResponseFault, ResponseNotUnderstood
from extproc.core.facts import Api, RequestFacts
from extproc.core.reading.usages import decode_response
from extproc.core.usage import Usage

__all__ = ["FAMILY"]


class _Request(msgspec.Struct, frozen=True, gc=False):
    input: msgspec.Raw = msgspec.Raw()
    messages: list[Message] | None = None
    model: str | None = None
    truncate_prompt_tokens: Number = msgspec.Raw()
    tools: msgspec.Raw = msgspec.Raw()
    chat_template: msgspec.Raw = msgspec.Raw()
    chat_template_kwargs: msgspec.Raw = msgspec.Raw()
    mm_processor_kwargs: msgspec.Raw = msgspec.Raw()
    media_io_kwargs: msgspec.Raw = msgspec.Raw()
    padding: msgspec.Raw = msgspec.Raw()


_REQUEST = msgspec.json.Decoder(_Request)


def read_request(body: bytes) -> RequestFacts:
    """Read the facts of an embeddings request. Raises BodyNotUnderstood."""
    request = decode_body(_REQUEST, body)
    plain = read_prompts(request.input)
    chat = Prompt()
    add_messages(chat, request.messages or [])
    chat.see_media_settings(request.mm_processor_kwargs, request.media_io_kwargs)
    text, _ = chat.text_and_turns()
    return RequestFacts(
        api=Api.EMBEDDINGS,
        model=model_key(request.model),
        text=text if request.messages else plain.text,
        exact_prompt_tokens=plain.exact_prompt_tokens,
        longest_share=plain.longest_share,
        sequences=plain.count,
        messages=len(request.messages or ()),
        tools=chat.tools,
        tool_calls=chat.tool_calls,
        media=chat.media(),
        max_output_tokens=0,
        truncate_prompt_tokens=prompt_cap(request.truncate_prompt_tokens),
        unseen_history=chat.unseen
        # With both forms of prompt, or neither, only the server knows which one it uses.
        or is_set(request.input) == bool(request.messages)
        or any(map(is_set, (request.tools, request.chat_template)))
        or adds_to_prompt(request.chat_template_kwargs)
        or pads_prompt(request.padding),
    )


class _Response(msgspec.Struct, frozen=True, gc=False):
    usage: TokenCounts | None = None


_RESPONSE = msgspec.json.Decoder(_Response)


def read_response(body: bytes | bytearray) -> Usage:
    """Read the usage of a complete response. Raises ResponseNotUnderstood."""
    usage = decode_response(_RESPONSE, body).usage
    if usage is None:
        raise ResponseNotUnderstood(ResponseFault.NO_USAGE)
    return usage.checked()


FAMILY: Final = Family(
    Api.EMBEDDINGS, "embeddings", read_request, read_response, several_prompts=True, operation="embeddings"
)
