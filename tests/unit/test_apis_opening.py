"""The opening question of a conversation, which identifies requests of the same conversation."""

import json
from typing import Any

import pytest

from extproc.core.apis import read_request
from extproc.core.facts import Api

QUESTION = {"role": "user", "content": "Why?"}
PARTS = {"role": "user", "content": [{"type": "text", "text": "Why?"}, {"type": "text", "text": "Really"}]}
ANSWER = {"role": "assistant", "content": "Because."}
AGAIN = {"role": "user", "content": "Sure?"}
SYSTEM = {"role": "system", "content": "Be brief."}
IMAGE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://a/b.png"}}]}


@pytest.mark.parametrize(
    ("api", "body", "opening"),
    [
        (Api.CHAT, {"messages": [SYSTEM, QUESTION]}, "Why?"),
        (Api.CHAT, {"messages": [SYSTEM, QUESTION, ANSWER, AGAIN]}, "Why?"),
        (Api.CHAT, {"messages": [PARTS, ANSWER, AGAIN]}, "Why?"),
        (Api.CHAT, {"messages": [{"role": "user", "content": ["Why?"]}]}, "Why?"),
        (Api.CHAT, {"messages": [IMAGE]}, ""),
        (Api.CHAT, {"messages": [{"role": "user", "content": ""}, AGAIN]}, ""),
        (Api.CHAT, {"messages": [{"role": "user", "content": None}, AGAIN]}, ""),
        (Api.CHAT, {"messages": [SYSTEM]}, ""),
        (Api.CHAT, {"messages": []}, ""),
        (Api.MESSAGES, {"system": "Be brief.", "messages": [QUESTION, ANSWER, AGAIN]}, "Why?"),
        (Api.MESSAGES, {"messages": [PARTS]}, "Why?"),
        (Api.MESSAGES, {"system": "Be brief.", "messages": []}, ""),
        (Api.RESPONSES, {"instructions": "Be brief.", "input": "Why?"}, "Why?"),
        (Api.RESPONSES, {"input": [QUESTION, ANSWER, AGAIN]}, "Why?"),
        (Api.RESPONSES, {"instructions": "Be brief."}, ""),
        (Api.COMPLETIONS, {"prompt": "Why?"}, ""),
    ],
)
def test_the_first_question_of_a_conversation_stays_the_same(api: Api, body: dict[str, Any], opening: str) -> None:
    """Each turn is appended at the end; instructions do not count, as many conversations share them."""
    assert opening == read_request(api, json.dumps(body | {"model": "m", "max_tokens": 9}).encode()).opening
