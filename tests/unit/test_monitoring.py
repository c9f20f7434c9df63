import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
MONITORING = DEPLOY / "monitoring"


def generator() -> ModuleType:
    """Return deploy/generate.py, which is not in a package."""
    spec = importlib.util.spec_from_file_location("generate_deploy", DEPLOY / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATOR = generator()


def rules() -> list[dict[str, Any]]:
    """Return every rule."""
    groups = YAML(typ="safe", pure=True).load(MONITORING / "rules.yaml")["groups"]
    return [rule for group in groups for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}


@pytest.mark.parametrize("name", sorted(GENERATOR.GENERATED))
def test_generated_files_are_up_to_date(name: str) -> None:
    """Every generated file is up to date with `make docs`."""
    assert GENERATOR.GENERATED[name]() == (DEPLOY / name).read_text("utf-8")


def test_every_alert_has_a_section_in_the_runbooks() -> None:
    """Each alert links to its section of the runbooks, and there is no section without an alert."""
    sections = re.findall(r"^## (Dualpool\w+)$", (ROOT / "docs" / "runbooks.md").read_text("utf-8"), re.MULTILINE)
    assert list(ALERTS) == sections
    for name, rule in ALERTS.items():
        assert f"docs/runbooks.md#{name.lower()}" == rule["annotations"]["runbook_url"]
        assert rule["labels"]["severity"] in {"page", "ticket"}


def test_every_section_of_a_runbook_says_what_to_do() -> None:
    """Each section says what the alert means, where to look and how to fix the cause."""
    sections = (ROOT / "docs" / "runbooks.md").read_text("utf-8").split("\n## ")[1:]
    for section in sections:
        assert [1, 1, 1] == [section.count(f"**{word}:**") for word in ("Means", "Look", "Fix")], section


def test_every_alert_is_tested_firing_and_silent() -> None:
    """The rules' unit tests cover each alert twice: silent in normal operation, and firing."""
    tests = YAML(typ="safe", pure=True).load(MONITORING / "rules_test.yaml")["tests"]
    calm, others = tests[0], json.dumps(tests[1:])
    assert list(ALERTS) == [case["alertname"] for case in calm["alert_rule_test"] if not case.get("exp_alerts")]
    assert set(ALERTS) == set(re.findall(r"Dualpool\w+", others))


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool here (Debian's package prometheus)")
def test_rules_do_what_their_unit_tests_say() -> None:
    """`promtool test rules` passes."""
    ran = subprocess.run(
        ["promtool", "test", "rules", MONITORING / "rules_test.yaml"], capture_output=True, text=True, check=False
    )
    assert 0 == ran.returncode, ran.stdout + ran.stderr


def test_dashboard_panels_fit_the_grid() -> None:
    """No panel overlaps another or exceeds the 24 columns, and each has a description."""
    panels = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
    assert len(panels) == len({panel["id"] for panel in panels})
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
        assert "row" == panel["type"] or panel["description"]
