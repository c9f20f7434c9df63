import json
import struct
from base64 import b64encode
from typing import Any

import pytest

from extproc.core.apis import read_request
from extproc.core.apis.prompt import MAX_REREAD_BYTES, MAX_STEPS
from extproc.core.errors import BodyNotUnderstood
from extproc.core.facts import CUT_TO_FIT, Api, MediaCount, RequestFacts

SCREEN = "data:image/gif;base64," + b64encode(b"GIF89a" + struct.pack("<HH", 1920, 1080) + bytes(30)).decode()


def read(**fields: Any) -> RequestFacts:
    """Read a body as httpx writes it."""
    return read_request(Api.RESPONSES, json.dumps({"model": "gpt-oss"} | fields, ensure_ascii=False).encode())


def test_string_input() -> None:
    """Instructions and a string are two messages; a response always reports its usage."""
    facts = read(instructions="Be brief. ", input="Why is the sky blue?", max_output_tokens=300, stream=True)
    expected = RequestFacts(
        api=Api.RESPONSES,
        model="gpt-oss",
        text=b"Be brief. Why is the sky blue?",
        opening="Why is the sky blue?",
        turns=(("system", 10), ("", 30)),
        messages=2,
        max_output_tokens=300,
        stream=True,
        stored=None,
    )
    assert facts == expected


def test_items() -> None:
    """Messages, reasoning, calls and their outputs are all read."""
    facts = read(
        input=[
            {"role": "developer", "content": "A"},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "B"}]},
            {
                "type": "reasoning",
                "id": "rs_1",
                "summary": [{"type": "summary_text", "text": "C"}],
                "content": [{"type": "reasoning_text", "text": "D"}],
                "encrypted_content": None,
            },
            {"type": "function_call", "call_id": "c1", "name": "E", "arguments": '{"x":1}'},
            {"type": "function_call_output", "call_id": "c1", "output": "F"},
            {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "G"}]},
            {"type": "custom_tool_call", "call_id": "c3", "name": "H", "input": "I"},
            {
                "type": "message",
                "role": "assistant",
                "content": [
                    {"type": "output_text", "text": "J", "annotations": []},
                    {"type": "refusal", "refusal": "K"},
                ],
            },
        ],
        tools=[{"type": "function", "name": "E", "parameters": {}}],
    )
    assert facts.text == b'ABCDE{"x":1}FGHIJK{"type":"function","name":"E","parameters":{}}'
    assert (facts.messages, facts.tools, facts.tool_calls, facts.unseen_history) == (8, 1, 2, False)


