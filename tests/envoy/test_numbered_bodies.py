"""Bodies of numbered words arrive without gaps or repetitions, whatever happens to the router in mid-body.

A short form of `python -m bench --only bodies`.
"""

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from socketserver import BaseRequestHandler

import pytest

from bench.bodies import DEFAULT_RETRIES, NO_RETRIES, retries_on_the_default_route, uploads
from bench.numbered import break_in, chat_body
from bench.uploads import Outcome, Upload, upload_all
from tests.envoy.harness.gateway import (
    FILES,
    Document,
    Gateway,
    checks_often,
    cluster,
    connection_manager,
    load,
    route,
    virtual_host,
    waits_briefly,
)
from tests.envoy.harness.numbered import NumberedPools
from tests.envoy.harness.polling import eventually
from tests.envoy.harness.router import RouterProcess
from tests.envoy.harness.tcp import serving
from tests.traps.bitten import BITTEN, believe_clients

SIZES = (64 << 10, 2 << 20)
ROUNDS = 20  # of a race that Envoy loses for about half of the bodies
# Headers with which an internal client asks for retries, whatever the route's policy is.
RETRY_FIELDS = ("x-envoy-retry-on: 5xx,reset", "x-envoy-retry-grpc-on: cancelled")


@dataclass(frozen=True)
class Served:
    """An Envoy in front of the pools, and its router."""

    gateway: Gateway
    router: RouterProcess


Disturbance = Callable[[Served], None]
Change = Callable[[Document], None]


@pytest.fixture(scope="module")
def numbered_pools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NumberedPools]:
    """Run two pools that report what arrived."""
    pools = NumberedPools(tmp_path_factory.mktemp("pools"))
    yield pools
    pools.stop()


@pytest.fixture
def serve(tmp_path: Path, numbered_pools: NumberedPools) -> Iterator[Callable[..., Served]]:
    """Return a function that starts an Envoy and its own router; both are ended after the test."""
    with ExitStack() as ending:

        def start(mode: str, change: Change | None = None) -> Served:
            router = RouterProcess(tmp_path)
            ending.callback(router.kill)
            addresses = numbered_pools.addresses | {"dualpool": router.address}
            gateway = Gateway(mode, addresses, tmp_path, change)
            ending.callback(gateway.terminate)
            return Served(gateway, router)

        yield start


def undisturbed(_: Served) -> None:
    """Do nothing to the router."""


def stopped(served: Served) -> None:
    """Stop the router until Envoy times it out.

    In full duplex Envoy never does, so the router continues at once. In buffered mode Envoy asks the router only
    when a body has ended, so the timeout comes after this function.
    """
    served.router.signal(signal.SIGSTOP)
    if "full-duplex" in served.gateway.name:
        served.router.signal(signal.SIGCONT)
    elif "streamed" in served.gateway.name:
        eventually(lambda: served.gateway.statistic("http.ingress.ext_proc.message_timeouts") > 0, "a timeout")


def killed(served: Served) -> None:
    """Kill the router."""
    served.router.kill()


def send(
    served: Served,
    between: Disturbance,
    sizes: tuple[int, ...] = SIZES,
    fields: tuple[str, ...] = (),
    path: str = "",
) -> list[Outcome]:
    """Send a body of each size, path and framing at once, or all to one path; call `between` in the middle."""

    async def disturb() -> None:
        await asyncio.to_thread(between, served)

    sent = [replace(each, fields=fields, path=path or each.path) for each in uploads(sizes)]
    return asyncio.run(upload_all(served.gateway.port, sent, disturb))


@pytest.mark.parametrize("between", [undisturbed, stopped, killed])
def test_every_body_arrives_as_it_was_sent(serve: Callable[..., Served], mode: str, between: Disturbance) -> None:
    """Whether the router keeps running, stops or dies in mid-upload, no pool serves a damaged body.

    In full duplex, requests fail if the router dies, and their clients get an error.
    """
    served = serve(mode, waits_briefly if between is stopped and mode != "full-duplex" else None)
    outcomes = send(served, between)
    assert [] == [each for each in outcomes if each.intact is False]
    if (mode, between) != ("full-duplex", killed):
        assert {(200, True)} == {(each.status, each.intact) for each in outcomes}


def test_every_body_arrives_with_no_router(serve: Callable[..., Served], mode: str) -> None:
    """If the router is down before the first byte, every body reaches the long pool complete."""
    served = serve(mode, checks_often)
    served.router.kill()
    gateway = served.gateway
    eventually(
        lambda: gateway.statistic("cluster.dualpool.membership_healthy") == 0,
        "Envoy has noticed that the router is down",
    )
    outcomes = send(served, undisturbed)
    assert {(200, "long", True)} == {(each.status, each.pool, each.intact) for each in outcomes}


