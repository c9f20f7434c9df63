"""`dualpool plan paper`: the paper's tables beside ours, with reasons that this run's figures support."""

from collections.abc import Callable
from pathlib import Path

import pytest

from extproc.cli import main as command_line

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory of results, so that the same replay is simulated once for all tests."""
    return tmp_path_factory.mktemp("results")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cache: Path) -> Run:
    """Return a function that runs `dualpool plan paper`, and returns code, output and errors."""
    monkeypatch.setattr(command_line, "COMMANDS", ("plan",))

    def paper(*arguments: str | float | Path) -> tuple[int, str, str]:
        code = command_line.main(["plan", "paper", "--cache", str(cache), *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return paper


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Write a trace of short requests with some long ones, at one request a second."""
    rows = [
        f"2023-11-16 18:{second // 60:02}:{second % 60:02},"
        f"{12_000 if second % 10 == 0 else 300 + second},{20 + second % 90}\n"
        for second in range(600)
    ]
    path = tmp_path / "trace.csv"
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(rows))
    return path


@pytest.fixture
def small(trace: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the arguments of a replay that takes seconds: fewer requests than a percentile needs."""
    monkeypatch.setattr("extproc.planning.options.MIN_REQUESTS", 200)
    return ["--trace", str(trace), "--requests", "200", "--seeds", "1"]


def test_the_paper_can_be_replayed(run: Run, small: list[str]) -> None:
    """The paper's figures stand beside ours, with reasons."""
    code, out, _ = run(*small)
    assert code == 0
    assert "358 / 208" in out
    assert "$50.6M" in out


@pytest.mark.parametrize("columns", [80, 100, 150])
def test_fleet_tables_keep_the_names(
    run: Run, small: list[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    """Each simulated fleet stands with its name, whatever the terminal's width."""
    monkeypatch.setenv("COLUMNS", str(columns))
    _, out, _ = run(*small)
    for workload in ("Azure", "LMSYS"):
        tables = out.split(f"{workload}: simulated")[1:]
        names = [line[:20].strip() for line in "".join(tables).splitlines()]
        assert names.count("one pool of 65,536") >= 2
        assert names.count("two pools at 8,192") >= 2


@pytest.mark.parametrize("requests", ["-5", "300", "10000000000000"])
def test_percentiles_need_requests(run: Run, trace: Path, requests: str) -> None:
    """Too few requests, or more than memory holds, are refused as for any simulation."""
    code, out, error = run("--trace", trace, "--requests", requests)
    assert (code, out) == (2, "")
    assert f"--requests {requests}, --seeds 3, --jobs 1: at least 2000 and at most" in error
