"""Profiles, means and points that cannot be: each is refused in one sentence with exit 2."""

from collections.abc import Callable
from pathlib import Path

import pytest

from extproc.cli import main as command_line

Refused = Callable[..., str]
GPU = "memory_gb: 80, bandwidth_gb_s: 2000, bf16_tflops: 300, link_gb_s: 300"
MODEL = "params_b: 8, active_params_b: 8, weight_bytes: 2, hidden_size: 4096, layers: 32, max_context: 131072"
HEADS = "attention: {kind: gqa, query_heads: 32, kv_heads: 8, head_dim: 128}"


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Return a function that runs `dualpool plan`, expects exit 2 and one line of error, and returns that line."""
    monkeypatch.setattr(command_line, "COMMANDS", ("plan",))

    def run(*arguments: str | Path) -> str:
        code = command_line.main(["plan", "--cache", "none", *map(str, arguments)])
        captured = capsys.readouterr()
        assert (code, captured.out) == (2, "")
        assert len(captured.err.strip().splitlines()) == 1
        assert "Traceback" not in captured.err
        return captured.err

    return run


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (f"gpus: {{mine: {{{GPU.replace('80', '.nan')}}}}}", "mine: nan is not allowed"),
        (f"gpus: {{mine: {{{GPU.replace('2000', '.inf')}}}}}", "mine: inf is not allowed"),
        (f"gpus: {{mine: {{{GPU}, fp8_tflops: 0}}}}", "mine: 0 is not allowed"),
        (f"gpus: {{mine: {{{GPU}, price_usd_h: -1}}}}", "mine: -1 is not allowed"),
        (f"gpus: {{mine: {{{GPU}, max_num_batched_tokens: 10000000}}}}", "10,000,000: at most 1,048,576"),
        (
            f"models: {{mine: {{{MODEL}, {HEADS}, routed: {{params_b: 7, experts: 0, experts_per_token: 8}}}}}}",
            "mine.routed: 0 is not allowed",
        ),
        (
            f"models: {{mine: {{{MODEL}, {HEADS}, routed: {{params_b: 9, experts: 16, experts_per_token: 8}}}}}}",
            "mine.routed: params_b 9 is more than the model's 8",
        ),
        (
            f"models: {{mine: {{{MODEL}, {HEADS}, routed: {{params_b: 7, experts: 4, experts_per_token: 8}}}}}}",
            "mine.routed: 8 experts_per_token of 4 experts: at most 4",
        ),
        (
            f"models: {{mine: {{{MODEL.replace('active_params_b: 8', 'active_params_b: 9')}, {HEADS}}}}}",
            "mine: active_params_b 9 is more than params_b 8",
        ),
    ],
)
def test_a_profile_that_cannot_be_is_refused(refused: Refused, tmp_path: Path, entry: str, message: str) -> None:
    """Not finite, zero, negative or contradicting numbers of a catalogue name the profile and what is allowed."""
    path = tmp_path / "mine.yaml"
    path.write_text(entry)
    assert message in refused("--mean-tokens", "100,100", "--rate", "9", "--catalogue", path)


@pytest.mark.parametrize("means", ["nan,5", "inf,5", "5,inf", "0.5,5", "5,1e300"])
def test_means_that_cannot_be_are_refused(refused: Refused, means: str) -> None:
    """A mean is a number of tokens from 1 on."""
    assert "both must be from 1 to 10,000,000 tokens" in refused("--mean-tokens", means, "--rate", "9")


@pytest.mark.parametrize(
    ("points", "column"),
    [("0,1,1\n0.5,nan,5\n1,9,9\n", "input"), ("0,1,1\nnan,5,5\n1,9,9\n", "fraction"), ("1,5,inf\n", "output")],
)
def test_points_that_are_not_finite_are_refused(
    refused: Refused, tmp_path: Path, points: str, column: str
) -> None:
    """The error names the column of the distribution function."""
    path = tmp_path / "cdf.csv"
    path.write_text("fraction,input_tokens,output_tokens\n" + points)
    message = refused("--trace", path, "--rate", "9")
    assert f"the {column} column of a CDF must hold finite numbers" in message
