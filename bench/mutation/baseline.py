"""Measurement of which tests run which lines, and how long they take: once, on the unchanged code.

Run as `python -m bench.mutation.baseline TESTS...` in a copy of the project; writes baseline.json there.
"""

import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import pytest
from coverage import CoverageData

__all__ = ["FILE", "Baseline", "file_of"]

FILE = "baseline.json"
# With a mutant, a test may take PATIENCE_S more than PATIENCE times its usual time.
PATIENCE_S = 3.0
PATIENCE = 5.0
# A test file that is not named after the module is ranked as if it took this much longer.
FAR_S = 2.0
# A mutant that the nearest tests do not notice counts as survived: those that take this share of all tests' time.
# A share, so that a slow machine runs as many of them; so is the approximate time to collect a file again.
NEAREST_SHARE = 1 / 12
COLLECTING_SHARE = 1 / 500


@dataclass
class Baseline:
    """The tests' CPU times and the lines they run.

    `seconds` is the CPU time of each test by its id. `tests` maps each file and line to the tests that run it;
    `early` maps each file to its lines that ran before the first test.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    tests: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    early: dict[str, list[int]] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> "Baseline":
        """Return the baseline that was measured in a copy of the project."""
        return cls(**json.loads((folder / FILE).read_text()))

    def tests_of(self, module: str, lines: Iterable[int]) -> list[str]:
        """Return the tests that run any of the lines, grouped by file, fast files first.

        Files that are not named after the module rank as slower than they are; half as much slower if they are
        named after its package.

        Lines that run only at import (constants, tables, defaults) concern all tests that run any line of the
        file, are named after it, or run nothing in core but check it from outside; if no test runs any line of the
        file, they concern all tests.
        """
        names = Path(module).stem, Path(module).parent.name

        def is_named(test: str) -> bool:
            return any(name in file_of(test) for name in names)

        by_line = self.tests.get(module, {})
        found = {test for line in lines for test in by_line.get(str(line), ())}
        if not found:
            of_file = {test for tests in by_line.values() for test in tests}
            named = {test for test in self.seconds if is_named(test)}
            found = of_file | named | self._outside if of_file else set(self.seconds)
        files: dict[str, list[str]] = {}
        for test in sorted(found, key=lambda test: (self.seconds[test], test)):
            files.setdefault(file_of(test), []).append(test)

        def rank(file: str) -> tuple[float, str]:
            far_s = 0.0 if names[0] in file else FAR_S / 2 if names[1] in file else FAR_S
            return sum(self.seconds[test] for test in files[file]) + far_s, file

        return [test for file in sorted(files, key=rank) for test in files[file]]

    def distance_s(self, module: str, test: str) -> float:
        """Return a test's distance from a module: its seconds, plus some if its file is not named after it."""
        return self.seconds[test] + (0.0 if Path(module).stem in file_of(test) else FAR_S / 10)

    def nearest(self, tests: Sequence[str], *, collects: bool = False) -> list[str]:
        """Return the first tests that together take at most NEAREST_SHARE of the time of all.

        If the worker `collects` their files again, this includes the time for it.
        """
        all_s = sum(self.seconds.values())
        most_s, file_s = NEAREST_SHARE * all_s, COLLECTING_SHARE * all_s * collects
        firsts = {file_of(test): test for test in reversed(tests)}
        total_s = accumulate(self.seconds[test] + file_s * (firsts[file_of(test)] == test) for test in tests)
        return [test for test, until_s in zip(tests, total_s, strict=True) if until_s <= most_s]

    def is_early(self, module: str, lines: Iterable[int]) -> bool:
        """Return whether any of the lines ran before the first test."""
        return not set(lines).isdisjoint(self.early.get(module, ()))

    @cached_property
    def _outside(self) -> set[str]:
        inside = {test for by_line in self.tests.values() for tests in by_line.values() for test in tests}
        return set(self.seconds) - inside

    def patience_s(self, test: str) -> float:
        """Return the seconds of CPU time that a test may take with a mutant."""
        return PATIENCE_S + PATIENCE * self.seconds[test]


def file_of(test: str) -> str:
    """Return the file of a test."""
    return test.partition("::")[0]


class _Clock:
    """A pytest plugin that records the CPU time of each test."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Called by pytest around each test."""
        start_s = time.process_time()
        result = yield
        self.seconds[item.nodeid] = time.process_time() - start_s
        return result


def main(arguments: list[str]) -> int:
    """Run the tests with coverage per test, and write baseline.json."""
    clock, root = _Clock(), Path.cwd()
    options = [
        "-q",
        "-p",
        "no:cacheprovider",
        "--cov=extproc/core",
        "--cov-context=test",
        "--cov-report=",
        "--cov-fail-under=0",
    ]
    if failed := pytest.main([*options, *arguments], plugins=[clock]):
        return int(failed)
    data = CoverageData()
    data.read()
    tests, early = {}, {}
    for path in data.measured_files():
        by_line = data.contexts_by_lineno(path)
        module = Path(path).relative_to(root).as_posix()
        tests[module] = {
            line: sorted({context.partition("|")[0] for context in contexts if context})
            for line, contexts in by_line.items()
        }
        early[module] = [line for line, contexts in by_line.items() if "" in contexts]
    (root / FILE).write_text(json.dumps({"seconds": clock.seconds, "tests": tests, "early": early}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
