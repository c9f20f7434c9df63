"""Checks that every gateway must pass, whatever generated its configuration: one function per promise."""

from tests.envoy.harness.caller import Caller
from tests.envoy.harness.calls import LONG_TEXT, SHORT_TEXT, Call, chat
from tests.envoy.harness.polling import eventually
from tests.envoy.harness.pools import MODEL, REFUSED_TOKENS
from tests.envoy.harness.raw import RawClient, chat_body
from tests.envoy.harness.router import RouterProcess

__all__ = [
    "CHAT",
    "JSON",
    "admits_large_heads",
    "decides_and_learns",
    "goes_long_without_router",
    "repairs",
    "strips_claims",
]

CLAIMS = {"x-token-budget-pool": "short", "x-token-budget-estimate": "1", "x-token-budget-reason": "mine"}
CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}


def decides_and_learns(caller: Caller, call: Call) -> None:
    """Short requests go to the short pool, long ones to the long pool; the router learns from both responses."""
    assert ["short", "long"] == [call(caller, text)["x-served-by"] for text in (SHORT_TEXT, LONG_TEXT)]
    eventually(lambda: caller.observations() == 2, "two observations of this tenant")
    short, long = caller.access_log(2)
    assert [("short", "fits", 200), ("long", "too_long", 200)] == [
        (entry["pool"], entry["reason"], entry["status"]) for entry in (short, long)
    ]


def strips_claims(caller: Caller) -> None:
    """A long request that claims to be short goes long, with only the router's own headers on it."""
    caller.http.post(CHAT, content=chat_body(MODEL, LONG_TEXT, max_tokens=4), headers=CLAIMS | JSON)
    ((pool, received),) = caller.received()
    assert ("long", "too_long") == (pool, received.headers["x-token-budget-reason"])
    assert "x-token-budget-pool" not in received.headers
    assert "long" == caller.http.get("/v1/models", headers=CLAIMS).headers["x-served-by"]


def goes_long_without_router(router: RouterProcess, caller: Caller) -> None:
    """After the router is killed, everything goes to the long pool, whatever a client claims."""
    assert "short" == chat(caller, SHORT_TEXT)["x-served-by"]
    router.kill()
    body = chat_body(MODEL, SHORT_TEXT, max_tokens=4)
    for _ in range(5):
        response = caller.http.post(CHAT, content=body, headers=CLAIMS | JSON)
        assert (200, "long") == (response.status_code, response.headers["x-served-by"])


def repairs(caller: Caller) -> None:
    """A request that the short pool refuses is retried once, on the long pool."""
    raw = caller.openai.chat.completions.with_raw_response.create(
        model=MODEL, messages=[{"role": "user", "content": SHORT_TEXT}], max_tokens=REFUSED_TOKENS
    )
    assert "long" == raw.headers["x-served-by"]
    assert ["short", "long"] == [pool for pool, _ in caller.received()]
    (entry,) = caller.access_log()
    assert (200, 2) == (entry["status"], entry["attempts"])


def admits_large_heads(caller: Caller) -> None:
    """A request with 97 client headers leaves room for the router's."""
    body = chat_body(MODEL, SHORT_TEXT, max_tokens=4)
    with RawClient(caller.stack.gateway.port) as client:
        many = {f"x-{number}": "v" for number in range(94)}
        client.head(f"{caller.root}{CHAT}", content_length=str(len(body)), **many)
        client.send(body)
        response = client.response()
        assert (200, "short") == (response.status, response.getheader("x-served-by"))
