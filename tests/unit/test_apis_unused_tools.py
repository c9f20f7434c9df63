"""Tools that a request forbids to call, as the APIs' readers find them."""

import json
from typing import Any

import pytest

from extproc.core.apis import read_request
from extproc.core.facts import Api, RequestFacts

HI: list[dict[str, str]] = [{"role": "user", "content": "Hi"}]
TOOLS = [{"type": "function", "function": {"name": "look", "description": "a hat"}}] * 2


def read(api: Api, choice: object, **more: object) -> RequestFacts:
    """Return the facts of a request that offers tools."""
    says = {"input": "Hi"} if api is Api.RESPONSES else {"messages": HI}
    return read_request(api, json.dumps({**says, "tools": TOOLS, "tool_choice": choice, **more}).encode())


@pytest.mark.parametrize(
    ("api", "choice"),
    [(Api.CHAT, "none"), (Api.RESPONSES, "none"), (Api.MESSAGES, {"type": "none"}), (Api.CHAT, {"type": "none"})],
)
def test_tools_that_must_not_be_called_are_the_end_of_the_text(api: Api, choice: object) -> None:
    """They are counted like others, and the facts say how many bytes they are."""
    unused, used = read(api, choice), read(api, "auto")
    assert (used.text, used.tools) == (unused.text, unused.tools)
    assert 0 == used.unused_tools_bytes < unused.unused_tools_bytes == len(unused.text) - len("Hi")


@pytest.mark.parametrize("choice", ["auto", "required", None, {"type": "function", "function": {"name": "none"}}])
def test_tools_that_may_be_called_are_no_question(choice: object) -> None:
    """Any choice but none needs them in the prompt."""
    assert 0 == read(Api.CHAT, choice).unused_tools_bytes


def test_other_text_is_before_them() -> None:
    """Documents, functions and a server's own texts are in the prompt whatever becomes of the tools."""
    others: dict[str, Any] = {"documents": [{"text": "é one"}], "functions": [{"name": "f"}], "guideline": "two"}
    unused = read(Api.CHAT, "none", **others)
    kept = unused.text[: -unused.unused_tools_bytes].decode()
    assert all(text in kept for text in ("é one", '"f"', "two"))
    assert "look" not in kept


def test_a_request_without_tools_has_none_that_are_unused() -> None:
    """Clients send the choice without tools, too."""
    body = json.dumps({"messages": HI, "tool_choice": "none"}).encode()
    assert read_request(Api.CHAT, body).unused_tools_bytes == 0
