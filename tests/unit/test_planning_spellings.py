"""Rows of logs and exports that name the tokens in another way, or hold them in an object, as a trace."""

import json

import pytest

from extproc.core.errors import ConfigurationError
from extproc.planning.workload.lengths import Lengths
from extproc.planning.workload.traces import parse_trace

OPENAI = {"prompt_tokens": 700, "completion_tokens": 30, "prompt_tokens_details": {"cached_tokens": 600}}
ROWS = {
    "camelCase": {"promptTokens": 700, "completionTokens": 30},
    "input and output in camelCase": {"inputTokens": 700, "outputTokens": 30},
    "chat completion": {"id": "x", "choices": [{"index": 0}], "usage": OPENAI},
    "batch output": {"custom_id": "x", "response": {"status_code": 200, "body": {"usage": OPENAI}}},
    "responses": {
        "usage": {"input_tokens": 700, "output_tokens": 30, "input_tokens_details": {"cached_tokens": 9}}
    },
    "OTel": {"gen_ai.usage.input_tokens": 700, "gen_ai.usage.output_tokens": 30},
    "OTel's attributes": {"attributes": {"gen_ai.usage.input_tokens": 700, "gen_ai.usage.output_tokens": 30}},
    "OTel's cached tokens": {
        "gen_ai.usage.input_tokens": 700,
        "gen_ai.usage.cache_read.input_tokens": 600,
        "gen_ai.usage.output_tokens": 30,
    },
    "OpenInference": {"attributes": {"llm.token_count.prompt": 700, "llm.token_count.completion": 30}},
    "Langfuse": {"inputUsage": 700, "outputUsage": 30, "totalUsage": 730},
    "Langfuse's details": {
        "usageDetails": {"input": 100, "input_cached_tokens": 600, "output": 20, "output_reasoning_tokens": 10},
    },
    "Langfuse of old": {"usage": {"input": 700, "output": 30, "unit": "TOKENS", "inputCost": 0.1}},
    "Langfuse's SDK": {
        "usage": {"input": 700, "output": 30, "unit": None},
        "usage_details": {"input": "100", "input_cached_tokens": "600", "output": "30"},
    },
    "LiteLLM": {"prompt_tokens": 700, "completion_tokens": 30, "spend": 0.1, "metadata": {"usage_object": OPENAI}},
    "numbers as texts": {"prompt_tokens": "700", "completion_tokens": "30"},
    "Vertex": {"usageMetadata": {"promptTokenCount": 700, "candidatesTokenCount": 30, "totalTokenCount": 730}},
    "Vertex with thoughts and tools": {
        "usageMetadata": {
            "promptTokenCount": 650,
            "toolUsePromptTokenCount": 50,
            "candidatesTokenCount": 10,
            "thoughtsTokenCount": 20,
            "cachedContentTokenCount": 600,
        },
    },
    "Bedrock": {"input": {"inputTokenCount": 700}, "output": {"outputTokenCount": 30}},
    "Bedrock with cached tokens": {
        "input": {"inputTokenCount": 60, "cacheReadInputTokenCount": 600, "cacheWriteInputTokenCount": 40},
        "output": {"outputTokenCount": 30, "outputBodyJson": {"usage": {"input_tokens": 60, "output_tokens": 30}}},
    },
    "Anthropic": {"usage": {"input_tokens": 100, "cache_read_input_tokens": 600, "output_tokens": 30}},
    "Vidur": {"num_prefill_tokens": 700, "num_decode_tokens": 30},
}


def read(*rows: object) -> Lengths:
    """Read rows as JSON lines."""
    return parse_trace(map(json.dumps, rows), "x")


@pytest.mark.parametrize("name", ROWS)
def test_the_tokens_of_logs_and_exports_are_found(name: str) -> None:
    """Prompts with what was cached of them; outputs with what the model thought."""
    lengths = read(ROWS[name], ROWS[name])
    assert ([700, 700], [30, 30]) == (lengths.prompt.tolist(), lengths.output.tolist())
    assert lengths.cached is None
    added = name in {"Bedrock with cached tokens", "Anthropic"}
    assert added == ("in which Anthropic does not count it" in lengths.note)


@pytest.mark.parametrize("name", ["timestamp", "Timestamp", "startTime", "start_time", "createdAt", "arrived_at"])
@pytest.mark.parametrize("first", [0, "2026-11-16T18:15:20Z"])
def test_the_time_is_the_row_s_or_that_beside_the_tokens(name: str, first: float | str) -> None:
    """In seconds or as a date; that of the row comes first."""
    second = 30 if first == 0 else "2026-11-16T18:15:50Z"
    usage = {"inputTokens": 7, "outputTokens": 3}
    for rows in (
        [usage | {name: each} for each in (first, second)],
        [{"usage": usage | {name: each}} for each in (first, second)],
        [{name: each, "usage": usage | {"time": 99}} for each in (first, second)],
    ):
        arrival_s = read(*rows).arrival_s
        assert arrival_s is not None
        assert arrival_s.tolist() == [0, 30]


def test_columns_have_the_same_names() -> None:
    """Those of OTel, of Vidur's traces, and of objects that were made columns."""
    for header in (
        "Timestamp,gen_ai.usage.input_tokens,gen_ai.usage.output_tokens",
        "arrived_at,num_prefill_tokens,num_decode_tokens",
        "created_at,usage.prompt_tokens,usage.completion_tokens",
    ):
        lengths = parse_trace([header, "1.5,7,3", "2.5,8,4"], "x")
        assert ([7, 8], [3, 4]) == (lengths.prompt.tolist(), lengths.output.tolist())
        assert lengths.arrival_s is not None


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"usage": {"prompt_tokens": 7, "total_tokens": 7}}, "in the row or in an object within it, as usage"),
        ({"usage": None}, "in the row or in an object within it, as usage"),
        ({"data": [{"usage": {"prompt_tokens": 7, "completion_tokens": 7}}]}, "needs input_tokens"),
        (
            {"a": {"inputTokens": 7, "outputTokens": 3}, "b": {"inputTokens": 8, "outputTokens": 3}},
            "several usages that differ",
        ),
        ({"requests": 9, "usage": {"inputTokens": 70, "outputTokens": 30}}, "the sum of 9 requests"),
        ({"inputTokens": "many", "outputTokens": 30}, "'many' is not a number of tokens"),
        (
            {"usage": {"input": 70, "output": 30, "unit": "CHARACTERS"}},
            "its usage counts 'CHARACTERS': tokens are",
        ),
        ({"inputTokens": -7, "outputTokens": 30}, "-7 tokens are negative"),
        ({"inputTokens": 7.5, "outputTokens": 30}, "7.5 is not a whole number"),
        ({"inputTokens": 7, "outputTokens": 30, "time": "noon"}, "'noon' is neither seconds nor an ISO date"),
        ({"input_length": 7, "output_length": "3", "timestamp": 27_482}, "Expected `float | null`, got `str`"),
    ],
)
def test_a_row_that_is_not_one_request_is_refused(row: dict[str, object], message: str) -> None:
    """It lacks the output, has several usages, is a sum, or has something else in its cells."""
    with pytest.raises(ConfigurationError, match=message.replace("|", r"\|")) as refused:
        read({"inputTokens": 7, "outputTokens": 3}, row)
    assert "x: line 2" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_objects_beyond_all_reason_are_refused() -> None:
    """However deep the tokens are, reading ends."""
    row: dict[str, object] = {"inputTokens": 7, "outputTokens": 3}
    for _ in range(50):
        row = {"in": row}
    with pytest.raises(ConfigurationError, match="needs input_tokens"):
        read(row)
