"""What each trap of `dualpool check envoy` does on the real Envoy, where no other test shows it.

The patches are those in which the unit tests have the checker find the trap: so it cannot drift from what is true.
"""

import json
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from copy import deepcopy
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
import pytest

from extproc.cli.main import main
from tests.envoy.harness.building import Build, addresses
from tests.envoy.harness.caller import Caller
from tests.envoy.harness.calls import LONG_TEXT, SHORT_TEXT, chat
from tests.envoy.harness.eavesdropper import Eavesdropper, told
from tests.envoy.harness.gateway import (
    Document,
    Gateway,
    cluster,
    connection_manager,
    envoy_binary,
    ext_proc,
    moved_to,
    route,
    virtual_host,
)
from tests.envoy.harness.polling import eventually
from tests.envoy.harness.pools import MODEL, REFUSED_TOKENS, Pools
from tests.envoy.harness.raw import RawClient, chat_body
from tests.envoy.harness.router import TENANT_HEADER, RouterProcess
from tests.traps.bitten import BITTEN, MODES, bitten, endpoint_picker

JSON = {"content-type": "application/json"}
NOTHING: Mapping[str, str] = MappingProxyType({})
SLOW = {"x-emulate-fault": "slow=0.5"}
BODY = chat_body(MODEL, SHORT_TEXT, max_tokens=16)

PREVIOUS = {
    "@type": "type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
    "update_frequency": 2,
}

Bitten = Callable[..., Caller]


@pytest.fixture
def bite(build: Build, router: RouterProcess) -> Bitten:
    """Start an Envoy with one trap in it, before the shared router and the shared pools unless told otherwise."""

    def start(trap: str, then: Callable[[Document], None] | None = None, pools: Pools | None = None) -> Caller:
        def change(document: Document) -> None:
            BITTEN[trap](document)
            if then is not None:
                then(document)

        return build(MODES.get(trap, "streamed"), change=change, pools=pools, router=router)

    return start


@pytest.fixture
def eavesdropper() -> Iterator[Eavesdropper]:
    """Run a processor that notes what it is told, until the test ends."""
    eavesdropper = Eavesdropper()
    yield eavesdropper
    eavesdropper.stop()


def post(caller: Caller, body: bytes = BODY, headers: Mapping[str, str] = NOTHING) -> httpx.Response:
    """Send a chat request as it is."""
    return caller.http.post("/v1/chat/completions", content=body, headers={**JSON, **headers})


def test_default_route_to_the_short_pool(bite: Bitten) -> None:
    """A long prompt ends in the short pool, which refuses it: the client's error."""
    response = post(bite("default-route-not-largest"), chat_body(MODEL, LONG_TEXT, max_tokens=16))
    assert ("short", 400) == (response.headers["x-served-by"], response.status_code)


def test_short_route_behind_the_default_one(bite: Bitten) -> None:
    """The router decides for short, and no request ever gets there."""
    caller = bite("pool-without-route")
    assert "long" == chat(caller, SHORT_TEXT)["x-served-by"]
    assert ["short"] == [entry["pool"] for entry in caller.access_log()]


def refused(caller: Caller, headers: Mapping[str, str] = NOTHING) -> httpx.Response:
    """Send what the router takes for short, and the short pool of the tests refuses."""
    return post(caller, chat_body(MODEL, SHORT_TEXT, max_tokens=REFUSED_TOKENS), headers)


def test_refusal_without_a_retry(bite: Bitten) -> None:
    """The short pool's 400 is the client's."""
    response = refused(bite("repair-missing"))
    assert ("short", 400) == (response.headers["x-served-by"], response.status_code)


def test_retry_without_previous_priorities(bite: Bitten) -> None:
    """The request is tried twice in the short pool, and refused twice."""
    caller = bite("repair-same-pool")
    response = refused(caller)
    assert ("short", 400) == (response.headers["x-served-by"], response.status_code)
    assert ["short", "short"] == [pool for pool, _ in caller.received()]


def test_more_repairs_than_the_breaker_lets_through(bite: Bitten) -> None:
    """Of many refusals at the same time some are the clients'."""
    caller = bite("repair-limit")
    with ThreadPoolExecutor(12) as threads:
        # Slow, so that the retries are all at once.
        statuses = list(threads.map(lambda _: refused(caller, SLOW).status_code, range(12)))
    assert {200, 400} == set(statuses)
    assert caller.stack.gateway.statistic("cluster.short_then_long.upstream_rq_retry_overflow") > 0


def with_variants(changes: Mapping[str, Callable[[Document], None]]) -> Callable[[Document], None]:
    """Put a copy of the short pool's route before it for each change, for requests that name it in `x-variant`."""

    def change(document: Document) -> None:
        routes, short = virtual_host(document)["routes"], route(document, "short")
        for name, bend in changes.items():
            variant = deepcopy(short)
            variant["name"] = name
            variant["match"]["headers"].append({"name": "x-variant", "string_match": {"exact": name}})
            bend(variant)
            routes.insert(routes.index(short), variant)

    return change


