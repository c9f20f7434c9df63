"""Reasoning of earlier turns, and what looks like it."""

import json

import pytest

from extproc.core.apis import read_request
from extproc.core.facts import Api

THOUGHT = {"type": "thinking", "thinking": "Two"}


def test_a_tag_in_what_an_earlier_call_wrote_ends_no_reasoning() -> None:
    """Agents write code that contains `</think>`; templates look for it in the content only, and keep calls."""
    code, question = "text.split('</think>')", {"role": "user", "content": "Why?"}
    call = {"type": "tool_use", "id": "t", "name": "write", "input": {"code": code}}
    said = {"type": "text", "text": "Two</think>Four. "}
    turns = [
        question,
        {"role": "assistant", "content": [THOUGHT, said, call, {"type": "text", "text": "5"}]},
        question,
    ]
    facts = read_request(Api.MESSAGES, json.dumps({"messages": turns}).encode())
    assert facts.text.decode() == 'Why?Four. write{"code":"' + code + '"}5Why?'
    assert facts.dropped_text == b"TwoTwo</think>"

    function = {"name": "write", "arguments": json.dumps({"code": code})}
    answer = {"role": "assistant", "content": "Two</think>Four. ", "tool_calls": [{"function": function}]}
    facts = read_request(Api.CHAT, json.dumps({"messages": [question, answer, question]}).encode())
    assert facts.text.decode() == 'Why?Four. write{"code": "' + code + '"}Why?'
    assert facts.dropped_text == b"Two</think>"

    items = [
        question,
        {"role": "assistant", "content": "Two</think>Four. "},
        {"type": "function_call", "role": "assistant", **function},  # the role is no field of it, and some add one
    ]
    facts = read_request(Api.RESPONSES, json.dumps({"input": [*items, question]}).encode())
    assert facts.text.decode() == 'Why?Four. write{"code": "' + code + '"}Why?'


@pytest.mark.parametrize("api", [Api.CHAT, Api.MESSAGES, Api.RESPONSES])
@pytest.mark.parametrize("role", ["user", "system", "developer"])
def test_a_tag_in_what_others_said_ends_no_reasoning(api: Api, role: str) -> None:
    """Only answers have reasoning; questions about it are text, also those of earlier turns."""
    asked = {"role": role, "content": "What is </think>?"}
    turns = [asked, {"role": "assistant", "content": "A tag"}, {"role": "user", "content": "Why?"}]
    facts = read_request(api, json.dumps({"input" if api is Api.RESPONSES else "messages": turns}).encode())
    assert (facts.text, facts.dropped_text) == (b"What is </think>?A tagWhy?", b"")


@pytest.mark.parametrize("api", [Api.CHAT, Api.MESSAGES, Api.RESPONSES])
def test_of_several_parts_with_the_tag_the_last_ends_the_reasoning(api: Api) -> None:
    """Templates join the parts and split the text at the last tag."""
    parts = [{"type": "text", "text": text} for text in ("Two</think>", "no, ", "four</think>Four", "!")]
    turns = [{"role": "assistant", "content": parts}, {"role": "user", "content": "Why?"}]
    facts = read_request(api, json.dumps({"input" if api is Api.RESPONSES else "messages": turns}).encode())
    assert (facts.text, facts.dropped_text) == (b"Four!Why?", b"Two</think>no, four</think>")


@pytest.mark.parametrize(
    "before",
    [{"type": "redacted_thinking", "data": "AAAA"}, {"text": "Three, "}, {"type": "", "text": "3, "}, THOUGHT],
)
def test_blocks_before_the_tag_are_part_of_the_reasoning(before: dict[str, str]) -> None:
    """Also those without a type, and those that are not shown; thoughts after a call are dropped, too."""
    call = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    said = {"type": "text", "text": "four</think>Four. "}
    turns = [{"role": "assistant", "content": [before, said, call, THOUGHT]}, {"role": "user", "content": "Why?"}]
    facts = read_request(Api.MESSAGES, json.dumps({"messages": turns}).encode())
    assert facts.text == b"Four. f{}Why?"
    first = before.get("text", before.get("thinking", ""))
    assert facts.dropped_text.decode() == first + "four</think>Two"


def test_a_conversation_that_begins_with_an_answer_and_has_no_question_keeps_its_reasoning() -> None:
    """There is no last question before which reasoning would be dropped."""
    answer = {"role": "assistant", "content": "Two</think>Four."}
    facts = read_request(Api.RESPONSES, json.dumps({"input": [answer, answer]}).encode())
    assert (facts.text, facts.dropped_text) == (b"Two</think>Four." * 2, b"")


def test_values_of_up_to_256_bytes_may_be_switches() -> None:
    """Longer ones hold more than switches."""
    for size_bytes, unseen in ((256, False), (257, True)):
        switches = json.dumps({"note": "x" * (size_bytes - len('{"note": ""}'))})
        body = f'{{"messages": [], "chat_template_kwargs": {switches}}}'
        assert unseen == read_request(Api.CHAT, body.encode()).unseen_history


@pytest.mark.parametrize(
    ("switches", "kept"),
    [
        *(({f"{word}_thinking": True}, True) for word in ("preserve", "keep", "retain")),
        *(
            ({f"{word}_thinking": False}, True)
            for word in ("clear", "drop", "truncate", "strip", "remove", "discard")
        ),
        ({"preservePastThoughts": True}, True),
        ({"KEEP_REASONING": True}, True),
        ({"drop_thinking": True}, False),
        ({"think_render_option": "preserved"}, True),
        ({"think_render_option": "ALL"}, True),
        ({"think_render_option": "lastthink"}, False),
        ({"reasoning_effort": "minimal", "note": "keep all"}, False),
        # More than switches is not looked into: such requests go to the default pool, and this takes time.
        ({"preserve_thinking": True, "note": "x" * 256}, False),
        ({"preserve_thinking": True, "names": ["x"]}, False),
    ],
)
def test_switches_that_keep_reasoning_are_known_by_the_parts_of_their_names_or_words(
    switches: dict[str, object], *, kept: bool
) -> None:
    """Each maker has another name, or a word as the value; the case of letters does not matter."""
    turns = [{"role": "assistant", "reasoning": "Two", "content": "4"}, {"role": "user", "content": "Why?"}]
    facts = read_request(Api.CHAT, json.dumps({"messages": turns, "chat_template_kwargs": switches}).encode())
    assert facts.dropped_text == (b"" if kept else b"Two")


def test_a_list_of_texts_for_the_template_may_be_part_of_the_prompt() -> None:
    """A list is more than a switch, however short it is."""
    body = {"messages": [{"role": "user", "content": "Hi"}], "chat_template_kwargs": {"names": ["x"]}}
    assert read_request(Api.CHAT, json.dumps(body).encode()).unseen_history
