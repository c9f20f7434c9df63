"""The mutants that `make mutants` creates; these tests require what it installs."""

from pathlib import Path

import pytest

pytest.importorskip("cosmic_ray", reason="make mutants installs it")

from bench.mutation import baseline as of_baseline
from bench.mutation.baseline import NEAREST_SHARE, Baseline
from bench.mutation.live import changed_function
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
    """Return the mutants of SOURCE."""
    (tmp_path / "placing").mkdir()
    (tmp_path / "placing" / "counter.py").write_text(SOURCE)
    return mutants(tmp_path, [tmp_path / "placing" / "counter.py"])


def test_operators_numbers_bounds_and_statements_are_changed(found: list[Mutant]) -> None:
    """Each place is changed in each way, and nothing else is."""
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


def test_a_condition_with_an_assignment_is_negated_as_a_whole() -> None:
    """In Python `not` before an assignment expression requires parentheses."""
    source = "def f(g):\n    if found := g():\n        return found\n    return 0\n"
    change = Mutant("a.py", "AddNot", 0, 2, (2,)).change(source)
    assert change is not None
    assert "if not (found := g()):" == change.after
    compile(change.source, "a.py", "exec")


def test_the_lines_of_a_mutant_are_those_of_its_statement(found: list[Mutant]) -> None:
    """The lines determine which tests execute the changed code."""
    assert {"placing/counter.py"} == {mutant.module for mutant in found}
    assert {"placing"} == set(map(room_of, found))
    assert {(6,), (13,), (14,), (15,), (16,)} == {mutant.lines for mutant in found}


def test_a_sample_is_the_same_each_time(found: list[Mutant]) -> None:
    """Of listed files all mutants are used, of others a fixed number plus a sixteenth, the same for a seed."""
    assert found == sampled(found, ["placing/counter.py"], 0, seed=0)
    once, again = (sampled(found, [], 3, seed=1) for _ in range(2))
    assert (3 + len(found) // 16, once) == (len(once), again)
    assert found == sampled(found, [], 100, seed=1)


def codes_of(mutant: Mutant) -> tuple[str, str] | None:
    """Return the names of the function that a mutant changes, before and after; None if it changes none."""
    change = mutant.change(SOURCE)
    assert change is not None
    found = changed_function(compile(SOURCE, "", "exec"), compile(change.source, "", "exec"))
    return found and (found[0].co_qualname, found[1].co_qualname)


def test_the_body_of_a_function_can_be_changed_without_an_import(found: list[Mutant]) -> None:
    """Constants and defaults are evaluated at import, so changing them requires a new import."""
    of_line = {mutant.line: codes_of(mutant) for mutant in found}
    same = ("Counter.count", "Counter.count")
    assert {6: None, 13: None, 14: same, 15: same, 16: same} == of_line


def test_a_change_affects_no_other_function() -> None:
    """A statement of several lines becomes one line; the functions after it only move."""
    before = "def f():\n    g(\n        1\n    )\n\ndef h():\n    return 2\n"
    after = "def f():\n    pass\n\ndef h():\n    return 2\n"
    changed = changed_function(compile(before, "", "exec"), compile(after, "", "exec"))
    assert changed is not None
    assert ("f", "f") == (changed[0].co_name, changed[1].co_name)


def test_the_nearest_tests_run_first_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quick test files come before slow ones, the module's own before others, up to a share of the time of all."""
    quick = {"test_policy.py::a": 2.0, "test_placing.py::a": 1.5, "far.py::a": 0.6, "far.py::b": 0.1}
    near = {**quick, "test_policy_slow.py::a": 12.0}
    baseline = Baseline(
        near | {"other.py::a": 12.0 / NEAREST_SHARE - sum(near.values())},
        {"core/placing/policy.py": {"7": list(near), "8": ["far.py::a"]}},
        {},
    )
    tests = baseline.tests_of("core/placing/policy.py", [7])
    assert ["test_policy.py::a", "test_placing.py::a", "far.py::b", "far.py::a", "test_policy_slow.py::a"] == tests
    assert list(quick) == sorted(baseline.nearest(tests), key=list(quick).index)
    monkeypatch.setattr(of_baseline, "COLLECTING_SHARE", (12.0 - 3.8) / 3 * NEAREST_SHARE / 12.0)
    assert ["test_policy.py::a", "test_placing.py::a", "far.py::b"] == baseline.nearest(tests, collects=True)
    assert ["far.py::a"] == baseline.tests_of("core/placing/policy.py", [8])
