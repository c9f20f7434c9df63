"""A process that tries mutants in a copy of the project: one forked child for each.

Run as `python -m bench.mutation.worker` in the copy. It imports pytest and all libraries, but nothing of ours, so
that a child imports the changed code and is with its first test in some tenths of a second. Trials come as JSON
lines, and so do their outcomes.
"""

import json
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import NoReturn

import hypothesis
import pytest

from bench.mutation.trial import Outcome, Trial

__all__: list[str] = []

_LIBRARIES = (
    "brotli", "envoy.service.ext_proc.v3.external_processor_pb2", "hypothesis.strategies", "msgspec", "numpy",
    "prometheus_client", "ruamel.yaml",
)  # fmt: skip
# Hypothesis is imported before pytest could rewrite its assertions, and need not be rewritten.
_OPTIONS = (
    "-x", "-q", "-p", "no:cacheprovider", "-p", "no:cov", "--hypothesis-seed=0",
    "-W", "ignore::pytest.PytestAssertRewriteWarning",
)  # fmt: skip
# A mutant may ask for all memory there is.
MAX_BYTES = 4 << 30
# A child sleeps or waits for a lock, if anything, when it has used no time for so long.
MAX_WAIT_S = 600.0


class _Only:
    """A plugin that keeps the wanted tests, in the wanted order."""

    def __init__(self, tests: list[str]) -> None:
        self._rank = {test: rank for rank, test in enumerate(tests)}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Called by pytest when it has collected the files."""
        items[:] = sorted(
            (item for item in items if item.nodeid in self._rank), key=lambda item: self._rank[item.nodeid]
        )


def main() -> None:
    """Try what comes on standard input."""
    for name in _LIBRARIES:
        import_module(name)
    # What the tests' own profile is based on: one mutant's failure tells the next nothing, and none is explained.
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile("mutants", database=None, phases=phases)
    hypothesis.settings.load_profile("mutants")
    for line in sys.stdin:
        trial = Trial(**json.loads(line))
        with _changed(Path(trial.module), trial.source):
            outcome = _tried(trial)
        print(outcome.value, flush=True)


@contextmanager
def _changed(path: Path, source: str) -> Iterator[None]:
    """Change a file for as long; what it was comes back with its time, by which Python knows its bytecode."""
    original, stat = path.read_text(), path.stat()
    path.write_text(source)
    try:
        yield
    finally:
        path.write_text(original)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def _tried(trial: Trial) -> Outcome:
    child = os.fork()
    if child == 0:
        _run(trial)
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


def _run(trial: Trial) -> NoReturn:
    """Run the tests in this process, silently, and end with pytest's exit code."""
    code = 1
    try:
        cpu_s = round(trial.cpu_s)
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
        resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):
            os.dup2(nowhere, descriptor)
        # File by file: most mutants fail in the first, and to collect a file takes longer than to run its tests.
        for file, tests in groupby(trial.tests, key=lambda test: test.partition("::")[0]):
            if code := pytest.main([*_OPTIONS, file], plugins=[_Only(list(tests))]):
                break
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
