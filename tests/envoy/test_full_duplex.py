"""Faults of full duplex that affect other requests, each with and without the file's remedy."""

import asyncio
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from bench.numbered import chat_body as numbered_body
from bench.uploads import Outcome, Upload, upload_all
from tests.envoy.harness.biting import SLOW
from tests.envoy.harness.building import Build
from tests.envoy.harness.caller import Caller
from tests.envoy.harness.calls import LONG_TEXT, SHORT_TEXT
from tests.envoy.harness.gateway import Document, cluster, ext_proc
from tests.envoy.harness.http2 import Http2Client
from tests.envoy.harness.polling import eventually
from tests.envoy.harness.pools import MODEL
from tests.envoy.harness.raw import chat_body
from tests.envoy.harness.router import RouterProcess
from tests.traps.bitten import BITTEN

JSON = {"content-type": "application/json"}
BODY = chat_body(MODEL, SHORT_TEXT, max_tokens=16)
LONG = chat_body(MODEL, LONG_TEXT, max_tokens=16)


def http2(document: Document) -> Document:
    """Return the HTTP/2 settings of the router's cluster."""
    options = cluster(document, "dualpool")["typed_extension_protocol_options"]
    settings: Document = next(iter(options.values()))["explicit_http_config"]["http2_protocol_options"]
    return settings


def few_frames(document: Document) -> None:
    """Lower the flood limit from 10,000 queued frames to 40: 10 uploads of 2 MiB then act like 40 of 12 MiB."""
    http2(document)["max_outbound_frames"] = 40


def large_uploads(caller: Caller) -> list[Outcome]:
    """Send ten large bodies at the same time."""
    body = numbered_body(2 << 20)
    uploads = [Upload(f"{caller.root}/v1/chat/completions", body, chunked=False)] * 10

    async def nothing() -> None:
        pass

    return asyncio.run(upload_all(caller.stack.gateway.port, uploads, nothing))


def test_large_uploads_do_not_flood(build: Build, router: RouterProcess) -> None:
    """Simultaneous large uploads, on one connection to the router, all arrive complete."""
    caller = build("full-duplex", router=router)
    assert {True} == {each.intact for each in large_uploads(caller)}


def test_large_uploads_flood_at_a_low_limit(build: Build, router: RouterProcess) -> None:
    """With a low frame limit, Envoy closes the connection as flooded, and every request on it fails."""
    caller = build("full-duplex", change=few_frames, router=router)
    assert None in {each.intact for each in large_uploads(caller)}
    assert caller.stack.gateway.statistic("cluster.dualpool.http2.outbound_flood") > 0


def short_timer(document: Document) -> None:
    """Set the message_timeout of the other modes."""
    ext_proc(document)["message_timeout"] = "0.5s"


def test_router_that_pauses_in_the_response(build: Build) -> None:
    """A router that pauses longer than the other modes' message_timeout delays a response but does not lose it.

    A second Envoy with that timeout asks the same router. Its 504 shows that the pause was long enough.
    """
    caller = build("full-duplex")
    hasty = build("full-duplex", change=short_timer, router=caller.stack.router)
    slow = JSON | {"x-emulate-fault": "slow=0.5"}

    def ask(its: Caller) -> int:
        return its.http.post("/v1/chat/completions", content=BODY, headers=slow).status_code

    with ThreadPoolExecutor(2) as threads:
        patient, impatient = threads.submit(ask, caller), threads.submit(ask, hasty)
        eventually(lambda: caller.received() and hasty.received(), "both requests are at the pool")
        caller.stack.router.signal(signal.SIGSTOP)
        assert 504 == impatient.result()
        assert 1 == hasty.stack.gateway.statistic("http.ingress.ext_proc.message_timeouts")
        caller.stack.router.signal(signal.SIGCONT)
        assert 200 == patient.result()


def slow_checks(document: Document) -> None:
    """Make the router's health check so slow that it has no effect during a test."""
    check = cluster(document, "dualpool")["health_checks"][0]
    check |= {"interval": "60s", "no_traffic_interval": "60s"}


def no_outlier_detection(document: Document) -> None:
    """Disable outlier detection, too, so that the router is never ejected from its cluster."""
    slow_checks(document)
    del cluster(document, "dualpool")["outlier_detection"]