def of_retry(**fields: Any) -> Callable[[Document], None]:
    """Say something else in a route's retry policy."""
    return lambda variant: variant["route"]["retry_policy"].update(fields)


def of_action(**fields: Any) -> Callable[[Document], None]:
    """Say something else in a route's action."""
    return lambda variant: variant["route"].update(fields)


def test_repairs_that_do_not_happen(build: Build, router: RouterProcess) -> None:
    """A policy that tries nothing again, or some requests, in the same pool, or without a body repairs nothing."""
    late = {"name": "envoy.retry_priorities.previous_priorities", "typed_config": dict(PREVIOUS)}
    changes = {
        "none": of_retry(num_retries=0),
        "some": of_retry(retriable_request_headers=[{"name": "x-may-be-retried", "present_match": True}]),
        "late": of_retry(retry_priority=late),
        "small": lambda variant: variant.update(request_body_buffer_limit=64),
        "small-of-old": lambda variant: variant.update(per_request_buffer_limit_bytes=64),
    }
    caller = build("streamed", change=with_variants(changes), router=router)
    assert 200 == refused(caller).status_code
    assert dict.fromkeys(changes, 400) == {
        name: refused(caller, {"x-variant": name}).status_code for name in changes
    }


def test_other_times_cut_a_response(build: Build, router: RouterProcess) -> None:
    """Times for a try, for an exchange and for its silence end a response as the route's timeout does."""
    changes = {
        "try": of_retry(per_try_timeout="0.2s"),
        "silent-try": of_retry(per_try_idle_timeout="0.2s"),
        "exchange": of_action(max_stream_duration={"max_stream_duration": "0.2s"}),
        "silence": of_action(idle_timeout="0.2s"),
    }
    caller = build("streamed", change=with_variants(changes), router=router)
    assert 200 == post(caller, headers=SLOW).status_code
    assert dict.fromkeys(changes, 504) == {
        name: post(caller, headers={**SLOW, "x-variant": name}).status_code for name in changes
    }


def test_route_timeout_cuts_a_response(bite: Bitten) -> None:
    """A response that takes longer than the route's timeout is Envoy's own 504."""
    assert 504 == post(bite("response-cut"), headers={"x-emulate-fault": "slow=3"}).status_code


