"""Without memory or descriptors, the router fails no request; a short form of `bench --only faults`."""

import resource
from hashlib import sha256
from pathlib import Path

import pytest

from bench.numbered import chat_body as numbered_body
from tests.envoy.harness.building import Build
from tests.envoy.harness.calls import SHORT_TEXT, chat
from tests.envoy.harness.gateway import Document, checks_often, waits_briefly
from tests.envoy.harness.polling import eventually
from tests.envoy.harness.router import RouterProcess


def limit(router: RouterProcess, kind: int, value: int) -> None:
    """Limit a resource of a running router."""
    _, hard = resource.prlimit(router.pid, kind)
    resource.prlimit(router.pid, kind, (value, hard))


def notices_soon(document: Document) -> None:
    """Let Envoy check the router often, and wait no longer for it than the files let it."""
    checks_often(document)
    waits_briefly(document)


def test_router_without_descriptors(build: Build, mode: str, tmp_path: Path) -> None:
    """While the router cannot accept connections, the long pool serves; later the router is asked again."""
    router = RouterProcess(tmp_path)
    try:
        # Far below the number of open descriptors: these stay open, but none that is closed can be replaced. Not
        # 0, because poll(2) refuses more descriptors than the limit.
        limit(router, resource.RLIMIT_NOFILE, 3)
        caller = build(mode, change=notices_soon, router=router)
        assert ["long"] * 3 == [chat(caller, SHORT_TEXT)["x-served-by"] for _ in range(3)]
        limit(router, resource.RLIMIT_NOFILE, 1024)
        eventually(lambda: chat(caller, SHORT_TEXT)["x-served-by"] == "short", "the router is asked again")
    finally:
        router.kill()


@pytest.mark.parametrize("mode", ["streamed", "buffered"])
def test_router_without_memory(build: Build, mode: str) -> None:
    """A router that cannot allocate memory fails no request, small or large, whether it dies of that or not."""
    caller = build(mode, change=waits_briefly)
    assert "short" == chat(caller, SHORT_TEXT)["x-served-by"]
    router = caller.stack.router
    pages = int(Path(f"/proc/{router.pid}/statm").read_text().split()[0])
    limit(router, resource.RLIMIT_AS, pages * resource.getpagesize() + (1 << 20))
    body = numbered_body(4 << 20)
    for _ in range(4):
        response = caller.http.post("/v1/chat/completions", content=body)
        assert sha256(body).hexdigest() == response.headers["x-body-sha256"]
        assert chat(caller, SHORT_TEXT)["x-served-by"] in {"short", "long"}
