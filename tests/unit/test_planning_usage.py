"""Rows with the usage objects of servers and the exports of gateways, as a trace."""

import json

import pytest

from extproc.core.errors import ConfigurationError
from extproc.planning.workload.traces import parse_trace


@pytest.mark.parametrize(
    "prompt", ["prompt_tokens", "input_tokens", "promptTokens", "inputTokens", "ContextTokens"]
)
@pytest.mark.parametrize("output", ["completion_tokens", "output_tokens", "completionTokens", "outputTokens"])
def test_columns_of_tokens_have_many_names(prompt: str, output: str) -> None:
    """In any case of letters; other columns, as of totals, are not read."""
    for header in (f"{prompt},total_tokens,{output}", f"{prompt.upper()},total_tokens, {output.upper()} "):
        lengths = parse_trace([header, "7,10,3"], "x")
        assert (lengths.prompt.tolist(), lengths.output.tolist()) == ([7], [3])


def test_cached_tokens_that_anthropic_counts_apart_belong_to_the_prompt() -> None:
    """The usage of an agent's turn has a few input_tokens and many cached ones; a pool has to hold them all."""
    usage = {"input_tokens": 12, "cache_creation_input_tokens": 400, "cache_read_input_tokens": 30_000}
    rows = [usage | {"output_tokens": 9}, {"input_tokens": 7, "output_tokens": 3}]
    names = "input_tokens,cache_creation_input_tokens,cache_read_input_tokens,output_tokens"
    bedrock = "inputTokens,cacheReadInputTokens,cacheWriteInputTokens,outputTokens"
    for text in (
        "\n".join(map(json.dumps, rows)),
        f"{names}\n12,400,30000,9\n7,,,3\n",
        f"{bedrock}\n12,30000,400,9\n7,0,0,3\n",
        "input_tokens,output_tokens,cache_read_input_tokens\n12,9,30400\n7,3,0\n",
    ):
        lengths = parse_trace(text.splitlines(), "x")
        assert (lengths.prompt.tolist(), lengths.output.tolist()) == ([30_412, 7], [9, 3])
        assert "input_tokens, in which Anthropic does not count it" in lengths.note
    with pytest.raises(ConfigurationError, match=r"line 2: .* 2 columns"):
        parse_trace("input_tokens,output_tokens,cache_read_input_tokens\n12,9\n".splitlines(), "x")
    with pytest.raises(ConfigurationError, match="'many' is not a number of tokens"):
        parse_trace("input_tokens,output_tokens,cache_read_input_tokens\n12,9,many\n".splitlines(), "x")


def test_cached_tokens_that_a_prompt_contains_are_not_added() -> None:
    """LiteLLM reports both; its prompt_tokens are all of the prompt, as OpenAI's are."""
    row: dict[str, object] = {"prompt_tokens": 30_412, "completion_tokens": 9, "cache_read_input_tokens": 30_000}
    for text in (json.dumps(row), ",".join(row) + "\n" + ",".join(map(str, row.values()))):
        lengths = parse_trace(text.splitlines(), "x")
        assert (lengths.prompt.tolist(), lengths.note) == ([30_412], "")
