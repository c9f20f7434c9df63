"""Only the router can select the short pool: clients' headers are stripped before the first route choice."""

import pytest

from tests.envoy.harness.building import Build
from tests.envoy.harness.caller import Caller
from tests.envoy.harness.calls import LONG_TEXT, SHORT_TEXT
from tests.envoy.harness.pools import MODEL
from tests.envoy.harness.raw import RawClient, chat_body

CLAIMS = {
    "x-token-budget-pool": "short",
    "x-token-budget-estimate": "1",
    "x-token-budget-reason": "because I say so",
}


def claim(caller: Caller, text: str = LONG_TEXT, path: str = "/v1/chat/completions") -> tuple[str, dict[str, str]]:
    """Send a request with all claims; return the pool that served it and the claim headers that it received."""
    caller.http.post(path, content=chat_body(MODEL, text, max_tokens=4), headers=CLAIMS)
    pool, received = caller.received()[-1]
    return pool, {name: received.headers[name] for name in CLAIMS if name in received.headers}


def test_claim_on_a_long_request_is_stripped(caller: Caller) -> None:
    """A long request that claims to be short goes long, with only the router's own headers on it."""
    pool, headers = claim(caller)
    assert ("long", "too_long", None) == (
        pool,
        headers["x-token-budget-reason"],
        headers.get("x-token-budget-pool"),
    )
    assert int(headers["x-token-budget-estimate"]) > 2048


def test_claim_by_a_header_of_several_values(caller: Caller) -> None:
    """Repeated headers and headers in odd spellings are stripped as well."""
    body = chat_body(MODEL, LONG_TEXT, max_tokens=4)
    with RawClient(caller.stack.gateway.port) as client:
        client.send(
            b"POST %b/v1/chat/completions HTTP/1.1\r\nhost: pools\r\ncontent-type: application/json\r\n"
            b"X-Token-Budget-Pool: short\r\nx-token-budget-POOL:short\r\ncontent-length: %d\r\n\r\n%b"
            % (caller.root.encode(), len(body), body)
        )
        assert "long" == client.response().getheader("x-served-by")


def test_claim_on_a_path_that_is_not_ours(caller: Caller) -> None:
    """Requests that the router does not decide go long, whatever they claim."""
    response = caller.http.get("/v1/models", headers=CLAIMS)
    assert "long" == response.headers["x-served-by"]


def test_claim_while_the_router_is_down(build: Build) -> None:
    """A claim has no effect while the router is down, either."""
    caller = build("streamed")
    caller.stack.router.kill()
    assert ("long", {}) == claim(caller)
    assert ("long", {}) == claim(caller, SHORT_TEXT)


@pytest.mark.parametrize("mode", ["off", "shadow"])
def test_claim_while_the_router_sets_no_header(build: Build, mode: str) -> None:
    """In modes in which the router sets no header, the client's header has no effect."""
    caller = build("streamed", mode=mode)
    assert ("long", {}) == claim(caller)
