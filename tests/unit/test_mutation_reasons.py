"""The reasons why mutants survive (bench/mutation/known.toml)."""

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REASONS = tomllib.loads((ROOT / "bench" / "mutation" / "known.toml").read_text("utf-8"))["mutants"]


@pytest.mark.parametrize("module", sorted({each["module"] for each in REASONS}))
def test_each_reason_is_about_a_line_that_is_there(module: str) -> None:
    """A reason moves with its line, and goes with it."""
    source = without_space((ROOT / "extproc" / "core" / f"{module}.py").read_text("utf-8"))
    befores = [each["before"] for each in REASONS if each["module"] == module]
    assert [] == [before for before in befores if without_space(before) not in source]


def without_space(code: str) -> str:
    """Return code without white space: the lines of a change are joined."""
    return "".join(code.split())
