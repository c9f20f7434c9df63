"""OpenAI's `/v1/completions`, as vLLM serves it: prompts as text, or as token ids, whose number is exact."""

from typing import Final

import msgspec

from extproc.core.apis.bodies import (
    Flag,
    Number,
    decode_body,
    forces_output,
    is_set,
    larger_limit,
    model_key,
    prompt_cap,
    read_flag,
    read_number,
)
from extproc.core.apis.chat import StreamOptions, read_sequences, reports_usage
from extproc.core.apis.chunks import ChunkReader, read_response
from extproc.core.apis.family import Family
from extproc.core.apis.plain_prompts import read_prompts
from extproc.core.facts import Api, RequestFacts

__all__ = ["FAMILY"]

# OpenAI's documented default when max_tokens is absent, which vLLM follows; null means as much as fits.
DEFAULT_MAX_TOKENS = msgspec.Raw(b"16")


class _Request(msgspec.Struct, frozen=True, gc=False):
    prompt: msgspec.Raw = msgspec.Raw()
    prompt_embeds: msgspec.Raw = msgspec.Raw()
    session_params: msgspec.Raw = msgspec.Raw()  # SGLang: continues a prompt that the server holds
    suffix: str | None = None
    model: str | None = None
    max_tokens: Number = DEFAULT_MAX_TOKENS
    n: Number = msgspec.Raw()
    best_of: Number = msgspec.Raw()
    stream: Flag = msgspec.Raw()
    stream_options: StreamOptions | None = None
    truncate_prompt_tokens: Number = msgspec.Raw()
    min_tokens: Number = msgspec.Raw()
    ignore_eos: Flag = msgspec.Raw()
    n_predict: Number = msgspec.Raw()  # llama.cpp's


_REQUEST = msgspec.json.Decoder(_Request)


def read_request(body: bytes) -> RequestFacts:
    """Read the facts of a text completion request. Raises BodyNotUnderstood."""
    request = decode_body(_REQUEST, body)
    prompts = read_prompts(request.prompt)
    limit = larger_limit(read_number(request.max_tokens, "max_tokens", 0), request.n_predict)
    stream = read_flag(request.stream, "stream")
    forced = forces_output(request.ignore_eos, request.min_tokens)
    return RequestFacts(
        api=Api.COMPLETIONS,
        model=model_key(request.model),
        text=prompts.text + request.suffix.encode() if request.suffix else prompts.text,
        exact_prompt_tokens=prompts.exact_prompt_tokens,
        longest_share=prompts.longest_share,
        max_output_tokens=limit,
        sequences=read_sequences(request.n, request.best_of) * prompts.count,
        stream=stream,
        usage_in_response=not stream or reports_usage(request.stream_options),
        truncate_prompt_tokens=prompt_cap(request.truncate_prompt_tokens),
        unseen_history=is_set(request.prompt_embeds)
        or is_set(request.session_params)
        or not is_set(request.prompt)
        or (forced and limit is None)
        # A suffix is part of each prompt, and text next to token ids is not counted.
        or bool(request.suffix and (prompts.count > 1 or prompts.exact_prompt_tokens is not None)),
        output_forced=forced,
    )


FAMILY: Final = Family(
    Api.COMPLETIONS,
    "completions",
    read_request,
    read_response,
    ChunkReader,
    several_prompts=True,
    operation="text_completion",
)
