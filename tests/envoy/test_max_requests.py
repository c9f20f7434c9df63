"""Requests over the router's `max_requests` pass at once, undecided; in full duplex they may fail."""

from functools import partial

import pytest

from tests.envoy.harness.building import Build
from tests.envoy.harness.calls import SHORT_TEXT, chat
from tests.envoy.harness.gateway import Document, cluster
from tests.envoy.harness.polling import eventually
from tests.envoy.harness.pools import MODEL, Pools
from tests.envoy.harness.raw import RawClient, chat_body

JSON = {"content-type": "application/json"}
BODY = chat_body(MODEL, "Count. " * 40, max_tokens=200, min_tokens=200)


def with_max_requests(max_requests: int, document: Document) -> None:
    """Set the limit of concurrent requests at the router."""
    cluster(document, "dualpool")["circuit_breakers"]["thresholds"][0]["max_requests"] = max_requests


@pytest.mark.parametrize("small_bodies_percent", [0, 100])
@pytest.mark.parametrize("mode", ["streamed", "buffered"])
def test_a_request_over_the_limit_passes_undecided(build: Build, mode: str, small_bodies_percent: int) -> None:
    """It takes one attempt, in the long pool or, if the operator routes small bodies so, in the short one."""
    caller = build(mode, change=partial(with_max_requests, 0))
    gateway = caller.stack.gateway
    gateway.set_runtime("dualpool.small_bodies_percent", small_bodies_percent)
    served = chat(caller, SHORT_TEXT)
    expected = "short" if small_bodies_percent else "long"
    assert (expected, "1") == (served["x-served-by"], served["x-envoy-attempt-count"])
    assert 1 == gateway.statistic("http.ingress.ext_proc.failure_mode_allowed")
    assert [None] == [entry["reason"] for entry in caller.access_log()]
    assert 0 == caller.stack.router.metric("dualpool_streams_total")


def test_full_duplex_may_fail_a_request_over_the_limit(build: Build) -> None:
    """If a piece of the body has reached the filter, Envoy fails the stream: by chance, the request is a 500."""
    caller = build("full-duplex", change=partial(with_max_requests, 0))
    body = chat_body(MODEL, SHORT_TEXT, max_tokens=1)
    statuses = [
        caller.http.post("/v1/chat/completions", content=body, headers=JSON).status_code for _ in range(20)
    ]
    assert {200, 500} >= set(statuses)
    passed = caller.stack.gateway.statistic("http.ingress.ext_proc.failure_mode_allowed")
    assert statuses.count(200) == passed


def test_kept_responses_leave_room_for_decisions(build: Build, mode: str, slow_pools: Pools) -> None:
    """While the most responses of one kind are kept, two of three slots, requests are still decided."""
    caller = build(mode, change=partial(with_max_requests, 3), pools=slow_pools, learning={"max_streams": 3})
    router, gateway = caller.stack.router, caller.stack.gateway
    with RawClient(gateway.port) as one, RawClient(gateway.port) as other:
        for kept, client in enumerate((one, other), 1):
            client.head(f"{caller.root}/v1/chat/completions", content_length=str(len(BODY)), x_tenant=caller.mark)
            client.send(BODY)
            eventually(lambda: router.metric("dualpool_streams_open") == kept, "a response is waited for")  # noqa: B023
        for _ in range(3):
            served = caller.http.post(
                "/v1/chat/completions", content=chat_body(MODEL, "Hi", max_tokens=1), headers=JSON
            )
            assert "short" == served.headers["x-served-by"]
        assert 0 == gateway.statistic("http.ingress.ext_proc.failure_mode_allowed")
        assert 2 == router.metric("dualpool_streams_kept_total")
        assert 3 == router.metric("dualpool_streams_without_slot_total")
