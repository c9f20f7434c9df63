"""`dualpool serve --workers N`: a supervisor and its worker processes."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from extproc.cli.main import main
from extproc.config.loading import parse
from extproc.core.errors import ConfigurationError
from extproc.gateways.live import router_configuration
from extproc.state.frame import framed
from extproc.state.snapshot import to_bytes
from extproc.workers.process import Patience, start_process
from extproc.workers.slot import Slot
from extproc.workers.supervisor import Supervisor
from tests.grpc.test_state_changes import taught
from tests.grpc.test_state_survives import learn, saved
from tests.plain import NO_AUTHORITIES

BASE = "listen: {address: '127.0.0.1:0'}\nadmin: {address: '127.0.0.1:0'}\ndrain_s: 0\n"
# As in served.App.
BASE += "exchange: {deadline_ms: 60000}\n"
CHAT = b'{"model":"m","messages":[{"role":"user","content":"How are you, all of you?"}],"max_tokens":9}'
SERVE = [sys.executable, "-m", "extproc.cli.main", "serve", "--workers", "2"]
WITHIN_S = 60.0
_PAUSE = threading.Event()
Eventually = Callable[[Callable[[], Any]], None]


@pytest.fixture
def eventually() -> Eventually:
    """Return a function that waits for a condition, with a long timeout: a process takes a second to start."""

    def wait(condition: Callable[[], Any]) -> None:
        ends_s = time.monotonic() + WITHIN_S
        while time.monotonic() < ends_s:
            with suppress(httpx.TransportError):
                if condition():
                    return
            _PAUSE.wait(0.05)
        raise AssertionError(f"not within {WITHIN_S} s")

    return wait


@dataclass
class Router:
    """A router of two workers: its admin address, and its supervisor's process unless it runs in this one."""

    admin: str
    process: subprocess.Popen[str] | None = None
    slots: Sequence[Slot] = ()

    def get(self, path: str) -> httpx.Response:
        """Fetch an admin page."""
        return httpx.get(f"http://{self.admin}{path}", timeout=5, verify=NO_AUTHORITIES)

    def workers(self) -> list[dict[str, Any]]:
        """Return the workers as listed by /config."""
        found: list[dict[str, Any]] = self.get("/config").json()["workers"]
        return found

    def pids(self) -> list[int]:
        """Return the process ids of the workers."""
        return [worker["pid"] for worker in self.workers()]

    def all_ready(self) -> bool:
        """Return whether both workers report ready to gateways."""
        return all(worker["ready"] for worker in self.workers())

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric over the samples with these labels."""
        families = text_string_to_metric_families(self.get("/metrics").text)
        samples = [s for family in families for s in family.samples if s.name == name]
        return sum(s.value for s in samples if labels.items() <= s.labels.items())


@contextmanager
def started(folder: Path, drain_s: int = 0, more: str = "") -> Iterator[Router]:
    """Run `dualpool serve --workers 2` until both workers serve."""
    config = folder / "c.yaml"
    config.write_text(BASE.replace("drain_s: 0", f"drain_s: {drain_s}") + more)
    log = (folder / "log").open("w")
    with log, subprocess.Popen([*SERVE, "--config", str(config)], stderr=log, text=True) as process:
        try:
            for _ in range(int(WITHIN_S / 0.05)):
                serving = [each for each in lines(folder) if each["message"] == "serving"]
                if serving:
                    break
                _PAUSE.wait(0.05)
            yield Router(serving[0]["admin"], process)
        finally:
            process.kill()


def lines(folder: Path) -> list[dict[str, Any]]:
    """Return the complete log lines so far."""
    return [
        json.loads(line) for line in (folder / "log").read_text().splitlines(keepends=True) if line[-1] == "\n"
    ]


@contextmanager
def supervised(patience: Patience, config: str = BASE) -> Iterator[Router]:
    """Run a supervisor in this process, with this patience."""
    supervisor = Supervisor(parse(config), None, 2, patience)
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    try:
        yield Router(supervisor.admin_address, slots=supervisor.slots)
    finally:
        supervisor.end()
        thread.join()


def decide(call: type[Any], addresses: list[str]) -> None:
    """Send one request to each address, and read the decision."""

    async def scenario() -> None:
        for address in addresses:
            async with grpc.aio.insecure_channel(address) as channel:
                stream = call(channel)
                await stream.headers()
                await stream.body(CHAT)
                assert await stream.read() is not None

    asyncio.run(scenario())


def is_running(pid: int) -> bool:
    """Return whether a process is still running."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_each_worker_serves_and_one_admin_port_covers_them_all(
    tmp_path: Path, call: type[Any], eventually: Eventually
) -> None:
    """Each worker has its own address; the admin port sums the counters and serves all pages."""
    with started(tmp_path) as router:
        addresses = [worker["address"] for worker in router.workers()]
        assert 2 == len(set(addresses))
        decide(call, [*addresses, addresses[0]])
        eventually(lambda: router.metric("dualpool_streams_total") == 3)
        assert [2, 1] == [router.metric("dualpool_worker_streams_total", worker=str(n)) for n in range(2)]
        assert 3 == router.metric("dualpool_requests_total", pool="short")
        assert (2, 1) == (router.metric("dualpool_workers_serving"), router.metric("dualpool_info"))
        assert [200, 200] == [router.get(path).status_code for path in ("/healthz", "/readyz")]
        assert "byteclass" == router.get("/state").json()["estimator_kind"]
        # Read as by `dualpool check envoy --router` and `dualpool estimate --admin`.
        assert 0 == router_configuration(f"http://{router.admin}").drain_s
        assert 404 == router.get("/nothing").status_code


