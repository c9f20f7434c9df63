import json
from typing import Any

import pytest

from extproc.core.apis.response import usage_reader
from extproc.core.errors import ResponseFault, ResponseNotUnderstood
from extproc.core.facts import Api
from extproc.core.usage import Overflow, Usage

CAP = 1 << 20
CHAT_USAGE = {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16}
RESPONSE_USAGE = {"input_tokens": 11, "output_tokens": 5, "input_tokens_details": {"cached_tokens": 4}}
MESSAGE_USAGE = {
    "input_tokens": 2,
    "cache_read_input_tokens": 6,
    "cache_creation_input_tokens": 3,
    "output_tokens": 5,
}


def read(api: Api, body: bytes, content_type: str = "application/json") -> Usage | Overflow | ResponseFault:
    """Read a complete response: its usage, or the fault why it has none."""
    try:
        reader = usage_reader(api, content_type, "", CAP)
        reader.feed(body)
        return reader.finish()
    except ResponseNotUnderstood as error:
        return error.fault


def read_json(api: Api, response: object) -> Usage | Overflow | ResponseFault:
    """Read a response that is one JSON value."""
    return read(api, json.dumps(response).encode())


def read_events(api: Api, *events: dict[str, Any] | str, named: bool = True) -> Usage | Overflow | ResponseFault:
    """Read a stream of events, each named after its type, as the servers do."""
    stream = ""
    for event in events:
        if named and isinstance(event, dict) and "type" in event:
            stream += f"event: {event['type']}\n"
        stream += f"data: {event if isinstance(event, str) else json.dumps(event, separators=(',', ':'))}\n\n"
    return read(api, stream.encode(), "text/event-stream; charset=utf-8")


def chat_response(**fields: Any) -> dict[str, Any]:
    """Make a response as vLLM writes it."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hello!"}, "finish_reason": "stop"}
    response = {"id": "chatcmpl-1", "object": "chat.completion", "model": "m", "choices": [choice]}
    return response | {"usage": CHAT_USAGE | {"prompt_tokens_details": None}} | fields


@pytest.mark.parametrize(
    ("api", "response", "usage"),
    [
        (Api.CHAT, chat_response(), Usage(11, 5)),
        (
            Api.CHAT,
            chat_response(usage=CHAT_USAGE | {"prompt_tokens_details": {"cached_tokens": 8}}),
            Usage(11, 5, 8),
        ),
        (Api.CHAT, chat_response(usage=CHAT_USAGE | {"prompt_tokens_details": {}}), Usage(11, 5)),
        (
            Api.CHAT,
            chat_response(choices=[{"finish_reason": "stop"}, {"finish_reason": "length"}]),
            Usage(11, 5, cut_by_length=True),
        ),
        (
            Api.COMPLETIONS,
            {"choices": [{"text": "x", "finish_reason": "length"}], "usage": CHAT_USAGE},
            Usage(11, 5, cut_by_length=True),
        ),
        (Api.COMPLETIONS, {"choices": [{"text": "x", "finish_reason": None}], "usage": CHAT_USAGE}, Usage(11, 5)),
        (
            Api.EMBEDDINGS,
            {"data": [{"embedding": [0.1, 0.2]}], "usage": {"prompt_tokens": 9, "total_tokens": 9}},
            Usage(9),
        ),
        (Api.EMBEDDINGS, {"usage": {"prompt_tokens": 9, "total_tokens": 9, "completion_tokens": 0}}, Usage(9)),
        (Api.RESPONSES, {"status": "completed", "output": [], "usage": RESPONSE_USAGE}, Usage(11, 5, 4)),
        (
            Api.RESPONSES,
            {"incomplete_details": {"reason": "max_output_tokens"}, "usage": RESPONSE_USAGE},
            Usage(11, 5, 4, cut_by_length=True),
        ),
        (
            Api.RESPONSES,
            {"incomplete_details": {"reason": "content_filter"}, "usage": RESPONSE_USAGE},
            Usage(11, 5, 4),
        ),
        (Api.MESSAGES, {"stop_reason": "end_turn", "usage": MESSAGE_USAGE}, Usage(11, 5, 6)),
        (
            Api.MESSAGES,
            {"stop_reason": "model_context_window_exceeded", "usage": MESSAGE_USAGE},
            Usage(11, 5, 6, cut_by_length=True),
        ),
        (Api.MESSAGES, {"usage": {"input_tokens": 11, "output_tokens": 5}}, Usage(11, 5)),
        (
            Api.MESSAGES,
            {"stop_reason": "max_tokens", "usage": MESSAGE_USAGE | {"cache_creation_input_tokens": None}},
            Usage(8, 5, 6, cut_by_length=True),
        ),
    ],
)
def test_usage_of_json_responses(api: Api, response: dict[str, Any], usage: Usage) -> None:
    """The usage of each API's response is read, including cached tokens and whether a limit cut the output."""
    assert read_json(api, response) == usage


