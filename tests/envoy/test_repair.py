"""Envoy retries on the long pool what the short pool refuses, as seen by the client and by the router."""

import socket
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from socketserver import StreamRequestHandler
from typing import Any

import openai
import pytest

from tests.envoy.harness.building import Build
from tests.envoy.harness.caller import Caller
from tests.envoy.harness.calls import SHORT_TEXT, chat
from tests.envoy.harness.gateway import Document, cluster, moved_to, route
from tests.envoy.harness.polling import eventually
from tests.envoy.harness.pools import MODEL, REFUSED_TOKENS
from tests.envoy.harness.router import RouterProcess
from tests.envoy.harness.tcp import serving

# For most tokenizers a digit is a token: about 4,500 tokens, which an initial ratio of 4 estimates as 1,320.
DIGITS = "circle 31415 92653 58979 32384 " * 170


def ask(caller: Caller, text: str, max_tokens: int, *, stream: bool) -> tuple[Any, Mapping[str, str]]:
    """Ask for a chat completion; return the reported usage and the response's headers."""
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
    repaired = router.metric("dualpool_retried_total")
    _, headers = ask(caller, SHORT_TEXT, REFUSED_TOKENS, stream=stream)
    assert ("long", "2") == (headers["x-served-by"], headers["x-envoy-attempt-count"])
    assert ["short", "long"] == [pool for pool, _ in caller.received()]
    (entry,) = caller.access_log()
    assert ("short", "short", 200, 2) == (entry["pool"], entry["route"], entry["status"], entry["attempts"])
    eventually(lambda: caller.observations() == 1, "the repaired response is learned from")
    assert repaired + 1 == router.metric("dualpool_retried_total")


def test_under_counted_prompt_is_repaired_once(build: Build) -> None:
    """A prompt that the paper's estimator under-counts is repaired, learned from, and routed right next time."""
    caller = build("streamed", estimator={"kind": "ema"})
    usage, headers = ask(caller, DIGITS, 16, stream=False)
    assert usage.prompt_tokens > 2048
    assert ("long", "2") == (headers["x-served-by"], headers["x-envoy-attempt-count"])
    eventually(lambda: caller.observations() == 1, "the repaired response is learned from")
    _, headers = ask(caller, DIGITS, 16, stream=False)
    assert ("long", "1") == (headers["x-served-by"], headers["x-envoy-attempt-count"])


def test_request_too_long_for_all_is_refused_by_the_long_pool(caller: Caller) -> None:
    """A request that fits no pool gets the long pool's own 400, and is counted as a context overflow."""
    router = caller.stack.router
    overflows = router.metric("dualpool_context_overflows_total")
    with pytest.raises(openai.BadRequestError, match="cannot be greater than max_model_len=65536") as refused:
        caller.openai.completions.create(model=MODEL, prompt="Say all there is.", max_tokens=100_000)
    assert "long" == refused.value.response.headers["x-served-by"]
    eventually(
        lambda: router.metric("dualpool_context_overflows_total") == overflows + 1, "the overflow is counted"
    )
    assert 0 == caller.observations()


def test_bad_request_on_the_short_route_costs_one_attempt_more(caller: Caller) -> None:
    """A malformed short request is retried and gets its 400 from the long pool."""
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
    """More concurrent repairs than Envoy's default limit of 3 retries all succeed."""

    def refused_once(_: int) -> tuple[str, str]:
        response = caller.http.post(
            "/v1/completions",
            json={"model": MODEL, "prompt": SHORT_TEXT, "max_tokens": REFUSED_TOKENS},
            # Slow, so that all retries are concurrent.
            headers={"x-emulate-fault": "slow=0.5"},
        )
        return response.headers.get("x-served-by", ""), response.headers["x-envoy-attempt-count"]

    with ThreadPoolExecutor(12) as threads:
        outcomes = set(threads.map(refused_once, range(12)))
    assert {("long", "2")} == outcomes


@pytest.mark.parametrize("status", [404, 413, 422, 503])
def test_other_refusals_are_repaired(caller: Caller, status: int) -> None:
    """The statuses of other servers for a prompt that is too long, or for an unknown model, are retried."""
    response = caller.http.post(
        "/v1/completions",
        json={"model": MODEL, "prompt": SHORT_TEXT, "max_tokens": 4},
        headers={"x-emulate-fault": f"status={status}"},
    )
    assert ("long", "2") == (response.headers["x-served-by"], response.headers["x-envoy-attempt-count"])


