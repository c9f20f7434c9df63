"""The notes that helm prints after an installation of the chart."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.unit.chart import CHART, HELM, MOUNTED, NO_HELM, PROVIDERS, STORE, provider, rendered

pytestmark = pytest.mark.skipif(HELM is None, reason=NO_HELM)

WATCHED = tuple(
    f"config.pools[0].{each}" for each in ("name=s", "max_budget_tokens=9", "endpoints.dns=http://a:8000")
)
NOTES = """\
kind: Notes
metadata: {name: notes}
text: |
  {{- tpl (.Files.Get "files/NOTES.txt") . | nindent 2 }}
"""


@pytest.mark.parametrize("name", PROVIDERS)
def test_notes_explain_how_to_verify_the_installation(name: str, tmp_path: Path) -> None:
    """The notes that helm prints name this release's Deployment, and what to check for this gateway."""
    notes = notes_of(tmp_path, *provider(name))
    assert "deployment/dualpool" in notes
    assert "dualpool_misconfigured_total" in notes
    gateway = {"none": "dualpool-endpoints.dualpool", "envoy-gateway": "clienttrafficpolicy"}
    assert gateway.get(name, "istioctl proxy-config listener") in notes


@pytest.mark.parametrize("name", ["istio", "istio-inferencepool"])
def test_notes_look_for_the_filter_of_their_release(name: str, tmp_path: Path) -> None:
    """A release of another name has a filter of another name, and that is what its notes look for."""
    expected = {"istio": '"name": "b-dualpool"', "istio-inferencepool": '"name": "(b-dualpool|envoy.filters'}
    assert expected[name] in notes_of(tmp_path, *provider(name), release="b")


@pytest.mark.parametrize("settings", [(), ("admin.tokenSecret=token",)], ids=["open", "token"])
def test_commands_in_the_notes_are_valid_shell(settings: tuple[str, ...], tmp_path: Path) -> None:
    """Every line of a command can be pasted, including the token of the admin pages if there is one."""
    notes = notes_of(tmp_path, *settings)
    commands = [line.strip() for line in notes.splitlines() if re.match(r"  (curl|kubectl|TOKEN)", line)]
    assert 0 == subprocess.run(["bash", "-n", "-c", "\n".join(commands)], check=False, timeout=10).returncode
    assert bool(settings) == any(each.startswith("TOKEN=") for each in commands)


@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        ((), ""),
        (WATCHED, "the servers of pool s:"),
        ((STORE, "config.traces.endpoint=http://c"), "the store, the collector of traces:"),
        ((STORE, "networkPolicy.egress[0].ports[0].port=6379"), ""),
        ((STORE, "networkPolicy.enabled=false"), ""),
        (("config.state.store=null", "config.traces=null"), ""),
    ],
)
def test_notes_warn_of_connections_that_the_network_policy_denies(
    settings: tuple[str, ...], missing: str, tmp_path: Path
) -> None:
    """A configuration that lets the router ask other servers needs egress rules, which the chart cannot know."""
    _, _, denied = notes_of(tmp_path, *settings).partition("cannot reach ")
    assert missing == denied.partition("\n")[0]


STATE_FILE = "config.state.path=/var/lib/dualpool/state"
FROM_LOG = "config.learning.source=access_log"


@pytest.mark.parametrize(
    ("settings", "warns"),
    [((), False), ((STATE_FILE,), True), ((STATE_FILE, *MOUNTED), False), ((STORE,), False)],
)
def test_notes_warn_of_a_state_file_without_a_volume(
    settings: tuple[str, ...], *, warns: bool, tmp_path: Path
) -> None:
    """No pod has a volume of its own that the router could write: `state.path` keeps nothing there."""
    assert warns == ("nothing is saved to config.state.path, /var/lib" in notes_of(tmp_path, *settings))


@pytest.mark.parametrize(
    ("settings", "warns"),
    [
        ((), False),
        ((FROM_LOG,), True),
        (("config.learning.source=response",), False),
        ((FROM_LOG, "config.learning.access_log.key_file=/etc/key/key"), False),
    ],
)
def test_notes_warn_of_an_access_log_without_a_common_key(
    settings: tuple[str, ...], *, warns: bool, tmp_path: Path
) -> None:
    """Without one each process makes its own, and takes the entries that describe others' decisions for forged."""
    assert warns == ("Mount a common key" in notes_of(tmp_path, *settings))


def notes_of(tmp_path: Path, *settings: str, release: str = "dualpool") -> str:
    """Return the notes that helm prints after an installation."""
    # Helm renders the notes only if it has a cluster; in this copy of the chart they are an ordinary template.
    copy = tmp_path / "dualpool"
    shutil.copytree(CHART, copy)
    (copy / "templates" / "NOTES.txt").rename(copy / "files" / "NOTES.txt")
    (copy / "templates" / "notes.yaml").write_text(NOTES, "utf-8")
    notes: str = rendered(*settings, release=release, chart=copy)["Notes", "notes"]["text"]
    return notes
