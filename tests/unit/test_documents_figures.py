"""Every measured figure in the documents has a command that reproduces it.

Measured figures are recognised by their unit: no setting is in microseconds, milliseconds of CPU or of a
percentile, shares of a core, requests a second or MB. A section with such a figure, or a section enclosing it,
names the command or links to a page in `bench/`. In `bench/`, every section with a table of figures names one.
Whether the command still produces that figure is for whoever changes the figure to check.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.__main__ import MEASUREMENTS
from extproc.cli.evaluate import PARTS

ROOT = Path(__file__).parents[2]
PAGES = sorted(path for pattern in ("*.md", "docs/**/*.md", "bench/*.md") for path in ROOT.glob(pattern))
FIGURE = re.compile(
    r"\d ?us\b|\d ?ms (?:of CPU|p\d\d)|\bp\d\d (?:of )?\d[\d.]* ms|(?:%|\d) of a core\b"
    r"|\d[\d,]* (?:requests|decisions) (?:a|per) second|\d ?MB\b|\bMeasured on\b"
)
COMMAND = re.compile(
    r"\b(?:python -m bench[\w.]*[^`\n|]*|dualpool (?:evaluate|plan)\b[^`\n|]*|make (?:bench|mutants|demo)\b"
    r"|pytest tests/\S+)"
)
TO_BENCH = re.compile(r"\]\((?:\.\./)*(?:bench/)?(\w+\.md)(?:#[\w-]+)?\)")
BENCH = {path.name for path in (ROOT / "bench").glob("*.md")}


def sections(page: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Yield each section's heading, its own text, and the texts of the sections enclosing it."""
    text = page.read_text("utf-8")
    # Tables that are generated from settings and metrics have units, but no figures.
    text = re.sub(r"<!-- generated.*?<!-- end of[^>]*-->", "", text, flags=re.DOTALL)
    parts = re.split(r"^(#+) (.*)$", text, flags=re.MULTILINE)
    enclosing: list[tuple[int, str]] = []
    for marks, heading, own in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        enclosing = [each for each in enclosing if each[0] < len(marks)]
        yield heading, own, [each for _, each in enclosing]
        enclosing.append((len(marks), own))


def has_command(texts: list[str], page: Path) -> bool:
    """Return whether one of the texts names a command, or links from another page to figures with one."""
    for text in texts:
        if COMMAND.search(text):
            return True
        if page.parent.name != "bench" and any(name in BENCH for name in TO_BENCH.findall(text)):
            return True
    return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_figure_has_its_command(page: Path) -> None:
    """No section shows a measurement without saying how to repeat it."""
    in_bench = page.parent.name == "bench"
    missing = []
    for heading, own, enclosing in sections(page):
        shows = re.search(r"^\|.*\d", own, re.MULTILINE) if in_bench else FIGURE.search(own)
        if shows and not has_command([own, *enclosing], page):
            missing.append(f"{heading}: {shows[0]}")
    assert [] == missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_figures_exist(page: Path) -> None:
    """Each measurement, module, test and target that is named exists."""
    for command in COMMAND.findall(page.read_text("utf-8")):
        words = command.split()
        if words[0] == "python":
            module = ROOT.joinpath(*words[2].split("."))
            assert module.with_suffix(".py").exists() or (module / "__main__.py").exists(), command
        parts = PARTS if words[0] == "dualpool" else MEASUREMENTS
        for name in re.findall(r"--only (\w+)", command):
            assert name in parts, command
        for name in re.findall(r"tests/[\w/]+\.py", command):
            assert (ROOT / name).exists(), command


def test_figures_are_distinguished_from_settings() -> None:
    """Units of measurements are recognised, those of settings are not."""
    for figure in (
        "217 to 267 us",
        "40 ms of CPU",
        "p99 1.44 ms",
        "1.07 ms p50",
        "28 % of a core",
        "2,100 requests a second",
    ):
        assert FIGURE.search(figure), figure
    for setting in ("deadline_ms: 150", "a pause of 50 ms", "1 MiB", "at least 90 %"):
        assert not FIGURE.search(setting), setting
