import json
import struct
from base64 import b64encode
from typing import Any

import pytest

from extproc.core.apis import read_request
from extproc.core.errors import BodyNotUnderstood
from extproc.core.facts import CUT_TO_FIT, Api, MediaCount, RequestFacts

IMAGE = "data:image/png;base64," + "iVBORw0KGgo" * 100
FULL_HD = "data:image/gif;base64," + b64encode(b"GIF89a" + struct.pack("<HH", 1920, 1080) + bytes(30)).decode()


def read(**fields: Any) -> RequestFacts:
    """Read a body as httpx writes it."""
    body = {"model": "llama-3-70b", "messages": [{"role": "user", "content": "Hi"}]} | fields
    return read_request(Api.CHAT, json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode())


def text_of(*messages: dict[str, Any]) -> str:
    """Return the prompt text of a conversation."""
    return read(messages=list(messages)).text.decode()


def test_plain_conversation() -> None:
    """The prompt text is the contents of all roles, and nothing of the JSON envelope."""
    facts = read(
        messages=[
            {"role": "system", "content": "Be brief. "},
            {"role": "user", "content": "Grüße, 世界 🌍"},
            {"role": "assistant", "content": "Hallo! "},
            {"role": "tool", "tool_call_id": "call_1", "content": "[1, 2]"},
        ],
        temperature=0.7,
        max_tokens=256,
    )
    expected = RequestFacts(
        api=Api.CHAT,
        model="llama-3-70b",
        text="Be brief. Grüße, 世界 🌍Hallo! [1, 2]".encode(),
        turns=(("system", 10), ("user", 30), ("assistant", 37), ("tool", 43)),
        opening="Grüße, 世界 🌍",
        messages=4,
        max_output_tokens=256,
    )
    assert facts == expected
    assert facts.text_bytes == len("Be brief. Grüße, 世界 🌍Hallo! [1, 2]".encode())


def test_a_turn_ends_after_all_of_its_texts() -> None:
    """A message with several texts, or none, is one turn: it ends where its last text does."""
    parts = [[{"type": "text", "text": "four"}] * texts for texts in (2, 0, 1, 3, 2)]
    facts = read(messages=[{"role": "user", "content": content} for content in parts])
    assert tuple(("user", end) for end in (8, 8, 12, 24, 32)) == facts.turns


def test_escapes_do_not_count_double() -> None:
    r"""Text sent as \uXXXX escapes counts by its UTF-8 bytes, wherever it occurs."""
    body = {
        "model": "m",
        "messages": [
            {"role": "user", "name": "Ольга", "content": "Привет 🌍"},
            {
                "role": "assistant",
                "tool_calls": [{"function": {"name": "поиск", "arguments": json.dumps({"город": "Москва"})}}],
            },
        ],
        "tools": [{"type": "function", "function": {"name": "поиск", "description": "ищет"}}],
    }
    escaped = read_request(Api.CHAT, json.dumps(body).encode())
    tool = '{"type":"function","function":{"name":"поиск","description":"ищет"}}'
    assert escaped.text.decode() == f'Привет 🌍Ольгапоиск{{"город":"Москва"}}{tool}'


def test_arguments_that_are_not_json_stay_as_they_are() -> None:
    r"""Call arguments that contain a \u but are not JSON count as ordinary text."""
    call = {"function": {"name": "f", "arguments": '{"path": "C:\\users'}}
    assert text_of({"role": "assistant", "tool_calls": [call]}) == 'f{"path": "C:\\users'


def test_white_space_of_tools_does_not_count() -> None:
    """A tool definition counts as compact JSON, however the client indented it."""
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
    pretty = json.dumps({"model": "m", "messages": [], "tools": tools}, indent=4).encode()
    assert read_request(Api.CHAT, pretty).text == json.dumps(tools[0], separators=(",", ":")).encode()


