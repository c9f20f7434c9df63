"""`make docs`: writes the generated files in deploy/; a test checks that they are up to date.

The dashboard is generated from a table (monitoring/dashboard.yaml), since Grafana's JSON is hard to review. The
chart's schema and its table of values are generated from values.yaml, and from the router's own types for its
configuration. A packed chart contains only its own folder, so the files for gateways and Prometheus are copied
there.
"""

import inspect
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
from ruamel.yaml import YAML

from extproc.config.schema import Configuration

__all__ = ["GENERATED"]

DEPLOY: Final = Path(__file__).parent
SELECTOR: Final = 'job=~"$job", instance=~"$instance"'
# Grafana's grid has 24 columns.
COLUMNS: Final = 24
SIZES: Final = {"stat": (4, 5), "timeseries": (8, 8)}
SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}


def dashboard() -> str:
    """Return the dashboard in Grafana's import format."""
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
            "refresh": 2,  # when the time range changes, since pods come and go
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


def values_schema() -> str:
    """Return the chart's schema: types are those of the defaults, for `config` those of the router."""
    # Go's regular expressions, which helm uses, do not support \A and \Z.
    written = json.dumps(msgspec.json.schema(Configuration)).replace(r"\\A", "^").replace(r"\\Z", "$")
    configuration = json.loads(written)
    for definition in configuration["$defs"].values():
        # Docstrings, of which Python removes the indentation itself since 3.13.
        if "description" in definition:
            definition["description"] = inspect.cleandoc(definition["description"])
        if "properties" in definition:
            definition["additionalProperties"] = False
    made = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Values of the chart dualpool",
        **_schema_of(_values(), ""),
        "$defs": configuration["$defs"],
    }
    return json.dumps(made, indent=1) + "\n"


def _schema_of(value: Any, path: str) -> dict[str, Any]:
    if path in ALLOWED:
        return ALLOWED[path]
    match value:
        case bool():
            return {"type": "boolean"}
        case int():
            return {"type": "integer", "minimum": 0}
        case str():
            return {"type": "string"}
        case list():
            return {"type": "array"}
        case {**inner} if inner and path not in FREE:
            properties = {key: _schema_of(each, f"{path}.{key}".lstrip(".")) for key, each in inner.items()}
            # Helm adds `global` to the values of every subchart.
            extra = {"global": {"type": "object"}} if not path else {}
            return {"type": "object", "properties": properties | extra, "additionalProperties": False}
        case _:
            return {"type": "object"}


def values_table() -> str:
    """Return the chart's README, with a row for each value from the comment above it."""
    rows = ["| value | default | what it does |", "|---|---|---|"]
    rows += [f"| `{path}` | `{json.dumps(default)}` | {text} |" for path, default, text in _described_values()]
    return "\n".join([README_HEAD, *rows, ""])


def _described_values() -> Iterator[tuple[str, Any, str]]:
    """Yield the path, default and comment of each value that is not a group of values."""
    comment: list[str] = []
    above: list[str] = []
    for line in (CHART / "values.yaml").read_text("utf-8").splitlines():
        if line.lstrip().startswith("#"):
            comment.append(line.strip("# "))
        elif found := re.match(r"( *)(\w+):", line):
            depth = len(found[1]) // 2
            above = [*above[:depth], found[2]]
            default: Any = _values()
            for key in above:
                default = default[key]
            path = ".".join(above)
            whole = not isinstance(default, dict) or not default or path in FREE
            if whole and not any(path.startswith(f"{free}.") for free in FREE):
                yield path, default, " ".join(comment).replace("|", "\\|")
            comment = []
        elif not line:
            comment = []


def _values() -> dict[str, Any]:
    values: dict[str, Any] = YAML(typ="safe", pure=True).load(CHART / "values.yaml")
    return values


def _copied(name: str) -> Callable[[], str]:
    return lambda: (DEPLOY / name).read_text("utf-8")


CHART: Final = DEPLOY / "helm" / "dualpool"
# Mappings whose keys are up to the user, or that are described as one value.
FREE: Final = frozenset(
    {
        "config",
        "resources",
        "provider.gateway.selector",
        "provider.istio.sidecar.selector",
        "monitoring.dashboards.labels",
    }
)
SPREAD: Final = {"enum": ["", "ScheduleAnyway", "DoNotSchedule"]}
# Schemas that cannot be derived from the defaults.
ALLOWED: Final[dict[str, dict[str, Any]]] = {
    "config": {"$ref": "#/$defs/Configuration"},
    "image.pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    "image.digest": {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
    "networkPolicy.gatewayNamespaces": {"type": "array", "items": {"type": "string"}},
    "networkPolicy.monitoringNamespaces": {"type": "array", "items": {"type": "string"}, "minItems": 1},
    "image.pullSecrets": {"type": "array", "items": {"type": "string"}},
    "provider.name": {"enum": ["none", "envoy-gateway", "istio", "istio-inferencepool"]},
    "provider.pools.port": {"type": "integer", "minimum": 1, "maximum": 65535},
    "workers": {"type": "integer", "minimum": 1, "maximum": 64},
    "drainSeconds": {"type": "integer", "minimum": 0, "maximum": 3600},
    "topologySpread.hostname": SPREAD,
    "topologySpread.zone": SPREAD,
    "podDisruptionBudget.maxUnavailable": {"type": ["integer", "string"]},
    "autoscaling.minReplicas": {"type": "integer", "minimum": 1},
    "autoscaling.maxReplicas": {"type": "integer", "minimum": 1},
    "monitoring.prometheus.interval": {"type": "string", "pattern": "^[0-9]+(ms|s|m)$"},
}
README_HEAD: Final = """\
# Chart dualpool

The router, and the resources for its gateway, Prometheus and Grafana. [deploy/README.md](../../README.md) has the
steps of a rollout. By default the router only observes (`config.mode: shadow`).

```sh
helm install dualpool deploy/helm/dualpool -n dualpool --create-namespace --set provider.name=envoy-gateway
```

The routes, policies and filters of a provider are the tested files of `deploy/`, with the names of the release.
Values that are unknown or not allowed are refused (`values.schema.json`), also in the router's own configuration.

## Values

Generated from the comments in [values.yaml](values.yaml).
"""
GATEWAY_FILES: Final = (
    *(f"envoy-gateway/{name}.yaml" for name in ("accesslog", "policies", "routes", "patches/listener")),
    *(
        f"istio/{folder}{name}.yaml"
        for folder in ("", "gateway-api/", "inference-pools/", "sidecar/")
        for name in ("envoyfilter", "routes")
    ),
)

# File in deploy/: the function that returns its content.
GENERATED: Final[dict[str, Callable[[], str]]] = {
    "monitoring/dashboard.json": dashboard,
    "helm/dualpool/values.schema.json": values_schema,
    "helm/dualpool/README.md": values_table,
    "helm/dualpool/files/dashboard.json": dashboard,
    "helm/dualpool/files/rules.yaml": _copied("monitoring/rules.yaml"),
    **{f"helm/dualpool/files/{name}": _copied(name) for name in GATEWAY_FILES},
}


if __name__ == "__main__":
    for name, make in GENERATED.items():
        (DEPLOY / name).parent.mkdir(parents=True, exist_ok=True)
        (DEPLOY / name).write_text(make(), "utf-8")
