import json
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.core.apis import read_request
from extproc.core.errors import BodyFault, BodyNotUnderstood
from extproc.core.facts import Api, RequestFacts

GOOD: dict[Api, dict[str, Any]] = {
    Api.CHAT: {"messages": [{"role": "user", "content": "Hi"}]},
    Api.COMPLETIONS: {"prompt": "Hi"},
    Api.EMBEDDINGS: {"input": "Hi"},
    Api.RESPONSES: {"input": "Hi"},
    Api.MESSAGES: {"messages": [{"role": "user", "content": "Hi"}]},
    Api.RERANK: {"query": "Hi", "documents": ["Hello", "Bye"]},
    Api.SCORE: {"text_1": "Hi", "text_2": ["Hello", "Bye"]},
    Api.GENERATE: {"text": "Hi"},
}
LIMITS = [
    (Api.CHAT, "max_tokens"),
    (Api.CHAT, "max_completion_tokens"),
    (Api.COMPLETIONS, "max_tokens"),
    (Api.RESPONSES, "max_output_tokens"),
    (Api.MESSAGES, "max_tokens"),
]
ALL_APIS = pytest.mark.parametrize("api", list(Api))


def fault_of(api: Api, body: bytes) -> BodyFault | None:
    """Return why a body is not understood, or None if it is."""
    try:
        read_request(api, body)
    except BodyNotUnderstood as error:
        return error.fault
    return None


@ALL_APIS
def test_empty_body(api: Api) -> None:
    """An empty body has its own fault."""
    assert fault_of(api, b"") == BodyFault.EMPTY


@ALL_APIS
@pytest.mark.parametrize(
    "body",
    [
        b" ",
        b"{",
        b'{"model": "m"',
        b'{"messages": [], "model": "m"} {}',
        b"{'model': 'm'}",
        b"model=m",
        b'\xef\xbb\xbf{"model": "m"}',
        '{"model": "m"}'.encode("utf-16"),
        b'{"model": "\xff\xfe"}',
        b'{"model": "\\ud800"}',
        b'{"model": "\\udc00\\ud800"}',
        b'{"temperature": NaN}',
        b"\x1f\x8b\x08\x00",
    ],
)
def test_not_json(api: Api, body: bytes) -> None:
    """Truncated JSON, a byte order mark, invalid UTF-8, lone surrogates and NaN are not JSON."""
    assert fault_of(api, body) == BodyFault.NOT_JSON


@pytest.mark.parametrize("tools", [b'[{"name": "\xff"}]', b'[{"name": "\xff \\u00e9"}]'])
def test_invalid_utf8_in_a_tool_is_not_json(tools: bytes) -> None:
    """Values that are only copied are still checked for UTF-8."""
    assert fault_of(Api.CHAT, b'{"messages": [], "tools": %b}' % tools) == BodyFault.NOT_JSON


@ALL_APIS
@pytest.mark.parametrize("body", [b"[]", b"null", b"1", b'"text"', b'{"model": 7}'])
def test_wrong_shape(api: Api, body: bytes) -> None:
    """JSON that is not a request has the wrong type."""
    assert fault_of(api, body) == BodyFault.WRONG_TYPE


@pytest.mark.parametrize(("api", "field"), LIMITS)
@pytest.mark.parametrize("value", ["many", "1.5", "\uff11", 1.5, -1, "-1", [], {}, -(10**30), "9" * 5000])
def test_output_limits_of_the_wrong_type(api: Api, field: str, value: object) -> None:
    """A limit that is not an integer of at least 0 is rejected, not guessed at."""
    assert fault_of(api, json.dumps(GOOD[api] | {field: value}).encode()) == BodyFault.WRONG_TYPE


@pytest.mark.parametrize(("api", "field"), LIMITS)
@pytest.mark.parametrize("digits", [30, 5000])
def test_huge_output_limits_are_harmless(api: Api, field: str, digits: int) -> None:
    """A limit of any size is either read as it is or rejected; nothing overflows."""
    body = json.dumps(GOOD[api])[:-1] + f', "{field}": {"9" * digits}}}'
    assert fault_of(api, body.encode()) in {None, BodyFault.WRONG_TYPE}


@pytest.mark.parametrize("api", [Api.CHAT, Api.COMPLETIONS])
@pytest.mark.parametrize("field", ["n", "best_of"])
@pytest.mark.parametrize("value", [0, -1, "two", 1.5, False])
def test_sequences_of_the_wrong_type(api: Api, field: str, value: object) -> None:
    """A number of sequences below one is rejected."""
    assert fault_of(api, json.dumps(GOOD[api] | {field: value}).encode()) == BodyFault.WRONG_TYPE


