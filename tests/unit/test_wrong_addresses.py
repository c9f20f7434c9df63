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
@pytest.mark.parametrize("address", ["http://127.0.0.1:1/\u00fc", "http://router..local"])
def test_an_address_that_cannot_be_sent_is_no_valid_one(
    command: list[str], address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The standard library's reason is about an encoding, which nobody asked for."""
    assert 2 == main([*command, address])
    assert re.search(r": no valid address\b", capsys.readouterr().err)


# As a gRPC server answers a request of HTTP/1.1: it is easily asked instead of the admin port.
HTTP_2 = b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x04\x00\x40\x00\x00"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (HTTP_2, "no HTTP server"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "no HTTP server"),
        (b"HTTP/9\x1b[2J 200 OK\r\n\r\n", "no HTTP server"),
        (b"", "the connection was closed without a response"),
        (b"HTTP/1.1 404\r\ncontent-length: 0\r\n\r\n", "HTTP status 404"),
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "HTTP status 404 (Not Found)"),
    ],
)
def test_what_is_wrong_with_an_answer_is_said_in_words(
    command: list[str], answer: bytes, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a port of another protocol sends is not shown: it may be binary. A status is named by its number, too,
    since a server may send no words for it.
    """
    with answering(answer) as address:
        assert 2 == main([*command, address])
    said = capsys.readouterr().err
    assert f"{address}" in said
    assert re.search(rf": {re.escape(why)}(;| \(use|\n)", said)
    assert 1 == said.count("\n")
    assert "  " not in said


def test_a_response_that_breaks_off_is_told_as_one(capsys: pytest.CaptureFixture[str]) -> None:
    """The name of an exception and a number of bytes would say less."""
    with answering(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab") as address:
        assert 2 == main(["state", "show", address])
    assert capsys.readouterr().err.endswith(": the response ends too early\n")


@contextmanager
def answering(data: bytes) -> Iterator[str]:
    """Answer one connection with these bytes; yield the address."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with server.accept()[0] as connection:
                connection.recv(4096)
                connection.sendall(data)

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
