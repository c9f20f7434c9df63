"""The option --workers of several commands."""

import pytest

from extproc.cli.main import main


@pytest.mark.parametrize("command", [["serve"], ["check", "envoy", "envoy.yaml"], ["render", "envoy"]])
@pytest.mark.parametrize("workers", ["0", "-1", "two", "257"])
def test_workers_that_cannot_be(command: list[str], workers: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command names the value and what is allowed."""
    with pytest.raises(SystemExit) as ended:
        main([*command, f"--workers={workers}"])
    assert ended.value.code == 2
    assert f"{workers!r} given; allowed: a whole number from 1 to 256" in capsys.readouterr().err