@pytest.mark.parametrize("error", [{"error": {"message": "no"}}, {"object": "error", "message": "no"}])
def test_an_error_with_usage_is_not_a_response(error: dict[str, Any]) -> None:
    """An error, nested or flat, has no usage to learn from, even with status 200 and a usage field."""
    assert ResponseFault.NO_USAGE == read_json(Api.CHAT, error | {"usage": CHAT_USAGE})
    chunk = {"choices": [], "usage": CHAT_USAGE}
    assert ResponseFault.NO_USAGE == read_events(Api.CHAT, chunk, error, "[DONE]", named=False)


def test_only_the_first_turn_of_a_response_is_its_prompt() -> None:
    """If the server itself called tools, the first turn's tokens are the prompt; of the cached tokens, which are
    those of all turns, it is not known how many were in it.
    """
    for turns, cached in (([100, 1250], 900), ([100, 450, 800], 90)):
        details = {"cached_tokens": cached, "input_tokens_per_turn": turns}
        usage = {"input_tokens": 1350, "output_tokens": 60, "input_tokens_details": details}
        assert read_json(Api.RESPONSES, {"usage": usage}) == Usage(100, 60, several_turns=True)
    assert read_json(Api.RESPONSES, {"usage": RESPONSE_USAGE | {"input_tokens_details": None}}) == Usage(11, 5)


@pytest.mark.parametrize(("status", "learned"), [("completed", True), ("failed", False), ("cancelled", False)])
def test_a_response_that_failed_is_not_learned_from(status: str, learned: bool) -> None:  # noqa: FBT001
    """Its output was not complete, as in a stream that ends with response.failed."""
    found = read_json(Api.RESPONSES, {"status": status, "usage": RESPONSE_USAGE})
    assert found == (Usage(11, 5, 4) if learned else ResponseFault.NO_USAGE)


@pytest.mark.parametrize(("reason", "cut"), [("stop", False), ("length", True), ("abort", True), ("error", True)])
def test_an_output_that_was_aborted_was_cut(reason: str, cut: bool) -> None:  # noqa: FBT001
    """Its length is a lower bound, as at a limit, in JSON and in a stream."""
    choices = [{"finish_reason": reason}]
    in_json = read_json(Api.CHAT, {"choices": choices, "usage": CHAT_USAGE})
    chunks = {"choices": choices}, {"choices": [], "usage": CHAT_USAGE}, "[DONE]"
    for found in (in_json, read_events(Api.CHAT, *chunks, named=False)):
        assert isinstance(found, Usage)
        assert found.cut_by_length is cut


def test_a_response_of_one_turn_is_read_as_one_without_turns() -> None:
    """The cached tokens of its prompt count."""
    details = {"cached_tokens": 4, "input_tokens_per_turn": [11]}
    assert Usage(11, 5, 4) == read_json(
        Api.RESPONSES, {"usage": RESPONSE_USAGE | {"input_tokens_details": details}}
    )


@pytest.mark.parametrize(
    ("size", "expected"), [(1 << 20, Usage(11, 5, 4)), ((1 << 20) + 1, ResponseFault.TOO_LARGE)]
)
def test_an_event_of_a_mebibyte_is_read(size: int, expected: Usage | ResponseFault) -> None:
    """The last event of a Responses stream repeats the complete response; a larger event is not kept."""
    event = {"type": "response.completed", "response": {"usage": RESPONSE_USAGE}, "x": ""}
    head = "event: response.completed\ndata: "
    event["x"] = "x" * (size - len(head) - len(json.dumps(event)))
    reader = usage_reader(Api.RESPONSES, "text/event-stream", "", 1 << 22)
    try:
        reader.feed(f"{head}{json.dumps(event)}\n\n".encode())
        found: object = reader.finish()
    except ResponseNotUnderstood as error:
        found = error.fault
    assert expected == found


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "APPLICATION/JSON ;x=y"])
def test_content_type_with_parameters(content_type: str) -> None:
    """Parameters and case of the content type do not matter."""
    assert read(Api.CHAT, json.dumps(chat_response()).encode(), content_type) == Usage(11, 5)


