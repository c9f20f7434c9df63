"""OpenAI's `/v1/completions`, as vLLM serves it: prompts as text or as token ids, which make the count exact."""

from typing import Final

import msgspec

from extproc.core.apis.bodies import AtLeastMinusOne, Count, NotNegative, decode_body, is_set, model_key
from extproc.core.apis.chat import StreamOptions, reports_usage
from extproc.core.apis.chunks import ChunkReader, read_response
from extproc.core.apis.family import Family
from extproc.core.apis.plain_prompts import PlainPrompts, read_prompts
from extproc.core.facts import Api, RequestFacts

__all__ = ["FAMILY"]

# What OpenAI documents and vLLM does when max_tokens is left out; null asks for as much as fits.
DEFAULT_MAX_TOKENS = 16


class _Request(msgspec.Struct, frozen=True, gc=False):
    prompt: PlainPrompts | None = None
    prompt_embeds: msgspec.Raw = msgspec.Raw()
    suffix: str | None = None
    model: str | None = None
    max_tokens: NotNegative | None = DEFAULT_MAX_TOKENS
    n: Count | None = None
    best_of: Count | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    truncate_prompt_tokens: AtLeastMinusOne | None = None


_REQUEST = msgspec.json.Decoder(_Request)


def read_request(body: bytes) -> RequestFacts:
    """Read a text completion's facts. Raises BodyNotUnderstood."""
    request = decode_body(_REQUEST, body)
    prompts = read_prompts(request.prompt)
    cap = request.truncate_prompt_tokens
    return RequestFacts(
        api=Api.COMPLETIONS,
        model=model_key(request.model),
        text=prompts.text + request.suffix.encode() if request.suffix else prompts.text,
        exact_prompt_tokens=prompts.exact_prompt_tokens,
        longest_share=prompts.longest_share,
        max_output_tokens=request.max_tokens,
        sequences=max(request.n or 1, request.best_of or 1) * prompts.count,
        stream=bool(request.stream),
        usage_in_response=not request.stream or reports_usage(request.stream_options),
        truncate_prompt_tokens=None if cap == -1 else cap,
        unseen_history=is_set(request.prompt_embeds),
    )


FAMILY: Final = Family(
    Api.COMPLETIONS, "completions", read_request, read_response, ChunkReader, several_prompts=True
)
