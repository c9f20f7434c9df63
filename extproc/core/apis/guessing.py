"""Guessing a body's API from its keys alone, for callers that have no path."""

import msgspec

from extproc.core.apis.bodies import decode_body
from extproc.core.errors import BodyFault, BodyNotUnderstood
from extproc.core.facts import Api

__all__ = ["likeliest_api"]


class _Keys(msgspec.Struct, frozen=True, gc=False):
    """The keys that distinguish the APIs; of those used with messages, the ones that tell Anthropic's API."""

    messages: msgspec.Raw = msgspec.Raw()
    prompt: msgspec.Raw = msgspec.Raw()
    prompt_embeds: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()
    system: msgspec.Raw = msgspec.Raw()
    stop_sequences: msgspec.Raw = msgspec.Raw()
    anthropic_version: msgspec.Raw = msgspec.Raw()
    thinking: msgspec.Raw = msgspec.Raw()
    mcp_servers: msgspec.Raw = msgspec.Raw()
    dimensions: msgspec.Raw = msgspec.Raw()
    encoding_format: msgspec.Raw = msgspec.Raw()
    tools: msgspec.Raw = msgspec.Raw()
    query: msgspec.Raw = msgspec.Raw()
    text_1: msgspec.Raw = msgspec.Raw()
    queries: msgspec.Raw = msgspec.Raw()
    text: msgspec.Raw = msgspec.Raw()
    inputs: msgspec.Raw = msgspec.Raw()
    input_ids: msgspec.Raw = msgspec.Raw()
    token_ids: msgspec.Raw = msgspec.Raw()


_KEYS = msgspec.json.Decoder(_Keys)


def likeliest_api(body: bytes) -> Api:
    """Return the API that the body's keys belong to; chat if they do not decide.

    A string `input` may belong to embeddings or to responses: it counts as responses unless keys of embeddings are
    present. A list counts as embeddings unless it holds objects. Raises BodyNotUnderstood for anything but a JSON
    object.
    """
    try:
        keys = decode_body(_KEYS, body)
    except RecursionError:
        raise BodyNotUnderstood(BodyFault.TOO_DEEP) from None
    if len(keys.messages):
        return Api.MESSAGES if _are_anthropics(keys) else Api.CHAT
    if len(keys.prompt) or len(keys.prompt_embeds):
        return Api.COMPLETIONS
    if not len(keys.input):
        return _without_input(keys)
    start = b"".join(bytes(keys.input)[:64].split())
    is_list_to_embed = start.startswith(b"[") and not start.startswith(b"[{")
    if len(keys.dimensions) or len(keys.encoding_format) or is_list_to_embed:
        return Api.EMBEDDINGS
    return Api.RESPONSES


def _are_anthropics(keys: _Keys) -> bool:
    """Return whether messages are Anthropic's. Others have its key `thinking`, too: as a switch, or for Claude."""
    tools, thinking = bytes(keys.tools), bytes(keys.thinking)
    its_own = (keys.system, keys.stop_sequences, keys.anthropic_version, keys.mcp_servers)
    if any(map(len, its_own)) or b'"input_schema"' in tools:
        return True
    thinks = b'"budget_tokens"' in thinking or b'"adaptive"' in thinking
    return thinks and b'"function"' not in tools and b'"tool_calls"' not in bytes(keys.messages)


def _without_input(keys: _Keys) -> Api:
    if len(keys.query):
        return Api.RERANK
    if len(keys.text_1) or len(keys.queries):
        return Api.SCORE
    if any(map(len, (keys.text, keys.inputs, keys.input_ids, keys.token_ids))):
        return Api.GENERATE
    return Api.CHAT
