import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import httpx
import pytest

from extproc.workers.process import start_process
from tests.plain import NO_AUTHORITIES

SERVE = [sys.executable, "-m", "extproc.cli.main", "serve"]


@contextmanager
def started(config: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `dualpool serve`; yield the process and its admin address when it serves."""
    with subprocess.Popen([*SERVE, "--config", str(config)], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            line = json.loads(process.stderr.readline())
            yield process, line["admin"]
        finally:
            process.kill()


def test_sigterm_drains_and_ends_with_0(tmp_path: Path) -> None:
    """On SIGTERM the router turns unready; on a second one it ends with exit code 0. Its log lines are JSON."""
    config = tmp_path / "c.yaml"
    config.write_text("listen: {address: '127.0.0.1:0'}\nadmin: {address: '127.0.0.1:0'}\ndrain_s: 60")
    with started(config) as (process, admin):
        assert httpx.get(f"http://{admin}/readyz", verify=NO_AUTHORITIES).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        assert "draining" == json.loads(process.stderr.readline())["message"]
        ends = re.search(
            r"^dualpool_drain_ends_timestamp_seconds (\S+)",
            httpx.get(f"http://{admin}/metrics", verify=NO_AUTHORITIES).text,
            re.MULTILINE,
        )
        assert ends is not None
        assert 0 < float(ends[1]) - time.time() <= 70
        assert httpx.get(f"http://{admin}/readyz", verify=NO_AUTHORITIES).status_code == 503
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(20)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_log_says_where_each_port_listens(tmp_path: Path, workers: str) -> None:
    """The line "serving" has the address of every port that is configured, also those for probes."""
    config = tmp_path / "c.yaml"
    config.write_text(
        "listen: {address: '127.0.0.1:0', health_address: '127.0.0.1:0'}\ndrain_s: 0\n"
        "admin: {address: '127.0.0.1:0', probes_address: '127.0.0.1:0'}"
    )
    command = [*SERVE, "--config", str(config), "--workers", workers]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            line = next(each for each in map(json.loads, process.stderr) if each["message"] == "serving")
            for page in ("admin", "probes"):
                assert httpx.get(f"http://{line[page]}/readyz", verify=NO_AUTHORITIES).status_code == 200
            health = [line["health"]] if workers == "1" else line["health"]
            assert int(workers) == len(health)
            for address in health:
                with grpc.insecure_channel(address) as channel:
                    check = channel.unary_unary("/grpc.health.v1.Health/Check", bytes, bytes)
                    assert b"\x08\x01" == check(b"", timeout=20), "SERVING"
            process.send_signal(signal.SIGTERM)
            assert 0 == process.wait(60)
        finally:
            process.kill()


HAS_NO_THREADS = """
import sys
import threading
from extproc.cli.main import main

def start(thread):
    raise RuntimeError("can't start new thread")

threading.Thread.start = start
sys.exit(main(["serve", "--workers", sys.argv[1]]))
"""


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_start_without_threads_ends_with_one_line(workers: str) -> None:
    """Where the limit on processes leaves no thread, the reason is one line, and not a traceback."""
    command = [sys.executable, "-c", HAS_NO_THREADS, workers]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert 1 == ended.returncode
    assert ended.stderr.startswith("dualpool serve: can't start new thread: the limits on processes")
    assert 1 == ended.stderr.count("\n")


INHERITS = """
import os
import signal
import sys
for number in (signal.SIGCHLD, signal.SIGALRM, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
os.execv(sys.argv[1], sys.argv[1:])
"""


def _signals(name: str, pid: int) -> int:
    """Return a set of signals of a process, as the kernel shows it."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in status if line.startswith(f"{name}:")), 16)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_signals_that_were_blocked_or_ignored_at_the_start_work(tmp_path: Path, workers: str) -> None:
    """Whatever the program that starts the router blocks or ignores, SIGTERM ends it, a worker's alarm works, and
    one that is killed is an error in the log.
    """
    config = tmp_path / "c.yaml"
    config.write_text("listen: {address: '127.0.0.1:0'}\nadmin: {address: '127.0.0.1:0'}\ndrain_s: 0")
    command = [sys.executable, "-c", INHERITS, *SERVE, "--config", str(config), "--workers", workers]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            lines = map(json.loads, process.stderr)
            admin = next(line["admin"] for line in lines if line["message"] == "serving")
            for worker in httpx.get(f"http://{admin}/config", verify=NO_AUTHORITIES).json().get("workers", ())[:1]:
                assert not _signals("SigIgn", worker["pid"]) & 1 << signal.SIGALRM - 1
                os.kill(worker["pid"], signal.SIGKILL)
                replaced = next(line for line in lines if line["message"] == "a worker is replaced")
                assert ("error", -signal.SIGKILL) == (replaced["level"], replaced["exit_code"])
            process.send_signal(signal.SIGTERM)
            assert 0 == process.wait(60)
        finally:
            process.kill()


def _arenas(pid: int) -> int:
    """Return the number of heaps of glibc's malloc besides the main one. Each is at a multiple of its size: first
    what is in use, then what is only reserved.
    """
    size, found, used = 64 << 20, 0, (0, 0)
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        span, rights, *_ = line.split()
        start, end = (int(each, 16) for each in span.split("-"))
        if rights == "---p" and start == used[1] and used[0] % size == 0:
            found += end == used[0] + size
        used = (start, end) if rights == "rw-p" else (0, 0)
    return found


@pytest.mark.parametrize("workers", ["1", "2"])
def test_threads_share_their_memory(tmp_path: Path, workers: str) -> None:
    """Neither a router nor a worker keeps a heap for each thread (test_freed_memory.py shows the effect)."""
    config = tmp_path / "c.yaml"
    config.write_text("listen: {address: '127.0.0.1:0'}\nadmin: {address: '127.0.0.1:0'}\ndrain_s: 0")
    command = [*SERVE, "--config", str(config), "--workers", workers]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            admin = next(each["admin"] for each in map(json.loads, process.stderr) if each["message"] == "serving")
            for page in ("metrics", "state", "readyz"):
                assert httpx.get(f"http://{admin}/{page}", verify=NO_AUTHORITIES).status_code == 200
            workers_of = httpx.get(f"http://{admin}/config", verify=NO_AUTHORITIES).json().get("workers", ())
            assert all(_arenas(pid) <= 1 for pid in [process.pid, *(each["pid"] for each in workers_of)])
        finally:
            process.kill()


STARTS_WITH_A_HANGUP = """
import signal
import sys
from extproc.cli.main import main
from extproc.config import loading
from {module} import {server}

class Server({server}):
    def __init__(self, *arguments, **named):
        signal.raise_signal(signal.SIGHUP)
        super().__init__(*arguments, **named)

    def run(self):
        self.end()
        super().run()

    def reload(self):
        print("asked to reload")
        super().reload()

def load(file, loaded=loading.load):
    signal.raise_signal(signal.SIGHUP)
    return loaded(file)

loading.load = load
sys.modules["{module}"].{server} = Server
sys.exit(main(["serve", *sys.argv[1:]]))
"""


SERVERS = [("extproc.server.app", "App", "1"), ("extproc.workers.supervisor", "Supervisor", "2")]


@pytest.mark.parametrize(("module", "server", "workers"), SERVERS)
def test_sighup_during_the_start_ends_nothing(tmp_path: Path, module: str, server: str, workers: str) -> None:
    """SIGHUP before the router or the supervisor serves has the file read again as soon as it does."""
    config = tmp_path / "c.yaml"
    config.write_text("listen: {address: '127.0.0.1:0'}\nadmin: {address: '127.0.0.1:0'}\ndrain_s: 0")
    script = STARTS_WITH_A_HANGUP.format(module=module, server=server)
    ended = subprocess.run(
        [sys.executable, "-c", script, "--config", str(config), "--workers", workers],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (0, "asked to reload\n") == (ended.returncode, ended.stdout), ended.stderr


IS_ENDED = """
import signal
import sys
from extproc.cli.main import main
from {module} import {name}

def ended(*arguments, **named):
    signal.raise_signal(signal.SIGTERM)
    print("still starts")

sys.modules["{module}"].{name} = ended
sys.exit(main(["serve", "--workers", "{workers}"]))
"""


@pytest.mark.parametrize(("module", "name", "workers"), [("extproc.config.loading", "load", "1"), *SERVERS])
def test_sigterm_during_the_start_ends_it(module: str, name: str, workers: str) -> None:
    """SIGTERM before the router or the supervisor serves ends it with exit code 0, in a container as elsewhere:
    there is a handler, without which the kernel ignores signals to the first process of a container.
    """
    script = IS_ENDED.format(module=module, name=name, workers=workers)
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60, check=False)
    assert (0, b"", b"") == (ended.returncode, ended.stdout, ended.stderr)


IS_DISTURBED_AT_THE_END = """
import os
import sys
from extproc.cli.main import main
from {module} import {server}

class Server({server}):
    def run(self):
        self.end()
        super().run()

class Last:
    def __del__(self, kill=os.kill, pid=os.getpid()):
        kill(pid, {number})
        os.write(1, b"still ends")

last = Last()
sys.modules["{module}"].{server} = Server
sys.exit(main(["serve", *sys.argv[1:]]))
"""


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(("module", "server", "workers"), SERVERS)
def test_signals_that_come_after_the_end_change_no_exit_code(
    tmp_path: Path, module: str, server: str, workers: str, number: signal.Signals
) -> None:
    """A router that has stopped ends with 0 whatever still comes while its interpreter ends, which takes a while
    under load: by then Python has taken back its handlers, and the kernel would end the process by the signal.
    """
    config = tmp_path / "c.yaml"
    config.write_text("listen: {address: '127.0.0.1:0'}\nadmin: {address: '127.0.0.1:0'}\ndrain_s: 0")
    script = IS_DISTURBED_AT_THE_END.format(module=module, server=server, number=int(number))
    ended = subprocess.run(
        [sys.executable, "-c", script, "--config", str(config), "--workers", workers],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (0, "still ends") == (ended.returncode, ended.stdout), ended.stderr


WORKER_DISTURBED_AT_THE_END = """
import os
import sys
from extproc.workers.__main__ import start

class Last:
    def __del__(self, kill=os.kill, pid=os.getpid()):
        kill(pid, {number})

last = Last()
sys.argv = sys.argv[2:]
sys.exit(start())
"""


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_signals_that_come_after_a_workers_end_change_no_exit_code(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """Nor do they change a worker's, which its supervisor would report as an error."""
    script = WORKER_DISTURBED_AT_THE_END.format(number=int(number))
    monkeypatch.setattr("extproc.workers.process._PYTHON", [sys.executable, "-c", script])
    process, channel = start_process(0)
    channel.close()
    assert 2 == process.wait(60), "it was never given its settings"


def test_a_worker_is_not_disturbed_from_its_first_moment_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that still loads its code is not ended by a SIGHUP to all processes of the router, nor writes a
    traceback for a Ctrl-C.
    """
    monkeypatch.setattr("extproc.workers.process._PYTHON", ["/bin/sh", "-c", "exec sleep 600"])
    process, channel = start_process(0)
    blocked = _signals("SigBlk", process.pid)
    process.kill()
    process.wait()
    channel.close()
    assert [True, True] == [bool(blocked & 1 << each - 1) for each in (signal.SIGHUP, signal.SIGINT)]
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_the_drain_ends_by_itself(tmp_path: Path) -> None:
    """After one SIGTERM the router drains, and then ends with exit code 0 (test_stops.py: after drain_s)."""
    config = tmp_path / "c.yaml"
    config.write_text("listen: {address: '127.0.0.1:0'}\nadmin: {address: '127.0.0.1:0'}\ndrain_s: 0.3")
    with started(config) as (process, _admin):
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(20)
        assert process.stderr is not None
        assert ["draining", "stopped"] == [json.loads(line)["message"] for line in process.stderr]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mode: on", "mode: 'on' given; allowed: enforce, shadow, off"),
        ("pools: [{name: a, max_budget_tokens: 5}]", "pools: 1 given; at least 2"),
        ("listen: {address: '127.0.0.1:99999'}", "listen.address: '127.0.0.1:99999'"),
        ("{", "not YAML"),
        (
            "listen: {address: '127.0.0.1:0', tls: {certificate_file: README.md, private_key_file: README.md}}",
            "listen.tls: certificate_file 'README.md' and private_key_file 'README.md' given",
        ),
        ("{listen: {address: '127.0.0.1:0'}, admin: {address: 'a..b:0'}}", "admin.address: 'a..b:0' cannot be"),
    ],
)
def test_a_wrong_configuration_ends_with_2_and_one_line(tmp_path: Path, text: str, message: str) -> None:
    """A configuration error is one line that names field and value; the exit code is 2."""
    config = tmp_path / "c.yaml"
    config.write_text(text)
    ended = subprocess.run(
        [*SERVE, "--config", str(config)], capture_output=True, text=True, timeout=30, check=False
    )
    lines = [line for line in ended.stderr.splitlines() if line.startswith("dualpool serve:")]
    assert (2, 1) == (ended.returncode, len(lines))
    assert message in lines[0]
    assert "Traceback" not in ended.stderr


def test_all_faults_of_a_configuration_are_printed(tmp_path: Path) -> None:
    """Each error has a line below the file's name, and the exit code is 2."""
    config = tmp_path / "c.yaml"
    config.write_text("mode: on\nexchange: {deadline_ms: 0}\ntenant_header: authorization")
    ended = subprocess.run(
        [*SERVE, "--config", str(config)], capture_output=True, text=True, timeout=30, check=False
    )
    head, *faults = ended.stderr.splitlines()
    assert (2, f"dualpool serve: configuration file {config}: 3 errors") == (ended.returncode, head)
    assert ["  mode", "  exchange.deadline_ms", "  tenant_header"] == [line.partition(":")[0] for line in faults]
