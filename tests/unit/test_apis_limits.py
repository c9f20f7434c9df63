"""How much of a body is read: inputs just within each limit, and just beyond it."""

import json
from typing import Any

import pytest

from extproc.core.apis import read_request
from extproc.core.errors import BodyFault, BodyNotUnderstood
from extproc.core.facts import Api, RequestFacts

MESSAGE = {"role": "user", "content": "Hi"}
DOCUMENT = {"type": "document", "source": {"type": "text", "data": ""}}


def read(api: Api, **fields: Any) -> RequestFacts | BodyFault:
    """Return the facts of a body, or the reason why there are none."""
    try:
        return read_request(api, json.dumps(fields, ensure_ascii=False).encode())
    except BodyNotUnderstood as error:
        return error.fault


def call_of(count: int) -> dict[str, Any]:
    """Return an Anthropic message with `count` blocks, each a tool call without input."""
    return {"role": "assistant", "content": [{"type": "tool_use", "name": "f"}] * count}


@pytest.mark.parametrize(
    ("api", "within", "beyond"),
    [
        # Cost: 131 for each list and the comma after it, 30 for each number.
        (Api.CHAT, {"messages": [], "x": [[]] * 16_006}, {"messages": [], "x": [[]] * 16_007}),
        (Api.CHAT, {"messages": [], "x": [1] * 69_894}, {"messages": [], "x": [1] * 69_895}),
        (Api.CHAT, {"messages": [MESSAGE] * 1024}, {"messages": [MESSAGE] * 1025}),
        (Api.CHAT, {"messages": [{"content": ["a"] * 1023}]}, {"messages": [{"content": ["a"] * 1024}]}),
        (Api.MESSAGES, {"messages": [{"content": [{}] * 1023}]}, {"messages": [{"content": [{}] * 1024}]}),
        # A message with its own tools counts three times.
        (Api.CHAT, {"messages": [{"tools": [{}]}] * 341}, {"messages": [{"tools": [{}]}] * 342}),
        # A call counts twice, and so does a document.
        (Api.MESSAGES, {"messages": [call_of(511)]}, {"messages": [call_of(512)]}),
        (
            Api.MESSAGES,
            {"messages": [{"content": [DOCUMENT] * 511}]},
            {"messages": [{"content": [DOCUMENT] * 512}]},
        ),
        (Api.RESPONSES, {"input": [{"content": ["a"] * 1023}]}, {"input": [{"content": ["a"] * 1024}]}),
        (Api.COMPLETIONS, {"prompt": ["a"] * 2048}, {"prompt": ["a"] * 2049}),
        (Api.SCORE, {"text_1": "a", "text_2": ["b"] * 2048}, {"text_1": "a", "text_2": ["b"] * 2049}),
        (Api.GENERATE, {"text": "a", "sampling_params": [{}] * 512}, {"text": "a", "sampling_params": [{}] * 513}),
    ],
)
def test_a_body_is_read_up_to_its_limit(api: Api, within: dict[str, Any], beyond: dict[str, Any]) -> None:
    """One more element exceeds the limit."""
    assert isinstance(read(api, **within), RequestFacts)
    assert BodyFault.TOO_MANY == read(api, **beyond)


def test_a_query_is_repeated_up_to_half_a_mebibyte() -> None:
    """The limit covers the query repeated for all documents; beyond it the prompt counts as unseen."""
    within, beyond = ("q" * ((1 << 18) - 1 + more) for more in (0, 1))
    read_one, not_read = (read(Api.RERANK, query=query, documents=["d", "d"]) for query in (within, beyond))
    assert isinstance(read_one, RequestFacts)
    assert isinstance(not_read, RequestFacts)
    assert (1 << 19, False) == (read_one.text_bytes, read_one.unseen_history)
    assert (0, True) == (not_read.text_bytes, not_read.unseen_history)


