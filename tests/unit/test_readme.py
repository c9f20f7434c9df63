"""The README's sample is valid."""

import re
from pathlib import Path
from textwrap import dedent

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
