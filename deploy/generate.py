"""`make docs`: writes what is made of other files in deploy/; a test holds them equal.

The dashboard is a table (monitoring/dashboard.yaml), since Grafana's JSON is nothing to review by eye.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML

__all__ = ["GENERATED"]

DEPLOY: Final = Path(__file__).parent
SELECTOR: Final = 'job=~"$job", instance=~"$instance"'
# Grafana's grid has 24 columns.
COLUMNS: Final = 24
SIZES: Final = {"stat": (4, 5), "timeseries": (8, 8)}
SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}


def dashboard() -> str:
    """Return the dashboard as Grafana imports it."""
    table = YAML(typ="safe", pure=True).load(DEPLOY / "monitoring" / "dashboard.yaml")
    made = {
        "title": table["title"],
        "uid": table["uid"],
        "tags": ["dualpool"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": list(_variables())},
        "panels": list(_panels(table["rows"])),
    }
    return json.dumps(made, indent=1) + "\n"


def _variables() -> Iterator[dict[str, Any]]:
    yield {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    for name, query in (
        ("job", "label_values(dualpool_info, job)"),
        ("instance", 'label_values(dualpool_info{job=~"$job"}, instance)'),
    ):
        yield {
            "name": name,
            "type": "query",
            "datasource": SOURCE,
            "query": {"query": query, "refId": name},
            "refresh": 2,  # when the time range changes: pods come and go
            "includeAll": True,
            "multi": True,
            "allValue": ".*",
            "current": {"text": "All", "value": "$__all"},
        }


def _panels(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    number, top = 1, 0
    for row in rows:
        yield {
            "id": number,
            "type": "row",
            "title": row["title"],
            "gridPos": _at(0, top, COLUMNS, 1),
            "panels": [],
        }
        number, top, left, height = number + 1, top + 1, 0, 0
        for panel in row["panels"]:
            kind = panel.get("kind", "timeseries")
            width, height = SIZES[kind]
            if left + width > COLUMNS:
                left, top = 0, top + height
            yield _panel(number, kind, panel) | {"gridPos": _at(left, top, width, height)}
            number, left = number + 1, left + width
        top += height


def _panel(number: int, kind: str, panel: dict[str, Any]) -> dict[str, Any]:
    targets = [
        {
            "refId": chr(ord("A") + position),
            "datasource": SOURCE,
            "expr": " ".join(query.replace("$s", SELECTOR).split()),
            "legendFormat": legend,
            "instant": kind == "stat",
            "range": kind != "stat",
        }
        for position, (legend, query) in enumerate(panel["queries"].items())
    ]
    return {
        "id": number,
        "type": kind,
        "title": panel["title"],
        "description": panel["says"],
        "datasource": SOURCE,
        "fieldConfig": {"defaults": {"unit": panel["unit"]}, "overrides": []},
        "targets": targets,
    }


def _at(left: int, top: int, width: int, height: int) -> dict[str, int]:
    return {"x": left, "y": top, "w": width, "h": height}


# File in deploy/: what makes its content.
GENERATED: Final[dict[str, Callable[[], str]]] = {"monitoring/dashboard.json": dashboard}


if __name__ == "__main__":
    for name, make in GENERATED.items():
        (DEPLOY / name).write_text(make(), "utf-8")
