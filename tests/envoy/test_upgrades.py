"""Websockets, on an Envoy that allows upgrades (the files in `envoy/` do not)."""

import threading
from collections.abc import Iterator
from socketserver import StreamRequestHandler, ThreadingTCPServer

import pytest

from tests.envoy.harness.building import Build
from tests.envoy.harness.gateway import Document, connection_manager
from tests.envoy.harness.raw import RawClient
from tests.envoy.harness.router import RouterProcess

SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"


class Echo(StreamRequestHandler):
    """Switches protocols, and says what it hears from then on."""

    def handle(self) -> None:
        """Serve one connection until it ends."""
        while self.rfile.readline().strip():
            pass
        self.wfile.write(SWITCHED)
        while data := self.rfile.read1(1024):
            self.wfile.write(data)


@pytest.fixture
def echo_port() -> Iterator[int]:
    """Run an echo behind a handshake."""
    with ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("path", ["/socket", "/v1/chat/completions"])
def test_a_websocket_passes(build: Build, mode: str, path: str, router: RouterProcess, echo_port: int) -> None:
    """A GET that upgrades is let go at its headers, to the long pool, and then carries bytes both ways."""

    def upgrades(document: Document) -> None:
        connection_manager(document)["upgrade_configs"] = [{"upgrade_type": "websocket"}]
        endpoint = document["static_resources"]["clusters"][1]["load_assignment"]["endpoints"][0]
        endpoint["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]["port_value"] = echo_port

    caller = build(mode, change=upgrades, router=router)
    with RawClient(caller.stack.gateway.port) as client:
        client.head(caller.root + path, "GET", connection="upgrade", upgrade="websocket")
        assert 101 == client.response().status
        for word in (b"ping", b"once more"):
            client.send(word)
            assert word == client.receive(len(word))
    (entry,) = caller.access_log()
    assert ("long", None, 101) == (entry["route"], entry["reason"], entry["status"])