@pytest.mark.parametrize("content_type", ["", "text/html", "text/plain; application/json", "application/jsonl"])
def test_other_content_types(content_type: str) -> None:
    """A response of another content type is not parsed."""
    assert read(Api.CHAT, b"{}", content_type) == ResponseFault.NOT_JSON


def test_embeddings_are_not_streamed() -> None:
    """Streams of embeddings do not exist."""
    assert read(Api.EMBEDDINGS, b"", "text/event-stream") == ResponseFault.NOT_JSON


def chunk(delta: str | None, finish_reason: str | None = None, **fields: Any) -> dict[str, Any]:
    """Make a chunk of a chat stream."""
    choice = {"index": 0, "delta": {"content": delta}, "logprobs": None, "finish_reason": finish_reason}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [choice]} | fields


LAST_CHUNK = {"id": "chatcmpl-1", "choices": [], "usage": CHAT_USAGE}
CUT = Usage(11, 5, cut_by_length=True)


@pytest.mark.parametrize(
    ("events", "usage"),
    [
        ([chunk("Hel"), chunk("lo"), chunk("", "stop"), LAST_CHUNK], Usage(11, 5)),
        ([chunk("Hel", usage=None), chunk("lo", "length", usage=None), LAST_CHUNK], CUT),
        (
            [chunk("Hel", usage=CHAT_USAGE | {"completion_tokens": 1}), chunk("lo", "stop", usage=CHAT_USAGE)],
            Usage(11, 5),
        ),
        ([chunk('He said "usage":{"prompt_tokens":99}'), LAST_CHUNK, chunk('"usage": {}', "stop")], Usage(11, 5)),
        ([chunk('the "length" and the "error" of it'), LAST_CHUNK], Usage(11, 5)),
        ([chunk("x", logprobs={"content": [{"token": "length"}, {"token": "error"}]}), LAST_CHUNK], Usage(11, 5)),
        ([chunk("x", error=None), LAST_CHUNK], Usage(11, 5)),
    ],
)
@pytest.mark.parametrize("api", [Api.CHAT, Api.COMPLETIONS])
def test_usage_of_chunk_streams(api: Api, events: list[dict[str, Any]], usage: Usage) -> None:
    """The last usage in a stream of chunks counts, whatever the model says in between."""
    assert read_events(api, *events, "[DONE]") == usage


def test_usage_null_in_every_chunk_as_python_writes_it() -> None:
    """A null usage behind the last one does not hide it, with a space after the colon or without."""
    stream = (
        f'data: {json.dumps(LAST_CHUNK)}\n\ndata: {{"usage": null}}\n\ndata: {{"usage":null}}\n\ndata: [DONE]\n\n'
    )
    assert read(Api.CHAT, stream.encode(), "text/event-stream") == Usage(11, 5)


@pytest.mark.parametrize("end", ["", "\n", "\n\n", "\r\n"])
@pytest.mark.parametrize(
    ("events", "usage"),
    [
        ([chunk("Hel"), chunk("lo", "stop"), LAST_CHUNK], Usage(11, 5)),
        ([chunk("Hel"), chunk("lo", "length", usage=CHAT_USAGE)], CUT),
        ([chunk("Hel"), chunk("lo", "stop"), LAST_CHUNK, "[DONE]"], Usage(11, 5)),
    ],
)
def test_a_stream_with_finish_reason_and_usage_is_complete(
    events: list[dict[str, Any] | str], usage: Usage, end: str
) -> None:
    """A stream that has a finish reason and usage is complete, even without [DONE] or its last empty line."""
    lines = [each if isinstance(each, str) else json.dumps(each) for each in events]
    body = "\n\n".join(f"data: {line}" for line in lines) + end
    assert usage == read(Api.CHAT, body.encode(), "text/event-stream")


@pytest.mark.parametrize("cached", [12, -1, 4.5, "4", None])
def test_invalid_cached_tokens_are_ignored(cached: object) -> None:
    """If the cached count is no number or exceeds the prompt, prompt and completion are still used."""
    of_chat = CHAT_USAGE | {"prompt_tokens_details": {"cached_tokens": cached}}
    assert Usage(11, 5) == read_json(Api.CHAT, {"choices": [], "usage": of_chat})
    of_response = RESPONSE_USAGE | {"input_tokens_details": {"cached_tokens": cached}}
    assert Usage(11, 5) == read_json(Api.RESPONSES, {"usage": of_response})
    meta = {"prompt_tokens": 11, "completion_tokens": 5, "cached_tokens": cached}
    assert Usage(11, 5) == read_json(Api.GENERATE, {"meta_info": meta})


