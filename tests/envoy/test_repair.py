"""What the short pool refuses, the long pool serves: Envoy's retry, seen by the client and by the router."""

import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from tests.envoy.harness.building import Build
from tests.envoy.harness.caller import Caller
from tests.envoy.harness.calls import SHORT_TEXT, chat
from tests.envoy.harness.polling import eventually
from tests.envoy.harness.pools import MODEL, REFUSED_TOKENS
from tests.envoy.harness.router import RouterProcess

# A digit is a token for most tokenizers: about 4,500 tokens that look like 1,320 to a ratio that starts from 4.
DIGITS = "circle 31415 92653 58979 32384 " * 170


def ask(caller: Caller, text: str, max_tokens: int, *, stream: bool) -> tuple[Any, Mapping[str, str]]:
    """Ask for a chat completion; return the usage told and the response's headers."""
    extra: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    raw = caller.openai.chat.completions.with_raw_response.create(
        model=MODEL, messages=[{"role": "user", "content": text}], max_tokens=max_tokens, **extra
    )
    response = raw.parse()
    usage = list(response)[-1].usage if stream else response.usage
    return usage, raw.headers


@pytest.mark.parametrize("stream", [False, True], ids=["json", "sse"])
def test_request_that_the_short_pool_refuses_is_repaired(caller: Caller, stream: bool) -> None:  # noqa: FBT001
    """The short pool's 400 for length never reaches the client; the router counts the repair and learns."""
    router = caller.stack.router
    repaired = router.metric("dualpool_misroutes_repaired_total")
    _, headers = ask(caller, SHORT_TEXT, REFUSED_TOKENS, stream=stream)
    assert ("long", "2") == (headers["x-served-by"], headers["x-envoy-attempt-count"])
    assert ["short", "long"] == [pool for pool, _ in caller.received()]
    (entry,) = caller.access_log()
    assert ("short", "short", 200, 2) == (entry["pool"], entry["route"], entry["status"], entry["attempts"])
    eventually(lambda: caller.observations() == 1, "the repaired response is learned from")
    assert repaired + 1 == router.metric("dualpool_misroutes_repaired_total")


def test_under_counted_prompt_is_repaired_once(build: Build) -> None:
    """A prompt that the paper's estimator takes for short is repaired, teaches, and is not misplaced again."""
    caller = build("streamed", estimator={"kind": "ema"})
    usage, headers = ask(caller, DIGITS, 16, stream=False)
    assert usage.prompt_tokens > 2048
    assert ("long", "2") == (headers["x-served-by"], headers["x-envoy-attempt-count"])
    eventually(lambda: caller.observations() == 1, "the repaired response is learned from")
    _, headers = ask(caller, DIGITS, 16, stream=False)
    assert ("long", "1") == (headers["x-served-by"], headers["x-envoy-attempt-count"])


def test_request_too_long_for_all_is_refused_by_the_long_pool(caller: Caller) -> None:
    """What fits nowhere gets the long pool's own 400, and is counted as a context overflow."""
    router = caller.stack.router
    overflows = router.metric("dualpool_context_overflows_total")
    with pytest.raises(openai.BadRequestError, match="max_model_len=max_total_tokens=65536") as refused:
        caller.openai.completions.create(model=MODEL, prompt="Say all there is.", max_tokens=100_000)
    assert "long" == refused.value.response.headers["x-served-by"]
    eventually(
        lambda: router.metric("dualpool_context_overflows_total") == overflows + 1, "the overflow is counted"
    )
    assert 0 == caller.observations()


def test_bad_request_on_the_short_route_costs_one_attempt_more(caller: Caller) -> None:
    """A short request that is wrong by itself gets its 400, from the long pool."""
    with pytest.raises(openai.BadRequestError) as refused:
        caller.openai.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "x"}],
            max_tokens=4,
            extra_headers={"x-emulate-fault": "status=400"},
        )
    headers = refused.value.response.headers
    assert ("long", "2") == (headers["x-served-by"], headers["x-envoy-attempt-count"])


def test_many_repairs_at_once(caller: Caller) -> None:
    """More repairs at the same time than Envoy's default of 3 concurrent retries: all of them succeed."""

    def refused_once(_: int) -> tuple[str, str]:
        response = caller.http.post(
            "/v1/completions",
            json={"model": MODEL, "prompt": SHORT_TEXT, "max_tokens": REFUSED_TOKENS},
            # Slow, so that the retries are all at once.
            headers={"x-emulate-fault": "slow=0.5"},
        )
        return response.headers.get("x-served-by", ""), response.headers["x-envoy-attempt-count"]

    with ThreadPoolExecutor(12) as threads:
        outcomes = set(threads.map(refused_once, range(12)))
    assert {("long", "2")} == outcomes


@pytest.mark.parametrize("mode", ["streamed"])
def test_short_pool_that_is_down(build: Build, mode: str, router: RouterProcess) -> None:
    """With nothing listening in the short pool, short requests are served by the long pool."""

    def nobody_there(document: dict[str, Any]) -> None:
        endpoints = document["static_resources"]["clusters"][0]["load_assignment"]["endpoints"]
        endpoints[0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]["port_value"] = port

    # Bound and not listening: connections are refused, and nobody else can get the port meanwhile.
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        caller = build(mode, change=nobody_there, router=router)
        headers = chat(caller, SHORT_TEXT)
    assert ("long", "2") == (headers["x-served-by"], headers["x-envoy-attempt-count"])
