import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from extproc.demo.processes import Child, StartFailed

SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
WITHIN_S = 20.0


def eventually(condition: Callable[[], bool]) -> bool:
    """Return whether something becomes true in time."""
    deadline = time.monotonic() + WITHIN_S
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def alive(pid: int) -> bool:
    """Return whether a process exists and is not a zombie."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text("utf-8")
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def is_up(child: Child) -> bool | None:
    """Return True once a child has printed its word, None before."""
    return "up" in child.log.read_text("utf-8").splitlines() or None


def test_a_child_is_awaited_and_ended(tmp_path: Path) -> None:
    """`wait_for` returns when the child's log shows that it is up; after `end` the child no longer runs."""
    child = Child("sleeper", SLEEPER, tmp_path)
    child.wait_for(lambda: is_up(child), "word")
    child.terminate()
    child.end()
    assert not child.running


def test_a_child_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that ignores SIGTERM is killed after a while."""
    monkeypatch.setattr("extproc.demo.processes.ENDS_WITHIN_S", 0.1)
    program = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    child = Child("stubborn", [sys.executable, "-c", program], tmp_path)
    child.wait_for(lambda: is_up(child), "word")
    child.terminate()
    child.end()
    assert not child.running


def test_a_child_that_ends_at_once_is_reported_with_its_log(tmp_path: Path) -> None:
    """A failed start names the program and its exit code, and shows its log."""
    child = Child("broken", [sys.executable, "-c", "import sys; sys.exit('port 80 is taken')"], tmp_path)
    with pytest.raises(StartFailed) as failed:
        child.wait_for(lambda: None, "port")
    message = str(failed.value)
    assert message.startswith("broken ended with exit code 1.")
    assert "port 80 is taken" in message
    assert str(child.log) in message


def test_a_child_that_never_comes_up_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of a start that takes too long names what was missing."""
    monkeypatch.setattr("extproc.demo.processes.STARTS_WITHIN_S", 0.0)
    child = Child("sleeper", SLEEPER, tmp_path)
    with pytest.raises(StartFailed, match="sleeper had no port within 0 s"):
        child.wait_for(lambda: None, "port")
    child.terminate()
    child.end()


def test_a_missing_program_is_reported(tmp_path: Path) -> None:
    """A program that cannot be run is a failed start that names its path."""
    with pytest.raises(StartFailed, match="/no/such/program"):
        Child("nothing", ["/no/such/program"], tmp_path)


def test_a_file_that_is_no_program_is_reported(tmp_path: Path) -> None:
    """If the kernel cannot run a file that may be run, the failed start names it and the reason."""
    file = tmp_path / "empty"
    file.write_bytes(b"\0")
    file.chmod(0o755)
    with pytest.raises(StartFailed, match=f"{file} cannot be run: Exec format error"):
        Child("empty", [str(file)], tmp_path).wait_for(lambda: None, "port")


def test_a_child_is_started_without_a_fork_of_this_process(tmp_path: Path) -> None:
    """Handlers of a fork are not called: those of gRPC leave calls on other threads without a response."""
    program = (
        "import os; from pathlib import Path; from extproc.demo.processes import Child\n"
        "os.register_at_fork(before=lambda: print('forked', flush=True))\n"
        f"Child('true', ['true'], Path({str(tmp_path)!r})).end()"
    )
    ran = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, timeout=60, check=True)
    assert b"" == ran.stdout


def test_a_child_heeds_the_signals_that_python_ignores(tmp_path: Path) -> None:
    """SIGPIPE and SIGXFSZ end a child, as they do when a shell starts it."""
    child = Child("signals", ["/bin/cat", "/proc/self/status"], tmp_path)
    child.end()
    (ignored,) = [line for line in child.log.read_text("utf-8").splitlines() if line.startswith("SigIgn:")]
    assert 0 == int(ignored.split()[1], 16) & (1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets the kernel kill the children of the dead")
def test_children_die_with_their_parent(tmp_path: Path) -> None:
    """If the demo is killed and cannot end its children, they end anyway."""
    program = (
        "import sys, time; from pathlib import Path; from extproc.demo.processes import Child\n"
        f"child = Child('sleeper', {SLEEPER!r}, Path({str(tmp_path)!r}))\n"
        "child.wait_for(lambda: child.log.read_text() or None, 'word')\n"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        os.kill(parent.pid, signal.SIGKILL)
    assert eventually(lambda: not alive(pid))
