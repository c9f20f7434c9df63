"""Filters after the router's that cannot stand how Envoy passes bodies on to them, on the real Envoy."""

import asyncio
import signal
from collections.abc import Iterator
from hashlib import sha256

import httpx
import pytest

from bench.numbered import chat_body
from bench.uploads import Upload, upload_all
from tests.envoy.harness.biting import Bitten
from tests.envoy.harness.building import Build
from tests.envoy.harness.caller import Caller
from tests.envoy.harness.gateway import Document, connection_manager, route
from tests.envoy.harness.router import RouterProcess
from tests.traps.bitten import BITTEN
from tests.traps.bitten_chain import EXT_PROC, authorization, insert

FILES = "file_system_buffer.v3.FileSystemBufferFilterConfig"
JSON = {"content-type": "application/json"}
PIECE_BYTES = 64 << 10
LARGE = chat_body(3 << 20)
TRIES = 200  # of a race that Envoy loses for about a third of the bodies
ROUNDS = 20  # Envoy has crashed in the first one


def send(caller: Caller, body: bytes) -> httpx.Response:
    """Send a body without a content-length."""

    def pieces() -> Iterator[bytes]:
        for at in range(0, len(body), PIECE_BYTES):
            yield body[at : at + PIECE_BYTES]

    return caller.http.post("/v1/chat/completions", content=pieces(), headers=JSON)


def arrived_whole(response: httpx.Response, body: bytes) -> bool:
    """Return whether the pool received the body as it was sent."""
    return bool(sha256(body).hexdigest() == response.headers["x-body-sha256"])


def roomy(document: Document) -> None:
    """Let Envoy buffer 16 MiB of each connection, more than a whole body."""
    document["static_resources"]["listeners"][0]["per_connection_buffer_limit_bytes"] = 16 << 20


def in_front(document: Document) -> None:
    """Move the filter that is behind the router's before it."""
    filters = connection_manager(document)["http_filters"]
    at = [each["name"] for each in filters].index(EXT_PROC)
    filters.insert(at, filters.pop(at + 1))


def test_a_filter_that_waits_after_the_router_s_in_full_duplex(bite: Bitten) -> None:
    """The pool gets the beginning of a body as if it were all of it, even if Envoy's buffer holds the whole body.

    This is a fault of Envoy, shown without the fix. It is a race, so bodies are sent until one of them is cut.
    """
    caller = bite("waiting-filter-after", roomy)
    assert not all(arrived_whole(send(caller, LARGE), LARGE) for _ in range(TRIES))


def test_a_filter_that_waits_before_the_router_s_in_full_duplex(bite: Bitten) -> None:
    """Before the router's, the same filter does no harm: every body arrives whole."""
    caller = bite("waiting-filter-after", in_front)
    assert all(arrived_whole(send(caller, LARGE), LARGE) for _ in range(20))


def hasty(document: Document) -> None:
    """Let the long pool respond within 1 s."""
    route(document, "long")["route"]["timeout"] = "1s"


def test_a_buffer_filter_after_the_router_s(bite: Bitten) -> None:
    """In streamed mode the pool waits for more than was sent of an early decided body, until its timeout."""
    caller = bite("buffer-after", hasty)
    assert 504 == caller.http.post("/v1/chat/completions", content=LARGE, headers=JSON).status_code


def test_a_buffer_filter_before_the_router_s(bite: Bitten) -> None:
    """Before the router's, the same filter does no harm."""
    caller = bite("buffer-after", in_front)
    assert arrived_whole(caller.http.post("/v1/chat/completions", content=LARGE, headers=JSON), LARGE)


def impatient(document: Document) -> None:
    """End requests in which nothing moves for 1 s."""
    connection_manager(document)["stream_idle_timeout"] = "1s"


