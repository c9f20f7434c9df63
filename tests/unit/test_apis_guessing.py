"""Guessing the API of a body without a path."""

import pytest

from extproc.core.apis.guessing import likeliest_api
from extproc.core.errors import BodyFault, BodyNotUnderstood
from extproc.core.facts import Api


@pytest.mark.parametrize(
    ("body", "api"),
    [
        (b'{"messages": [], "temperature": 0}', Api.CHAT),
        (b'{"messages": [], "tools": [{"type": "function"}]}', Api.CHAT),
        (b'{"messages": [], "system": "Be brief."}', Api.MESSAGES),
        (b'{"messages": [], "stop_sequences": ["."]}', Api.MESSAGES),
        (b'{"messages": [], "anthropic_version": "bedrock-2023-05-31"}', Api.MESSAGES),
        (b'{"messages": [], "thinking": {"type": "enabled", "budget_tokens": 1024}}', Api.MESSAGES),
        (b'{"messages": [], "thinking": {"type": "adaptive"}}', Api.MESSAGES),
        # GLM's, DeepSeek's and Kimi's switch in chat, and Claude's through LiteLLM
        (b'{"messages": [], "thinking": {"type": "enabled"}}', Api.CHAT),
        (b'{"messages": [], "thinking": {"type": "disabled", "clear_thinking": false}}', Api.CHAT),
        (
            b'{"messages": [{"tool_calls": []}], "thinking": {"type": "enabled", "budget_tokens": 1024}}',
            Api.CHAT,
        ),
        (
            b'{"messages": [], "thinking": {"budget_tokens": 1}, "tools": [{"type": "function", "function": {}}]}',
            Api.CHAT,
        ),
        (
            b'{"messages": [], "thinking": {"type": "adaptive"}, "tools": [{"input_schema": {"function": {}}}]}',
            Api.MESSAGES,
        ),
        (b'{"messages": [], "mcp_servers": []}', Api.MESSAGES),
        (b'{"messages": [], "tools": [{"name": "f", "input_schema": {}}]}', Api.MESSAGES),
        (b'{"prompt": "Once"}', Api.COMPLETIONS),
        (b'{"prompt_embeds": "AAAA"}', Api.COMPLETIONS),
        (b'{"input": "How are you?"}', Api.RESPONSES),
        (b'{"input": [{"role": "user", "content": "How are you?"}]}', Api.RESPONSES),
        (b'{"input": [\n  {"role": "user", "content": "How are you?"}]}', Api.RESPONSES),
        (b'{"input": ["one", "two"]}', Api.EMBEDDINGS),
        (b'{"input": [[1, 2], [3]]}', Api.EMBEDDINGS),
        (b'{"input": "one", "dimensions": 256}', Api.EMBEDDINGS),
        (b'{"input": "one", "encoding_format": "float"}', Api.EMBEDDINGS),
        (b'{"query": "What?", "documents": ["one", "two"]}', Api.RERANK),
        (b'{"text_1": "one", "text_2": "two"}', Api.SCORE),
        (b'{"queries": "one", "items": ["two"]}', Api.SCORE),
        (b'{"text": "Once"}', Api.GENERATE),
        (b'{"inputs": "Once"}', Api.GENERATE),
        (b'{"input_ids": [1, 2]}', Api.GENERATE),
        (b'{"token_ids": [1, 2]}', Api.GENERATE),
        (b'{"model": "m"}', Api.CHAT),
    ],
)
def test_an_api_is_guessed_from_the_keys(body: bytes, api: Api) -> None:
    """A body belongs to the API whose keys it has, and to chat if no key decides."""
    assert api == likeliest_api(body)


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"", BodyFault.NOT_JSON),
        (b"[1]", BodyFault.WRONG_TYPE),
        (b'{"messages": ' + b"[" * 500_000, BodyFault.TOO_DEEP),
    ],
)
def test_a_body_that_is_no_object_belongs_to_no_api(body: bytes, fault: BodyFault) -> None:
    """A body that is not a JSON object, or is nested endlessly, is rejected with its fault."""
    with pytest.raises(BodyNotUnderstood) as refused:
        likeliest_api(body)
    assert fault == refused.value.fault