def test_tools_and_calls_are_counted_and_read() -> None:
    """Definitions, calls and results of tools are text, and their numbers are separate facts."""
    facts = read(
        messages=[
            {"role": "user", "content": "Weather?"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "1",
                        "type": "function",
                        "function": {"name": "weather", "arguments": '{"city":"Rome"}'},
                    },
                    {"id": "2", "type": "function", "function": {"name": "time", "arguments": "{}"}},
                ],
            },
            {"role": "tool", "tool_call_id": "1", "content": "sunny"},
        ],
        tools=[{"type": "function", "function": {"name": "weather"}}, {"type": "function"}],
    )
    tools = '{"type":"function","function":{"name":"weather"}},{"type":"function"}'
    assert facts.text.decode() == 'Weather?weather{"city":"Rome"}time{}sunny' + tools
    assert (facts.messages, facts.tools, facts.tool_calls) == (3, 2, 2)


def test_calls_of_custom_tools_are_read() -> None:
    """Tools that take plain text are called by name with an input, which is part of the prompt."""
    call = {
        "role": "assistant",
        "tool_calls": [{"type": "custom", "custom": {"name": "sql", "input": "SELECT 1"}}],
    }
    facts = read(messages=[call])
    assert (facts.text, facts.tool_calls) == (b"sqlSELECT 1", 1)


def test_tools_of_a_message_count_as_those_of_the_request() -> None:
    """Some servers accept tools in a system message; tools that the pool runs add text that is not in the body."""
    tool = {"type": "function", "function": {"name": "look_up"}}
    system = {"role": "system", "content": "Be brief."}
    facts = read(messages=[{**system, "tools": [tool, tool]}, {"role": "user", "content": "Hi"}], tools=[tool])
    assert (3, 3) == (facts.tools, facts.text.count(b"look_up"))
    assert not facts.unseen_history
    assert read(messages=[{**system, "tools": [{"type": "web_search"}]}]).unseen_history
    assert 0 == read(messages=[{**system, "tools": None}]).tools


def test_legacy_functions_count_as_tools() -> None:
    """The older `functions` and `function_call` are read like tools and calls."""
    call = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}
    facts = read(messages=[call], functions=[{"name": "f"}])
    assert (facts.text, facts.tools, facts.tool_calls) == (b'f{}{"name":"f"}', 1, 1)


def test_names_refusals_and_reasoning_are_text() -> None:
    """Templates show names, refusals, and reasoning that the client sends back, under either of its two names."""
    message = {"role": "assistant", "content": "a", "name": "b", "refusal": "c", "reasoning": "d"}
    assert text_of(message) == "abcd"
    assert text_of(message | {"reasoning_content": "d"}) == "abcd"
    assert text_of({"role": "assistant", "reasoning_content": "d"}) == "d"


def test_documents_are_text() -> None:
    """The `documents` field of vLLM is shown to the model."""
    assert read(documents=[{"title": "t", "text": "x"}]).text == b'Hi{"title":"t","text":"x"}'
    assert read(documents=None).text == b"Hi"


