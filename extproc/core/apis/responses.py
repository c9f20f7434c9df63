"""OpenAI's `/v1/responses`, as vLLM serves it.

The prompt consists of the instructions, the input (a string or items) and the tools. Content that the server
stores for the client (earlier responses, conversations, stored prompts) cannot be measured from the body.
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
    model_key,
    read_flag,
    read_limit,
)
from extproc.core.apis.family import Family
from extproc.core.apis.prompt import Prompt
from extproc.core.apis.responses_input import Item, add_items
from extproc.core.apis.responses_usage import ResponseReader, read_response
from extproc.core.apis.template_values import adds_to_prompt, keeps_thoughts
from extproc.core.facts import CUT_TO_FIT, Api, RequestFacts

__all__ = ["FAMILY"]


class _Request(msgspec.Struct, frozen=True, gc=False):
    input: str | list[Item | str] | None = None
    instructions: str | None = None
    tools: msgspec.Raw = msgspec.Raw()
    tool_choice: msgspec.Raw = msgspec.Raw()
    model: str | None = None
    max_output_tokens: Number = msgspec.Raw()
    stream: Flag = msgspec.Raw()
    store: Flag = msgspec.Raw()
    truncation: msgspec.Raw = msgspec.Raw()
    background: Flag = msgspec.Raw()
    previous_response_id: msgspec.Raw = msgspec.Raw()
    previous_input_messages: msgspec.Raw = msgspec.Raw()
    conversation: msgspec.Raw = msgspec.Raw()
    prompt: msgspec.Raw = msgspec.Raw()
    # vLLM's
    ignore_eos: Flag = msgspec.Raw()
    chat_template_kwargs: msgspec.Raw = msgspec.Raw()
    mm_processor_kwargs: msgspec.Raw = msgspec.Raw()
    media_io_kwargs: msgspec.Raw = msgspec.Raw()

    def depends_on_server_state(self) -> bool:
        stored = (self.previous_response_id, self.conversation, self.prompt, self.previous_input_messages)
        return any(map(is_set, stored))

    def prompt_cap(self) -> int | None:
        """Return CUT_TO_FIT if the server may cut the prompt: in vLLM with any value but the default."""
        return CUT_TO_FIT if self.truncation and bytes(self.truncation) != b'"disabled"' else None

    def is_stored(self) -> bool | None:
        """Return whether the server stores this response or stored the one before; None if the server decides."""
        if (
            read_flag(self.background, "background")
            or is_set(self.conversation)
            or is_set(self.previous_response_id)
        ):
            return True
        return read_flag(self.store, "store") if is_set(self.store) else None


_REQUEST = msgspec.json.Decoder(_Request)


def read_request(body: bytes) -> RequestFacts:
    """Read the facts of a responses request. Raises BodyNotUnderstood."""
    request = decode_body(_REQUEST, body)
    prompt = Prompt()
    prompt.add(request.instructions)
    texts_before = len(prompt.texts)
    prompt.marks.append(("system", texts_before))
    items = [request.input] if isinstance(request.input, str) else request.input or []
    add_items(prompt, items, keeps_thoughts=keeps_thoughts(request.chat_template_kwargs))
    prompt.open_with(texts_before)
    add_tools = prompt.add_unused_tools if forbids_tools(request.tool_choice) else prompt.add_tools
    add_tools(request.tools)
    prompt.see_media_settings(request.mm_processor_kwargs, request.media_io_kwargs)
    text, turns = prompt.text_and_turns()
    limit = read_limit(request.max_output_tokens, "max_output_tokens")
    forced = forces_output(request.ignore_eos)
    return RequestFacts(
        api=Api.RESPONSES,
        model=model_key(request.model),
        tools=prompt.tools,
        text=text,
        dropped_text=prompt.dropped_text() if prompt.dropped else b"",
        turns=turns,
        opening=prompt.opening,
        messages=len(items) + bool(request.instructions),
        tool_calls=prompt.tool_calls,
        media=prompt.media(),
        max_output_tokens=limit,
        stream=read_flag(request.stream, "stream"),
        truncate_prompt_tokens=request.prompt_cap(),
        unseen_history=prompt.unseen
        or request.depends_on_server_state()
        or adds_to_prompt(request.chat_template_kwargs)
        or (forced and limit is None),
        output_forced=forced,
        stored=request.is_stored(),
        unused_tools_bytes=prompt.unused_tools_bytes,
    )


FAMILY: Final = Family(Api.RESPONSES, "responses", read_request, read_response, ResponseReader, operation="chat")
