"""Which tests run which lines, and how long they take: measured once, on the code as it is.

Run as `python -m bench.mutation.baseline TESTS...` in a copy of the project; writes baseline.json there.
"""

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from coverage import CoverageData

__all__ = ["FILE", "Baseline"]

FILE = "baseline.json"
# A mutant may take so much time, and so many times what the tests take without it.
PATIENCE_S = 10.0
PATIENCE = 10.0


@dataclass
class Baseline:
    """`seconds` of each test by its id, and for each file the `tests` that run each of its lines."""

    seconds: dict[str, float] = field(default_factory=dict)
    tests: dict[str, dict[str, list[str]]] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> "Baseline":
        """Return what was measured in a copy of the project."""
        return cls(**json.loads((folder / FILE).read_text()))

    def tests_of(self, module: str, lines: Iterable[int]) -> list[str]:
        """Return the tests that run any of the lines, by file: first files named after the module or its room.

        What runs at import only (constants, tables, defaults) is there for all tests that run anything of the
        file, or nothing of core, but look at it from outside; of a file that is nothing else, for all tests.
        """
        by_line = self.tests.get(module, {})
        found = {test for line in lines for test in by_line.get(str(line), ())}
        if not found:
            of_file = {test for tests in by_line.values() for test in tests}
            found = of_file | self._outside if of_file else set(self.seconds)
        files: dict[str, list[str]] = {}
        for test in sorted(found, key=lambda test: (self.seconds[test], test)):
            files.setdefault(test.partition("::")[0], []).append(test)
        names = Path(module).stem, Path(module).parent.name

        def rank(file: str) -> tuple[bool, float, str]:
            return not any(name in file for name in names), sum(self.seconds[test] for test in files[file]), file

        return [test for file in sorted(files, key=rank) for test in files[file]]

    @property
    def _outside(self) -> set[str]:
        inside = {test for by_line in self.tests.values() for tests in by_line.values() for test in tests}
        return set(self.seconds) - inside

    def patience_s(self, tests: Iterable[str]) -> float:
        """Return the seconds of processor time that a mutant may take for these tests."""
        return PATIENCE_S + PATIENCE * sum(self.seconds[test] for test in tests)


class _Clock:
    """A plugin that notes how long each test takes."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Called by pytest for each phase of a test."""
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration


def main(arguments: list[str]) -> int:
    """Run the tests with coverage by test; write what they told."""
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
    tests = {}
    for path in data.measured_files():
        by_line = data.contexts_by_lineno(path)
        module = Path(path).relative_to(root).as_posix()
        tests[module] = {
            line: sorted({context.partition("|")[0] for context in contexts if context})
            for line, contexts in by_line.items()
        }
    (root / FILE).write_text(json.dumps({"seconds": clock.seconds, "tests": tests}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
