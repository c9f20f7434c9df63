"""Load generation with h2load (nghttp2): gRPC frames directly to a server, or HTTP/1.1 requests to Envoy."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench import messages
from extproc.core.errors import DualpoolError

__all__ = ["LoadFailed", "OpenLoop", "grpc_load", "http_load", "need_h2load", "open_loop_load"]

GRPC_HEADERS = ("content-type: application/grpc", "te: trailers")
JSON_HEADERS = ("content-type: application/json",)
DIRECT_CONNECTIONS, DIRECT_STREAMS = 4, 8
ENDS_WITHIN_S = 600.0


class LoadFailed(DualpoolError):
    """A run did not do what it was to measure, so its figures would be meaningless."""


def need_h2load() -> None:
    """Raise LoadFailed, with the package to install, if h2load is missing."""
    if shutil.which("h2load") is None:
        raise LoadFailed("h2load: no such program; Debian and Ubuntu: apt-get install nghttp2-client")


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """Results of an open-loop load: median response time, responses, and how many of these have no status 200."""

    p50_ms: float
    responses: int
    errors: int


def grpc_load(address: str, frames: Path, requests: int) -> float:
    """Post the frames in a file to a gRPC server, on a few connections with several streams each.

    Returns the requests per second.
    """
    url = f"http://{address}/{messages.SERVICE}/Process"
    shape = ("-c", str(min(DIRECT_CONNECTIONS, requests)), "-m", str(DIRECT_STREAMS))
    said = _run([*shape, "-d", str(frames)], GRPC_HEADERS, url, requests)
    return _figure(r"([0-9.]+) req/s", said)


def open_loop_load(address: str, frames: Path, per_s: float, under_way: int, duration_s: int) -> OpenLoop:
    """Post the frames `per_s` times per second, with at most `under_way` concurrent requests."""
    streams = under_way // DIRECT_CONNECTIONS
    rate = f"{per_s / DIRECT_CONNECTIONS:.3f}"
    log = frames.with_suffix(".log")
    log.unlink(missing_ok=True)
    options = ["-c", str(DIRECT_CONNECTIONS), "-m", str(streams), "--rps", rate, "-D", str(duration_s)]
    options += ["-d", str(frames), "--log-file", str(log)]
    said = _h2load(options, GRPC_HEADERS, f"http://{address}/{messages.SERVICE}/Process").stdout
    times_us = [int(line.split("\t")[2]) for line in log.read_text().splitlines()]
    failed = sum(int(_figure(rf"(\d+) {kind}", said)) for kind in ("3xx", "4xx", "5xx"))
    return OpenLoop(median(times_us) / 1000, len(times_us), failed)


def http_load(url: str, body: Path, requests: int, connections: int, log: Path | None = None) -> list[int]:
    """Post a chat request over HTTP/1.1; return each response time in us if a log file is given for them."""
    shape = ["--h1", "-c", str(min(connections, requests)), "-d", str(body)]
    if log is not None:
        log.unlink(missing_ok=True)
        shape += ["--log-file", str(log)]
    _run(shape, JSON_HEADERS, f"{url}/v1/chat/completions", requests)
    return [] if log is None else [int(line.split("\t")[2]) for line in log.read_text().splitlines()]


def _run(options: list[str], headers: tuple[str, ...], url: str, requests: int) -> str:
    """Return h2load's output; raises LoadFailed unless all requests were answered with 200."""
    done = _h2load(["-n", str(requests), *options], headers, url)
    succeeded = re.search(r"status codes: (\d+) 2xx", done.stdout)
    if succeeded is None or int(succeeded[1]) != requests or f" {requests} succeeded" not in done.stdout:
        raise LoadFailed(f"{' '.join(done.args)}: not all succeeded\n{done.stdout}{done.stderr}")
    return done.stdout


def _figure(pattern: str, said: str) -> float:
    found = re.search(pattern, said)
    if found is None:
        raise LoadFailed(f"{pattern!r} is not in the output of h2load:\n{said}")
    return float(found[1])


def _h2load(options: list[str], headers: tuple[str, ...], url: str) -> subprocess.CompletedProcess[str]:
    command = ["h2load", *options]
    for header in headers:
        command += ["-H", header]
    return subprocess.run(
        [*command, url],
        capture_output=True,
        text=True,
        timeout=ENDS_WITHIN_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )
