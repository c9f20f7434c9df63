"""The work of one request is bounded, whatever its body; it is measured in
calls, which do not depend on the machine.
"""

import json
import sys
from typing import Any

import pytest

from bench.worst import WorstBody, worst_bodies
from bench.worst_kinds import nested_documents
from extproc.compose import compose
from extproc.config.loading import parse
from extproc.core.apis import read_request
from extproc.core.apis.prompt import MAX_MEASURED_IMAGES, MAX_REREAD_BYTES, MAX_STEPS
from extproc.core.apis.work import FREE_BYTES, MAX_WORK, work_of
from extproc.core.errors import BodyFault, BodyNotUnderstood
from extproc.core.facts import Api, ImageSize, RequestHead
from extproc.core.listener import Listener
from extproc.core.placing.early import BLOCK_BYTES, MAX_SPANS, media_bytes

# The smaller pool could hold a mebibyte of text, so nothing is decided early by its length.
PLACER = compose(
    parse("pools: [{name: a, max_budget_tokens: 65536}, {name: b, max_budget_tokens: 262144}]\n"
          "exchange: {max_held_bytes: 1048576}"),
    Listener(),
).placer  # fmt: skip
# Calls, Python and C, per step and per measured image.
MOST_CALLS = 24 * MAX_STEPS + 100 * MAX_MEASURED_IMAGES
PNG = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAACAAAAAgA"  # 2048 x 2048


def calls_of(worst: WorstBody) -> int:
    """Return the number of function calls, Python and C, that one decision makes."""
    calls = 0

    def count(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    sys.setprofile(count)
    try:
        PLACER.decide(worst.api, RequestHead("POST", content_encoding=worst.encoding), worst.body)
    finally:
        sys.setprofile(None)
    return calls


def test_no_body_costs_more_than_its_steps() -> None:
    """A body crafted to be as expensive as possible causes a bounded number of calls, however long it is."""
    calls = {}
    for worst in worst_bodies(1 << 18):
        assert 1 << 18 >= len(worst.body), worst.name
        calls[worst.name] = calls_of(worst)
    assert {} == {name: made for name, made in calls.items() if made > MOST_CALLS}


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"content": [{}] * (MAX_STEPS + 1)}]},
        {"messages": [{"content": "a"}] * (MAX_STEPS + 1)},
        {"messages": [{"tool_calls": [{}] * MAX_STEPS}]},
        {"messages": [], "tools": [{}] * 25_000},
        {"messages": [], "tools": [{"x": [1] * 95_000}]},
        {"messages": [], "x": [777777] * 85_000},
        {"messages": [{"content": "\n" * 340_000}]},
        {"messages": [{"content": "\u8bcd" * 230_000}]},
        {"messages": [{"content": " " * 900_000}]},
        {"messages": [{"content": "7" * 1_320_000}]},
        {"messages": [], "tools": [{"x": "a" * MAX_REREAD_BYTES}]},
        {"messages": [], "documents": ["a" * MAX_REREAD_BYTES]},
    ],
)
def test_more_elements_than_the_limit_are_too_many(fields: dict[str, Any]) -> None:
    """Bodies with more parts, brackets or values than the limits are not
    understood, and go to the default pool.
    """
    with pytest.raises(BodyNotUnderstood) as refused:
        read_request(Api.CHAT, json.dumps(fields).encode())
    assert BodyFault.TOO_MANY == refused.value.fault


def test_source_code_for_a_pool_of_64k_tokens_is_read() -> None:
    """As much source code as fits such a pool stays below the limit of work."""
    code = 'def f(a, b):\n    return {"a": [a, b], "c": {"d": f(a, [b])}}\n\n'
    body = json.dumps({"messages": [{"content": code * (140_000 // len(code))}]}).encode()
    assert read_request(Api.CHAT, body).text_bytes > 130_000


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        (b"a", 1), (b" ", 3), (b"\t", 3), (b"!", 1), (b"\x7f", 1), (b"\x80", 3), (b"\xff", 3), (b"\\", 7),
        (b",", 26), (b"{", 101), (b"[", 101), (b"]", 1), (b"}", 1), (b'"', 1), (b"0", 2), (b"9", 2), (b":", 1),
        (b"/", 1), (b"0123456789", 2), (b"aaaaaaaaaaaaaaa0", 1),
    ],
)  # fmt: skip
def test_work_has_a_price_for_each_kind_of_byte(unit: bytes, expected: int) -> None:
    """Each byte counts 1 as plain text and more by its kind, in whichever block it is."""
    text = unit * (200_000 // len(unit)) if expected < 26 else unit * 10_000
    assert expected * len(text) == pytest.approx(work_of(text), rel=0.001)


def test_counting_work_stops_beyond_the_limit() -> None:
    """Counting stops as soon as a body exceeds the limit."""
    once, twice = (work_of(b"[" * size) for size in (1 << 16, 1 << 20))
    assert MAX_WORK < once < twice < once + (1 << 20)


def test_the_shortest_bodies_are_read_without_counting() -> None:
    """Whatever it holds, a body of 32 KiB takes less time than the limit allows for others."""
    brackets = b'{"messages":[],"x":"' + b"[" * (FREE_BYTES - 22) + b'"}'
    assert FREE_BYTES == len(brackets)
    assert 0 == read_request(Api.CHAT, brackets).text_bytes
    assert MAX_WORK < work_of(brackets)
    with pytest.raises(BodyNotUnderstood):
        read_request(Api.CHAT, brackets + b" ")


@pytest.mark.parametrize(
    ("api", "body"),
    [
        (Api.CHAT, b'{"messages":[],"n":%b}'),
        (Api.CHAT, b'{"messages":[],"stream":%b}'),
        (Api.COMPLETIONS, b'{"prompt":[1,%b]}'),
        (Api.COMPLETIONS, b'{"prompt":[[1],[%b]]}'),
    ],
)
def test_meaninglessly_long_numbers_have_a_wrong_type(api: Api, body: bytes) -> None:
    """Decoding takes quadratic time in the digits, so the first such number ends the reading."""
    read_request(api, body % b"1")
    with pytest.raises(BodyNotUnderstood) as refused:
        read_request(api, body % (b"7" * 20))
    assert BodyFault.WRONG_TYPE == refused.value.fault


@pytest.mark.parametrize("number", ["18446744073709551616.0", "1e300", '"99999999999999999999"', "1e3" * 30])
def test_numbers_of_any_form_have_a_limit(number: str) -> None:
    """An integer beyond 2^53 is refused, also if it is written as a float or as a string."""
    with pytest.raises(BodyNotUnderstood):
        read_request(Api.CHAT, b'{"messages":[],"max_tokens":%b}' % number.encode())


def test_only_the_last_of_repeated_values_is_decoded() -> None:
    """A float takes microseconds to decode, so of a hundred thousand under one key only the last may be."""
    facts = read_request(
        Api.CHAT, b'{"messages":[],"n":{"not":"a number"},"n":1e-999,"n":2,"stream":[],"stream":1}'
    )
    assert (2, True) == (facts.sequences, facts.stream)


@pytest.mark.parametrize(("count", "undone"), [(111, True), (113, False)])
def test_escapes_next_to_many_costly_numbers_stay(count: int, *, undone: bool) -> None:
    """A float of 17 digits counts as eight steps, and so escapes next to many of them are not undone."""
    tools = b'{"messages":[],"tools":[{"a":"\\u0041"%b}]}' % (b',"b":1.2345678901234567e-300' * count)
    assert undone == (b'"a":"A"' in read_request(Api.CHAT, tools).text)


def test_shorter_numbers_cost_nothing() -> None:
    """Up to sixteen digits, of which the point is one."""
    tools = b'{"messages":[],"tools":[{"a":"\\u0041"%b}]}' % (b',"b":1.23456789012345e-30' * 200)
    assert b'"a":"A"' in read_request(Api.CHAT, tools).text


def test_escapes_next_to_long_numbers_stay() -> None:
    """Undoing a value's escapes decodes its numbers, so it is skipped if a number is too long."""
    lengths = []
    for digits in (31, 32):
        arguments = '["\\u00e9",%s]' % ("7" * digits)
        call = {"tool_calls": [{"function": {"name": "", "arguments": arguments}}]}
        lengths.append(read_request(Api.CHAT, json.dumps({"messages": [call]}).encode()).text_bytes)
    assert [len('["",]') + 2 + 31, len('["",]') + 6 + 32] == lengths


def test_documents_in_documents_are_read_once_each() -> None:
    """Each level of nested documents is read again, so the sum over all levels is bounded."""
    assert read_request(Api.MESSAGES, nested_documents(8, 1_000)).text_bytes == 1_000
    with pytest.raises(BodyNotUnderstood) as refused:
        read_request(Api.MESSAGES, nested_documents(8, MAX_REREAD_BYTES // 8))
    assert BodyFault.TOO_MANY == refused.value.fault


@pytest.mark.parametrize(
    ("api", "body"), [(Api.COMPLETIONS, b'{"prompt":[%b]}'), (Api.RERANK, b'{"query":"a","documents":[%b]}')]
)
def test_many_long_prompts_are_counted_before_they_are_decoded(api: Api, body: bytes) -> None:
    """Up to the limit, prompts are read however long they are; one more is too many."""
    text = b'"%b"' % (b"a" * 30)
    assert read_request(api, body % b",".join([text] * 2048)).sequences == 2048
    with pytest.raises(BodyNotUnderstood) as refused:
        read_request(api, body % b",".join([text] * 2049))
    assert BodyFault.TOO_MANY == refused.value.fault


def test_images_beyond_those_measured_are_guessed_from_their_bytes() -> None:
    """The header of a small file says that the image is large; beyond the first 32 images only the bytes count."""
    part = {"type": "image_url", "image_url": {"url": PNG}}
    facts = read_request(Api.CHAT, json.dumps({"messages": [{"content": [part] * 40}]}).encode())
    assert (MAX_MEASURED_IMAGES, 40 - MAX_MEASURED_IMAGES) == (facts.media.large_images, facts.media.small_images)
    assert ImageSize.LARGE.value == "large"


def test_media_beyond_the_limit_count_as_text() -> None:
    """The search for media stops after a limit; the rest counts as text, which errs towards the larger pool."""
    one = b'"data:image/png;base64,AAAA"'
    assert 4 * MAX_SPANS == media_bytes(one * (MAX_SPANS + 100))
    marks = b";base64," * (BLOCK_BYTES // 8)
    assert len(marks) - 8 == media_bytes(marks + b'"' + one * 100)


def test_escapes_of_a_value_too_large_to_undo_stay() -> None:
    """A tool with thousands of values counts as it was sent, which is
    longer than without escapes and thus safe.
    """
    few, many = ({"a": ["\u00e9"] * count} for count in (10, MAX_STEPS + 10))
    lengths = [read_request(Api.CHAT, json.dumps({"messages": [], "tools": [tool]}).encode()).text_bytes
               for tool in (few, many)]  # fmt: skip
    assert [len('{"a":[]}') + 10 * 5 - 1, len('{"a":[]}') + (MAX_STEPS + 10) * 9 - 1] == lengths