@pytest.mark.parametrize(
    ("part", "media"),
    [
        ({"type": "image_url", "image_url": {"url": IMAGE, "detail": "low"}}, MediaCount(small_images=1)),
        ({"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}, MediaCount(unknown_images=1)),
        ({"type": "image_url", "image_url": IMAGE}, MediaCount(small_images=1)),
        ({"image_url": "https://example.org/cat.png"}, MediaCount(unknown_images=1)),
        ({"type": "input_image", "image_url": IMAGE}, MediaCount(small_images=1)),
        ({"type": "image_url", "image_url": None, "uuid": "kept"}, MediaCount(unknown_images=1)),
        ({"type": "image_embeds", "image_embeds": "AAAA" * 99}, MediaCount(unknown_images=1)),
        ({"type": "image_url", "image_url": {"url": FULL_HD}}, MediaCount(large_images=1)),
        ({"type": "input_audio", "input_audio": {"data": "UklGR" * 99, "format": "wav"}}, MediaCount(audio=1)),
        ({"type": "audio_url", "audio_url": {"url": "data:audio/wav;base64,AAAA"}}, MediaCount(audio=1)),
        ({"input_audio": {"data": "UklGR" * 99, "format": "wav"}}, MediaCount(audio=1)),
        ({"audio_url": {"url": "data:audio/wav;base64,AAAA"}}, MediaCount(audio=1)),
        ({"image_url": None, "video_url": {"url": "data:video/mp4;base64,AAAA"}}, MediaCount(video=1)),
        ({"input_audio": None, "video_url": {"url": "data:video/mp4;base64,AAAA"}}, MediaCount(video=1)),
        ({"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}, MediaCount(video=1)),
    ],
)
def test_media_are_counted_and_their_bytes_are_not_text(part: dict[str, Any], media: MediaCount) -> None:
    """An image, a sound or a video is one item, wherever its bytes are; they are not part of the prompt text."""
    facts = read(messages=[{"role": "user", "content": [{"type": "text", "text": "What is it?"}, part]}])
    assert (facts.text, facts.media, facts.unseen_history) == (b"What is it?", media, False)


def test_data_url_inside_plain_text_stays() -> None:
    """A data: URL in the middle of a string is tokenised like any text, so it counts as text."""
    assert text_of({"role": "user", "content": f"Look: {IMAGE}"}) == f"Look: {IMAGE}"


@pytest.mark.parametrize(
    "part",
    [
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"}},
        {"type": "prompt_embeds", "data": "AAAA"},
        {"type": "something_new", "something_new": "?"},
    ],
)
def test_parts_that_cannot_be_measured_are_unseen(part: dict[str, Any]) -> None:
    """A file, embeddings or a part of an unknown kind make the prompt longer than the body shows."""
    facts = read(messages=[{"role": "user", "content": [part, "and text"]}])
    assert (facts.text, facts.unseen_history) == (b"and text", True)


@pytest.mark.parametrize(
    ("fields", "limit"),
    [
        ({}, None),
        ({"max_tokens": None, "max_completion_tokens": None}, None),
        ({"max_tokens": 100}, 100),
        ({"max_completion_tokens": 200}, 200),
        ({"max_tokens": 100, "max_completion_tokens": 200}, 200),
        ({"max_completion_tokens": 0}, None),
        ({"max_tokens": 100, "max_completion_tokens": 0}, 100),  # as in SGLang
        ({"max_tokens": 2**53}, 2**53),
    ],
)
def test_declared_output_limit(fields: dict[str, Any], limit: int | None) -> None:
    """max_completion_tokens overrides max_tokens unless it is 0, null counts as absent, any size is accepted."""
    assert read(**fields).max_output_tokens == limit


@pytest.mark.parametrize("limit", [2**53 + 1, -(2**53) - 1])
def test_numbers_that_a_float_cannot_hold_are_not_understood(limit: int) -> None:
    """Beyond 2**53, JSON parsers differ in the value of a number."""
    with pytest.raises(BodyNotUnderstood, match=f"{2**53}"):
        read(max_tokens=limit)


@pytest.mark.parametrize(
    ("fields", "sequences"),
    [({}, 1), ({"n": None}, 1), ({"best_of": 1}, 1), ({"n": 3}, 3), ({"n": 2, "best_of": 5}, 5)],
)
def test_sequences(fields: dict[str, Any], sequences: int) -> None:
    """The number of sequences is the larger of n and best_of."""
    assert read(**fields).sequences == sequences


@pytest.mark.parametrize(
    ("fields", "stream", "usage_in_response"),
    [
        ({}, False, True),
        ({"stream": False, "stream_options": {}}, False, True),
        ({"stream": True}, True, False),
        ({"stream": True, "stream_options": None}, True, False),
        ({"stream": True, "stream_options": {"include_usage": False}}, True, False),
        ({"stream": True, "stream_options": {"include_usage": True}}, True, True),
        ({"stream": True, "stream_options": {"continuous_usage_stats": True}}, True, False),
        ({"stream": True, "stream_options": {}}, True, False),
    ],
)
def test_usage_in_response(fields: dict[str, Any], stream: bool, usage_in_response: bool) -> None:  # noqa: FBT001
    """A stream reports usage if asked, which other stream options do not; an unstreamed response always does."""
    facts = read(**fields)
    assert (facts.stream, facts.usage_in_response) == (stream, usage_in_response)


@pytest.mark.parametrize(("declared", "read_as"), [(None, None), (-1, CUT_TO_FIT), (0, 0), (512, 512)])
def test_prompt_truncation(declared: int | None, read_as: int | None) -> None:
    """A cap on the prompt is a fact; vLLM's -1 means what the context leaves."""
    assert read(truncate_prompt_tokens=declared).truncate_prompt_tokens == read_as


def test_model_names_are_kept_short() -> None:
    """A name of a megabyte does not become a category key of a megabyte; a missing name is the empty one."""
    assert len(read(model="m" * (1 << 20)).model) == 256
    assert read(model="m" * 256).model == "m" * 256
    assert read(model=None).model == ""


def test_last_of_duplicate_keys_counts() -> None:
    """If a key occurs twice in a body, the last one counts, as in the pool's own parser."""
    body = b'{"messages":[{"content":"a"}],"max_tokens":1,"max_tokens":2,"messages":[{"content":"b"}]}'
    facts = read_request(Api.CHAT, body)
    assert (facts.text, facts.max_output_tokens) == (b"b", 2)


@pytest.mark.parametrize(
    "thoughtful",
    [
        {"role": "assistant", "content": "Four.", "reasoning_content": "<think>Two and two"},
        {"role": "assistant", "content": "Four.", "reasoning": "<think>Two and two"},
        {"role": "assistant", "content": "<think>Two and two</think>Four."},
    ],
)
def test_reasoning_before_the_last_question_is_kept_separate(thoughtful: dict[str, str]) -> None:
    """Templates drop the reasoning of earlier turns; reasoning after the last question is ordinary text."""
    question = {"role": "user", "content": "2 + 2?"}
    earlier = read_request(Api.CHAT, json.dumps({"messages": [question, thoughtful, question]}).encode())
    assert b"2 + 2?Four.2 + 2?" == earlier.text
    assert earlier.dropped_text.startswith(b"<think>Two and two")
    later = read_request(Api.CHAT, json.dumps({"messages": [question, thoughtful]}).encode())
    assert (b"", True) == (later.dropped_text, b"Two and two" in later.text)


def test_reasoning_in_a_conversation_without_a_question_is_text() -> None:
    """There is no last question before which reasoning would be dropped."""
    thought = {"role": "assistant", "content": "Four.", "reasoning": "Two and two"}
    facts = read(messages=[thought, {"role": "assistant", "content": "Five."}])
    assert (b"", b"Four.Two and twoFive.") == (facts.dropped_text, facts.text)


def test_the_last_question_is_found_behind_other_messages() -> None:
    """Reasoning before it is dropped, however the conversation goes on after it."""
    thought = {"role": "assistant", "content": "Four.", "reasoning": "Two and two"}
    question, answer = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Well."}
    facts = read(messages=[thought, question, answer])
    assert (b"Two and two", b"Four.Why?Well.") == (facts.dropped_text, facts.text)


@pytest.mark.parametrize("name", ["image_url", "audio_url", "input_audio", "video_url"])
def test_media_that_is_null_is_none(name: str) -> None:
    """A part without a type is not of a kind whose value is null."""
    assert MediaCount() == read(messages=[{"role": "user", "content": [{name: None}]}]).media
