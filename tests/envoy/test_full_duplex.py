"""What full duplex can do to others, and what the file does against it: the faults with and without."""

import asyncio
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from bench.numbered import chat_body as numbered_body
from bench.uploads import Outcome, Upload, upload_all
from tests.envoy.harness.building import Build
from tests.envoy.harness.caller import Caller
from tests.envoy.harness.calls import SHORT_TEXT
from tests.envoy.harness.gateway import Document, cluster, ext_proc
from tests.envoy.harness.polling import eventually
from tests.envoy.harness.pools import MODEL
from tests.envoy.harness.raw import chat_body
from tests.envoy.harness.router import RouterProcess

JSON = {"content-type": "application/json"}
BODY = chat_body(MODEL, SHORT_TEXT, max_tokens=16)


def http2(document: Document) -> Document:
    """Return the HTTP/2 settings of the router's cluster."""
    options = cluster(document, "dualpool")["typed_extension_protocol_options"]
    settings: Document = next(iter(options.values()))["explicit_http_config"]["http2_protocol_options"]
    return settings


def few_frames(document: Document) -> None:
    """Take 40 waiting frames for a flood, not Envoy's 10,000: 10 uploads of 2 MiB do then what 40 of 12 did."""
    http2(document)["max_outbound_frames"] = 40


def large_uploads(caller: Caller) -> list[Outcome]:
    """Send some at once."""
    body = numbered_body(2 << 20)
    uploads = [Upload(f"{caller.root}/v1/chat/completions", body, chunked=False)] * 10

    async def nothing() -> None:
        pass

    return asyncio.run(upload_all(caller.stack.gateway.port, uploads, nothing))


def test_large_uploads_do_not_flood(build: Build, router: RouterProcess) -> None:
    """Large uploads at once, on one connection to the router, all arrive whole."""
    caller = build("full-duplex", router=router)
    assert {True} == {each.intact for each in large_uploads(caller)}


def test_large_uploads_flood_at_a_low_limit(build: Build, router: RouterProcess) -> None:
    """Where frames are limited, Envoy closes the connection as flooded, and everybody on it gets an error."""
    caller = build("full-duplex", change=few_frames, router=router)
    assert None in {each.intact for each in large_uploads(caller)}
    assert caller.stack.gateway.statistic("cluster.dualpool.http2.outbound_flood") > 0


def short_timer(document: Document) -> None:
    """Give a response as little time as the other modes do."""
    ext_proc(document)["message_timeout"] = "0.5s"


def test_router_that_pauses_in_the_response(build: Build) -> None:
    """A router that is busy for longer than the other modes' message_timeout delays a response; it loses none.

    A second Envoy asks the same router with that time-out: it makes a 504 of the pause, and is the clock.
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
    """Have the health check of the router know nothing for the length of a test."""
    check = cluster(document, "dualpool")["health_checks"][0]
    check |= {"interval": "60s", "no_traffic_interval": "60s"}


def no_outlier_detection(document: Document) -> None:
    """The same, and leave the router in its cluster whatever it does."""
    slow_checks(document)
    del cluster(document, "dualpool")["outlier_detection"]


def statuses_after_a_kill(caller: Caller, requests: int) -> list[int]:
    """Kill the router, and send one request after the other."""
    caller.stack.router.kill()
    return [
        caller.http.post("/v1/chat/completions", content=BODY, headers=JSON).status_code for _ in range(requests)
    ]


def test_killed_router_is_left_alone_at_once(build: Build) -> None:
    """The first request that a killed router fails has it ejected; those after it are served by the long pool."""
    caller = build("full-duplex", change=slow_checks)
    statuses = statuses_after_a_kill(caller, 30)
    assert statuses.count(500) <= 2
    assert 200 == statuses[-1]


def statuses_after_it_came_back(build: Build, change: Callable[[Document], None]) -> list[int]:
    """Kill the router as soon as Envoy asks it again after it was killed; send one request after the other."""
    caller = build("full-duplex", change=change)
    statuses_after_a_kill(caller, 3)
    again = build.replace_router(caller)
    eventually(lambda: went_short(again), "Envoy asks the router again")
    return statuses_after_a_kill(again, 30)


def went_short(caller: Caller) -> bool:
    """Send a request; return whether the router decided it."""
    response = caller.http.post("/v1/chat/completions", content=BODY, headers=JSON)
    return bool(response.headers.get("x-served-by") == "short")


def test_router_that_comes_and_goes_is_left_alone_each_time(build: Build) -> None:
    """A router that is killed right after it came back is ejected as quickly as one that served for long."""
    statuses = statuses_after_it_came_back(build, slow_checks)
    assert statuses.count(500) <= 2
    assert 200 == statuses[-1]


def gathered_news(document: Document) -> None:
    """Have Envoy gather the news of the router's health for longer than the requests take (1 s unless set)."""
    slow_checks(document)
    cluster(document, "dualpool")["common_lb_config"]["update_merge_window"] = "2s"


def test_router_that_comes_and_goes_fails_requests_where_news_are_gathered(build: Build) -> None:
    """Where Envoy gathers the news, it asks on, though it has ejected the router."""
    assert statuses_after_it_came_back(build, gathered_news).count(500) > 2


def test_killed_router_goes_on_to_fail_requests_without_outlier_detection(build: Build) -> None:
    """Without it, requests are errors until the health check knows: all whose body is sent before the refusal."""
    caller = build("full-duplex", change=no_outlier_detection)
    assert statuses_after_a_kill(caller, 30).count(500) > 2
