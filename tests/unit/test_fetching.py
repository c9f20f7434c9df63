"""Addresses of admin ports: proxies that the environment names, and refusals."""

import socket
from collections.abc import Iterator
from email.message import Message
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO
from threading import Thread
from urllib.error import HTTPError

import pytest

import extproc.fetching
from extproc.cli.main import main
from extproc.fetching import RequestRefused, fetched
from tests.unit.test_wrong_addresses import COMMANDS

WITHIN_S = 10.0
VARIABLES = ("HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Name a proxy in the environment, and return the addresses that it is asked for."""
    addresses: list[str] = []

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            addresses.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with HTTPServer(("127.0.0.1", 0), Proxy) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
        yield addresses
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "LocalHost"])
def test_no_proxy_is_asked_for_a_router_on_this_machine(
    command: list[str], host: str, asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Commands connect to it directly: a proxy cannot reach it, and would be sent the router's token."""
    assert 2 == main([*command, f"http://{host}:1"])
    assert "refused" in capsys.readouterr().err
    assert [] == asked


@pytest.mark.parametrize("host", ["router.example:9090", "10.0.0.1:9090"])
def test_a_proxy_is_asked_for_other_machines(host: str, asked: list[str]) -> None:
    """As everywhere else, unless NO_PROXY lists them."""
    with fetched(f"http://{host}/config", WITHIN_S) as response:
        assert 200 == response.status
    assert [f"http://{host}/config"] == asked


@pytest.mark.parametrize(
    ("host", "connects_to"),
    [
        ("127.9.9.9", "127.9.9.9"),
        ("0.0.0.0", "0.0.0.0"),  # noqa: S104  (where a router that listens there is reached)
        ("[::]", "::"),
        ("router.localhost", "router.localhost"),
        ("localhost.example", "proxy.example"),
        ("notlocalhost", "proxy.example"),
    ],
)
def test_all_addresses_and_names_of_this_machine_are_known(
    host: str, connects_to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the whole network 127.0.0.0/8, the address of all interfaces, and names below localhost (RFC 6761)."""
    hosts: list[str] = []

    def refused(address: tuple[str, int], *_: object, **__: object) -> None:
        hosts.append(address[0])
        raise ConnectionRefusedError("refused")

    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://proxy.example:8080")
    monkeypatch.setattr(socket, "create_connection", refused)
    with pytest.raises(OSError, match="refused"):
        fetched(f"http://{host}:9090/", WITHIN_S)
    assert [connects_to] == hosts


@pytest.mark.parametrize(
    ("header", "value", "text"),
    [("Content-Length", "7", "not yet"), ("Transfer-Encoding", "chunked", "")],
    ids=["a text", "a text that cannot be read"],
)
def test_a_refusal_holds_what_the_server_said_and_no_connection(header: str, value: str, text: str) -> None:
    """Its status and reason are there in any case."""

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(503)
            self.send_header(header, value)
            self.end_headers()
            self.wfile.write(b"not yet")

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = Thread(target=server.handle_request)
        thread.start()
        with pytest.raises(RequestRefused, match=r"HTTP status 503 \(Service Unavailable\)") as refused:
            fetched(f"http://127.0.0.1:{server.server_port}/", WITHIN_S)
        thread.join()
    assert (503, "Service Unavailable", text) == (refused.value.status, refused.value.reason, refused.value.text)


@pytest.mark.parametrize("raised", [None, ConnectionResetError("reset"), TimeoutError("too late")])
def test_the_connection_of_a_refusal_is_closed_even_if_its_text_does_not_come(
    raised: OSError | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An open one is a warning at the end of the command; the status says enough."""

    class Text(BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if raised is not None:
                raise raised
            return super().read(size)

    class Opener:
        def open(self, *_: object, **__: object) -> None:
            raise HTTPError("http://router/", 503, "Service Unavailable", Message(), text)

    text = Text(b" not yet\xff\n")
    monkeypatch.setattr(extproc.fetching, "build_opener", lambda *_: Opener())
    with pytest.raises(RequestRefused, match="HTTP status 503") as refused:
        fetched("http://router/", WITHIN_S)
    assert ("not yet\ufffd" if raised is None else "") == refused.value.text
    assert text.closed


def test_of_the_text_of_a_refusal_a_part_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is for an error message; a server may send any amount."""

    class Opener:
        def open(self, *_: object, **__: object) -> None:
            raise HTTPError("http://router/", 400, "Bad Request", Message(), BytesIO(b"x" * 1_000_000))

    monkeypatch.setattr(extproc.fetching, "build_opener", lambda *_: Opener())
    with pytest.raises(RequestRefused) as refused:
        fetched("http://router/", WITHIN_S)
    assert len(refused.value.text) == 64 << 10
