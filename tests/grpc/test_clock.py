"""A machine whose clock jumps: decisions, deadlines, learning, saving and sharing use monotonic clocks."""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.grpc.test_state_survives import learn, saved, until
from tests.plain import NO_AUTHORITIES
from tests.unit.redis_server import redis_server

SOURCE = Path(__file__).with_name("clock.c")
ROOM = Path(__file__).parents[2] / "extproc"
HOUR_S = 3_600
JUMPS_S = (HOUR_S, -HOUR_S, 0, -HOUR_S, HOUR_S, 0)
LEARNED = 5
# The files that read the time of day, and why an error of an hour does no harm; no other file may read it.
READERS = {
    "server/access_logs.py": "evidence in the gateway's log carries the time, since it crosses processes",
    "server/app.py": "spans begin and end at a time of day",
    "server/grpc_core.py": "gRPC's deadlines are times of day, taken as a wait of at most 20 ms when they are set",
    "server/reload.py": "/config says since when settings are in force",
    "state/file.py": "a temporary file is left over if it is two hours old",
    "telemetry/metrics.py": "gauges say when state was saved and shared",
}


@dataclass
class Shifted:
    """A router in its own process, whose time of day is off by the number of seconds in a file."""

    process: subprocess.Popen[bytes]
    grpc: str
    admin: str
    off: Path

    def shift(self, off_s: int) -> None:
        """Make its clock jump."""
        self.off.write_text(str(off_s))

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric over the samples with these labels."""
        families = text_string_to_metric_families(
            httpx.get(f"http://{self.admin}/metrics", verify=NO_AUTHORITIES).text
        )
        samples = [sample for family in families for sample in family.samples if sample.name == name]
        return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())

    def exchanges(self, outcome: str) -> float:
        """Return how many exchanges with the store had this outcome."""
        return self.metric("dualpool_state_exchanges_total", outcome=outcome)


@pytest.fixture
def shifted(tmp_path: Path) -> Iterator[Shifted]:
    """Start a router that saves and shares five times a second."""
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("a C compiler is needed to shift a process's clock")
    library, off, log = tmp_path / "clock.so", tmp_path / "off", tmp_path / "log"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, SOURCE, "-ldl"], check=True, timeout=60)
    off.write_text("0")
    with redis_server(tmp_path) as server:
        store = f"store: {{url: '{server.url}', every_s: 0.2, timeout_s: 5}}"
        (tmp_path / "c.yaml").write_text(
            "listen: {address: '127.0.0.1:0'}\nadmin: {address: '127.0.0.1:0'}\ndrain_s: 0\n"
            f"state: {{path: {tmp_path}/state, every_s: 0.2, {store}}}\n"
        )
        environment = os.environ | {"LD_PRELOAD": str(library), "CLOCK_OFF_S": str(off)}
        command = [sys.executable, "-m", "extproc.cli.main", "serve", "--config", str(tmp_path / "c.yaml")]
        with log.open("wb") as file, subprocess.Popen(command, stderr=file, env=environment) as process:
            try:
                until(lambda: b'"serving"' in log.read_bytes())
                (line,) = [line for line in log.read_bytes().splitlines() if b'"message":"serving"' in line]
                line_fields = json.loads(line)
                yield Shifted(process, line_fields["grpc"], line_fields["admin"], off)
            finally:
                process.kill()


async def reason_of_held(address: str, call: type[Any]) -> str:
    """Return the reason in the decision on a request whose body never ends."""
    async with grpc.aio.insecure_channel(address) as channel:
        stream = call(channel)
        await stream.headers()
        await stream.body(b'{"model":"m","messages":[', end=False)
        reply = await stream.read()
        return str(reply.dynamic_metadata.fields["dualpool"].struct_value.fields["reason"].string_value)


def test_clock_jumps_of_an_hour_change_nothing(shifted: Shifted, call: type[Any], tmp_path: Path) -> None:
    """After each jump held requests are decided at their deadline, and what is learned is saved and shared."""
    for number, off_s in enumerate(JUMPS_S, 1):
        shifted.shift(off_s)
        assert "deadline" == asyncio.run(reason_of_held(shifted.grpc, call))
        asyncio.run(learn(shifted.grpc, call, LEARNED))
        until(lambda count=number * LEARNED: saved(tmp_path / "state") == count)  # type: ignore[misc]
        shared = shifted.exchanges("done")
        until(lambda before=shared: shifted.exchanges("done") > before)  # type: ignore[misc]
        saved_at_s = shifted.metric("dualpool_state_saved_timestamp_seconds")
        assert time.time() + off_s == pytest.approx(saved_at_s, abs=HOUR_S / 4)  # the clock did jump
    assert 0 == shifted.exchanges("failed")
    shifted.process.send_signal(signal.SIGTERM)
    assert 0 == shifted.process.wait(20)
    assert len(JUMPS_S) * LEARNED == saved(tmp_path / "state")


def test_only_the_listed_files_read_the_time_of_day() -> None:
    """Intervals, deadlines, ages and drains use monotonic clocks; only the listed files read the time of day."""
    reads = re.compile(r"\btime\.time(_ns)?\b|\bdatetime\.now\b|\butcnow\b")
    rooms = ("core", "server", "state", "pools", "workers", "telemetry", "access_log", "config", "cli")
    found = {
        str(file.relative_to(ROOM))
        for room in rooms
        for file in sorted((ROOM / room).rglob("*.py"))
        if reads.search(file.read_text())
    }
    assert READERS.keys() == found
