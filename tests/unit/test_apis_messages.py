import json
import struct
from base64 import b64encode
from typing import Any

import pytest

from extproc.core.apis import read_request
from extproc.core.facts import Api, MediaCount, RequestFacts


def read(**fields: Any) -> RequestFacts:
    """Read a body as httpx writes it."""
    body = {"model": "claude", "max_tokens": 1024, "messages": [{"role": "user", "content": "Hi"}]} | fields
    return read_request(Api.MESSAGES, json.dumps(body, ensure_ascii=False).encode())


def read_blocks(*blocks: dict[str, Any]) -> RequestFacts:
    """Read one message of blocks."""
    return read(messages=[{"role": "user", "content": list(blocks)}])


def test_plain_conversation() -> None:
    """System text and messages are the prompt; a message always reports its usage."""
    facts = read(system="Be brief. ", stream=True)
    expected = RequestFacts(
        api=Api.MESSAGES,
        model="claude",
        text=b"Be brief. Hi",
        opening="Hi",
        turns=(("system", 10), ("user", 12)),
        messages=2,
        max_output_tokens=1024,
        stream=True,
    )
    assert facts == expected


def test_blocks_and_tools() -> None:
    """Text, thinking, tool use with its input, tool results and tool definitions are text."""
    facts = read(
        system=[{"type": "text", "text": "A", "cache_control": {"type": "ephemeral"}}],
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "B"}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "C", "signature": "c2lnbmF0dXJl"},
                    {"type": "redacted_thinking", "data": "AAAA"},
                    {"type": "tool_use", "id": "t1", "name": "D", "input": {"город": "Рим"}},
                    {"type": "tool_use", "id": "t2", "name": "G"},
                    {"type": "tool_use", "id": "t3", "name": "H", "input": None},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t1", "content": "E"},
                    {"type": "tool_result", "tool_use_id": "t2", "content": [{"type": "text", "text": "F"}]},
                    {"type": "tool_result", "tool_use_id": "t3"},
                ],
            },
        ],
        tools=[{"name": "D", "input_schema": {"type": "object"}}],
    )
    assert facts.text.decode() == 'ABCD{"город":"Рим"}GHEF{"name":"D","input_schema":{"type":"object"}}'
    assert (facts.messages, facts.tools, facts.tool_calls, facts.unseen_history) == (4, 1, 3, False)


@pytest.mark.parametrize("role", ["user", "ctx"])
def test_thinking_before_the_last_question_is_kept_separate(role: str) -> None:
    """Templates drop the thinking of earlier turns; results of tools are no question and end no turn."""
    thought = {"role": "assistant", "content": [{"type": "thinking", "thinking": "Two"}]}
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "4"}]}
    question = {"role": role, "content": [{"type": "text", "text": "2 + 2?"}]}
    earlier = read(messages=[question, thought, question, thought, result])
    assert (earlier.text, earlier.dropped_text) == (b"2 + 2?2 + 2?Two4", b"Two")
    result["content"].append({"type": "text", "text": "Why?"})  # type: ignore[attr-defined]
    later = read(messages=[question, thought, result, {"role": "system", "content": "Be brief."}])
    assert (later.text, later.dropped_text) == (b"2 + 2?4Why?Be brief.", b"Two")


def test_thinking_in_a_conversation_without_a_question_is_text() -> None:
    """There is no last question before which thinking would be dropped."""
    facts = read(messages=[{"role": "assistant", "content": [{"type": "thinking", "thinking": "Two"}]}])
    assert (facts.text, facts.dropped_text) == (b"Two", b"")


def test_images_are_counted() -> None:
    """An image is one item of its size, even inside a tool result; its bytes are not text."""
    data = b64encode(b"GIF89a" + struct.pack("<HH", 1000, 1000) + bytes(30)).decode()
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/gif", "data": data}}
    linked = {"type": "image", "source": {"type": "url", "url": "https://example.org/cat.png"}}
    facts = read_blocks(image, linked, {"type": "tool_result", "tool_use_id": "t", "content": [image]})
    assert (facts.text, facts.media) == (b"", MediaCount(medium_images=2, unknown_images=1))


