"""Trying mutants: copies of the project, with a worker in each."""

import os
import queue
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.mutation import ROOMS
from bench.mutation.baseline import Baseline, file_of
from bench.mutation.known import reason_of
from bench.mutation.mutants import Change, Mutant, Result
from bench.mutation.trial import Outcome, Trial, Verdict

__all__ = ["ROOT", "Trials"]

ROOT = Path(__file__).parents[2]
# This test is used whatever it imports, since the docs contain every default.
_DOCUMENTS = "test_generated_docs.py"
_NOT_COPIED = (".git", ".venv*", "build", "dist", "__pycache__", ".hypothesis", ".*_cache", ".coverage*")
# The last tests that killed mutants of the same file run first, up to this many.
KILLERS = 3
# This many tests must pass in a worker without a mutant before its verdicts are trusted.
_PROVING = 20
_IMPORTS = re.compile(r"^(?:from|import) (?:extproc\.|(?=bench))(\w+)", re.MULTILINE)


class Trials:
    """Workers in copies of the project in `folder`; the caller removes the copies."""

    def __init__(self, folder: Path, workers: int) -> None:
        first = _copied(folder / "0")
        self._baseline = _measured(first)
        # Copied with the bytecode, so that workers need not compile unchanged modules.
        others = [shutil.copytree(first, folder / str(number)) for number in range(1, workers)]
        self._copies = [first, *others]
        self._killers: dict[str, list[str]] = {}

    def run(self, chosen: Sequence[Mutant], until_s: float) -> list[Result]:
        """Try mutants; start none after `until_s` of the monotonic clock. Survivors are printed immediately."""
        sources = {mutant.module: (self._copies[0] / mutant.module).read_text() for mutant in chosen}
        files = sorted(set(map(file_of, self._baseline.seconds)))
        workers = [_started(copy, files) for copy in self._copies]
        free: queue.SimpleQueue[subprocess.Popen[str]] = queue.SimpleQueue()
        for worker in workers:
            self._need_survival(worker, chosen[0].module, sources[chosen[0].module])
            free.put(worker)

        def tried(mutant: Mutant) -> Result | None:
            change = mutant.change(sources[mutant.module])
            if change is None or time.monotonic() > until_s:
                return None
            if (reason := reason_of(mutant, change)) and reason.equivalent:
                return Result(mutant, change, Outcome.EQUIVALENT)
            worker = free.get()
            try:
                verdict = _asked(worker, self._trial(mutant, change))
            finally:
                free.put(worker)
            if verdict.test:
                self._killers.setdefault(mutant.module, []).append(verdict.test)
            if verdict.outcome is Outcome.SURVIVED:
                place = f"{mutant.module}:{mutant.line}"
                print(f"{place} {change.before} -> {change.after}", file=sys.stderr, flush=True)
            return Result(mutant, change, verdict.outcome)

        with ThreadPoolExecutor(len(workers)) as pool:
            results = [result for result in pool.map(tried, chosen) if result is not None]
        for worker in workers:
            worker.communicate()
        return results

    def _trial(self, mutant: Mutant, change: Change) -> Trial:
        """Return the trial for a worker; the tests that last killed mutants of the same module run first.

        If test files must be imported again, importing takes most of the time, so the tests of a file stay
        together; otherwise, tests are ordered individually.
        """
        baseline, killers = self._baseline, self._killers.get(mutant.module, [])[-KILLERS:]
        tests = baseline.tests_of(mutant.module, mutant.lines)
        rank = {test: place for place, test in enumerate(killers, 1)}
        if live := not baseline.is_early(mutant.module, mutant.lines):
            tests.sort(key=lambda test: (-rank.get(test, 0), baseline.distance_s(mutant.module, test)))
        else:
            of_files = {file_of(test): place for test, place in rank.items()}
            tests.sort(key=lambda test: -of_files.get(file_of(test), 0))
        nearest = baseline.nearest(tests, collects=not live)
        return Trial(mutant.module, change.source, self._patience(nearest), live)

    def _need_survival(self, worker: subprocess.Popen[str], module: str, source: str) -> None:
        """Try an unchanged module: if it does not survive, the worker's kills are not caused by the mutants."""
        tests = self._baseline.tests_of(module, ())[:_PROVING]
        verdict = _asked(worker, Trial(module, source, self._patience(tests), live=False))
        if verdict.outcome is not Outcome.SURVIVED:
            sys.exit(f"the unchanged {module} is {verdict.outcome} by {verdict.test}")

    def _patience(self, tests: Iterable[str]) -> dict[str, float]:
        return {test: self._baseline.patience_s(test) for test in tests}


def _measured(copy: Path) -> Baseline:
    tests = sorted(
        path.relative_to(copy).as_posix()
        for path in (copy / "tests" / "unit").glob("test_*.py")
        if path.name == _DOCUMENTS or (set() < set(_IMPORTS.findall(path.read_text())) <= ROOMS)
    )
    command = [sys.executable, "-m", "bench.mutation.baseline", *tests]
    subprocess.run(command, cwd=copy, env=_environment(copy) | {"PYTHONDONTWRITEBYTECODE": ""}, check=True)
    return Baseline.read(copy)


def _copied(copy: Path) -> Path:
    # Whole, since nothing else says which files the tests read.
    return Path(shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*_NOT_COPIED)))


def _started(copy: Path, files: list[str]) -> subprocess.Popen[str]:
    # No bytecode: two changes of a file within a second and of equal size would be taken for the same.
    return subprocess.Popen(
        [sys.executable, "-m", "bench.mutation.worker", *files],
        cwd=copy, env=_environment(copy) | {"PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def _environment(copy: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(copy), "OPENBLAS_NUM_THREADS": "1"}


def _asked(worker: subprocess.Popen[str], trial: Trial) -> Verdict:
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(trial.line())
    worker.stdin.flush()
    return Verdict.read(worker.stdout.readline())
