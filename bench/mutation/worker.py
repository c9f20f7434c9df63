"""A process that tries mutants in a copy of the project, one forked child per mutant.

Run as `python -m bench.mutation.worker` in the copy. It imports pytest and all libraries, but nothing of extproc,
so that a child imports the changed code. Most mutants do not even need that: see bench/mutation/live.py. Trials
are read, and verdicts written, as JSON lines.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import groupby
from pathlib import Path

import pytest

from bench.mutation.child import OPTIONS, Patience, explain_nothing, verdict
from bench.mutation.trial import Trial, Verdict

__all__: list[str] = []

_LIBRARIES = (
    "brotli", "envoy.service.ext_proc.v3.external_processor_pb2", "hypothesis.strategies", "msgspec", "numpy",
    "prometheus_client", "ruamel.yaml",
)  # fmt: skip


class _Only:
    """A pytest plugin that keeps only the given tests, in the given order."""

    def __init__(self, tests: list[str]) -> None:
        self._rank = {test: rank for rank, test in enumerate(tests)}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Called by pytest after it has collected the files."""
        items[:] = sorted(
            (item for item in items if item.nodeid in self._rank), key=lambda item: self._rank[item.nodeid]
        )


def main(files: list[str]) -> None:
    """Try the mutants that arrive on standard input, with the tests in these files."""
    for name in _LIBRARIES:
        import_module(name)
    explain_nothing()
    command = [sys.executable, "-m", "bench.mutation.live", *files]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as live:
        assert live.stdin is not None
        assert live.stdout is not None
        for line in sys.stdin:
            trial, answer = Trial.read(line), ""
            if trial.live:
                live.stdin.write(line)
                live.stdin.flush()
                answer = live.stdout.readline().strip()
            print(answer or _tried(trial).line().strip(), flush=True)


def _tried(trial: Trial) -> Verdict:
    # File by file: most mutants fail in the first, and collecting a file takes longer than running its tests.
    files = [
        (file, list(tests)) for file, tests in groupby(trial.seconds, key=lambda test: test.partition("::")[0])
    ]

    def run(note: Path) -> bool:
        return any(
            pytest.main([*OPTIONS, file], plugins=[_Only(tests), Patience(trial.seconds, note)])
            for file, tests in files
        )

    with _changed(Path(trial.module), trial.source):
        return verdict(run)


@contextmanager
def _changed(path: Path, source: str) -> Iterator[None]:
    """Change a file temporarily; restore it with its modification time, so that its bytecode stays valid."""
    original, stat = path.read_text(), path.stat()
    path.write_text(source)
    try:
        yield
    finally:
        path.write_text(original)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


if __name__ == "__main__":
    main(sys.argv[1:])