@pytest.mark.parametrize(("size", "decoded"), [(255, True), (256, False)])
def test_escapes_cost_a_step_for_each_quarter_kibibyte(size: int, *, decoded: bool) -> None:
    """If the walk has no steps left to decode escapes, they stay as they are, which counts as more bytes."""
    arguments = '"' + "\\u00e9".ljust(size - 2, "a") + '"'
    # Two messages, these parts, one call and its arguments use up all steps.
    parts = {"content": ["a"] * (1024 - 4)}
    call = {"tool_calls": [{"function": {"name": "", "arguments": arguments}}]}
    facts = read(Api.CHAT, messages=[parts, call])
    assert isinstance(facts, RequestFacts)
    assert decoded == (b"\\u" not in facts.text)


def test_32_images_are_measured() -> None:
    """A small file's header can declare a large image; after 32 images only the size in bytes counts."""
    png = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAACAAAAAgA"  # 2048 x 2048
    facts = read(Api.CHAT, messages=[{"content": [{"type": "image_url", "image_url": {"url": png}}] * 33}])
    assert isinstance(facts, RequestFacts)
    assert (32, 1) == (facts.media.large_images, facts.media.small_images)


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"max_tokens": 0}, 0),
        ({"max_tokens": 7}, 7),
        ({"max_new_tokens": 0, "max_tokens": 7}, 0),
        ({"max_tokens": -1}, BodyFault.WRONG_TYPE),
        ({"max_new_tokens": -1}, BodyFault.WRONG_TYPE),
        ({"truncate": -1}, BodyFault.WRONG_TYPE),
    ],
)
def test_the_limits_of_generate_start_at_0(parameters: dict[str, Any], expected: int | BodyFault) -> None:
    """The limits start at 0 as in all other APIs; the newer name takes precedence."""
    facts = read(Api.GENERATE, inputs="a", parameters=parameters)
    assert expected == (facts.max_output_tokens if isinstance(facts, RequestFacts) else facts)


def test_a_truncation_to_0_tokens_is_kept() -> None:
    """TGI's `truncate: 0` is taken literally."""
    facts = read(Api.GENERATE, inputs="a", parameters={"truncate": 0})
    assert isinstance(facts, RequestFacts)
    assert 0 == facts.truncate_prompt_tokens


def test_token_ids_begin_at_0() -> None:
    """Token id 0 is a token like any other."""
    facts = read(Api.COMPLETIONS, prompt=[0, 0, 5])
    assert isinstance(facts, RequestFacts)
    assert 3 == facts.exact_prompt_tokens


def test_no_pairs_are_one_sequence() -> None:
    """A request without texts to pair still counts as one prompt."""
    facts = read(Api.RERANK, query="q", documents=[])
    assert isinstance(facts, RequestFacts)
    assert (1, 1.0) == (facts.sequences, facts.longest_share)


@pytest.mark.parametrize("limit", [1 << 53, (1 << 53) + 1, "9007199254740993"])
def test_a_number_beyond_what_json_numbers_hold_is_not_read(limit: object) -> None:
    """Two to the 53rd is the largest integer that every JSON reader takes for the same number."""
    body = json.dumps({"messages": [{"role": "user", "content": "x"}], "max_tokens": limit}).encode()
    if limit == 1 << 53:
        assert limit == read_request(Api.CHAT, body).max_output_tokens
    else:
        with pytest.raises(BodyNotUnderstood):
            read_request(Api.CHAT, body)


@pytest.mark.parametrize("field", ["n", "best_of"])
@pytest.mark.parametrize(("asked", "read_as"), [(1 << 20, 1 << 20), ((1 << 20) + 1, 1 << 20), (1 << 53, 1 << 20)])
def test_more_outputs_than_any_server_generates_count_as_that_many(field: str, asked: int, read_as: int) -> None:
    """The outputs of all prompts of a request then stay a number that can be passed on."""
    facts = read(Api.COMPLETIONS, prompt=["a", "b"], **{field: asked})
    assert isinstance(facts, RequestFacts)
    assert 2 * read_as == facts.sequences
