"""A forked child that runs tests without output, until one fails or takes too long."""

import os
import resource
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

from bench.mutation.trial import Outcome, Verdict

__all__ = ["OPTIONS", "Patience", "explain_nothing", "verdict"]

# Failures are not reported, so pytest need not spend time on explaining them.
OPTIONS = (
    "-x", "-q", "-s", "--tb=no", "--assert=plain", "-p", "no:cacheprovider", "-p", "no:cov", "--hypothesis-seed=0",
)  # fmt: skip
# A mutant may try to allocate all memory.
MAX_BYTES = 4 << 30
# A child that is not done after this much wall-clock time is sleeping or waiting for a lock.
MAX_WAIT_S = 1200.0


class Patience:
    """A pytest plugin that writes the running test's id to a file and kills the process if it takes too long."""

    def __init__(self, seconds: dict[str, float], note: Path) -> None:
        self._seconds = seconds
        self._note = note

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> None:
        """Called by pytest before each test."""
        self._note.write_text(item.nodeid)
        signal.setitimer(signal.ITIMER_PROF, self._seconds[item.nodeid])


def explain_nothing() -> None:
    """Set the base of the tests' hypothesis profile: failures are neither stored nor explained."""
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile("mutants", database=None, phases=phases)
    hypothesis.settings.load_profile("mutants")


def verdict(run: Callable[[Path], bool]) -> Verdict:
    """Fork and call `run` in the child; it returns whether a test failed and writes the running one to a file."""
    with tempfile.TemporaryDirectory() as folder:
        note = Path(folder) / "test"
        note.touch()
        child = os.fork()
        if child == 0:
            _run(run, note)
        outcome = _outcome_of(child)
        return Verdict(outcome, "" if outcome is Outcome.SURVIVED else note.read_text())


def _run(run: Callable[[Path], bool], note: Path) -> None:
    failed = True
    try:
        resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):
            os.dup2(nowhere, descriptor)
        failed = run(note)
    finally:
        os._exit(failed)


def _outcome_of(child: int) -> Outcome:
    give_up_s = time.monotonic() + MAX_WAIT_S
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > give_up_s:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.005)
    if os.WIFSIGNALED(status):
        return Outcome.TIMEOUT
    return Outcome.SURVIVED if os.WEXITSTATUS(status) == 0 else Outcome.KILLED