def test_reasoning_before_the_last_question_is_kept_separate() -> None:
    """Templates drop the reasoning of earlier turns; reasoning after the last question is ordinary text."""
    thought = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Two"}]}
    question, answer = {"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "Four."}
    result = {"type": "function_call_output", "call_id": "c1", "output": "4"}
    earlier = read(input=[question, thought, answer, question, thought, result])
    assert (earlier.text, earlier.dropped_text) == (b"2 + 2?Four.2 + 2?Two4", b"Two")
    without_question = read(input=[thought, answer])
    assert (without_question.text, without_question.dropped_text) == (b"TwoFour.", b"")


def test_the_functions_of_a_namespace_are_tools_of_the_client() -> None:
    """Codex offers the tools of each MCP server, which it calls itself, as one namespace."""
    function = {"type": "function", "name": "A", "parameters": {}}
    namespace = {"type": "namespace", "name": "mcp__n", "tools": [function, function]}
    call = {"type": "function_call", "call_id": "c1", "namespace": "mcp__n", "name": "A", "arguments": "{}"}
    facts = read(input=[call], tools=[namespace, function])
    assert (facts.tools, facts.tool_calls, facts.unseen_history) == (3, 1, False)
    assert facts.text.startswith(b'mcp__nA{}{"type":"namespace","name":"mcp__n","tools":[{')
    assert read(input=[], tools=[namespace | {"tools": [function, {"type": "web_search"}]}]).unseen_history


SEARCH = {"type": "tool_search", "execution": "client", "description": "Finds", "parameters": {}}
FUNCTION = {"type": "function", "name": "A", "description": "é one", "parameters": {}}
SOUGHT = {
    "type": "tool_search_call",
    "call_id": "c1",
    "execution": "client",
    "arguments": {"query": "x", "limit": 8},
}
FOUND = {"type": "tool_search_output", "call_id": "c1", "execution": "client", "tools": [FUNCTION]}


def test_a_search_for_tools_that_the_client_runs_is_a_tool_of_the_client() -> None:
    """Its call is one like others; the tools that it found are offered from then on, and named in its result."""
    facts = read(input=[SOUGHT, FOUND], tools=[SEARCH])
    assert (facts.tools, facts.tool_calls, facts.unseen_history) == (2, 1, False)
    offered = '{"type":"function","name":"A","description":"é one","parameters":{}}Aé one'
    assert facts.text.decode().startswith('tool_search{"query":"x","limit":8}' + offered + '{"type":"tool_search"')
    namespace = {"type": "namespace", "name": "mcp__n", "tools": [FUNCTION, FUNCTION | {"name": "B"}]}
    both = read(input=[FOUND | {"tools": [namespace]}])
    assert (both.tools, both.unseen_history) == (2, False)
    assert both.text.decode().endswith("Aé oneBé one")


@pytest.mark.parametrize(
    ("item", "tool"),
    [
        ({}, SEARCH | {"execution": "server"}),
        ({}, {"type": "tool_search"}),
        ({}, SEARCH | {"type": "web_search"}),
        (SOUGHT | {"execution": "server"}, SEARCH),
        (FOUND | {"execution": None}, SEARCH),
        (FOUND | {"tools": [{"type": "web_search"}]}, SEARCH),
    ],
)
def test_a_search_for_tools_that_the_server_runs_adds_what_is_not_in_the_body(
    item: dict[str, Any], tool: dict[str, Any]
) -> None:
    """So does any other tool of the server's, also one that the client has found."""
    assert read(input=[item or {"role": "user", "content": "Hi"}], tools=[tool]).unseen_history


def test_the_output_of_a_call_is_text() -> None:
    """A call that the server ran, as of an MCP tool, has its output in the same item."""
    call = {"type": "mcp_call", "name": "look_up", "arguments": "{}", "output": "It is sunny."}
    assert read(input=[call]).text.endswith(b"It is sunny.")


@pytest.mark.parametrize("found", [None, []])
def test_a_search_that_found_nothing_adds_nothing(found: object) -> None:
    """Clients send an empty list, or null."""
    facts = read(input=[FOUND | {"tools": found}])
    assert (facts.tools, facts.text, facts.unseen_history) == (0, b"", False)


def test_reading_what_searches_have_found_is_bounded() -> None:
    """Each list of found tools is read twice: it counts as two steps beside its item, and as twice its length."""
    assert read(input=[FOUND] * (MAX_STEPS // 3)).tools == MAX_STEPS // 3
    with pytest.raises(BodyNotUnderstood, match="messages, parts and calls"):
        read(input=[FOUND] * (MAX_STEPS // 3 + 1))
    long = FUNCTION | {"description": "a" * (MAX_REREAD_BYTES // 2)}
    assert read(input=[FOUND | {"tools": [FUNCTION | {"description": "a" * (MAX_REREAD_BYTES // 3)}]}]).tools == 1
    with pytest.raises(BodyNotUnderstood, match="bytes of tools"):
        read(input=[FOUND | {"tools": [long]}])


@pytest.mark.parametrize("arguments", [None, ""])
def test_a_call_without_arguments_has_an_input(arguments: str | None) -> None:
    """Clients send custom tools' calls with both fields."""
    call = {"type": "custom_tool_call", "call_id": "c1", "name": "f", "input": "ls", "arguments": arguments}
    assert read(input=[call]).text == b"fls"


def test_the_arguments_of_a_call_may_be_an_object() -> None:
    """They count as the same text."""
    call = {"type": "function_call", "call_id": "c1", "name": "f"}
    assert read(input=[call | {"arguments": {"a": 1}}]).text == read(input=[call | {"arguments": '{"a":1}'}]).text


def test_tools_that_the_server_runs_stay_so_whatever_they_list() -> None:
    """An MCP server of the pool's may list its functions, too."""
    function = {"type": "function", "name": "A", "parameters": {}}
    facts = read(input=[], tools=[{"type": "mcp", "server_label": "n", "tools": [function]}])
    assert (facts.tools, facts.unseen_history) == (1, True)


def test_media() -> None:
    """Images, screenshots (by size) and sounds are counted, and their bytes are not text."""
    facts = read(
        input=[
            {
                "role": "user",
                "content": [
                    {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgoA", "detail": "auto"},
                    {"type": "input_image", "file_id": "file-1"},
                    {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}},
                ],
            },
            {"type": "computer_call_output", "output": {"type": "computer_screenshot", "image_url": SCREEN}},
        ]
    )
    assert (facts.text, facts.media) == (
        b"",
        MediaCount(small_images=1, large_images=1, unknown_images=1, audio=1),
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"previous_response_id": "resp_1"},
        {"conversation": "conv_1"},
        {"conversation": {"id": "conv_1"}},
        {"prompt": {"id": "pmpt_1"}},
        {"previous_input_messages": [{"role": "user"}]},
        {"input": [{"type": "item_reference", "id": "msg_1"}]},
        {"input": [{"type": "reasoning", "summary": [], "encrypted_content": "gAAAA"}]},
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]}]},
        {"input": [{"type": "something_new"}]},
    ],
)
def test_text_that_the_server_keeps_is_unseen(fields: dict[str, Any]) -> None:
    """Earlier turns, stored prompts, files and unknown items are not in the body, so they cannot be measured."""
    assert read(**({"input": "Go on."} | fields)).unseen_history


def test_null_history_is_none() -> None:
    """A history that is null is no history."""
    assert not read(input="Hi", previous_response_id=None, conversation=None, prompt=None).unseen_history


@pytest.mark.parametrize(
    ("fields", "read_as"),
    [
        ({}, None),
        ({"truncation": "disabled"}, None),
        ({"truncation": "auto"}, CUT_TO_FIT),
        ({"truncation": None}, CUT_TO_FIT),  # in vLLM anything but "disabled"
    ],
)
def test_truncation_cuts_the_prompt_to_fit(fields: dict[str, Any], read_as: int | None) -> None:
    """A prompt that does not fit is cut to what the context leaves instead of being refused."""
    assert read(**fields).truncate_prompt_tokens == read_as
