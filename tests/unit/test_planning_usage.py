"""Rows with the usage objects of servers and the exports of gateways, as a trace."""

import json
from pathlib import Path

import pytest

from extproc.core.errors import ConfigurationError
from extproc.planning.workload.inputs import load_traces
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
        f"{names}\n12,400,30000,9\n7,, ,3\n",
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
    assert parse_trace(['{"input_tokens": 7, "output_tokens": 3}'], "x").note == ""


@pytest.mark.parametrize("name", ["arrival_time", "time", "start_time", "startTime", "created_at"])
def test_only_a_timestamp_next_to_lengths_is_in_milliseconds(name: str) -> None:
    """It is Mooncake's; times by other names are in seconds, whatever the tokens are called."""
    rows = [{"input_length": 7, "output_length": 3, name: second} for second in (20.0, 50.0)]
    arrival_s = parse_trace(map(json.dumps, rows), "x").arrival_s
    assert arrival_s is not None
    assert arrival_s.tolist() == [0, 30]


def test_of_two_times_the_first_known_name_counts() -> None:
    """A row that was written later has the time of the writing in created_at."""
    row = {"prompt_tokens": 7, "completion_tokens": 3}
    times = [{"created_at": 1_700_009_000, "startTime": 1_700_000_000 + second} for second in (0, 30)]
    cells = [f"7,3,{each['created_at']},{each['startTime']}" for each in times]
    for text in (
        [json.dumps(row | each) for each in times],
        ["prompt_tokens,completion_tokens,created_at,startTime", *cells],
    ):
        arrival_s = parse_trace(text, "x").arrival_s
        assert arrival_s is not None
        assert arrival_s.tolist() == [0, 30]


def test_a_date_may_have_spaces_around_it() -> None:
    """As rows that people write by hand have."""
    cells = ["prompt_tokens, completion_tokens, time", "7, 3, 2026-11-16 18:15:20 ", "7, 3, 2026-11-16 18:15:50 "]
    arrival_s = parse_trace(cells, "x").arrival_s
    assert arrival_s is not None
    assert arrival_s.tolist() == [0, 30]


def test_a_note_counts_requests_without_input_tokens(tmp_path: Path) -> None:
    """Gateways log requests that fail with 0 tokens; they are hardly any load, and each meets the objective."""
    rows = [(0, 0), (700, 30), (0, 0), (1, 0)]
    texts = {
        "rows.csv": "\n".join(["prompt_tokens,completion_tokens", *(f"{each[0]},{each[1]}" for each in rows)]),
        "rows.jsonl": "\n".join(
            json.dumps({"prompt_tokens": each[0], "completion_tokens": each[1]}) for each in rows
        ),
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        note = f"2 of 4 requests of {name} have no input tokens, as gateways log those that fail"
        assert load_traces([str(tmp_path / name)]).note.startswith(note)
    both = load_traces([str(tmp_path / name) for name in texts]).note
    assert all(f"requests of {name} have no input tokens" in both for name in texts)
    cached = parse_trace(["input_tokens,output_tokens,cache_read_input_tokens", "0,0,0", "0,3,90"], "x").note
    assert "is added to its input_tokens" in cached
    assert "1 of 2 requests of x have no input tokens" in cached
    logged = parse_trace([json.dumps({"estimate": 50, "prompt_tokens": count}) for count in (0, 9)], "x").note
    assert "are the router's estimates" in logged
    assert "1 of 2 requests of x have no input tokens" in logged


def _chat(number: int, parent: int, seconds: float, tokens: int, blocks: range) -> str:
    row = {"chat_id": number, "parent_chat_id": parent, "timestamp": seconds, "type": "text", "turn": 1}
    return json.dumps(row | {"input_length": tokens, "output_length": 7, "hash_ids": list(blocks)})


def test_the_traces_of_bailian_have_seconds_and_short_blocks() -> None:
    """They have Mooncake's keys, and chat_id: times in seconds, and blocks of 16 tokens, not of 512."""
    rows = [
        _chat(1, -1, 0.0, 521, range(33)),
        _chat(2, -1, 61.114, 521, range(4, 37)),
        _chat(3, 1, 122.5, 600, range(38)),
        _chat(4, -1, 130.0, 600, range(500, 538)),
    ]
    lengths = parse_trace(rows, "x")
    assert lengths.arrival_s is not None
    assert lengths.arrival_s.tolist() == [0, 61.114, 122.5, 130]
    assert lengths.cached is not None
    assert lengths.cached.tolist() == [0, 464, 592, 0]


@pytest.mark.parametrize("block_tokens", [16, 64, 256, 512, 1024])
@pytest.mark.parametrize("partial", [True, False])
def test_the_size_of_blocks_is_that_which_fits_the_prompts(block_tokens: int, *, partial: bool) -> None:
    """Whether the last block, which is not full, has an id or not."""
    known, rows = 3 * block_tokens, []
    for number, tokens in enumerate((known + 5, 9 * block_tokens + 1, known), 1):
        blocks = (tokens + (block_tokens - 1 if partial else 0)) // block_tokens
        ids = [block if block < 3 else 100 * number + block for block in range(blocks)]
        rows.append(json.dumps({"input_length": tokens, "output_length": 7, "hash_ids": ids}))
    lengths = parse_trace(rows, "x")
    assert lengths.cached is not None
    assert lengths.cached.tolist() == [0, known, known - 16]


def test_blocks_that_fit_no_size_are_those_of_mooncake() -> None:
    """So are those of prompts that are all in one block: any size above their length fits them."""
    odd = [json.dumps({"input_length": 3_000, "output_length": 7, "hash_ids": [1, 2, 3, 4, 5, 6, 7, 8, 9]})] * 2
    short = [json.dumps({"input_length": 200, "output_length": 7, "hash_ids": [1]})] * 2
    for rows, known in ((odd, 2_992), (short, 192)):
        cached = parse_trace(rows, "x").cached
        assert cached is not None
        assert cached.tolist() == [0, known]
