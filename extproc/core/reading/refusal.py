"""Recognition of the refusal of a request that does not fit a pool's context, in each server's wording."""

import re
from typing import Final

import msgspec

from extproc.core.errors import ResponseFault, ResponseNotUnderstood
from extproc.core.usage import Overflow

__all__ = ["MAX_REFUSAL_BYTES", "REFUSAL_STATUSES", "read_overflow", "read_refusal"]

# The statuses with which servers refuse a request because of its length; the gateway should retry on all of them
# (docs/envoy.md has the complete list). 400: vLLM, SGLang, llama.cpp. 413: proxies, and servers that limit the
# size of bodies. 422: TGI.
REFUSAL_STATUSES: Final = frozenset({400, 413, 422})

# A refusal is a few hundred bytes; a longer one is not read.
MAX_REFUSAL_BYTES: Final = 16 * 1024


def read_refusal(body: bytes | bytearray, *, may_fill_context: bool = False) -> Overflow:
    """Read a refusal because of length. Raises ResponseNotUnderstood (STATUS) for a refusal of another kind."""
    overflow = read_overflow(body, may_fill_context=may_fill_context)
    if overflow is None:
        raise ResponseNotUnderstood(ResponseFault.STATUS)
    return overflow


class _Error(msgspec.Struct, frozen=True, gc=False):
    message: str = ""
    param: str | None = None
    code: str | int | None = None
    type: str | None = None
    n_prompt_tokens: int | None = None  # llama.cpp


class _Refusal(_Error, frozen=True, gc=False):
    """An error: nested as in current vLLM, flat as in vLLM before 0.11 and SGLang, or a sentence as in TGI."""

    error: _Error | str | None = None


_REFUSAL = msgspec.json.Decoder(_Refusal)


def read_overflow(body: bytes | bytearray, *, may_fill_context: bool = False) -> Overflow | None:
    """Recognise the refusal of a request that does not fit the pool's context; None for any other body.

    The message is the only thing that all versions of vLLM have in common. Newer ones also set `param`, but
    `max_tokens` there may also mean a value that is invalid by itself. Token counts in the message are lower
    bounds of the prompt: newer versions stop counting at the context length. Never raises.

    A server that shortens outputs to what the prompt leaves (vLLM from 0.32) says nothing of the length if that is
    nothing: the limit that it computed is too small. A client may have sent such a limit itself, so this counts
    only if `may_fill_context`: the prompt may be as long as the context, and the client did not ask for 0.
    """
    try:
        refusal = _REFUSAL.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    error = refusal.error or refusal
    if isinstance(error, str):
        error = _Error(error)
    if not (
        error.code == "context_length_exceeded"
        or error.type == "exceed_context_size_error"
        or error.param in _INPUT_PARAMS
        or (_OVERFLOW.search(error.message) and not _OF_TYPES.search(error.message))
        or (may_fill_context and _NO_ROOM.match(error.message))
    ):
        return None
    if error.n_prompt_tokens is not None and error.n_prompt_tokens > 0:
        return Overflow(error.n_prompt_tokens)
    named = _PROMPT_TOKENS.search(error.message)
    return Overflow(next((int(count) for count in named.groups() if count), 0) or None if named else None)


_INPUT_PARAMS: Final = frozenset({"input_tokens", "input_text"})
_NO_ROOM: Final = re.compile(r"max_tokens must be at least 1, got (?:0|-[0-9])")
# vLLM: the checks of its API server, in all versions, and those of its engine. Then SGLang, llama.cpp, TGI,
# Anthropic, and TensorRT-LLM.
_OVERFLOW: Final = re.compile(
    r"maximum context length is [0-9]|context length is only [0-9]|cannot be greater than max_model_len"
    r"|longer than the maximum model length|too long to fit into the model"
    r"|longer than the model's context length|exceeds (?:the )?model's maximum context length"
    r"|exceeds the max_model_len [0-9]|exceeds the maximum allowed (?:input )?length"
    r"|exceeds? the available context size|[Cc]ontext size has been exceeded"
    r"|`inputs` must have less than [0-9]|`max_new_tokens` must be <= [0-9]"
    r"|prompt is too long: [0-9]|exceed context limit: [0-9]|prompt is too long after expanding"
    r"|should not exceed max_(?:seq_len|num_tokens) \([0-9]"
    r"|[Pp]rompt length \([0-9]+\) exceeds maximum (?:input|sequence) length"
)
# Refusals of a body for its types: servers quote what the client wrote, and that may be about lengths.
_OF_TYPES: Final = re.compile(r"[0-9] validation errors?\b|'loc': ")
_PROMPT_TOKENS: Final = re.compile(
    r"\b([0-9]{1,9}) (?:input tokens|tokens in the (?:messages|input|prompt)|in (?:the messages|your prompt))"
    r"|messages resulted in ([0-9]{1,9}) tokens"
    r"|prompt \((?:total )?length ([0-9]{1,9})\)"
    r"|maximum input length of ([0-9]{1,9}) tokens \(at most"
    r"|\b(?:input|request) \(([0-9]{1,9}) tokens\)|([0-9]{1,9}) tokens from the input messages"
    r"|Given: ([0-9]{1,9})\b|prompt length ([0-9]{1,9}) exceeds|[Ii]nput length \(?([0-9]{1,9})\b"
    r"|prompt is too long: ([0-9]{1,9}) tokens|exceed context limit: ([0-9]{1,9}) \+"
    r"|[Pp]rompt length \(([0-9]{1,9})(?:\.[0-9]+)?\)|=> ([0-9]{1,9}) >= [0-9]"
)
