"""No text of a prompt or a response outlives its exchange."""

import gc
import json
import time
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from extproc.compose import compose
from extproc.config.loading import parse
from extproc.core.exchange.events import Modes
from extproc.core.exchange.machine import Exchange
from extproc.core.facts import RequestHead, ResponseHead
from extproc.core.router.router import Router
from extproc.state.snapshot import to_bytes, to_json
from extproc.telemetry.fan_out import FanOut
from extproc.telemetry.log import LogListener
from extproc.telemetry.metrics import Metrics
from extproc.telemetry.recent import Recent
from tests.unit.exchanges import CHAT, DUPLEX, JSON_RESPONSE, SSE_RESPONSE, STREAMED, request, response, usage

MARK = "PORCUPINE"
WORDS = f"{MARK} said: " + "to whom it may concern, " * 20
MESSAGES = [
    {"role": "system", "content": WORDS},
    {"role": "user", "content": [{"type": "text", "text": WORDS}]},
    {"role": "assistant", "content": WORDS, "reasoning_content": WORDS},
    {"role": "tool", "tool_call_id": MARK, "content": WORDS},
    {"role": "user", "content": WORDS},
]
TOOLS = [{"type": "function", "function": {"name": MARK, "description": WORDS, "parameters": {MARK: {}}}}]
BODY = json.dumps({"model": "m", "messages": MESSAGES, "tools": TOOLS, "user": MARK}).encode()
STREAM = json.dumps({"model": "m", "stream": True, "messages": MESSAGES}).encode()
EVENTS = (b'data: {"choices": [{"delta": {"content": "%s"}}]}\n\n' % MARK.encode()) + b"data: [DONE]\n\n"
RESPONSE = usage(700).replace(b"Fine.", MARK.encode())
REFUSAL = f"This model's maximum context length is 8192 tokens. {MARK}".encode()


def held_by(root: object) -> Iterator[str | bytes]:
    """Yield every text that is reachable from an object, except through modules and classes."""
    seen: set[int] = set()
    waiting: list[Any] = [root]
    while waiting:
        each = waiting.pop()
        if id(each) in seen or isinstance(each, ModuleType | type):
            continue
        seen.add(id(each))
        if isinstance(each, str | bytes | bytearray):
            yield each if isinstance(each, str) else bytes(each)
        elif isinstance(each, FunctionType):
            waiting += [each.__closure__, each.__defaults__]
        elif isinstance(each, msgspec.Struct):
            waiting += [getattr(each, name) for name in each.__struct_fields__]
        else:
            waiting += gc.get_referents(each)


def marked_in(root: object) -> list[str | bytes]:
    """Return the texts reachable from an object that came from a prompt or a response."""
    return [text for text in held_by(root) if MARK in (text if isinstance(text, str) else str(text))]


@pytest.fixture
def router() -> Router:
    """Return a router as in production: with metrics, log, and the latest decisions of the live page."""
    listener = FanOut([Metrics(CollectorRegistry(), 9, 9), LogListener(time.monotonic), Recent()])
    return compose(parse("tenant_header: x-tenant"), listener)


@pytest.mark.parametrize(
    "root", [RequestHead("POST", MARK), {"a": ({MARK},)}, lambda kept=MARK: kept, [MARK.encode()]]
)
def test_objects_that_hold_a_text_are_found(root: object) -> None:
    """The search that the other tests use looks into structs, containers and functions."""
    assert 1 == len(marked_in(root))


def test_a_held_body_is_found(router: Router) -> None:
    """Until a request is placed, the exchange holds its body, and the search finds it."""
    exchange = Exchange(router, STREAMED)
    for event in request(BODY)[:2]:
        exchange.handle(event, 0.0)
    assert marked_in(exchange)
    assert [] == marked_in(router)


@pytest.mark.parametrize("modes", [STREAMED, DUPLEX])
def test_no_text_is_kept_after_its_exchange(router: Router, modes: Modes) -> None:
    """Whether a response was learned from, refused, truncated or not understood, no text of it is kept."""
    head = RequestHead("POST", CHAT.path, tenant="t")
    for body, response_head, content in (
        (BODY, JSON_RESPONSE, RESPONSE),
        (STREAM, SSE_RESPONSE, EVENTS),
        (BODY, JSON_RESPONSE, RESPONSE[:40]),
        (BODY, JSON_RESPONSE, MARK.encode()),
        (BODY, ResponseHead(400, "application/json"), REFUSAL),
        (BODY[:99], JSON_RESPONSE, RESPONSE),
    ):
        exchange = Exchange(router, modes)
        for event in (*request(body, [40], head), *response(content, [9], response_head)):
            exchange.handle(event, 0.0)
        exchange.end()
    state = router.placer.estimator.state()
    assert ["m"] == [model.model for model in state.models if model.observations]
    assert [] == marked_in(router)
    assert MARK not in to_json(state)
    assert MARK.encode() not in to_bytes(state)