def test_a_killed_worker_is_replaced(tmp_path: Path, call: type[Any], eventually: Eventually) -> None:
    """A new process serves the same address, the other worker is unaffected; no count or saved state is lost."""
    with started(tmp_path, more=f"state: {{path: '{tmp_path}/state', every_s: 0.1}}\n") as router:
        before = router.workers()
        decide(call, [before[1]["address"]])
        asyncio.run(learn(before[0]["address"], call, 3))
        eventually(lambda: router.metric("dualpool_streams_total") == 4 and saved(tmp_path / "state-0") == 3)
        os.kill(before[0]["pid"], signal.SIGKILL)
        eventually(lambda: router.metric("dualpool_workers_replaced_total", worker="0", cause="ended") == 1)
        assert 4 == router.metric("dualpool_streams_total")
        eventually(router.all_ready)
        assert 3 == sum(int(model["observations"]) for model in router.get("/state").json()["models"])
        after = router.workers()
        assert [worker["address"] for worker in before] == [worker["address"] for worker in after]
        assert (True, False) == (before[0]["pid"] != after[0]["pid"], before[1]["pid"] != after[1]["pid"])
        decide(call, [after[0]["address"]])
        eventually(lambda: router.metric("dualpool_streams_total") == 5)


def test_a_stuck_worker_is_replaced(eventually: Eventually) -> None:
    """A process that does not answer is killed and replaced."""
    with supervised(Patience(asks_every_s=0.05, stuck_after_s=0.2)) as router:
        eventually(router.all_ready)
        stuck = router.pids()[1]
        os.kill(stuck, signal.SIGSTOP)
        eventually(lambda: router.metric("dualpool_workers_replaced_total", worker="1", cause="stuck") == 1)
        eventually(router.all_ready)
        assert not is_running(stuck)


def test_a_worker_that_gets_sigterm_drains_and_is_replaced(tmp_path: Path, eventually: Eventually) -> None:
    """SIGTERM to one worker, which an operator may send, restarts it after a drain; it ends with exit code 0."""
    with started(tmp_path) as router:
        stopped_pid = router.pids()[0]
        os.kill(stopped_pid, signal.SIGTERM)
        eventually(lambda: stopped_pid not in router.pids() and router.all_ready())
        assert 0 == next(
            each["exit_code"] for each in lines(tmp_path) if each["message"] == "a worker is replaced"
        )


def test_sigterm_drains_all(tmp_path: Path, eventually: Eventually) -> None:
    """The router turns unready while the workers keep serving; a second SIGTERM ends all processes cleanly."""
    with started(tmp_path, drain_s=60) as router:
        assert router.process is not None
        pids = router.pids()
        router.process.send_signal(signal.SIGTERM)
        eventually(lambda: router.get("/readyz").status_code == 503)
        assert all(map(is_running, pids))
        router.process.send_signal(signal.SIGTERM)
        assert 0 == router.process.wait(WITHIN_S)
        assert [] == [pid for pid in pids if is_running(pid)]
        stopped = [each.get("worker") for each in lines(tmp_path) if each["message"] == "stopped"]
        assert ({0, 1}, None) == (set(stopped[:2]), stopped[2])


@pytest.mark.parametrize("asked", [True, False])
def test_an_end_during_the_start_is_no_failure(monkeypatch: pytest.MonkeyPatch, *, asked: bool) -> None:
    """Workers that get a signal while they load their code exit: an error only if nobody asked for it."""
    supervisor = Supervisor(parse(BASE), None, 2)

    def start(slot: Slot) -> None:
        if asked:
            supervisor.end()
        raise ConfigurationError(f"worker {slot.number} did not start")

    monkeypatch.setattr(Slot, "start", start)
    with nullcontext() if asked else pytest.raises(ConfigurationError):
        supervisor.run()