@pytest.mark.parametrize(
    ("api", "fields"),
    [
        (Api.CHAT, {"messages": "Hi"}),
        (Api.CHAT, {"messages": None}),
        (Api.CHAT, {"messages": [{"content": 5}]}),
        (Api.CHAT, {"stream": "maybe"}),
        (Api.CHAT, {"stream": 2}),
        (Api.CHAT, {"truncate_prompt_tokens": -2}),
        (Api.CHAT, {"tools": {}}),
        (Api.COMPLETIONS, {"prompt": 5}),
        (Api.COMPLETIONS, {"prompt": [1, "a"]}),
        (Api.COMPLETIONS, {"prompt": [[1], 2]}),
        (Api.COMPLETIONS, {"prompt": [[1], "a"]}),
        (Api.COMPLETIONS, {"prompt": [-1]}),
        (Api.COMPLETIONS, {"prompt": [True]}),
        (Api.COMPLETIONS, {"prompt": [1.5]}),
        (Api.COMPLETIONS, {"prompt": [["a"]]}),
        (Api.EMBEDDINGS, {"input": [None]}),
        (Api.RESPONSES, {"input": 5}),
        (Api.MESSAGES, {"system": 5}),
        (Api.MESSAGES, {"messages": [{"content": [{"type": "document", "source": "text"}]}]}),
    ],
)
def test_fields_of_the_wrong_type(api: Api, fields: dict[str, Any]) -> None:
    """A field that counts towards the budget but has an undocumented type makes the facts unknown."""
    assert fault_of(api, json.dumps(GOOD[api] | fields).encode()) == BodyFault.WRONG_TYPE


@pytest.mark.parametrize("api", [Api.CHAT, Api.MESSAGES])
def test_a_conversation_without_messages_is_rejected(api: Api) -> None:
    """A conversation needs its messages field."""
    assert fault_of(api, b'{"model": "m"}') == BodyFault.WRONG_TYPE


DEEP = b"[" * 10_000 + b"]" * 10_000
# Until Python 3.13 levels are counted, at most 1,000; 3.14 limits the stack, of which 10,000 take a megabyte.
TOO_DEEP_OR_READ = {BodyFault.TOO_DEEP} if sys.version_info < (3, 14) else {BodyFault.TOO_DEEP, None}


@ALL_APIS
@pytest.mark.parametrize("field", [b"input", b"messages", b"tools", b"prompt", b"unknown"])
def test_deep_nesting(api: Api, field: bytes) -> None:
    """Nesting of any depth ends in one of our own errors, even if the value is only skipped or copied."""
    good = json.dumps(GOOD[api]).encode()[:-1]
    assert fault_of(api, good + b', "%b": %b}' % (field, DEEP)) in TOO_DEEP_OR_READ | {BodyFault.WRONG_TYPE}


def test_deep_tool_and_deep_blocks() -> None:
    """Depth has its own fault in tools, which may be any JSON, and in blocks, which may nest."""
    tools = b'{"messages": [], "tools": [{"a": %b}]}' % DEEP
    blocks = b'{"messages": [{"content": %b"x"%b}]}' % (
        b'[{"type":"tool_result","content":' * 5_000,
        b"}]" * 5_000,
    )
    assert fault_of(Api.CHAT, tools) in TOO_DEEP_OR_READ
    assert fault_of(Api.MESSAGES, blocks) == BodyFault.TOO_DEEP


def test_blocks_just_below_the_limit() -> None:
    """Blocks that can be decoded but are too deep to walk through are rejected as too deep as well."""
    faults = set()
    for depth in range(100, 600, 20):
        content = '[{"type":"tool_result","content":' * depth + '"x"' + "}]" * depth
        faults.add(fault_of(Api.MESSAGES, f'{{"messages": [{{"content": {content}}}]}}'.encode()))
    assert faults == {None, BodyFault.TOO_DEEP}


def test_deep_arguments_inside_a_string() -> None:
    r"""Call arguments are decoded because of \u escapes; nesting them too deep is one of our own errors."""
    call = {"function": {"name": "f", "arguments": "[" * 10_000 + '"\\u00e9"'}}
    body = json.dumps({"messages": [{"tool_calls": [call]}]}).encode()
    assert fault_of(Api.CHAT, body) in TOO_DEEP_OR_READ


NAMES_OF_LISTS_AND_TEXTS = (
    *("messages", "prompt", "input", "system", "instructions", "tools", "documents", "content", "text", "source"),
    *("tool_calls", "function", "arguments", "output", "summary", "image_url", "name"),
)
NAMES_OF_SETTINGS = ("model", "max_tokens", "n", "stream", "stream_options", "type", "role")
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from([*NAMES_OF_LISTS_AND_TEXTS, *NAMES_OF_SETTINGS])
BODIES = st.recursive(
    JSON_VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=6),
    max_leaves=20,
)


@ALL_APIS
@settings(max_examples=60)
@given(body=st.binary(max_size=200) | BODIES.map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass")))
def test_any_bytes_give_facts_or_our_own_error(api: Api, body: bytes) -> None:
    """Reading any bytes ends either in facts or in BodyNotUnderstood."""
    try:
        facts = read_request(api, body)
    except BodyNotUnderstood:
        return
    assert isinstance(facts, RequestFacts)


@ALL_APIS
@settings(max_examples=30)
@given(data=st.data())
def test_damaged_bodies_give_facts_or_our_own_error(api: Api, data: st.DataObject) -> None:
    """A body that is cut off, or has any byte changed, ends the same way."""
    good = json.dumps(GOOD[api] | {"model": "m", "tools": [{"name": "é"}], "max_tokens": 5, "n": 2}).encode()
    place = data.draw(st.integers(0, len(good) - 1))
    changed = good[:place] + bytes([data.draw(st.integers(0, 255))]) + good[place + 1 :]
    faults = {fault_of(api, good[:place]), fault_of(api, changed)}
    assert faults <= {None, *BodyFault}
