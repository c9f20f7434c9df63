"""The servers' native generate APIs: SGLang's and TGI's `/generate`, and vLLM's `/inference/v1/generate`.

The prompt is `text` or `input_ids` in SGLang, `inputs` in TGI, and `token_ids` in vLLM. The output limit is
max_new_tokens in SGLang and TGI and max_tokens in vLLM, in `sampling_params` (TGI: `parameters`). SGLang reports
usage in `meta_info`, vLLM as for completions, TGI not. Streams are not read: SGLang's repeat it in every event.
"""

from typing import Final

import msgspec

from extproc.core.apis.bodies import (
    Flag,
    Number,
    decode_body,
    forces_output,
    holds_any,
    is_set,
    model_key,
    read_flag,
    read_number,
)
from extproc.core.apis.chat import read_sequences
from extproc.core.apis.chunks import CUTS
from extproc.core.apis.chunks import read_response as read_completion
from extproc.core.apis.family import Family
from extproc.core.apis.plain_prompts import read_prompts
from extproc.core.errors import BodyFault, BodyNotUnderstood
from extproc.core.facts import Api, RequestFacts
from extproc.core.reading.usages import Cached, checked_usage, decode_response
from extproc.core.usage import Usage

__all__ = ["GENERATE"]

# A request may have one `sampling_params` per prompt; at most this many are read.
MAX_PROMPTS: Final = 512


class _Sampling(msgspec.Struct, frozen=True, gc=False):
    max_new_tokens: Number = msgspec.Raw()
    max_tokens: Number = msgspec.Raw()
    n: Number = msgspec.Raw()
    best_of: Number = msgspec.Raw()
    truncate: Number = msgspec.Raw()
    min_tokens: Number = msgspec.Raw()
    min_new_tokens: Number = msgspec.Raw()
    ignore_eos: Flag = msgspec.Raw()


class _Request(msgspec.Struct, frozen=True, gc=False):
    text: msgspec.Raw = msgspec.Raw()
    input_ids: msgspec.Raw = msgspec.Raw()
    inputs: msgspec.Raw = msgspec.Raw()
    token_ids: msgspec.Raw = msgspec.Raw()
    sampling_params: _Sampling | list[_Sampling] | None = None
    parameters: _Sampling | None = None
    model: str | None = None
    stream: Flag = msgspec.Raw()
    # Parts of the prompt that are not text: embeddings, media, a session, another server's KV cache.
    input_embeds: msgspec.Raw = msgspec.Raw()
    image_data: msgspec.Raw = msgspec.Raw()
    video_data: msgspec.Raw = msgspec.Raw()
    audio_data: msgspec.Raw = msgspec.Raw()
    features: msgspec.Raw = msgspec.Raw()
    content_parts: msgspec.Raw = msgspec.Raw()
    session_params: msgspec.Raw = msgspec.Raw()
    kv_transfer_params: msgspec.Raw = msgspec.Raw()


_REQUEST = msgspec.json.Decoder(_Request)


def read_request(body: bytes) -> RequestFacts:
    """Read the facts of a generate request. Raises BodyNotUnderstood."""
    request = decode_body(_REQUEST, body)
    found = [each for each in (request.text, request.input_ids, request.inputs, request.token_ids) if is_set(each)]
    prompts = read_prompts(found[0] if found else msgspec.Raw())
    is_tgi = is_set(request.inputs)
    sampling = (request.parameters if is_tgi else request.sampling_params) or _Sampling()
    each = sampling if isinstance(sampling, list) else [sampling]
    if len(each) > MAX_PROMPTS:
        raise BodyNotUnderstood(BodyFault.TOO_MANY, f"{len(each)} sampling_params; at most {MAX_PROMPTS} are read")
    limits = [_limit(one) for one in each]
    forced = [forces_output(one.ignore_eos, one.min_tokens, one.min_new_tokens) for one in each]
    stream = read_flag(request.stream, "stream")
    unseen = (
        *(request.input_embeds, request.image_data, request.video_data, request.audio_data),
        *(request.features, request.content_parts, request.session_params, request.kv_transfer_params),
    )
    return RequestFacts(
        api=Api.GENERATE,
        model=model_key(request.model),
        text=prompts.text,
        exact_prompt_tokens=prompts.exact_prompt_tokens,
        longest_share=prompts.longest_share,
        max_output_tokens=None if None in limits else max(limit for limit in limits if limit is not None),
        sequences=max(read_sequences(one.n, one.best_of) for one in each) * prompts.count,
        stream=stream,
        usage_in_response=not (is_tgi or stream),
        truncate_prompt_tokens=read_number(each[0].truncate, "truncate", 0),
        # With several forms of prompt, or none, only the server knows which one it uses.
        unseen_history=len(found) != 1
        or any(map(holds_any, unseen))
        or any(endless and limit is None for limit, endless in zip(limits, forced, strict=True)),
        output_forced=any(forced),
    )


def _limit(sampling: _Sampling) -> int | None:
    limit = read_number(sampling.max_new_tokens, "max_new_tokens", 0)
    return read_number(sampling.max_tokens, "max_tokens", 0) if limit is None else limit


class _Reason(msgspec.Struct, frozen=True, gc=False):
    type: str | None = None


class _Meta(msgspec.Struct, frozen=True, gc=False):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: Cached = None
    finish_reason: _Reason | str | None = None

    def was_cut(self) -> bool:
        reason = self.finish_reason
        return (reason.type if isinstance(reason, _Reason) else reason) in CUTS


class _Response(msgspec.Struct, frozen=True, gc=False):
    meta_info: _Meta | None = None


_RESPONSE = msgspec.json.Decoder(_Response)


def read_response(body: bytes | bytearray) -> Usage:
    """Read the usage of SGLang's response to one prompt, or of vLLM's. Raises ResponseNotUnderstood."""
    meta = decode_response(_RESPONSE, body).meta_info
    if meta is None:
        return read_completion(body)
    return checked_usage(
        meta.prompt_tokens, meta.completion_tokens, meta.cached_tokens, cut_by_length=meta.was_cut()
    )


GENERATE: Final = Family(
    Api.GENERATE, "generate", read_request, read_response, several_prompts=True, paths=("/generate",)
)
