"""Load by h2load (nghttp2): gRPC frames straight to a server, or HTTP/1.1 requests to Envoy."""

import re
import shutil
import subprocess
from pathlib import Path

from bench import messages
from extproc.core.errors import DualpoolError

__all__ = ["LoadFailed", "grpc_load", "http_load", "need_h2load"]

GRPC_HEADERS = ("content-type: application/grpc", "te: trailers")
JSON_HEADERS = ("content-type: application/json",)
DIRECT_CONNECTIONS, DIRECT_STREAMS = 4, 8
ENDS_WITHIN_S = 600.0


class LoadFailed(DualpoolError):
    """Not every request of a run was answered with 200; its figures would mean nothing."""


def need_h2load() -> None:
    """Raise LoadFailed with what to install, when h2load is missing."""
    if shutil.which("h2load") is None:
        raise LoadFailed("h2load: no such program; Debian and Ubuntu: apt-get install nghttp2-client")


def grpc_load(address: str, frames: Path, requests: int) -> None:
    """Post the frames in a file to a gRPC server, on a few connections with several streams each."""
    url = f"http://{address}/{messages.SERVICE}/Process"
    shape = ("-c", str(min(DIRECT_CONNECTIONS, requests)), "-m", str(DIRECT_STREAMS))
    _run([*shape, "-d", str(frames)], GRPC_HEADERS, url, requests)


def http_load(url: str, body: Path, requests: int, connections: int, log: Path | None = None) -> list[int]:
    """Post a chat request by HTTP/1.1; return each response's time in us when there is a log file for it."""
    shape = ["--h1", "-c", str(min(connections, requests)), "-d", str(body)]
    if log is not None:
        log.unlink(missing_ok=True)
        shape += ["--log-file", str(log)]
    _run(shape, JSON_HEADERS, f"{url}/v1/chat/completions", requests)
    return [] if log is None else [int(line.split("\t")[2]) for line in log.read_text().splitlines()]


def _run(options: list[str], headers: tuple[str, ...], url: str, requests: int) -> None:
    command = ["h2load", "-n", str(requests), *options]
    for header in headers:
        command += ["-H", header]
    done = subprocess.run(
        [*command, url],
        capture_output=True,
        text=True,
        timeout=ENDS_WITHIN_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    succeeded = re.search(r"status codes: (\d+) 2xx", done.stdout)
    if succeeded is None or int(succeeded[1]) != requests or f" {requests} succeeded" not in done.stdout:
        raise LoadFailed(f"{' '.join(command)} {url}: not all succeeded\n{done.stdout}{done.stderr}")
