"""Tries the command `dualpool` that is installed next to this Python; run by `make release-check`.

Only the standard library and the dependencies of dualpool are imported: the environment is that of a user, without
test tools. What needs an extra is tried where that is installed.
"""

import json
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import grpc
from envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import ProcessingMode
from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest
from envoy.service.ext_proc.v3.external_processor_pb2_grpc import ExternalProcessorStub
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

COMMAND = str(Path(sysconfig.get_path("scripts")) / "dualpool")
BODY = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "How are you?"}]}
CONFIGURATION = "listen: {address: '127.0.0.1:0'}\nadmin: {address: '127.0.0.1:0'}\ndrain_s: 0\n"
TIMEOUT_S = 60


def main() -> int:
    """Run each check in a separate folder; return 0, or 1 after printing the failures."""
    failures = 0
    for check in (says_its_version, estimates_a_body, serves_until_sigterm, places_a_request, renders):
        with tempfile.TemporaryDirectory() as folder:
            try:
                check(Path(folder))
            except (AssertionError, OSError, subprocess.SubprocessError, ValueError, grpc.RpcError) as error:
                failures += 1
                print(f"{check.__name__}: failed: {error!r}", file=sys.stderr)
            else:
                print(f"{check.__name__}: passed")
    return min(failures, 1)


def says_its_version(folder: Path) -> None:
    """`dualpool --version` prints the installed version."""
    printed = _run(folder, "--version").strip()
    assert f"dualpool {version('dualpool')}" == printed, printed


def estimates_a_body(folder: Path) -> None:
    """`dualpool estimate -` places a short body from standard input in the smallest pool."""
    printed = json.loads(_run(folder, "estimate", "--json", "-", stdin=json.dumps(BODY)))
    assert ("short", "fits") == (printed["estimate"]["pool"], printed["estimate"]["reason"]), printed


def serves_until_sigterm(folder: Path) -> None:
    """`dualpool serve` starts, answers /healthz, and ends with exit code 0 on SIGTERM."""
    with _serving(folder) as line, urllib.request.urlopen(f"http://{line['admin']}/healthz", timeout=9) as reply:
        assert 200 == reply.status, reply.status


def places_a_request(folder: Path) -> None:
    """`dualpool serve` is healthy by gRPC, and replies to a short request with the smallest pool's header.

    The server uses a private module of grpcio: this shows that it works with the installed version.
    """
    headers = ProcessingRequest()
    headers.protocol_config.request_body_mode = ProcessingMode.STREAMED
    headers.protocol_config.send_body_without_waiting_for_header_response = True
    for key, value in ((":method", "POST"), (":path", "/v1/chat/completions")):
        headers.request_headers.headers.headers.add(key=key, raw_value=value.encode())
    body = ProcessingRequest()
    body.request_body.body, body.request_body.end_of_stream = json.dumps(BODY).encode(), True
    with _serving(folder) as line, grpc.insecure_channel(line["grpc"]) as channel:
        health = HealthStub(channel).Check(HealthCheckRequest(), timeout=10)
        assert HealthCheckResponse.SERVING == health.status, health
        (reply,) = ExternalProcessorStub(channel).Process(iter([headers, body]), timeout=10)
    options = reply.request_headers.response.header_mutation.set_headers
    found = {option.header.key: option.header.raw_value for option in options}
    assert b"short" == found.get("x-token-budget-pool"), found


def renders(folder: Path) -> None:
    """`dualpool render envoy` writes a configuration with the pool's header, or says which extra it needs."""
    if find_spec("envoy_data_plane") is not None:
        assert "x-token-budget-pool" in _run(folder, "render", "envoy")
        return
    done = _done(folder, "render", "envoy")
    assert (2, True) == (done.returncode, "dualpool[render]" in done.stderr), done


@contextmanager
def _serving(folder: Path) -> Iterator[dict[str, str]]:
    """Run the router; yield its first log line. It must end with exit code 0 on SIGTERM."""
    (folder / "router.yaml").write_text(CONFIGURATION, "utf-8")
    with subprocess.Popen(
        [COMMAND, "serve", "--config", "router.yaml"], cwd=folder, stderr=subprocess.PIPE, text=True
    ) as router:
        assert router.stderr is not None
        overdue = threading.Timer(TIMEOUT_S, router.kill)
        overdue.start()
        try:
            line = router.stderr.readline()
            assert '"message":"serving"' in line, line + router.stderr.read()
            yield json.loads(line)
            router.send_signal(signal.SIGTERM)
            rest = router.stderr.read()
        finally:
            router.kill()
            overdue.cancel()
    assert 0 == router.returncode, f"exit code {router.returncode}: {rest}"


def _run(folder: Path, *arguments: str, stdin: str = "") -> str:
    done = _done(folder, *arguments, stdin=stdin)
    assert 0 == done.returncode, f"exit code {done.returncode}: {done.stderr}"
    return done.stdout


def _done(folder: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *arguments],
        cwd=folder,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


if __name__ == "__main__":
    sys.exit(main())
