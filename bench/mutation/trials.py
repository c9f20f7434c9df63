"""Trying mutants: copies of the project, a worker in each, and what comes of every mutant."""

import dataclasses
import json
import os
import queue
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.mutation.baseline import Baseline
from bench.mutation.known import reason_of
from bench.mutation.mutants import Mutant, Result
from bench.mutation.trial import Outcome, Trial

__all__ = ["ROOT", "Trials"]

ROOT = Path(__file__).parents[2]
# The tests are those of files that import nothing of ours but these, and of documents, which name every default.
_ROOMS = {"core", "wire", "config", "documents", "compose"}
_DOCUMENTS = "test_generated_docs.py"
# So many tests have to pass in a worker without a mutant, before what it says of mutants is believed.
_PROVING = 20
_IMPORTS = re.compile(r"^(?:from|import) (?:extproc\.|(?=bench))(\w+)", re.MULTILINE)


class Trials:
    """Workers in copies of the project below `folder`; the copies are the caller's to remove."""

    def __init__(self, folder: Path, workers: int) -> None:
        first = _copied(folder / "0")
        self._baseline = _measured(first)
        # With bytecode and all, so that no worker compiles what does not change.
        others = [shutil.copytree(first, folder / str(number)) for number in range(1, workers)]
        self._copies = [first, *others]

    def run(self, chosen: Sequence[Mutant], until_s: float) -> list[Result]:
        """Try mutants; none is begun after that time of the monotonic clock. Survivors are told as they come."""
        baseline = self._baseline
        sources = {mutant.module: (self._copies[0] / mutant.module).read_text() for mutant in chosen}
        workers = [_started(copy) for copy in self._copies]
        free: queue.SimpleQueue[subprocess.Popen[str]] = queue.SimpleQueue()
        for worker in workers:
            _need_survival(worker, chosen[0].module, sources[chosen[0].module], baseline)
            free.put(worker)

        def tried(mutant: Mutant) -> Result | None:
            change = mutant.change(sources[mutant.module])
            if change is None or time.monotonic() > until_s:
                return None
            if (reason := reason_of(mutant, change)) and reason.equivalent:
                return Result(mutant, change, Outcome.EQUIVALENT)
            tests = baseline.tests_of(mutant.module, mutant.lines)
            worker = free.get()
            try:
                outcome = _asked(worker, Trial(mutant.module, change.source, tests, baseline.patience_s(tests)))
            finally:
                free.put(worker)
            if outcome is Outcome.SURVIVED:
                place = f"{mutant.module}:{mutant.line}"
                print(f"{place} {change.before} -> {change.after}", file=sys.stderr, flush=True)
            return Result(mutant, change, outcome)

        with ThreadPoolExecutor(len(workers)) as pool:
            results = [result for result in pool.map(tried, chosen) if result is not None]
        for worker in workers:
            worker.communicate()
        return results


def _measured(copy: Path) -> Baseline:
    tests = sorted(
        path.relative_to(copy).as_posix()
        for path in (copy / "tests" / "unit").glob("test_*.py")
        if path.name == _DOCUMENTS or (set() < set(_IMPORTS.findall(path.read_text())) <= _ROOMS)
    )
    command = [sys.executable, "-m", "bench.mutation.baseline", *tests]
    subprocess.run(command, cwd=copy, env=_environment(copy) | {"PYTHONDONTWRITEBYTECODE": ""}, check=True)
    return Baseline.read(copy)


def _need_survival(worker: subprocess.Popen[str], module: str, source: str, baseline: Baseline) -> None:
    """Try a module as it is: a worker in which that does not survive kills for other reasons than mutants."""
    tests = baseline.tests_of(module, ())[:_PROVING]
    outcome = _asked(worker, Trial(module, source, tests, baseline.patience_s(tests)))
    if outcome is not Outcome.SURVIVED:
        sys.exit(f"{module} without a mutant is {outcome} by {len(tests)} tests")


def _copied(copy: Path) -> Path:
    for name in ("extproc", "tests", "bench", "docs", "deploy", "envoy"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, copy)
    return copy


def _started(copy: Path) -> subprocess.Popen[str]:
    # Bytecode of a changed file could be taken for that of the next change: of the same second, and of one size.
    return subprocess.Popen(
        [sys.executable, "-m", "bench.mutation.worker"],
        cwd=copy, env=_environment(copy) | {"PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def _environment(copy: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(copy), "OPENBLAS_NUM_THREADS": "1"}


def _asked(worker: subprocess.Popen[str], trial: Trial) -> Outcome:
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(json.dumps(dataclasses.asdict(trial)) + "\n")
    worker.stdin.flush()
    return Outcome(worker.stdout.readline().strip())