def test_documents_of_text_are_text() -> None:
    """A document given as text or as blocks is read, including its title."""
    facts = read_blocks(
        {"type": "document", "title": "A", "context": "B", "source": {"type": "text", "data": "C"}},
        {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "D"}]}},
    )
    assert (facts.text, facts.unseen_history) == (b"ABCD", False)


@pytest.mark.parametrize("source", ["https://example.org/a", {"type": "text", "text": "word " * 9}])
def test_where_a_search_result_comes_from_is_text(source: object) -> None:
    """SGLang renders its title, its source and its content, by itself and in the result of a tool."""
    found = {"type": "search_result", "title": "T", "source": source, "content": [{"type": "text", "text": "C"}]}
    for block in (found, {"type": "tool_result", "content": [found]}):
        facts = read_blocks(block)
        assert (f"T{json.dumps(source, separators=(',', ':'))}C", False) == (
            facts.text.decode(),
            facts.unseen_history,
        )


@pytest.mark.parametrize("field", ["tool_name", "name"])
def test_a_reference_to_a_tool_is_its_name(field: str) -> None:
    """Anthropic's field has another name than OpenAI's, which servers take as well."""
    assert b"get_weather" == read_blocks({"type": "tool_reference", field: "get_weather"}).text


@pytest.mark.parametrize(
    "block",
    [
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}},
        {"type": "document", "source": {"type": "url", "url": "https://example.org/a.pdf"}},
        {"type": "document", "source": {"type": "file", "file_id": "file_1"}},
        {"type": "container_upload", "file_id": "file_1"},
        {"type": "something_new"},
    ],
)
def test_blocks_that_cannot_be_measured_are_unseen(block: dict[str, Any]) -> None:
    """A file or a block of an unknown kind makes the prompt longer than the body shows."""
    assert read_blocks(block).unseen_history


def test_a_single_block_is_a_list_of_one() -> None:
    """Content that is a single block, without a list around it, is read as well."""
    facts = read(system={"type": "text", "text": "A"}, messages=[{"content": {"type": "text", "text": "B"}}])
    assert (facts.text, facts.messages) == (b"AB", 2)


@pytest.mark.parametrize("kind", ["bash", "computer", "memory", "text_editor", "web_search"])
def test_of_anthropics_tools_those_of_the_client_add_nothing_unseen(kind: str) -> None:
    """Their names end in a date; what a tool of the server finds is added to the prompt later."""
    body = {"messages": [{"role": "user", "content": "Hi"}], "tools": [{"type": f"{kind}_20250818", "name": kind}]}
    facts = read_request(Api.MESSAGES, json.dumps(body).encode())
    assert (1, kind == "web_search") == (facts.tools, facts.unseen_history)


def test_tools_that_a_conversation_adds_are_tools() -> None:
    """Claude Code and Anthropic's client change them in the middle; named ones are among those of the request."""
    added = {"name": "b", "description": "é", "input_schema": {"type": "object"}}
    changes = [
        {"type": "tool_removal", "tool": {"type": "tool_reference", "name": "a"}},
        {"type": "tool_addition", "tool": {"type": "tool_reference", "name": "a"}},
        {"type": "tool_addition", "tool": {"type": "tool_definition", "definition": added}},
    ]
    messages = [{"role": "user", "content": "Hi"}, {"role": "system", "content": changes}]
    facts = read(messages=messages, tools=[{"name": "a"}])
    text = "Hi" + json.dumps(added, separators=(",", ":"), ensure_ascii=False) + '{"name":"a"}'
    assert (text, 2, False) == (facts.text.decode(), facts.tools, facts.unseen_history)


@pytest.mark.parametrize(
    "tool",
    [
        {"type": "mcp_tool_reference", "server_name": "s", "name": "a"},
        {"type": "mcp_toolset_reference", "server_name": "s"},
        {"type": "tool_definition", "definition": {"type": "mcp_toolset", "mcp_server_name": "s"}},
        {"name": "a"},
    ],
)
def test_tools_that_a_conversation_adds_may_be_the_servers(tool: dict[str, Any]) -> None:
    """What they say, and their results, are not in the body."""
    assert read_blocks({"type": "tool_addition", "tool": tool}).unseen_history
