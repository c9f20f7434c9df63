"""Proxies that the environment names: for other machines than this one."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from extproc.cli.main import main
from extproc.fetching import fetched
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
