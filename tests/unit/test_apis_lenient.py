"""Numbers and booleans are read as vLLM reads them, that is, as by pydantic in lax mode."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from extproc.core.apis import read_request
from extproc.core.errors import BodyNotUnderstood
from extproc.core.facts import Api, RequestFacts

CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


def read(**fields: Any) -> RequestFacts:
    """Read a chat completion with these fields."""
    return read_request(Api.CHAT, json.dumps(CHAT | fields).encode())


def by_pydantic(kind: type, value: object) -> Any:
    """Return the value that pydantic parses, or None if it rejects it."""
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError:
        return None


WORDS = st.one_of(
    st.sampled_from(
        ["true", "TRUE", "False", "t", "y", "no", "on", "off", "1", "0", "1.0", "12.0", " 7 ", "1_0", "+3"]
    ),
    st.from_regex(r"\A[ ]?[+-]?[0-9]{0,3}(_[0-9]{1,3})?(\.[0-9]{0,2})?[ ]?\Z"),
    st.text(max_size=5),
)
SCALARS = st.one_of(st.booleans(), st.integers(-3, 10**6), st.floats(-10, 1e6, width=32), WORDS)


@given(value=SCALARS)
@example("256")
@example(256.0)
@example(1)
@example("1_000")
@example(".0")
@example("-0")
def test_numbers_are_parsed_as_by_pydantic(value: object) -> None:
    """A value that pydantic parses as an integer of at least 0 is that limit; any other is rejected."""
    expected = by_pydantic(int, value)
    try:
        body = json.dumps({"prompt": "Hi", "max_tokens": value}).encode()
        limit = read_request(Api.COMPLETIONS, body).max_output_tokens
    except BodyNotUnderstood:
        limit = None
    assert (expected if expected is not None and expected >= 0 else None) == limit


@given(value=SCALARS)
@example("true")
@example(1)
@example(1.0)
@example("Yes")
def test_flags_are_parsed_as_by_pydantic(value: object) -> None:
    """A value that pydantic parses as a boolean is that flag; any other is rejected."""
    try:
        stream = read(stream=value).stream
    except BodyNotUnderstood:
        stream = None
    assert by_pydantic(bool, value) == stream


@pytest.mark.parametrize(
    ("api", "fields", "unseen"),
    [
        (Api.CHAT, {"tools": [{"type": "function"}, {"type": "custom"}]}, False),
        (Api.CHAT, {"web_search_options": {}}, True),
        (Api.CHAT, {"web_search_options": None}, False),
        (Api.RESPONSES, {"tools": [{"type": "function", "name": "f"}, {"type": "local_shell"}]}, False),
        *(
            (Api.RESPONSES, {"tools": [{"type": "function", "name": "f"}, {"type": kind}]}, True)
            for kind in ("mcp", "web_search", "web_search_preview", "code_interpreter", "file_search", "container")
        ),
        (Api.RESPONSES, {"tools": [{"type": "something_new"}]}, True),
        (Api.MESSAGES, {"tools": [{"name": "f"}, {"type": "bash_20250124", "name": "bash"}]}, False),
        (Api.MESSAGES, {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, True),
        (Api.MESSAGES, {"mcp_servers": [{"type": "url", "url": "https://tools.example"}]}, True),
        (Api.MESSAGES, {"mcp_servers": []}, False),
        (Api.MESSAGES, {"container": "container_1"}, True),
        (Api.MESSAGES, {"compaction": {"type": "summarize"}}, True),
        (Api.MESSAGES, {"compaction": None}, False),
        (Api.MESSAGES, {"tools": [{"type": "computer_toolset_20260801"}]}, True),
    ],
)
def test_tools_that_the_pool_runs_make_the_prompt_grow_unseen(
    api: Api,
    fields: dict[str, Any],
    unseen: bool,  # noqa: FBT001
) -> None:
    """Such tools add text that is not in the body; tools that the client runs add nothing."""
    body = {"model": "m", "input": "Hi"} if api is Api.RESPONSES else CHAT
    assert unseen == read_request(api, json.dumps(body | fields).encode()).unseen_history


PROMPT = {"prompt": "Hi"}


@pytest.mark.parametrize(
    ("api", "body"),
    [
        (Api.CHAT, CHAT | {"session_params": {"id": "session_1", "rid": None}}),
        (Api.CHAT, CHAT | {"input_ids": [1, 2, 3]}),
        (Api.CHAT, CHAT | {"chat_template": "{{ messages }}"}),
        (Api.COMPLETIONS, PROMPT | {"session_params": {"id": "session_1"}}),
        (Api.GENERATE, {"text": "Hi", "session_params": {"id": "session_1"}}),
    ],
)
def test_a_prompt_that_is_not_in_the_messages_is_unseen(api: Api, body: dict[str, Any]) -> None:
    """A server's session holds earlier text; ids and templates replace the messages; null counts as absent."""
    assert read_request(api, json.dumps(body).encode()).unseen_history
    without = {name: value if name in {*CHAT, *PROMPT, "text"} else None for name, value in body.items()}
    assert not read_request(api, json.dumps(without).encode()).unseen_history


@pytest.mark.parametrize(
    ("store", "stored"), [(None, False), (False, False), ("false", False), (True, True), (1, True)]
)
def test_whether_a_chat_is_stored_depends_on_the_request(store: object, stored: bool) -> None:  # noqa: FBT001
    """A chat that does not mention `store` is not stored: no server stores chats by default."""
    assert read(store=store).stored is stored
    assert read().stored is False


@pytest.mark.parametrize(
    ("fields", "stored"),
    [
        ({}, None),
        ({"store": None}, None),
        ({"store": True}, True),
        ({"store": "true"}, True),
        ({"store": False}, False),
        ({"background": True}, True),
        ({"background": False}, None),
        ({"conversation": "conv_1", "store": False}, True),
        ({"previous_response_id": "resp_1"}, True),
    ],
)
def test_whether_a_response_is_stored_depends_on_the_request(fields: dict[str, Any], stored: bool | None) -> None:  # noqa: FBT001
    """A request asks for storage, declines it, or leaves it to the server; to continue one implies storage."""
    assert stored == read_request(Api.RESPONSES, json.dumps({"input": "Hi"} | fields).encode()).stored


@pytest.mark.parametrize(
    ("thread", "stored", "unseen"),
    [
        (None, False, False),
        ({"type": "create"}, True, False),
        ({"type": "continue", "previous_message_id": "msg_1"}, True, True),
    ],
)
def test_a_thread_of_messages_is_held_by_its_server(
    thread: dict[str, str] | None, *, stored: bool, unseen: bool
) -> None:
    """A request begins one, or continues it with its new turn alone."""
    facts = read_request(Api.MESSAGES, json.dumps(CHAT | {"thread": thread}).encode())
    assert (stored, unseen) == (facts.stored, facts.unseen_history)
