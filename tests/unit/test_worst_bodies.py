"""The work of one request is bounded, whatever its body: counted in calls, which are the same on every machine."""

import json
import sys
from typing import Any

import pytest

from bench.worst import WorstBody, worst_bodies
from extproc.compose import compose
from extproc.config.loading import parse
from extproc.core.apis import read_request
from extproc.core.apis.bodies import MAX_CONTAINERS, MAX_VALUES
from extproc.core.apis.prompt import MAX_MEASURED_IMAGES, MAX_STEPS
from extproc.core.errors import BodyFault, BodyNotUnderstood
from extproc.core.facts import Api, ImageSize, RequestHead
from extproc.core.listener import Listener
from extproc.core.placing.early import BLOCK_BYTES, MAX_SPANS, media_bytes

# The smaller pool could hold all of a mebibyte of text, so that nothing is decided by its length.
PLACER = compose(
    parse("pools: [{name: a, max_budget_tokens: 65536}, {name: b, max_budget_tokens: 262144}]\n"
          "exchange: {max_held_bytes: 1048576}"),
    Listener(),
).placer  # fmt: skip
BODIES = list(worst_bodies((1 << 20) - 64))
# Calls, ours and in C, of each step and of each measured image.
MOST_CALLS = 24 * MAX_STEPS + 100 * MAX_MEASURED_IMAGES
PNG = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAACAAAAAgA"  # 2048 x 2048


def calls_of(worst: WorstBody) -> int:
    """Return how many functions, ours and in C, one decision calls."""
    calls = 0

    def count(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    sys.setprofile(count)
    try:
        PLACER.decide(worst.api, RequestHead("POST", content_encoding=worst.encoding), worst.body)
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize("worst", BODIES, ids=[worst.name for worst in BODIES])
def test_no_body_costs_more_than_its_steps(worst: WorstBody) -> None:
    """A body of a mebibyte that is made to cost as much as it can causes a bounded number of calls."""
    assert (1 << 20) - 64 >= len(worst.body)
    assert calls_of(worst) <= MOST_CALLS


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"content": [{}] * (MAX_STEPS + 1)}]},
        {"messages": [{"content": "a"}] * (MAX_STEPS + 1)},
        {"messages": [{"tool_calls": [{}] * MAX_STEPS}]},
        {"messages": [], "tools": [{}] * (MAX_CONTAINERS + 1)},
        {"messages": [], "tools": [{"x": [1] * (MAX_VALUES + 2)}]},
    ],
)
def test_more_elements_than_are_read_are_a_fault_of_their_own(fields: dict[str, Any]) -> None:
    """Bodies of more parts, brackets or values than are worth their time are not understood: the default pool."""
    with pytest.raises(BodyNotUnderstood) as refused:
        read_request(Api.CHAT, json.dumps(fields).encode())
    assert BodyFault.TOO_MANY == refused.value.fault


def test_source_code_for_a_pool_of_64k_tokens_is_read() -> None:
    """A quarter of a megabyte of source code has fewer brackets and commas than are read."""
    code = 'def f(a, b):\n    return {"a": [a, b], "c": {"d": f(a, [b])}}\n\n'
    body = json.dumps({"messages": [{"content": code * (120_000 // len(code))}]}).encode()
    assert read_request(Api.CHAT, body).text_bytes > 110_000


def test_images_beyond_those_measured_are_guessed_from_their_bytes() -> None:
    """The header of a small file says that it is large; beyond the first 32 its bytes alone count."""
    part = {"type": "image_url", "image_url": {"url": PNG}}
    facts = read_request(Api.CHAT, json.dumps({"messages": [{"content": [part] * 40}]}).encode())
    assert (MAX_MEASURED_IMAGES, 40 - MAX_MEASURED_IMAGES) == (facts.media.large_images, facts.media.small_images)
    assert ImageSize.LARGE.value == "large"


def test_media_beyond_those_looked_for_count_as_text() -> None:
    """Looking for media ends after so many; the rest counts for the larger pool."""
    one = b'"data:image/png;base64,AAAA"'
    assert 4 * MAX_SPANS == media_bytes(one * (MAX_SPANS + 100))
    marks = b";base64," * (BLOCK_BYTES // 8)
    assert len(marks) - 8 == media_bytes(marks + b'"' + one * 100)


def test_escapes_of_a_value_too_large_to_undo_stay() -> None:
    """A tool of thousands of values is text as it came: longer than it is, which is the safe side."""
    few, many = ({"a": ["\u00e9"] * count} for count in (10, MAX_STEPS + 10))
    lengths = [read_request(Api.CHAT, json.dumps({"messages": [], "tools": [tool]}).encode()).text_bytes
               for tool in (few, many)]  # fmt: skip
    assert [len('{"a":[]}') + 10 * 5 - 1, len('{"a":[]}') + (MAX_STEPS + 10) * 9 - 1] == lengths
