"""`dualpool plan paper`: the paper's tables next to ours, with reasons that the run's figures support."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from extproc.cli import main as command_line
from tests.unit.planning_command import write_trace

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a results directory, so that all tests share one simulation of the replay."""
    return tmp_path_factory.mktemp("results")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cache: Path) -> Run:
    """Return a function that runs `dualpool plan paper` and returns exit code, output and errors."""
    monkeypatch.setattr(command_line, "COMMANDS", ("plan",))

    def paper(*arguments: str | float | Path) -> tuple[int, str, str]:
        code = command_line.main(["plan", "paper", "--cache", str(cache), *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return paper


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Write a trace of short requests with some long ones, at one request a second."""
    return write_trace(tmp_path / "trace.csv")


@pytest.fixture
def small(trace: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the arguments of a replay that takes seconds: fewer requests than a percentile needs."""
    monkeypatch.setattr("extproc.planning.simulation.options.MIN_REQUESTS", 200)
    return ["--trace", str(trace), "--requests", "200", "--seeds", "1"]


def test_the_paper_can_be_replayed(run: Run, small: list[str]) -> None:
    """The output shows the paper's figures next to ours, with reasons for the differences."""
    code, out, _ = run(*small)
    assert code == 0
    assert "358 / 208" in out
    assert "$50.6M" in out
    text = " ".join(out.split())
    assert "too short for a steady state: sizes are too small" in text
    assert "The paper's savings of 31 to 42 % can come from max_num_seqs" in text
    assert "They cannot come from max_model_len itself" in text


@pytest.mark.parametrize("columns", [80, 100, 150])
def test_fleet_tables_keep_the_names(
    run: Run, small: list[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    """Each simulated fleet appears with its full name, whatever the terminal's width."""
    monkeypatch.setenv("COLUMNS", str(columns))
    _, out, _ = run(*small)
    for workload in ("Azure", "LMSYS"):
        tables = out.split(f"{workload}: simulated")[1:]
        names = [line[:20].strip() for line in "".join(tables).splitlines()]
        assert names.count("one pool of 65,536") >= 2
        assert names.count("two pools at 8,192") >= 2


def test_the_thresholds_are_swept_with_the_papers_numbers_and_physically(run: Run, small: list[str]) -> None:
    """2K to 16K are listed in one table by the paper's formula, and in one by the cost model and the simulator."""
    _, out, _ = run(*small)
    for title in ("Azure: thresholds, its formula", "Azure: thresholds, physical"):
        table = out.split(title)[1].split("\n\n")[0]
        assert [line.split()[0] for line in table.splitlines()[-4:]] == ["2,048", "4,096", "8,192", "16,384"]
        assert "-" not in table.splitlines()[-1].split()


def test_the_projection_is_made_with_the_papers_numbers_and_physically(run: Run, small: list[str]) -> None:
    """For MI300X, the implied rate and rho are applied to the trace's alpha, next to the roofline's GPUs."""
    _, out, _ = run(*small)
    row = next(line for line in out.splitlines() if line.startswith("GPUs, two pools"))
    its, ours = row.split()[-2:]
    # 90 % of the trace's requests are short: .9 x 1,576 / 1.62 and .1 x 1,576
    assert (row.split()[3], its) == ("1,096", "1,037")
    assert int(ours.replace(",", "")) > 0


def test_the_papers_formula_is_computed_and_not_quoted(run: Run, small: list[str]) -> None:
    """The formula gives 144 and 176 instances at the implied alphas, and the reasons quote these figures."""
    _, out, _ = run(*small)
    text = " ".join(out.split())
    assert "the paper's 208 instances lie between its own formula at that alpha (144) and one pool (358)" in text
    assert "the paper's 246 instances lie between its own formula at that alpha (176) and one pool (358)" in text


def test_the_planners_own_choices_are_stated(run: Run, small: list[str]) -> None:
    """The token limit is not called vLLM's, and the output says that out-of-memory errors are not simulated."""
    text = " ".join(run(*small)[1].split())
    assert "vLLM's own limits" not in text
    assert "max_num_batched_tokens 512 is the planner's choice, in both simulations; vLLM's default" in text
    assert "out of memory per hour 2.1 / .4 not simulated not simulated" in text


def test_json_has_the_papers_figures_and_the_reasons(run: Run, small: list[str]) -> None:
    """Standard output is one JSON object with both sides of the comparison and why they differ."""
    replay = json.loads(run(*small, "--json")[1])
    azure, lmsys = replay["workloads"]
    assert (azure["paper"]["one"], azure["paper"]["two"], lmsys["paper"]["two"]) == (358, 208, 246)
    assert [split["threshold"] for split in azure["formula"]] == [2048, 4096, 8192, 16384]
    assert replay["mi300x"]["paper"]["one_gpus"] == 1576
    assert any("the planner's choice" in reason for reason in replay["reasons"])


@pytest.mark.parametrize(
    "option",
    [
        ["--report", "out"],
        ["--model", "llama-3-8b"],
        ["--rate", "5"],
        ["--simulate"],
        ["--ttft", "1"],
        ["--spare", "0"],
    ],
)
def test_options_that_the_replay_does_not_use_are_refused(run: Run, small: list[str], option: list[str]) -> None:
    """The paper fixes these settings: an option without effect is an error."""
    code, out, error = run(*small, *option)
    assert (code, out) == (2, "")
    assert f"{' '.join(option)}: is not used by `dualpool plan paper`" in error


@pytest.mark.parametrize("requests", ["-5", "300", "10000000000000"])
def test_percentiles_need_requests(run: Run, trace: Path, requests: str) -> None:
    """Too few requests, or more than fit in memory, are refused as for any simulation."""
    code, out, error = run("--trace", trace, "--requests", requests)
    assert (code, out) == (2, "")
    assert f"--requests {requests}, --seeds 1, --jobs 1: at least 2000 and at most" in error
