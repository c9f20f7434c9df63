"""A real redis-server for tests, on its own port: it can be killed and started again."""

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

__all__ = ["RedisServer", "redis_server"]

PROGRAM = shutil.which("redis-server") or shutil.which("valkey-server")
WITHIN_S = 10.0


class RedisServer:
    """One server in a folder; `args` are added to its command line."""

    def __init__(self, folder: Path, *args: str) -> None:
        if PROGRAM is None:
            pytest.skip("redis-server is not installed (Debian: redis-server)")
        self.port = _free_port()
        self._folder, self._args = folder, args
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The server's address."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start the server, with an empty memory."""
        ports = ["--port", str(self.port)] if "--tls-port" not in self._args else ["--port", "0"]
        command = [str(PROGRAM), *ports, "--bind", "127.0.0.1", "--save", "", "--dir", str(self._folder)]
        self._process = subprocess.Popen(
            [*command, *(arg.replace("PORT", str(self.port)) for arg in self._args)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        ends_s = time.monotonic() + WITHIN_S
        while time.monotonic() < ends_s:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            assert self._process.poll() is None, "redis-server ended at once"
        raise AssertionError("redis-server did not begin to serve")

    def kill(self) -> None:
        """Kill the server with SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Stop the server from replying within the block: connections are accepted, but get no reply."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def keys(self, pattern: str) -> list[str]:
        """Return the names of keys."""
        lines = self.say("KEYS", pattern).decode().split("\r\n")
        return [line for line in lines if line and line[0] not in "*$"]

    def say(self, *words: str) -> bytes:
        """Send one command, and return the reply as it is on the wire."""
        with socket.create_connection(("127.0.0.1", self.port), WITHIN_S) as connection:
            connection.settimeout(WITHIN_S)
            connection.sendall(_command(*words) + _command("QUIT"))
            with connection.makefile("rb") as replies:
                return replies.read().removesuffix(b"+OK\r\n")


@contextmanager
def redis_server(folder: Path, *args: str) -> Iterator[RedisServer]:
    """Run a server until the end of the block."""
    server = RedisServer(folder, *args)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def _command(*words: str) -> bytes:
    parts = [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
    return f"*{len(words)}\r\n{''.join(parts)}".encode()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
