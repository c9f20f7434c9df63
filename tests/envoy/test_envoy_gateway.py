"""Envoy Gateway's own translation of deploy/envoy-gateway/, served by the real Envoy with the real router."""

import socket
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from extproc.cli.main import main
from tests.envoy.harness.building import addresses
from tests.envoy.harness.caller import Caller, Stack
from tests.envoy.harness.calls import LONG_TEXT, SHORT_TEXT, Call, chat, chat_stream
from tests.envoy.harness.gateway import Document, Envoy
from tests.envoy.harness.golden import bootstrap, golden
from tests.envoy.harness.http2 import Http2Client
from tests.envoy.harness.pools import MODEL, Pools
from tests.envoy.harness.promises import (
    CHAT,
    JSON,
    admits_large_heads,
    decides_and_learns,
    goes_long_without_router,
    repairs,
    strips_claims,
)
from tests.envoy.harness.raw import RawClient, chat_body
from tests.envoy.harness.router import RouterProcess
from tests.golden.translate import EGCTL, GOLDEN, question_digest, translated
from tests.traps.patched import FILTER, SETTINGS

LIMIT_BYTES = 16 << 20


@pytest.fixture(scope="module")
def start(pools: Pools) -> Iterator[Callable[[RouterProcess, Path], Stack]]:
    """Return a function that starts an Envoy with the translated configuration, in front of a given router."""
    running: list[Envoy] = []

    def started(router: RouterProcess, folder: Path) -> Stack:
        running.append(Envoy("envoy-gateway", bootstrap(addresses(router.address, pools)), folder))
        return Stack(running[-1], router, pools)

    yield started
    for envoy in running:
        envoy.terminate()


@pytest.fixture(scope="module")
def stack(
    start: Callable[[RouterProcess, Path], Stack], router: RouterProcess, tmp_path_factory: pytest.TempPathFactory
) -> Stack:
    """Start the stack that the tests of this module share."""
    return start(router, tmp_path_factory.mktemp("envoy-gateway"))


@pytest.fixture
def caller(stack: Stack) -> Iterator[Caller]:
    """Clients of the shared stack."""
    caller = Caller(stack)
    yield caller
    caller.close()


def test_the_translation_is_of_the_current_manifests() -> None:
    """The stored translation is of the current manifests; after a change, run `make golden`."""
    assert golden()["question_sha256"] == question_digest()


def test_the_translator_accepts_every_manifest() -> None:
    """No policy is in conflict, no reference is unresolved, and every patch applies."""
    conditions = golden()["conditions"]
    assert "EnvoyPatchPolicy llm" in conditions
    assert {"Accepted=True", "ResolvedRefs=True"} == {said for each in conditions.values() for said in each}


def test_the_checker_finds_no_trap_in_the_translation(capsys: pytest.CaptureFixture[str]) -> None:
    """`dualpool check envoy` finds no trap in the translated configuration."""
    assert 0 == main(["check", "envoy", str(GOLDEN)]), capsys.readouterr()


@pytest.mark.parametrize("call", [chat, chat_stream], ids=lambda call: call.__name__)
def test_goes_where_its_budget_fits_and_teaches(caller: Caller, call: Call) -> None:
    """Short requests go to the short pool, long ones to the long pool; the router learns from both responses."""
    decides_and_learns(caller, call)


def test_claims_of_clients_are_stripped(caller: Caller) -> None:
    """A long request that claims to be short goes long, with only the router's own headers on it."""
    strips_claims(caller)


