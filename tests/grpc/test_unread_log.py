"""What gRPC itself logs must not reach stderr: on a pipe that is not read it would stop the thread that logs."""

import fcntl
import json
import os
import resource
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import trustme
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

from tests.grpc.test_serve_command import SERVE

SMALLEST_PIPE = 4096
CLIENTS = 30
SOCKETS = 40
WITHIN_S = 10.0


@dataclass
class Serving:
    """A router whose stderr is a pipe; `reads` and `writes` are its ends."""

    process: subprocess.Popen[bytes]
    port: int
    reads: int
    writes: int

    def stop_reading(self) -> None:
        """Fill the pipe: whoever writes to it waits."""
        os.set_blocking(self.writes, False)
        try:
            while True:
                os.write(self.writes, b"\n")
        except BlockingIOError:
            os.set_blocking(self.writes, True)

    def connected(self) -> socket.socket:
        """Return a new connection."""
        return socket.create_connection(("127.0.0.1", self.port), WITHIN_S)


@contextmanager
def serving(folder: Path, tls: dict[str, str] | None = None) -> Iterator[Serving]:
    """Run `dualpool serve`."""
    config, (reads, writes) = folder / "c.yaml", os.pipe()
    fcntl.fcntl(writes, fcntl.F_SETPIPE_SZ, SMALLEST_PIPE)
    listen = {"address": "127.0.0.1:0"} | ({"tls": tls} if tls else {})
    config.write_text(json.dumps({"listen": listen, "admin": {"address": "127.0.0.1:0"}, "drain_s": 0}))
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"}
    with subprocess.Popen([*SERVE, "--config", str(config)], stderr=writes, env=environment) as process:
        try:
            line = b""
            while not line.endswith(b"\n"):
                line += os.read(reads, 1)
            yield Serving(process, int(json.loads(line)["grpc"].rpartition(":")[2]), reads, writes)
        finally:
            process.kill()
            os.close(reads)
            os.close(writes)


def tls_files(folder: Path) -> dict[str, str]:
    """Write a certificate and its key; return the setting that names them."""
    server = trustme.CA().issue_cert("localhost")
    server.private_key_pem.write_to_path(str(folder / "key.pem"))
    server.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    return {"certificate_file": f"{folder}/cert.pem", "private_key_file": f"{folder}/key.pem"}


def refused(client: socket.socket) -> bool:
    """Speak plain HTTP to a port with TLS; return whether the server ends the connection."""
    client.sendall(b"GET / HTTP/1.1\r\n\r\n")
    try:
        while client.recv(1024):
            pass
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return True


def test_failed_handshakes_leave_no_lines(tmp_path: Path) -> None:
    """All lines are JSON, also when clients without TLS connect to a port with TLS."""
    with serving(tmp_path, tls_files(tmp_path)) as router:
        for _ in range(CLIENTS):
            with router.connected() as client:
                assert refused(client)
        router.process.send_signal(signal.SIGTERM)
        assert 0 == router.process.wait(20)
        lines = os.read(router.reads, SMALLEST_PIPE).splitlines()
        assert ["draining", "stopped"] == [json.loads(line)["message"] for line in lines]


def test_failed_handshakes_end_when_nobody_reads_the_log(tmp_path: Path) -> None:
    """When stderr is a full pipe, failed TLS handshakes still end: they take no thread and no descriptor along."""
    with serving(tmp_path, tls_files(tmp_path)) as router, ExitStack() as open_ones:
        router.stop_reading()
        clients = [open_ones.enter_context(router.connected()) for _ in range(CLIENTS)]
        assert {True} == {refused(client) for client in clients}


def test_requests_are_served_without_descriptors_when_nobody_reads_the_log(tmp_path: Path) -> None:
    """When stderr is a full pipe and file descriptors have run out, calls on open connections are replied to."""
    with serving(tmp_path) as router, ExitStack() as open_ones:
        channel = open_ones.enter_context(grpc.insecure_channel(f"127.0.0.1:{router.port}"))
        check = HealthStub(channel).Check
        assert check(HealthCheckRequest(), timeout=WITHIN_S)
        router.stop_reading()
        used = len(os.listdir(f"/proc/{router.process.pid}/fd"))  # noqa: PTH208
        resource.prlimit(router.process.pid, resource.RLIMIT_NOFILE, (used, used))
        for _ in range(SOCKETS):
            open_ones.enter_context(router.connected())
            assert check(HealthCheckRequest(), timeout=WITHIN_S)


@pytest.mark.parametrize("unix", [False, True])
def test_the_reason_is_named_when_an_address_cannot_be_bound(tmp_path: Path, *, unix: bool) -> None:
    """A taken address, or a socket in a folder that does not exist, is refused with the system's reason."""
    config = tmp_path / "c.yaml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"unix:{tmp_path}/none/r.sock" if unix else f"127.0.0.1:{taken.getsockname()[1]}"
        config.write_text(json.dumps({"listen": {"address": address}, "admin": {"address": "127.0.0.1:0"}}))
        ended = subprocess.run(
            [*SERVE, "--config", str(config)], stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert ended.returncode
    reason = "No such file or directory" if unix else "Address already in use"
    assert [f"dualpool serve: listen.address: '{address}' cannot be bound"] == [
        line.partition(": [Errno")[0] for line in ended.stderr.splitlines()
    ]
    assert reason in ended.stderr
