"""The header of Claude Code, a line with a hash of its own in each request, in front of its system prompt."""

import json

import pytest

from extproc.core.apis import read_request
from extproc.core.facts import Api, RequestFacts

HEADER = "x-anthropic-billing-header: cc_version=2.1.100.7b4; cc_entrypoint=cli; cch={:05x};"
HI = {"role": "user", "content": "Hi"}


def read(api: Api, *system: str, as_text: bool = False) -> RequestFacts:
    """Read a request with these blocks of system text, or with all of them as one text of several lines."""
    content = "\n".join(system) if as_text else [{"type": "text", "text": text} for text in system]
    body = {
        Api.CHAT: {"messages": [{"role": "system", "content": content}, HI]},
        Api.EMBEDDINGS: {"messages": [{"role": "system", "content": content}, HI]},
        Api.MESSAGES: {"system": content, "messages": [HI]},
        Api.RESPONSES: {"instructions": "\n".join(system), "input": [HI]},
    }[api]
    return read_request(api, json.dumps(body).encode())


APIS = [Api.CHAT, Api.EMBEDDINGS, Api.MESSAGES, Api.RESPONSES]


@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize("api", APIS)
def test_a_conversation_of_claude_code_begins_with_the_same_text_in_each_turn(api: Api, *, as_text: bool) -> None:
    """The header does not count: vLLM drops it, also where a proxy has turned messages into another API."""
    turns = [read(api, HEADER.format(turn), "Be brief.", as_text=as_text) for turn in range(2)]
    assert [b"Be brief.Hi"] * 2 == [facts.text for facts in turns]
    assert turns[0] == turns[1]


@pytest.mark.parametrize("api", APIS)
def test_a_system_prompt_may_be_the_header_alone(api: Api) -> None:
    """Then it is empty."""
    assert b"Hi" == read(api, HEADER.format(1)).text


@pytest.mark.parametrize("api", APIS)
def test_only_a_short_line_in_front_is_the_header(api: Api) -> None:
    """Other servers keep what begins like it, so that it hides no more than 256 characters of a prompt."""
    header = HEADER.format(1)
    long = header + " " * 200
    assert f"{long}Hi".encode() == read(api, long).text
    again = read(api, header, header).text
    assert f"{header}Hi".encode() == again


def system(text: str, role: str = "system") -> dict[str, str]:
    """Return a message of this role."""
    return {"role": role, "content": text}


@pytest.mark.parametrize(
    ("api", "body"),
    [
        (Api.CHAT, {"messages": [system("A", "developer"), system(f"{HEADER}\nB", "developer"), HI]}),
        (Api.CHAT, {"messages": [system("A"), system(HEADER), system("B"), HI]}),
        (Api.CHAT, {"messages": [system("A"), system("", "developer"), system(f"{HEADER}\nB"), HI]}),
        (Api.MESSAGES, {"system": [{"text": text} for text in ("A", HEADER, "B")], "messages": [HI]}),
        (Api.RESPONSES, {"input": [system("A", "developer"), system(HEADER, "developer"), system("B"), HI]}),
        (Api.RESPONSES, {"instructions": "A", "input": [system(f"{HEADER}\nB"), HI]}),
    ],
)
def test_a_proxy_may_have_put_other_texts_before_the_header(api: Api, body: dict[str, object]) -> None:
    """LiteLLM makes the system prompt a message of the developer, and gateways have prompts of their own."""
    assert b"ABHi" == read_request(api, json.dumps(body).encode()).text


@pytest.mark.parametrize(
    ("api", "body"),
    [
        (Api.CHAT, {"messages": [{"role": "user", "content": HEADER}]}),
        (Api.CHAT, {"messages": [{"role": "system", "content": ""}, {"role": "user", "content": HEADER}]}),
        (Api.CHAT, {"messages": [], "tool_prompt": HEADER}),
        (Api.CHAT, {"messages": [HI | {"content": ""}, system(HEADER)]}),
        (Api.MESSAGES, {"messages": [{"role": "user", "content": HEADER}]}),
        (Api.RESPONSES, {"input": HEADER}),
    ],
)
def test_only_a_system_prompt_has_it(api: Api, body: dict[str, object]) -> None:
    """Servers do not look for it elsewhere."""
    assert HEADER.encode() == read_request(api, json.dumps(body).encode()).text