def test_the_router_down(
    start: Callable[[RouterProcess, Path], Stack], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Without a router, everything goes to the long pool, whatever a client claims."""
    router = RouterProcess(tmp_path)
    request.addfinalizer(router.kill)
    caller = Caller(start(router, tmp_path))
    request.addfinalizer(caller.close)
    goes_long_without_router(router, caller)


def test_what_the_short_pool_refuses_the_long_pool_serves(caller: Caller) -> None:
    """The translated retry goes to the long pool after the short pool's first refusal."""
    repairs(caller)


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2"])
@pytest.mark.parametrize(
    ("size", "reason"), [(64 << 10, "early"), (100_000, "early"), (1 << 20, "early"), (10_000_000, None)]
)
def test_bodies_below_and_above_what_is_buffered(
    caller: Caller, version: str, size: int, reason: str | None
) -> None:
    """Bodies over the gateway's defaults (32 KiB, for HTTP/2 64) are read; those of 8 digits bypass the router."""
    body = chat_body(MODEL, "word " * (size // 5), max_tokens=16)
    client = caller.http2 if version == "HTTP/2" else caller.http
    response = client.post(CHAT, content=body, headers=JSON)
    assert version == response.http_version
    assert ("long", sha256(body).hexdigest()) == (
        response.headers["x-served-by"],
        response.headers["x-body-sha256"],
    )
    assert reason == caller.received()[-1][1].headers.get("x-token-budget-reason")


def test_a_body_over_the_limit_that_does_not_say_its_length(caller: Caller) -> None:
    """A chunked body is a 413 only over 16 MiB: exactly the limit that the policy sets."""
    statuses = [
        caller.http.post(CHAT, content=(b" " * 65536 for _ in range(size >> 16)), headers=JSON).status_code
        for size in (LIMIT_BYTES - (1 << 20), LIMIT_BYTES + (1 << 20))
    ]
    assert [400, 413] == statuses


@pytest.fixture
def stuck_pool() -> Iterator[str]:
    """Yield the address of a pool that accepts connections and reads nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def http2_options(document: Document) -> Document:
    """Return the HTTP/2 settings of the listener."""
    chain = document["staticResources"]["listeners"][0]["defaultFilterChain"]
    options: Document = chain["filters"][0]["typedConfig"]["http2ProtocolOptions"]
    return options


@pytest.mark.parametrize("window", ["as in the policy", "Envoy Gateway's default"])
def test_an_upload_that_is_not_read_and_the_other_requests_on_its_connection(
    router: RouterProcess, pools: Pools, tmp_path: Path, stuck_pool: str, window: str
) -> None:
    """A large upload to a pool that does not read it delays no other request on the same HTTP/2 connection.

    With 16 MiB for each stream, one upload uses up Envoy Gateway's 1 MiB for the connection. That is the
    fault without the fix.
    """
    document = bootstrap(addresses(router.address, pools) | {"pool_long": stuck_pool})
    if window == "Envoy Gateway's default":
        http2_options(document)["initialConnectionWindowSize"] = 1 << 20
    envoy = Envoy("envoy-gateway", document, tmp_path)
    try:
        with Http2Client(envoy.port) as client:
            upload = b" " * (40 << 20)
            assert client.send(client.begin(CHAT, content_length=str(len(upload))), upload) < len(upload)
            body = chat_body(MODEL, SHORT_TEXT, max_tokens=4)
            stream = client.begin(CHAT, content_length=str(len(body)))
            if window == "as in the policy":
                assert len(body) == client.send(stream, body)
                assert (200, "short") == (client.response(stream), client.headers[stream]["x-served-by"])
            else:
                assert 0 == client.send(stream, body)
    finally:
        envoy.terminate()


def test_heads_at_envoy_s_default_limits(caller: Caller) -> None:
    """The patch is effective: a request with 97 client headers leaves room for the router's."""
    admits_large_heads(caller)


def test_a_post_that_upgrades_does_not_wait(caller: Caller) -> None:
    """A POST that upgrades has no end of body: it goes to the long pool at once, on a route without the router."""
    with RawClient(caller.stack.gateway.port) as client:
        client.head(f"{caller.root}{CHAT}", connection="upgrade", upgrade="websocket")
        client.response()
    (entry,) = caller.access_log()
    assert (True, None) == ("llm-upgrade" in entry["route"], entry["reason"])


def test_a_filter_that_a_patch_inserts(
    router: RouterProcess, pools: Pools, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Instead of a policy's filter, the first one is in STREAMED with its flag, which policies do not have."""
    document = bootstrap(addresses(router.address, pools))
    manager = document["staticResources"]["listeners"][0]["defaultFilterChain"]["filters"][0]["typedConfig"]
    service = manager["httpFilters"].pop(0)["typedConfig"]["grpcService"]
    inserted = YAML(typ="safe", pure=True).load(FILTER % SETTINGS)
    inserted["typedConfig"]["grpcService"] = service
    manager["httpFilters"].insert(0, inserted)
    for each in manager["routeConfig"]["virtualHosts"][0]["routes"]:
        each.pop("typedPerFilterConfig", None)
    envoy = Envoy("envoy-gateway", document, tmp_path)
    request.addfinalizer(envoy.terminate)
    caller = Caller(Stack(envoy, router, pools))
    request.addfinalizer(caller.close)
    assert ["short", "long"] == [chat(caller, text)["x-served-by"] for text in (SHORT_TEXT, LONG_TEXT)]
    body = chat_body(MODEL, "word " * 200_000, max_tokens=16)
    assert sha256(body).hexdigest() == caller.http.post(CHAT, content=body, headers=JSON).headers["x-body-sha256"]
    assert "early" == caller.received()[-1][1].headers["x-token-budget-reason"]


@pytest.mark.skipif(not EGCTL.exists(), reason="the translator is built by `make golden`, in minutes")
def test_a_new_translation_equals_the_stored_one() -> None:
    """A new run of the translator gives the stored translation."""
    assert golden() == translated(EGCTL)