@pytest.mark.parametrize("status", [401, 429, 500])
def test_a_pool_s_own_refusal_is_not_retried(caller: Caller, status: int) -> None:
    """The short pool's refusals for credentials or rate limits, and its errors, are not retried."""
    response = caller.http.post(
        "/v1/completions",
        json={"model": MODEL, "prompt": SHORT_TEXT, "max_tokens": 4},
        headers={"x-emulate-fault": f"status={status}"},
    )
    assert (status, "1") == (response.status_code, response.headers["x-envoy-attempt-count"])


class Dying(StreamRequestHandler):
    """A pool that dies after it has read a request completely, before it responds."""

    def handle(self) -> None:
        """Read one request, then close the connection."""
        length = 0
        while line := self.rfile.readline().strip().lower():
            length = int(line.partition(b":")[2]) if line.startswith(b"content-length") else length
        self.rfile.read1(1 << 20) if not length else self.rfile.read(length)


@pytest.fixture
def dying_pool() -> Iterator[str]:
    """Run a pool that dies on every request; yield its address."""
    with serving(Dying) as port:
        yield f"127.0.0.1:{port}"


def test_short_pool_that_dies_before_its_response(
    build: Build, mode: str, router: RouterProcess, dying_pool: str
) -> None:
    """If the short pool dies before the first byte of its response, the long pool serves the request."""
    caller = build(mode, change=lambda document: moved_to(document, "pool_short", dying_pool), router=router)
    headers = chat(caller, SHORT_TEXT)
    assert ("long", "2") == (headers["x-served-by"], headers["x-envoy-attempt-count"])


def test_short_pool_that_dies_is_an_error_without_reset(
    build: Build, router: RouterProcess, dying_pool: str
) -> None:
    """With `reset-before-request` instead of `reset`, the same request is a 503: the fault without the fix."""

    def only_before(document: Document) -> None:
        moved_to(document, "pool_short", dying_pool)
        policy = route(document, "short")["route"]["retry_policy"]
        policy["retry_on"] = policy["retry_on"].replace("reset", "reset-before-request")

    caller = build("streamed", change=only_before, router=router)
    response = caller.http.post("/v1/completions", json={"model": MODEL, "prompt": SHORT_TEXT, "max_tokens": 4})
    assert 503 == response.status_code


@pytest.fixture
def black_hole() -> Iterator[str]:
    """Yield an address at which connections hang: they are never accepted, and the backlog is full."""
    with socket.socket() as listening, ExitStack() as waiting:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        address = listening.getsockname()
        for _ in range(4):
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)  # noqa: FBT003  (the standard library's signature)
            client.connect_ex(address)
        yield f"127.0.0.1:{address[1]}"


def test_short_pool_that_swallows_connections(build: Build, router: RouterProcess, black_hole: str) -> None:
    """If connections to the short pool hang, the long pool serves after the connect_timeout."""

    def swallowing(document: Document) -> None:
        moved_to(document, "pool_short", black_hole)
        cluster(document, "pool_short")["connect_timeout"] = "0.2s"

    caller = build("streamed", change=swallowing, router=router)
    headers = chat(caller, SHORT_TEXT)
    assert ("long", "2") == (headers["x-served-by"], headers["x-envoy-attempt-count"])
    assert 1 == caller.stack.gateway.statistic("cluster.pool_short.upstream_cx_connect_timeout")


@pytest.mark.parametrize("mode", ["streamed"])
def test_short_pool_that_is_down(build: Build, mode: str, router: RouterProcess) -> None:
    """If the short pool refuses connections, the long pool serves short requests."""

    def refusing(document: Document) -> None:
        moved_to(document, "pool_short", f"127.0.0.1:{port}")

    # Bound but not listening: connections are refused, and no other process can take the port.
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        caller = build(mode, change=refusing, router=router)
        headers = chat(caller, SHORT_TEXT)
    assert ("long", "2") == (headers["x-served-by"], headers["x-envoy-attempt-count"])
