"""Invalid addresses on the command line: one sentence and exit code 2."""

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from extproc.cli.main import main

# The standard library raises a different error for each kind: ValueError, UnicodeError, HTTPException, OSError.
ADDRESSES = (
    "http://[::",
    "http://exa mple",
    "http://127.0.0.1:1/\n",
    "http://127.0.0.1:1/\udcff",
    "http://127.0.0.1:port",
    "http://127.0.0.1:99999999",
    "http://",
    "https://127.0.0.1:1",
)
STREAMED = str(Path(__file__).parents[2] / "envoy" / "streamed.yaml")
COMMANDS = (
    ["top", "--once"],
    ["state", "show"],
    ["estimate", STREAMED, "--admin"],
    ["check", "envoy", "--live"],
    ["check", "envoy", STREAMED, "--router"],
    ["plan", "--rate", "1", "--metrics"],
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("address", ADDRESSES, ids=range(len(ADDRESSES)))
def test_a_wrong_address_gives_one_sentence(
    command: list[str], address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each command that queries an admin port says which address failed, and why."""
    assert 2 == main([*command, address])
    said = capsys.readouterr().err
    assert said.startswith(f"dualpool {command[0]}: ")
    assert 1 == said.count("\n")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_reason_is_said_in_words(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Where nobody listens, the message has no number of an error, and no name of an exception."""
    assert 2 == main([*command, "http://127.0.0.1:1"])
    assert re.search(r": Connection refused\b", said := capsys.readouterr().err)
    assert not re.search("Errno|Error|<", said)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_server_of_another_protocol_is_no_http_server(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """That is said of the router's gRPC port, which is easily taken for its admin port, and not what it sent."""
    with speaking_http2() as address:
        assert 2 == main([*command, address])
    said = capsys.readouterr().err
    assert f"{address}" in said
    assert re.search(r": no HTTP server\b", said)
    assert 1 == said.count("\n")
    assert "  " not in said


@contextmanager
def speaking_http2() -> Iterator[str]:
    """Answer one connection as a gRPC server does a request of HTTP/1.1; yield the address."""
    settings = b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x04\x00\x40\x00\x00"
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with server.accept()[0] as connection:
                connection.recv(4096)
                connection.sendall(settings)

        thread = Thread(target=answer)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        thread.join()


@contextmanager
def serving(body: bytes) -> Iterator[str]:
    """Answer every request with this body; yield the address."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("event", [b"3", b"{}", b'{"about": 3}', b"[", b"\xff"])
def test_top_of_another_server(event: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    """Events that are not a router's are reported as such."""
    with serving(b"data: " + event + b"\n\n") as address:
        assert 2 == main(["top", "--once", address])
    said = capsys.readouterr().err
    assert "is it a router's admin address?" in said
    assert 1 == said.count("\n")