@pytest.mark.parametrize(
    ("events", "fault"),
    [
        ([], ResponseFault.CUT_SHORT),
        ([chunk("Hel"), LAST_CHUNK], ResponseFault.CUT_SHORT),
        ([chunk("Hel"), chunk("", "stop")], ResponseFault.CUT_SHORT),
        ([chunk("Hel", usage=CHAT_USAGE), chunk("lo", usage=CHAT_USAGE)], ResponseFault.CUT_SHORT),
        ([chunk("Hel"), "[DONE]"], ResponseFault.NO_USAGE),
        ([chunk("Hel", usage=None), "[DONE]"], ResponseFault.NO_USAGE),
        ([chunk("Hel"), {"error": {"message": "out of memory", "code": 500}}, "[DONE]"], ResponseFault.NO_USAGE),
        ([LAST_CHUNK, {"error": "out of memory"}, "[DONE]"], ResponseFault.NO_USAGE),
        (['{"usage":{"prompt_tokens":', "[DONE]"], ResponseFault.BROKEN_SSE),
        (['{"error" "length"', "[DONE]"], ResponseFault.BROKEN_SSE),
        (['{"usage":{"prompt_tokens":"11"}}', "[DONE]"], ResponseFault.WRONG_USAGE),
        ([{"choices": {"finish_reason": "length"}}, "[DONE]"], ResponseFault.NO_USAGE),
        ([{"choices": [{"delta": {"usage": CHAT_USAGE}}]}, "[DONE]"], ResponseFault.NO_USAGE),
    ],
)
def test_chunk_streams_without_usage(events: list[dict[str, Any] | str], fault: ResponseFault) -> None:
    """Nothing is read from a stream that was cut, failed, is broken, or never reported usage."""
    assert read_events(Api.CHAT, *events) == fault


RESPONSE = {"id": "resp_1", "status": "completed", "output": [], "usage": RESPONSE_USAGE}
INCOMPLETE = RESPONSE | {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
CREATED = {"type": "response.created", "response": {"status": "in_progress", "usage": None}}
DELTA = {"type": "response.output_text.delta", "delta": 'a "response.completed" b'}


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([CREATED, DELTA, {"type": "response.completed", "response": RESPONSE}], Usage(11, 5, 4)),
        ([CREATED, {"type": "response.completed", "response": INCOMPLETE}], Usage(11, 5, 4, cut_by_length=True)),
        ([{"type": "response.incomplete", "response": INCOMPLETE}, "[DONE]"], Usage(11, 5, 4, cut_by_length=True)),
        ([CREATED, DELTA], ResponseFault.CUT_SHORT),
        ([{"type": "response.failed", "response": RESPONSE | {"usage": None}}], ResponseFault.NO_USAGE),
        ([{"type": "error", "message": "overloaded"}], ResponseFault.NO_USAGE),
        ([{"type": "response.completed", "response": RESPONSE | {"usage": None}}], ResponseFault.NO_USAGE),
        ([{"type": "response.completed"}], ResponseFault.NO_USAGE),
        ([{"type": "x", "response": RESPONSE | {"id": "response.completed"}}], ResponseFault.CUT_SHORT),
        ([{"type": "response.completed", "response": {"usage": {"input_tokens": 0}}}], ResponseFault.WRONG_USAGE),
    ],
)
def test_response_streams(events: list[dict[str, Any] | str], expected: object, *, named: bool) -> None:
    """The last event of a response holds its usage, even if a proxy dropped the event names."""
    assert read_events(Api.RESPONSES, *events, named=named) == expected