def test_a_second_signal_does_not_wait_for_a_stuck_worker(
    monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    """A worker that does not react is killed at the second signal, without waiting."""
    monkeypatch.setattr("extproc.workers.supervisor.ENDS_WITHIN_S", 600.0)
    supervisor = Supervisor(parse(BASE.replace("drain_s: 0", "drain_s: 600")), None, 2)
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    router = Router(supervisor.admin_address)
    eventually(router.all_ready)
    os.kill(router.pids()[0], signal.SIGSTOP)
    supervisor.end()
    supervisor.end()
    thread.join(WITHIN_S)
    assert not thread.is_alive()


def test_a_killed_supervisor_leaves_no_orphan(tmp_path: Path, eventually: Eventually) -> None:
    """Workers end by themselves when their supervisor has died."""
    with started(tmp_path, drain_s=60) as router:
        assert router.process is not None
        pids = router.pids()
        router.process.kill()
        eventually(lambda: not any(map(is_running, pids)))


def test_a_changed_file_reaches_all_workers(tmp_path: Path, call: type[Any], eventually: Eventually) -> None:
    """SIGHUP applies the new file in all workers, also in those started later; an invalid file changes none."""
    with started(tmp_path) as router:
        assert router.process is not None
        small = "pools: [{name: tiny, max_budget_tokens: 2}, {name: long, max_budget_tokens: 9000}]\n"
        for text in (small, "mode: on\n"):
            (tmp_path / "c.yaml").write_text(BASE + text)
            router.process.send_signal(signal.SIGHUP)
            eventually(lambda t=text: router.get("/config").json()["reload"]["refused"] or t == small)  # type: ignore[misc]
            eventually(lambda: router.get("/config").json()["pools"][0]["name"] == "tiny")
        os.kill(router.pids()[0], signal.SIGKILL)
        eventually(lambda: router.metric("dualpool_workers_replaced_total") == 1)
        eventually(router.all_ready)
        decide(call, [worker["address"] for worker in router.workers()])
        eventually(lambda: router.metric("dualpool_requests_total", pool="long") == 2)


def test_an_address_in_use_ends_the_command_with_2(tmp_path: Path) -> None:
    """If a worker cannot bind its address, the command prints one line and ends with exit code 2."""
    with started(tmp_path) as router:
        taken = router.workers()[0]["address"]
        (tmp_path / "again.yaml").write_text(BASE.replace("127.0.0.1:0", taken, 1))
        command = [*SERVE, "--config", str(tmp_path / "again.yaml")]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert 2 == ended.returncode
        assert f"dualpool serve: listen.address: '{taken}' cannot be bound" in ended.stderr


def test_commands_read_and_change_a_running_supervisor(
    tmp_path: Path, eventually: Eventually, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A supervisor can be queried even while its workers start, when nothing is known yet.

    `state import`, `state undo` and `state reset` reach every worker, or name the ones they did not reach.
    """
    token, file = tmp_path / "token", tmp_path / "state"
    token.write_text("a-token")
    file.write_bytes(framed(to_bytes(taught(7))))
    (tmp_path / "body").write_bytes(CHAT)
    asking = BASE.replace("admin: {", f"admin: {{token_file: '{token}', ")
    monkeypatch.setattr("extproc.server.admin.KEEPS_FOR", 1e9)
    with supervised(Patience(), asking) as router:
        url, shown = f"http://{router.admin}", ["--token-file", str(token)]

        def learned() -> list[str]:
            headers = {"authorization": "Bearer a-token"}
            models = httpx.get(f"{url}/state", headers=headers, verify=NO_AUTHORITIES).json()["models"]
            return [each["observations"] for each in models]

        assert parse(asking) == router_configuration(url, "a-token")
        estimate = ["estimate", str(tmp_path / "body"), "--admin", url, *shown]
        assert 0 == main(estimate)
        assert 2 == main(["state", "reset", url, *shown])
        assert "no worker runs" in capsys.readouterr().err
        eventually(lambda: router.metric("dualpool_workers_serving") == 2)
        assert 0 == main(estimate)
        capsys.readouterr()
        assert 0 == main(["state", "import", str(file), url, *shown])
        assert 2 == capsys.readouterr().out.count("models added: 1")
        assert [7, 7] == [each.observations for slot in router.slots for each in slot.state().models]
        assert ["14"] == learned()
        file.write_bytes(file.read_bytes()[:-1])
        assert 2 == main(["state", "import", str(file), url, *shown])
        assert 0 == main(["state", "undo", url, "--model", "m", *shown])
        assert 2 == capsys.readouterr().out.count("model 'm' has no previous prices to restore")
        assert 0 == main(["state", "reset", url, "--model", "m", *shown])
        assert 2 == capsys.readouterr().out.count("forgot model 'm'")
        assert [(), ()] == [slot.state().models for slot in router.slots]
        assert [] == learned()
        assert 3 == router.metric("dualpool_state_changes_total", outcome="done")
        router.slots[1].end(at_once=True)
        assert router.slots[1].wait(time.monotonic() + WITHIN_S)
        assert 2 == main(["state", "reset", url, *shown])
        assert "worker 1 did not apply it; the others did" in capsys.readouterr().err


def test_top_says_why_it_shows_no_decisions(capsys: pytest.CaptureFixture[str]) -> None:
    """Each worker sees only its own decisions; an empty table would look like a router without traffic."""
    with supervised(Patience()) as router:
        assert 0 == main(["top", router.admin, "--once"])
    assert "the router has several workers" in capsys.readouterr().out


def test_a_supervisor_does_not_load_grpc() -> None:
    """So its memory stays small, and no gRPC thread exists when it starts workers."""
    code = "import sys, extproc.workers.supervisor; sys.exit('grpc' in sys.modules)"
    assert 0 == subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode


def test_ctrl_c_while_workers_load_leaves_no_traceback(
    eventually: Eventually, capfd: pytest.CaptureFixture[str]
) -> None:
    """A terminal signals the workers, too: one that still loads its code is ended by the kernel."""
    process, channel = start_process(0)
    maps = Path(f"/proc/{process.pid}/maps")
    eventually(lambda: "numpy" in maps.read_text())
    process.send_signal(signal.SIGINT)
    assert -signal.SIGINT == process.wait(WITHIN_S)
    channel.close()
    assert "" == capfd.readouterr().err
