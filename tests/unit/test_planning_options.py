"""Impossible options of `dualpool plan`: one sentence with exit code 2."""

from collections.abc import Callable
from pathlib import Path

import pytest

from extproc.cli import main as command_line
from tests.unit.planning_command import refusal_of, write_trace


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return a function that runs `dualpool plan`, expects exit code 2 and
    one error line, and returns that line.
    """
    monkeypatch.setattr(command_line, "COMMANDS", ("plan",))

    return lambda *arguments: refusal_of([*map(str, arguments)], capsys)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Write a trace of short requests with some long ones, at one request a second."""
    return write_trace(tmp_path / "trace.csv")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rate", "0"], "rate 0: requests per second must be positive"),
        (["--rate", "inf", "--simulate", "--tune", "none"], "rate inf: requests per second must be positive"),
        (["--rate", "9", "--tpot-ms", "nan"], "times must be positive"),
        (["--rate", "9", "--price", "nan"], "--price nan: must be at least 0"),
        (["--rate", "-3"], "rate -3: requests per second must be positive"),
        ([], "--rate is needed"),
        (["--rate", "9", "--mean-tokens", "5,5"], "one of --trace, --metrics and --mean-tokens is needed"),
        (
            ["--rate", "9", "--gpu", "abacus"],
            "gpu 'abacus' is not in the catalogue; it has a100-80g, a10g, b200, b300, gb200, h100-80g",
        ),
        (
            ["--rate", "9", "--simulate", "--gpu", "h200", "b200"],
            "--gpu h200 b200: the price of b200 is not known; a --catalogue can give it",
        ),
        (["--rate", "9", "--simulate", "--day-curve", "d.csv"], "--day-curve d.csv: No such file"),
        (["--rate", "9", "--simulate", "--day-curve", "trace"], "--day-curve trace: trace.csv covers"),
        (["--rate", "9", "--model", "eliza"], "model 'eliza' is not in the catalogue"),
        (["--rate", "9", "--tp", "1"], "the weights take 141 GB, and 1 GPU(s) of 80 GB offer 74 GB"),
        (["--rate", "9", "--tp", "2"], "one sequence of 65,536 tokens does not fit the KV cache"),
        (["--rate", "9", "--long-context", "999999"], "llama-3-70b takes at most 131,072 tokens"),
        (
            ["--rate", "9", "--tpot-ms", "1"],
            "objective TPOT 1 ms: no fleet of llama-3-70b on 8 x a100-80g meets it; a single sequence takes",
        ),
        (["--rate", "9", "--ttft", "0"], "times must be positive"),
        (["--rate", "9", "--success", "2"], "success between 0 and 1"),
        (["--rate", "9", "--measured", "1,2"], "--measured '1,2': three or four numbers are needed"),
        (["--rate", "9", "--measured", "1,x,2"], "--measured '1,x,2': numbers are needed"),
        (["--rate", "9", "--measured", "1,0,2"], "must be positive"),
        (["--rate", "9", "--spare", "-1"], "--spare -1: must be at least 0"),
        (["--rate", "9", "--batched-tokens", "0"], "--batched-tokens 0: must be at least 1 and at most 1,048,576"),
        (["--rate", "9", "--batched-tokens", "10000000000000"], "--batched-tokens 1e+13: must be at least 1"),
        (["--rate", "9", "--long-context", "100"], "--long-context 100: must be at least 1,024"),
        (["--rate", "9", "--weight-bytes", "1e300"], "--weight-bytes 1e+300: must be at least 0.25"),
        (["--rate", "9", "--kv-bytes", "1e-300"], "--kv-bytes 1e-300: must be at least 0.25"),
        (["--rate", "9", "--measured", "1,1e-320,2"], "must be positive, from 1e-06 to 1,000,000"),
        (["--rate", "1e300"], "rate 1e+300: requests per second must be positive and at most 1e+09"),
        (
            ["--rate", "9", "--tp", "3"],
            "--tp 3: vLLM splits attention heads evenly over GPUs, and llama-3-70b has 64",
        ),
        (["--rate", "9", "--tp", "1000"], "--tp 1000: vLLM splits attention heads evenly over GPUs"),
        (
            ["--rate", "9", "--simulate", "--tune", "none", "--requests", "5"],
            "at least 2000 and at most 5000000 requests",
        ),
        (
            ["--rate", "9", "--simulate", "--tune", "none", "--requests", "10000000000000"],
            "at least 2000 and at most 5000000",
        ),
        (
            ["--rate", "1e5", "--simulate", "--tune", "none"],
            "60 s at 100,000 requests per second are 6,000,000, and at most 5,000,000 are simulated: plan a part",
        ),
        (
            ["--rate", "9", "--simulate", "--tune", "none", "--arrivals", "trace"],
            "--arrivals trace: trace.csv has 600 requests, and all are simulated: at least 2,000",
        ),
        (
            ["--rate", "9", "--simulate", "--cache", __file__],
            "test_planning_options.py is a file; a directory is needed",
        ),
        (
            ["--rate", "9", "--report", __file__ + "/deep/er"],
            "test_planning_options.py is a file; a directory is needed",
        ),
        (
            ["--rate", "9", "--simulate", "--tune", "none", "--threshold", "70000"],
            "must be positive and below the long context",
        ),
        (["--rate", "9", "--objective", "<=8192 ttft 2s"], "--objective '<=8192 ttft 2s': a class begins with"),
        (["--rate", "9", "--objective", "<=8192: ttft 2s"], "the last class must be 'else:'"),
        (["--rate", "9", "--prefix-cache", "2"], "--prefix-cache 2: a share from 0 to below 1 is needed"),
        (["--rate", "9", "--prefix-cache", "trace"], "trace.csv has no hash_ids"),
        (["--rate", "9", "--times", "measured", "--gpu", "mi300x"], "--times measured: there are none for"),
        (["--rate", "9", "--simulate", "--head-room", "0.5"], "--head-room 0.5: a factor from 1 to 16 is needed"),
        (["--rate", "9", "--simulate", "--choice-count", "1"], "--choice-count 1: must be from 2 to 100"),
        (["--rate", "9", "--simulate", "--apply", __file__], "is a file; a directory is needed"),
        (["--rate", "9", "--catalogue", "/nowhere.yaml"], "/nowhere.yaml: No such file or directory"),
    ],
)
def test_wrong_arguments_exit_2_with_one_sentence(
    refused: Callable[..., str], trace: Path, arguments: list[str], message: str
) -> None:
    """For impossible rates, profiles, objectives and options, one line names the value and what is allowed."""
    assert message in refused("--trace", trace, *arguments)
