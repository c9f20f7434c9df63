"""The README's samples are valid."""

import io
import re
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace

import pytest

from extproc.cli.main import main
from extproc.config.loading import parse
from extproc.core.placing.decision import Mode
from extproc.core.placing.policy import Pool

README = Path(__file__).parents[2] / "README.md"


def test_the_sample_configuration_loads() -> None:
    """The only YAML block in README is a configuration, with the values that its comments describe."""
    (sample,) = re.findall(r"^ *```yaml\n(.*?)^ *```$", README.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    configuration = parse(dedent(sample))
    assert (configuration.mode, configuration.tenant_header) == (Mode.SHADOW, "x-tenant")
    assert [Pool("short", 8192, 10240), Pool("long", 65536)] == list(configuration.pools)


def test_the_estimate_is_what_the_command_prints(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The output under `dualpool estimate -` is the end of what the command prints for the body above it."""
    pattern = r"^\$ echo '(.*)' \|\n +dualpool estimate -\n\.\.\.\n(.*?)^```"
    sample = re.search(pattern, README.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert sample is not None
    body, printed = sample.groups()
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(body.encode()), isatty=lambda: False))
    assert 0 == main(["estimate", "-"])
    assert capsys.readouterr().out.endswith(f"\n{printed}")
