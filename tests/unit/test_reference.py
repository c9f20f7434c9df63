import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "docs" / "reference.py"


def test_the_references_are_those_of_the_code() -> None:
    """docs/configuration.md and docs/metrics.md say what the types and metrics say; `make docs` writes them."""
    checked = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True, check=False)
    assert (0, "", "") == (checked.returncode, checked.stdout.strip(), checked.stderr)