def test_every_body_arrives_when_the_router_has_no_address(serve: Callable[..., Served]) -> None:
    """Envoy notices a fleet scaled to zero before it sends a body, so requests succeed even in full duplex."""

    def nameless(document: Document) -> None:
        endpoint = cluster(document, "dualpool")["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
        endpoint["address"]["socket_address"]["address"] = "no-router.invalid"

    outcomes = send(serve("full-duplex", nameless), undisturbed)
    assert {(200, "long", True)} == {(each.status, each.pool, each.intact) for each in outcomes}


def ask_for_retries(document: Document) -> None:
    """Let the default route add the header by which internal clients ask for retries."""
    added = {"header": {"key": "x-envoy-retry-on", "value": "5xx"}}
    route(document, "long")["request_headers_to_add"] = [added]


def ask_by_a_filter(document: Document) -> None:
    """Let a filter add it, on all routes that do not remove it."""
    append = {"header": {"key": "x-envoy-retry-on", "value": "5xx"}}
    kind = "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation"
    config = {"@type": kind, "mutations": {"request_mutations": [{"append": append}]}}
    connection_manager(document)["http_filters"].insert(0, {"name": "mutation", "typed_config": config})
    del route(document, "long")["request_headers_to_remove"]


def retry_below_models(document: Document) -> None:
    """Give retries to what is below a path at which requests themselves have no bodies."""
    action = {"cluster": "pool_long", "timeout": "0s", "retry_policy": DEFAULT_RETRIES}
    below = {"name": "models", "match": {"path_separated_prefix": "/v1/models"}, "route": action}
    virtual_host(document)["routes"].insert(0, below)


BELOW_MODELS = "retries below /v1/models"
CORRUPTING = {
    **{name: BITTEN[name] for name in ("retries-on-default-route", "redirects-on-default-route")},
    "retries-by-clients": BITTEN["retries-by-clients"],
    "retries that a route asks for": ask_for_retries,
    "retries that a filter asks for": ask_by_a_filter,
    BELOW_MODELS: retry_below_models,
}


@pytest.mark.parametrize("trap", CORRUPTING)
def test_retries_on_the_default_route_corrupt_bodies(serve: Callable[..., Served], trap: str) -> None:
    """In streamed mode, retries or redirects on the default route duplicate the head of bodies, with status 200.

    A client that Envoy counts as internal can ask for retries itself.

    This is a fault of Envoy (envoy#36119), shown without the fix. It is a race, so bodies are sent until one of
    them is corrupted. If none is in all rounds, Envoy may have fixed it.
    """
    served = serve("streamed", CORRUPTING[trap])
    fields = RETRY_FIELDS if trap == "retries-by-clients" else ()
    path = "/v1/models/m:predict" if trap == BELOW_MODELS else ""
    rounds = (send(served, undisturbed, fields=fields, path=path) for _ in range(ROUNDS))
    broken = ([each for each in outcomes if each.intact is False] for outcomes in rounds)
    corrupted = next(filter(None, broken), None)
    if corrupted is None:
        pytest.skip(f"no body was corrupted in {ROUNDS} rounds: envoy#36119 did not happen here, or is fixed")
    assert {200} == {each.status for each in corrupted}
    assert all(" after " in each.broken for each in corrupted)


def test_retries_that_internal_clients_ask_for_are_none(serve: Callable[..., Served]) -> None:
    """Even to clients that Envoy trusts, the files' default route gives no retries, so bodies arrive complete."""
    served = serve("streamed", believe_clients)
    outcomes = [each for _ in range(3) for each in send(served, undisturbed, fields=RETRY_FIELDS)]
    assert {(200, True)} == {(each.status, each.intact) for each in outcomes}


def test_retries_merged_away_are_harmless(serve: Callable[..., Served]) -> None:
    """Merging an unknown retry condition over a default policy disables retries, so bodies arrive complete."""

    def merged_away(document: Document) -> None:
        route(document, "long")["route"]["retry_policy"] = DEFAULT_RETRIES | NO_RETRIES

    served = serve("streamed", merged_away)
    assert {(200, True)} == {(each.status, each.intact) for each in send(served, undisturbed)}


@pytest.mark.parametrize("mode", ["buffered", "full-duplex"])
def test_retries_on_the_default_route_are_harmless_elsewhere(serve: Callable[..., Served], mode: str) -> None:
    """The other modes forward no body before its end or its echo: retries duplicate nothing without trailers."""
    served = serve(mode, retries_on_the_default_route)
    assert {(200, True)} == {(each.status, each.intact) for each in send(served, undisturbed)}


@pytest.mark.parametrize("name", [path.stem for path in FILES.glob("*.yaml")])
def test_only_the_short_route_has_retries(name: str) -> None:
    """Neither the virtual host nor any route that may serve a request in mid-body has a retry policy."""

    def retried(document: Document) -> set[str]:
        host = virtual_host(document)
        assert "retry_policy" not in host
        return {each["name"] for each in host["routes"] if "retry_policy" in each["route"]}

    found = retried(load(name))
    assert {"short", "small_body"} <= found
    assert all(route.startswith("short") for route in found - {"small_body"})


class Accepting(BaseRequestHandler):
    """A server that closes a connection as soon as it has accepted it."""


def test_uploads_do_not_wait_for_one_that_gets_no_connection() -> None:
    """When Envoy dies while uploads connect, those that connect and those that are refused end with status 0."""
    upload = Upload("/", chat_body(5_000), chunked=False)

    async def nothing() -> None:
        pass

    async def uploaded(port: int) -> list[Outcome]:
        return await asyncio.wait_for(upload_all(port, [upload] * 3, nothing), 20)

    with serving(Accepting) as port:
        assert [Outcome(upload, 0)] * 3 == asyncio.run(uploaded(port))
    with socket.socket() as refusing:
        refusing.bind(("127.0.0.1", 0))
        assert [Outcome(upload, 0)] * 3 == asyncio.run(uploaded(refusing.getsockname()[1]))


def test_breaks_are_found() -> None:
    """`break_in` finds missing and repeated words, and finds nothing in a complete body."""
    body = chat_body(5_000)
    assert "" == break_in(body)
    assert "20 after 9" in break_in(body.replace(body[body.find(b"00000010") : body.find(b"00000020")], b""))
    half = body.find(b"00000200")
    assert "0 after 199" in break_in(body[:half] + body)