def refusal(document: Document, folder: Path) -> str:
    """Return what Envoy says against a configuration."""
    path = folder / "envoy.json"
    path.write_text(json.dumps(document))
    command = [envoy_binary(), "--mode", "validate", "-c", str(path), "--log-level", "error"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode != 0
    return result.stdout + result.stderr


def test_envoy_refuses_full_duplex_without_trailers(tmp_path: Path) -> None:
    """The file is not valid, in Envoy's own words."""
    assert "trailer" in refusal(bitten("full-duplex-without-trailers"), tmp_path)


def test_buffered_response_over_the_limit(bite: Bitten) -> None:
    """A response that is larger than what Envoy holds is its own 500; a small one passes."""

    def holds_little(document: Document) -> None:
        document["static_resources"]["listeners"][0]["per_connection_buffer_limit_bytes"] = 16_384

    caller = bite("response-buffered", holds_little)
    sizes = {count: {"model": MODEL, "input": ["a word or two"] * count} for count in (1, 400)}
    asked = {count: caller.http.post("/v1/embeddings", json=body) for count, body in sizes.items()}
    assert {1: 200, 400: 500} == {count: response.status_code for count, response in asked.items()}


def test_route_cache_that_is_kept(bite: Bitten) -> None:
    """The header is set, the pool sees it, and the route is the long one all the same."""
    caller = bite("route-cache-kept")
    assert "long" == chat(caller, SHORT_TEXT)["x-served-by"]
    ((_, received),) = caller.received()
    assert "short" == received.headers["x-token-budget-pool"]


def test_replies_that_are_not_waited_for(bite: Bitten) -> None:
    """The router decides for short, and Envoy has gone on."""
    assert "long" == chat(bite("only-observed"), SHORT_TEXT)["x-served-by"]


def test_headers_that_are_not_taken(bite: Bitten) -> None:
    """The pool's header is dropped; where that is an error, it is the client's."""

    def fails(document: Document) -> None:
        ext_proc(document)["mutation_rules"]["disallow_is_error"] = True

    assert "long" == chat(bite("headers-refused"), SHORT_TEXT)["x-served-by"]
    assert 500 == post(bite("headers-refused", fails)).status_code


def test_router_down_and_failing_closed(build: Build) -> None:
    """With the router down, every request is an error."""
    caller = build("streamed", change=BITTEN["fail-closed"])
    caller.stack.router.kill()
    assert post(caller).status_code >= 500


def test_namespace_that_is_not_received(bite: Bitten) -> None:
    """Requests are routed, and the access log knows nothing of it."""
    caller = bite("namespace-dropped")
    assert "short" == chat(caller, SHORT_TEXT)["x-served-by"]
    assert [None] == [entry["pool"] for entry in caller.access_log()]


def test_tenant_that_is_not_forwarded(bite: Bitten) -> None:
    """A router without the path routes nothing; one without the tenant learns under no tenant's name."""

    def no_tenant(document: Document) -> None:
        patterns = ext_proc(document)["forward_rules"]["allowed_headers"]["patterns"]
        patterns[:] = [each for each in patterns if each != {"exact": TENANT_HEADER}] + [{"exact": ":path"}]

    assert "long" == chat(bite("headers-not-forwarded"), SHORT_TEXT)["x-served-by"]
    caller = bite("headers-not-forwarded", no_tenant)
    assert "short" == chat(caller, SHORT_TEXT)["x-served-by"]
    assert 0 == caller.observations()


def test_deadline_behind_the_message_timeout(bite: Bitten) -> None:
    """A slow upload fails open undecided instead of being decided: no reason, and a failure is counted."""
    caller = bite("message-timeout")
    timeouts = "http.ingress.ext_proc.message_timeouts"
    with RawClient(caller.stack.gateway.port) as client:
        client.head(f"{caller.root}/v1/chat/completions", content_length=str(len(BODY)))
        client.send(BODY[:50])
        eventually(lambda: caller.stack.gateway.statistic(timeouts) == 1, "Envoy gives the router up")
        client.send(BODY[50:])
        assert "long" == client.response().getheader("x-served-by")
    assert [None] == [entry["reason"] for entry in caller.access_log()]


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[Callable[..., RouterProcess]]:
    """Start routers whose pools are so large that no body of these tests is decided early, by its length alone."""
    pools = [{"name": "short", "max_budget_tokens": 2_000_000}, {"name": "long", "max_budget_tokens": 4_000_000}]
    with ExitStack() as ending:

        def start(**settings: object) -> RouterProcess:
            (tmp_path / "patient").mkdir()
            process = RouterProcess(tmp_path / "patient", pools=pools, **settings)
            ending.callback(process.kill)
            return process

        yield start


def test_buffer_below_what_the_router_holds(build: Build, patient: Callable[..., RouterProcess]) -> None:
    """A body between the two limits waits in vain: it is decided at the deadline, and not by its length."""
    caller = build("streamed", change=BITTEN["buffer-below-early-decision"], router=patient())
    assert "long" == post(caller, chat_body(MODEL, "word " * 60_000, max_tokens=16)).headers["x-served-by"]
    assert ["deadline"] == [entry["reason"] for entry in caller.access_log()]


def test_body_over_the_message_limit(build: Build, patient: Callable[..., RouterProcess]) -> None:
    """The message is refused by gRPC, and the filter fails open: the body is whole, and nobody has decided.

    The same trap with smaller numbers: the gateway holds 32 MiB, and the router takes 1 MiB in a message.
    """
    listen = {"address": "127.0.0.1:0", "max_message_bytes": 1 << 20}
    caller = build("buffered", router=patient(listen=listen, exchange={"max_held_bytes": 32 << 20}))
    response = post(caller, chat_body(MODEL, "word " * 800_000, max_tokens=16))
    assert "long" == response.headers["x-served-by"]
    assert [None] == [entry["reason"] for entry in caller.access_log()]


def test_claim_that_is_not_stripped(build: Build) -> None:
    """With the router down, a client that claims to be short is believed."""
    caller = build("streamed", change=BITTEN["spoofable-header"])
    caller.stack.router.kill()
    assert "short" == post(caller, headers={"x-token-budget-pool": "short"}).headers["x-served-by"]


def test_router_asked_over_http_1(bite: Bitten, tmp_path: Path) -> None:
    """With the health check Envoy refuses it; without, no message reaches the router, and all goes long."""

    def unchecked(document: Document) -> None:
        del cluster(document, "dualpool")["health_checks"]

    assert "must support HTTP/2" in refusal(bitten("router-without-http2"), tmp_path)
    caller = bite("router-without-http2", unchecked)
    assert "long" == chat(caller, SHORT_TEXT)["x-served-by"]
    assert [None] == [entry["reason"] for entry in caller.access_log()]


def test_more_requests_than_the_router_s_breaker_lets_through(bite: Bitten) -> None:
    """Of many requests at the same time most are never decided: the filter fails open."""
    caller = bite("router-breakers-small")
    with ThreadPoolExecutor(12) as threads:
        served = [
            each.headers["x-served-by"] for each in threads.map(lambda _: post(caller, headers=SLOW), range(12))
        ]
    assert "long" in served
    assert caller.stack.gateway.statistic("http.ingress.ext_proc.failure_mode_allowed") > 0


def test_router_that_hangs_without_a_limit(build: Build) -> None:
    """Nothing keeps requests from piling up at a router that hangs: all of them wait for it."""

    def patient(document: Document) -> None:
        BITTEN["router-breakers-large"](document)
        # Until all are there, however slow this machine is.
        ext_proc(document)["message_timeout"] = "20s"

    caller = build("streamed", change=patient)
    caller.stack.router.signal(signal.SIGSTOP)
    waiting = "cluster.dualpool.upstream_rq_active"
    with ThreadPoolExecutor(12) as threads:
        asked = [threads.submit(post, caller) for _ in range(12)]
        eventually(lambda: caller.stack.gateway.statistic(waiting) == len(asked), "all wait for the router")
        caller.stack.router.signal(signal.SIGCONT)
        assert {200} == {each.result().status_code for each in asked}


def test_one_connection_for_each_address(build: Build, router: RouterProcess) -> None:
    """Many requests at once are one connection to the router's address: behind it, one process gets them all."""
    caller = build("streamed", router=router)
    with ThreadPoolExecutor(12) as threads:
        assert {"short"} == {
            each.headers["x-served-by"] for each in threads.map(lambda _: post(caller), range(48))
        }
    assert 48 == caller.stack.gateway.statistic("http.ingress.ext_proc.streams_started")
    assert 1 == caller.stack.gateway.statistic("cluster.dualpool.upstream_cx_http2_total")


def test_one_address_of_several_servers(tmp_path: Path) -> None:
    """A LOGICAL_DNS cluster is one address at a time: Envoy does not even take two servers in it."""
    document = bitten("cluster-ip")
    (locality,) = cluster(document, "pool_short")["load_assignment"]["endpoints"]
    locality["lb_endpoints"] *= 2
    assert "LOGICAL_DNS clusters must have a single" in refusal(document, tmp_path)


def test_compressor_behind_the_router(
    build: Build, pools: Pools, eavesdropper: Eavesdropper, tmp_path: Path
) -> None:
    """The router gets what the pool sent uncompressed with a content-encoding."""
    gateway = Gateway("streamed", addresses(eavesdropper.address, pools), tmp_path, BITTEN["compressor-after"])
    try:
        httpx.get(f"{gateway.url}/v1/models", headers={"accept-encoding": "gzip"}).raise_for_status()
    finally:
        gateway.terminate()
    _, message = eavesdropper.messages
    assert "content-encoding" in told(message)


@pytest.mark.parametrize("before", [True, False])
def test_picker_before_the_router(
    build: Build,
    router: RouterProcess,
    eavesdropper: Eavesdropper,
    before: bool,  # noqa: FBT001
) -> None:
    """A picker before the router is asked when nothing is decided yet; one behind it knows the pool."""

    def with_picker(document: Document) -> None:
        endpoint_picker(document, "picker", before=before)
        moved_to(document, "picker", eavesdropper.address)
        (picker,) = (each for each in connection_manager(document)["http_filters"] if each["name"] == "picker")
        # What this one does with bodies is not the question.
        picker["typed_config"]["processing_mode"] = {"request_body_mode": "NONE"}

    caller = build("streamed", change=with_picker, router=router)
    assert "short" == chat(caller, SHORT_TEXT)["x-served-by"]
    (message,) = eavesdropper.messages
    assert before == ("x-token-budget-pool" not in told(message))


def test_authentication_behind_the_router(bite: Bitten, router: RouterProcess) -> None:
    """A request that is refused was counted and decided all the same."""
    before = router.metric("dualpool_requests_total")
    caller = bite("auth-after")
    assert 403 == post(caller).status_code
    assert before + 1 == router.metric("dualpool_requests_total")


def test_a_running_envoy_is_checked(build: Build, capsys: pytest.CaptureFixture[str]) -> None:
    """--live finds the trap in what Envoy says of itself; with --router it goes by what the router says."""
    caller = build("streamed", change=BITTEN["fail-closed"], exchange={"deadline_ms": 450})
    admin, router = str(caller.stack.gateway.admin.base_url), str(caller.stack.router.admin.base_url)

    def found(*arguments: str) -> list[str]:
        assert 1 == main(["check", "envoy", "--live", admin, *arguments, "--json"])
        findings = json.loads(capsys.readouterr().out)["found"]
        assert all(each["source"] == admin and each["path"].startswith("configs[") for each in findings)
        return [each["trap"] for each in findings]

    assert ["fail-closed"] == found()
    assert ["fail-closed", "message-timeout"] == sorted(found("--router", router))
