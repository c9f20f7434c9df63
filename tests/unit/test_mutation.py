"""The changes that `make mutants` makes; they need what it installs."""

from pathlib import Path

import pytest

pytest.importorskip("cosmic_ray", reason="make mutants installs it")

from bench.mutation.mutants import Mutant, mutants, room_of, sampled

SOURCE = '''"""A module."""

from dataclasses import dataclass

__all__ = ["Counter"]
MOST = 5


@dataclass(frozen=True)
class Counter:
    """Counts."""

    def count(self, names, *, weight=1):
        self.calls.append(names)
        if names and weight > 0:
            self.total += min(len(names), MOST)
        return self.total
'''


@pytest.fixture
def found(tmp_path: Path) -> list[Mutant]:
    """Return the mutants of the module above."""
    (tmp_path / "placing").mkdir()
    (tmp_path / "placing" / "counter.py").write_text(SOURCE)
    return mutants(tmp_path, [tmp_path / "placing" / "counter.py"])


def test_operators_numbers_bounds_and_statements_are_changed(found: list[Mutant]) -> None:
    """Each place is changed in each way, and nothing but that place."""
    changes = [change for mutant in found if (change := mutant.change(SOURCE)) is not None]
    assert len(found) == len(changes)
    assert {
        "MOST = 6",
        "MOST = 4",
        "def count(self, names, *, weight= 2):",
        "def count(self, names, *, weight= 0):",
        "pass",
        "if not names and weight > 0:",
        "if names or weight > 0:",
        "if names and weight > 1:",
        "if names and weight > -1:",
        "if names and weight >= 0:",
        "self.total += (len(names))",
        "self.total += (MOST)",
    } == {change.after for change in changes}
    left_out = {"self.calls.append(names)", "self.total += min(len(names), MOST)"}
    assert left_out == {change.before for change in changes if change.after == "pass"}


def test_the_lines_of_a_mutant_are_those_of_its_statement(found: list[Mutant]) -> None:
    """By them the tests are found that run what is changed."""
    assert {"placing/counter.py"} == {mutant.module for mutant in found}
    assert {"placing"} == set(map(room_of, found))
    assert {(6,), (13,), (14,), (15,), (16,)} == {mutant.lines for mutant in found}


def test_a_sample_is_the_same_each_time(found: list[Mutant]) -> None:
    """Of the files that are tried whole all are there, of others as many as are asked for, by the seed."""
    assert found == sampled(found, ["placing/counter.py"], 0, seed=0)
    once, again = (sampled(found, [], 3, seed=1) for _ in range(2))
    assert (3, once) == (len(once), again)
    assert found == sampled(found, [], 100, seed=1)
