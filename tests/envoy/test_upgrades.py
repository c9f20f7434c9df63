"""WebSockets, on an Envoy that allows upgrades, unlike the files in `envoy/`."""

from collections.abc import Iterator
from socketserver import StreamRequestHandler

import pytest

from tests.envoy.harness.building import Build
from tests.envoy.harness.gateway import Document, connection_manager, moved_to, route, virtual_host
from tests.envoy.harness.raw import RawClient
from tests.envoy.harness.router import RouterProcess
from tests.envoy.harness.tcp import serving

SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"


class Echo(StreamRequestHandler):
    """Switches protocols, and then echoes what it receives."""

    def handle(self) -> None:
        """Serve one connection until it ends."""
        while self.rfile.readline().strip():
            pass
        self.wfile.write(SWITCHED)
        while data := self.rfile.read1(1024):
            self.wfile.write(data)


@pytest.fixture
def echo_port() -> Iterator[int]:
    """Run the echo server; yield its port."""
    with serving(Echo) as port:
        yield port


@pytest.mark.parametrize("path", ["/socket", "/v1/chat/completions"])
def test_a_websocket_passes(build: Build, mode: str, path: str, router: RouterProcess, echo_port: int) -> None:
    """A GET that upgrades bypasses the router to the long pool, and then carries bytes both ways."""

    def upgrades(document: Document) -> None:
        connection_manager(document)["upgrade_configs"] = [{"upgrade_type": "websocket"}]
        moved_to(document, "pool_long", f"127.0.0.1:{echo_port}")

    caller = build(mode, change=upgrades, router=router)
    with RawClient(caller.stack.gateway.port) as client:
        client.head(caller.root + path, "GET", connection="upgrade", upgrade="websocket")
        assert 101 == client.response().status
        for word in (b"ping", b"once more"):
            client.send(word)
            assert word == client.receive(len(word))
    (entry,) = caller.access_log()
    assert ("upgrade", None, 101) == (entry["route"], entry["reason"], entry["status"])


def test_a_post_that_upgrades_does_not_wait(
    build: Build, mode: str, router: RouterProcess, echo_port: int
) -> None:
    """A POST that upgrades has a body without an end, so it bypasses the router to the long pool."""

    def upgrades(document: Document) -> None:
        connection_manager(document)["upgrade_configs"] = [{"upgrade_type": "websocket"}]
        moved_to(document, "pool_long", f"127.0.0.1:{echo_port}")

    caller = build(mode, change=upgrades, router=router)
    with RawClient(caller.stack.gateway.port) as client:
        client.head(f"{caller.root}/v1/chat/completions", connection="upgrade", upgrade="websocket")
        assert 101 == client.response().status
        client.send(b"ping")
        assert b"ping" == client.receive(4)
    (entry,) = caller.access_log()
    assert ("upgrade", None) == (entry["route"], entry["reason"])
    assert 0 == caller.stack.gateway.statistic("http.ingress.ext_proc.streams_started")


@pytest.mark.parametrize("allowed_by", ["manager", "route"])
def test_a_post_that_upgrades_hangs_in_buffered_mode(
    build: Build, router: RouterProcess, echo_port: int, allowed_by: str
) -> None:
    """Without the route `upgrade`, mode BUFFERED waits forever for the end of the body, whoever allows upgrades.

    This is the fault without the fix; a request_timeout of 1 s ends it.
    """

    def no_route(document: Document) -> None:
        manager = connection_manager(document)
        manager["request_timeout"] = "1s"
        allowing = manager if allowed_by == "manager" else route(document, "long")["route"]
        allowing["upgrade_configs"] = [{"upgrade_type": "websocket"}]
        routes = virtual_host(document)["routes"]
        routes.remove(route(document, "upgrade"))
        moved_to(document, "pool_long", f"127.0.0.1:{echo_port}")

    caller = build("buffered", change=no_route, router=router)
    with RawClient(caller.stack.gateway.port) as client:
        client.head(f"{caller.root}/v1/chat/completions", connection="upgrade", upgrade="websocket")
        assert 408 == client.response().status


def test_a_post_that_upgrades_to_what_the_router_does_not_read(
    build: Build, router: RouterProcess, echo_port: int
) -> None:
    """Without the route `upgrade` it passes in mode BUFFERED, too: the router lets it go at its headers."""

    def no_route(document: Document) -> None:
        connection_manager(document)["upgrade_configs"] = [{"upgrade_type": "websocket"}]
        virtual_host(document)["routes"].remove(route(document, "upgrade"))
        moved_to(document, "pool_long", f"127.0.0.1:{echo_port}")

    caller = build("buffered", change=no_route, router=router)
    with RawClient(caller.stack.gateway.port) as client:
        client.head(f"{caller.root}/v1/audio/transcriptions", connection="upgrade", upgrade="websocket")
        assert 101 == client.response().status