def test_a_filter_that_lowers_the_limit_of_bodies(bite: Bitten, build: Build, router: RouterProcess) -> None:
    """In buffered mode large bodies do not get past the router's filter; with a limit as large as ours they do."""

    def filed(limit_bytes: int | None) -> Caller:
        request = {"memory_buffer_bytes_limit": limit_bytes}

        def change(document: Document) -> None:
            threads = {"thread_pool": {"thread_count": 1}}
            insert(document, "files", FILES, before=True, manager_config=threads, request=request)

        return build("buffered", change=change, router=router)

    def status(caller: Caller) -> int:
        return caller.http.post("/v1/chat/completions", content=LARGE, headers=JSON).status_code

    assert 408 == status(bite("body-limit-lowered", impatient))
    assert 413 == status(filed(None))
    assert arrived_whole(filed(32 << 20).http.post("/v1/chat/completions", content=LARGE, headers=JSON), LARGE)


@pytest.mark.parametrize("mode", ["streamed", "buffered", "full-duplex"])
def test_a_filter_that_authorizes_requests_by_their_bodies(
    bite: Bitten, build: Build, router: RouterProcess, mode: str
) -> None:
    """Large bodies are a 413 in every mode, before and after the router's; not if it may ask with a part."""

    def authorized(limit_bytes: int, *, partial: bool = False, before: bool = True) -> httpx.Response:
        body = {"max_request_bytes": limit_bytes, "allow_partial_message": partial}

        def change(document: Document) -> None:
            authorization(document, body, before=before)

        return send(build(mode, change=change, router=router), LARGE)

    if mode == "streamed":
        assert 413 == send(bite("authorized-by-body"), LARGE).status_code
    assert [413, 413] == [authorized(8 << 10, before=before).status_code for before in (True, False)]
    assert arrived_whole(authorized(8 << 10, partial=True), LARGE)
    assert arrived_whole(authorized(4 << 20), LARGE)


@pytest.mark.parametrize("mode", ["streamed", "full-duplex"])
def test_a_file_buffer_filter_after_the_router_s(build: Build, router: RouterProcess, mode: str) -> None:
    """Envoy crashes when a few bodies arrive at a time, each in two halves."""
    caller = build(mode, change=BITTEN["file-buffer-after"], router=router)
    gateway = caller.stack.gateway
    uploads = [Upload(f"{caller.root}/v1/chat/completions", chat_body(300_000), chunked=False)] * 6

    async def nothing() -> None:
        pass

    for _ in range(ROUNDS):
        asyncio.run(upload_all(gateway.port, uploads, nothing))
        if not gateway.running:
            break
    assert -signal.SIGSEGV == gateway.wait()


def test_a_file_buffer_filter_after_the_router_s_in_buffered_mode(build: Build, router: RouterProcess) -> None:
    """Envoy crashes at a body of a few megabytes."""
    caller = build("buffered", change=BITTEN["file-buffer-after"], router=router)
    with pytest.raises(httpx.TransportError):
        caller.http.post("/v1/chat/completions", content=LARGE, headers=JSON)
    assert -signal.SIGSEGV == caller.stack.gateway.wait()


@pytest.mark.parametrize("by_body", [False, True])
@pytest.mark.parametrize("mode", ["buffered", "full-duplex"])
def test_a_filter_before_the_router_s_that_holds_bodies_sets_their_limit(
    build: Build,
    router: RouterProcess,
    mode: str,
    by_body: bool,  # noqa: FBT001
) -> None:
    """Whatever the listener's limit is, larger or smaller, that of a buffer or an ext_authz filter counts."""

    def limited(listener_bytes: int, filter_bytes: int) -> httpx.Response:
        def change(document: Document) -> None:
            document["static_resources"]["listeners"][0]["per_connection_buffer_limit_bytes"] = listener_bytes
            if by_body:
                authorization(document, {"max_request_bytes": filter_bytes}, before=True)
            else:
                insert(document, "whole", "buffer.v3.Buffer", before=True, max_request_bytes=filter_bytes)
            for host in connection_manager(document)["route_config"]["virtual_hosts"]:
                for each in (host, *host["routes"]):
                    each.pop("request_body_buffer_limit", None)

        caller = build(mode, change=change, router=router)
        return caller.http.post("/v1/chat/completions", content=LARGE, headers=JSON)

    assert 413 == limited(16 << 20, 1 << 20).status_code
    assert arrived_whole(limited(64 << 10, 4 << 20), LARGE)
