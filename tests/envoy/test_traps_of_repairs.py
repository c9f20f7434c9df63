"""The effects, on the real Envoy, of traps in the retries of the short pool's route."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.envoy.harness.biting import NO_HEADERS, SLOW, Bitten, post, retry_with, with_variants
from tests.envoy.harness.building import Build
from tests.envoy.harness.caller import Caller
from tests.envoy.harness.calls import SHORT_TEXT
from tests.envoy.harness.gateway import Document, route
from tests.envoy.harness.pools import MODEL, REFUSED_TOKENS
from tests.envoy.harness.raw import chat_body
from tests.envoy.harness.router import RouterProcess
from tests.traps.bitten import believe_clients

PREVIOUS = {
    "@type": "type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
    "update_frequency": 2,
}


def refused(caller: Caller, headers: Mapping[str, str] = NO_HEADERS) -> httpx.Response:
    """Send a request that the router sends to the short pool, which refuses it."""
    return post(caller, chat_body(MODEL, SHORT_TEXT, max_tokens=REFUSED_TOKENS), headers)


def test_refusal_without_a_retry(bite: Bitten) -> None:
    """The client gets the short pool's 400."""
    response = refused(bite("repair-missing"))
    assert ("short", 400) == (response.headers["x-served-by"], response.status_code)


def test_client_that_wants_no_retries(bite: Bitten, build: Build, router: RouterProcess) -> None:
    """A client that Envoy trusts gets the short pool's 400; with the files' route, its request is retried."""
    wants_none = {"x-envoy-max-retries": "0"}
    response = refused(bite("repair-declined"), wants_none)
    assert ("short", 400) == (response.headers["x-served-by"], response.status_code)
    response = refused(build("streamed", change=believe_clients, router=router), wants_none)
    assert ("long", 200) == (response.headers["x-served-by"], response.status_code)


def test_retry_without_previous_priorities(bite: Bitten) -> None:
    """The short pool gets the request twice, and refuses it twice."""
    caller = bite("repair-same-pool")
    response = refused(caller)
    assert ("short", 400) == (response.headers["x-served-by"], response.status_code)
    assert ["short", "short"] == [pool for pool, _ in caller.received()]


def test_more_repairs_than_the_breaker_lets_through(bite: Bitten) -> None:
    """If many requests are refused concurrently, some clients get the refusal."""
    caller = bite("repair-limit")
    with ThreadPoolExecutor(12) as threads:
        # Slow, so that all retries are concurrent.
        statuses = list(threads.map(lambda _: refused(caller, SLOW).status_code, range(12)))
    assert {200, 400} == set(statuses)
    assert caller.stack.gateway.statistic("cluster.short_then_long.upstream_rq_retry_overflow") > 0


def test_repairs_of_another_priority_than_the_breaker_s(build: Build, router: RouterProcess) -> None:
    """A route of priority HIGH has limits of its own, of which the usual ones say nothing."""

    def change(document: Document) -> None:
        route(document, "short")["route"]["priority"] = "HIGH"

    caller = build("streamed", change=change, router=router)
    with ThreadPoolExecutor(12) as threads:
        statuses = list(threads.map(lambda _: refused(caller, SLOW).status_code, range(12)))
    assert {200, 400} == set(statuses)


def test_repairs_that_do_not_happen(build: Build, router: RouterProcess) -> None:
    """Policies without retries, for some requests only, in the same pool, or without the body repair nothing."""
    late = {"name": "envoy.retry_priorities.previous_priorities", "typed_config": dict(PREVIOUS)}
    changes = {
        "none": retry_with(num_retries=0),
        "some": retry_with(retriable_request_headers=[{"name": "x-may-be-retried", "present_match": True}]),
        "late": retry_with(retry_priority=late),
        "small": lambda variant: variant.update(request_body_buffer_limit=64),
        "small-of-old": lambda variant: variant.update(per_request_buffer_limit_bytes=64),
    }
    caller = build("streamed", change=with_variants(changes), router=router)
    assert 200 == refused(caller).status_code
    assert dict.fromkeys(changes, 400) == {
        name: refused(caller, {"x-variant": name}).status_code for name in changes
    }
