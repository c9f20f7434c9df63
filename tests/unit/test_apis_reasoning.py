"""Reasoning of earlier turns, and what looks like it."""

import json

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
        {"type": "function_call", **function},
    ]
    facts = read_request(Api.RESPONSES, json.dumps({"input": [*items, question]}).encode())
    assert facts.text.decode() == 'Why?Four. write{"code": "' + code + '"}Why?'