START = {"type": "message_start", "message": {"usage": MESSAGE_USAGE | {"output_tokens": 1}}}
BLOCK = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": '"message_stop"'}}
END = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}}
CUT_END = END | {"delta": {"stop_reason": "max_tokens"}}
STOP = {"type": "message_stop"}


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([START, {"type": "ping"}, BLOCK, END, STOP], Usage(11, 5, 6)),
        ([START, BLOCK, CUT_END, STOP], Usage(11, 5, 6, cut_by_length=True)),
        ([START, END | {"usage": {"output_tokens": 3}}, END, STOP], Usage(11, 5, 6)),
        ([START, END | {"usage": {"input_tokens": 20, "output_tokens": 5}}, STOP], Usage(20, 5)),
        ([START, END | {"usage": {"input_tokens": 0, "output_tokens": 5}}, STOP], Usage(11, 5, 6)),
        ([START, END | {"usage": None}, STOP, "[DONE]"], Usage(11, 0, 6)),
        ([START, END, END | {"usage": {"input_tokens": 9}}, STOP], Usage(11, 5, 6)),
        ([START, END | {"usage": {"input_tokens": 20}}, STOP], Usage(20, 0)),
        ([START, CUT_END, END | {"delta": {}}, STOP], Usage(11, 5, 6, cut_by_length=True)),
        ([START, END | {"usage": {"input_tokens": 5, "output_tokens": 5}}, STOP], Usage(11, 5, 6)),
        ([START, BLOCK, END], Usage(11, 5, 6)),  # no message_stop, but everything else is there
        ([START, BLOCK, END | {"usage": None}], ResponseFault.CUT_SHORT),
        ([START, BLOCK, END | {"delta": {}}], ResponseFault.CUT_SHORT),
        ([START, BLOCK], ResponseFault.CUT_SHORT),
        ([BLOCK, {"type": "message_delta"}, STOP], ResponseFault.NO_USAGE),
        ([START, {"type": "error", "error": {"type": "overloaded_error"}}, STOP], ResponseFault.NO_USAGE),
    ],
)
def test_message_streams(events: list[dict[str, Any] | str], expected: object, *, named: bool) -> None:
    """The start of a message counts its prompt, including cached tokens, and its last delta the output."""
    assert read_events(Api.MESSAGES, *events, named=named) == expected


@pytest.mark.parametrize(
    ("usage", "fault"),
    [
        (None, ResponseFault.NO_USAGE),
        ({}, ResponseFault.NO_USAGE),
        ({"prompt_tokens": None, "completion_tokens": 5}, ResponseFault.NO_USAGE),
        (5, ResponseFault.WRONG_USAGE),
        ([], ResponseFault.WRONG_USAGE),
        ({"prompt_tokens": 0, "completion_tokens": 5}, ResponseFault.WRONG_USAGE),
        ({"prompt_tokens": -3}, ResponseFault.WRONG_USAGE),
        ({"prompt_tokens": "11"}, ResponseFault.WRONG_USAGE),
        ({"prompt_tokens": 11.5}, ResponseFault.WRONG_USAGE),
        ({"prompt_tokens": True}, ResponseFault.WRONG_USAGE),
        ({"prompt_tokens": 11_000_000}, ResponseFault.WRONG_USAGE),
        ({"prompt_tokens": 10**40}, ResponseFault.WRONG_USAGE),
        ({"prompt_tokens": 11, "completion_tokens": -1}, ResponseFault.WRONG_USAGE),
        ({"prompt_tokens": 11, "completion_tokens": 11_000_000}, ResponseFault.WRONG_USAGE),
        ({"prompt_tokens": 11, "completion_tokens": "5"}, ResponseFault.WRONG_USAGE),
    ],
)
@pytest.mark.parametrize("api", [Api.CHAT, Api.COMPLETIONS, Api.EMBEDDINGS])
def test_wrong_usage(api: Api, usage: object, fault: ResponseFault) -> None:
    """Counts that are absent, impossible or of the wrong type are not usage."""
    assert read_json(api, {"choices": [], "usage": usage}) == fault


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"", ResponseFault.NOT_JSON),
        (b'{"usage": {"prompt_', ResponseFault.NOT_JSON),
        (b"<html>502</html>", ResponseFault.NOT_JSON),
        (b"[" * 100_000, ResponseFault.NO_USAGE),
        (b'{"choices": ' + b"[" * 100_000, ResponseFault.NO_USAGE),
        (b'{"x": ' + b"[" * 100_000, ResponseFault.NOT_JSON),
        (b"[]", ResponseFault.NO_USAGE),
        (b'{"error": {"message": "no"}}', ResponseFault.NO_USAGE),
        (b'{"usage": {"prompt_tokens": 5}, "x": "' + b"x" * CAP + b'"}', ResponseFault.TOO_LARGE),
    ],
)
def test_broken_responses(body: bytes, fault: ResponseFault) -> None:
    """Truncated, foreign, deep and huge bodies each have their fault."""
    assert read(Api.CHAT, body) == fault


def test_the_type_in_an_events_data_decides() -> None:
    """An event with the name of the last one, but data of another type, does not end the stream."""
    stream = b'event: response.completed\ndata: {"type":"response.created","response":null}\n\n'
    assert read(Api.RESPONSES, stream, "text/event-stream") == ResponseFault.CUT_SHORT


def test_a_message_without_usage_has_none() -> None:
    """A complete message whose usage is null or absent."""
    assert read_json(Api.MESSAGES, {"usage": None}) == read_json(Api.MESSAGES, {}) == ResponseFault.NO_USAGE