def statuses_after_a_kill(caller: Caller, requests: int, *, ejects: bool = False) -> list[int]:
    """Kill the router, send requests one after another, and return their statuses.

    If Envoy `ejects` it for the first, the second is sent after that: a client may be faster than Envoy.
    """

    def ask() -> int:
        return caller.http.post("/v1/chat/completions", content=BODY, headers=JSON).status_code

    def ejections() -> int:
        return caller.stack.gateway.statistic("cluster.dualpool.outlier_detection.ejections_enforced_total")

    before = ejections() if ejects else 0
    caller.stack.router.kill()
    first = ask()
    if ejects:
        eventually(lambda: ejections() > before, "the router is ejected")
    return [first, *(ask() for _ in range(requests - 1))]


def test_killed_router_is_ejected_at_once(build: Build) -> None:
    """The first failed request ejects a killed router; the long pool serves the following requests."""
    caller = build("full-duplex", change=slow_checks)
    statuses = statuses_after_a_kill(caller, 30, ejects=True)
    assert statuses.count(500) <= 2
    assert 200 == statuses[-1]


def statuses_after_a_return(
    build: Build, change: Callable[[Document], None], *, ejects: bool = False
) -> list[int]:
    """Kill the router, replace it, and kill it again when Envoy uses it; return the statuses after that."""
    caller = build("full-duplex", change=change)
    statuses_after_a_kill(caller, 3)
    again = build.replace_router(caller)
    eventually(lambda: went_short(again), "Envoy asks the router again")
    return statuses_after_a_kill(again, 30, ejects=ejects)


def went_short(caller: Caller) -> bool:
    """Send a short request; return whether it went to the short pool, that is, whether the router decided it."""
    response = caller.http.post("/v1/chat/completions", content=BODY, headers=JSON)
    return bool(response.headers.get("x-served-by") == "short")


def test_router_that_comes_and_goes_is_ejected_each_time(build: Build) -> None:
    """A router that is killed right after its return is ejected as quickly as one that ran for long."""
    statuses = statuses_after_a_return(build, slow_checks, ejects=True)
    assert statuses.count(500) <= 2
    assert 200 == statuses[-1]


def merged_updates(document: Document) -> None:
    """Let Envoy merge health updates over 6 s (default: 1 s): longer than the requests take on a busy machine."""
    slow_checks(document)
    cluster(document, "dualpool")["common_lb_config"]["update_merge_window"] = "6s"


def test_router_that_comes_and_goes_fails_requests_if_updates_are_merged(build: Build) -> None:
    """If Envoy merges health updates, it goes on to ask a router that it has already ejected."""
    assert statuses_after_a_return(build, merged_updates).count(500) > 2


def test_killed_router_keeps_failing_requests_without_outlier_detection(build: Build) -> None:
    """Without it, requests whose body is sent before the refusal fail until the health check notices."""
    caller = build("full-duplex", change=no_outlier_detection)
    assert statuses_after_a_kill(caller, 30).count(500) > 2


def test_a_stream_that_may_not_last(build: Build, mode: str, router: RouterProcess) -> None:
    """A max_stream_duration of the router's cluster loses a slower response in full duplex, and only there."""
    caller = build(mode, change=BITTEN["full-duplex-stream-cut"], router=router)
    response = caller.http.post("/v1/chat/completions", content=BODY, headers={**JSON, **SLOW})
    assert (500 if mode == "full-duplex" else 200) == response.status_code


REPEATS = ("retries-on-default-route", "redirects-on-default-route", "retries-by-clients")


@pytest.mark.parametrize("trap", ["", *REPEATS])
def test_a_body_with_trailers_on_a_route_with_retries(build: Build, router: RouterProcess, trap: str) -> None:
    """A body that ends in trailers arrives twice in a row where Envoy keeps it for a retry or a redirect."""
    caller = build("full-duplex", change=BITTEN.get(trap), router=router)
    asking = {"x_envoy_retry_on": "5xx"} if trap == "retries-by-clients" else {}
    with Http2Client(caller.stack.gateway.port) as client:
        stream = client.begin(f"{caller.root}/v1/chat/completions", **asking)
        client.send(stream, LONG, end=False)
        client.trailers(stream, x_checked="1")
        client.response(stream)
    ((pool, received),) = caller.received()
    assert ("long", len(LONG) * (2 if trap else 1)) == (pool, received.body_bytes)
