"""`make tools`: JSON schemas of the custom resources of gateways and the Prometheus operator, for kubeconform.

They are published as CustomResourceDefinitions in Go modules, which the go command downloads by version and
verifies by checksum; nothing of them is compiled or kept in the project. Kubernetes drops fields that a definition
does not list; the schemas written here refuse them, so that a misspelt field is found. CEL rules
(`x-kubernetes-validations`) are not checked.
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML

__all__ = ["SCHEMAS", "schema_of"]

SCHEMAS: Final = Path(__file__).parents[2] / "build" / "schemas"
# Module and version: its files with definitions.
SOURCES: Final = {
    "github.com/envoyproxy/gateway@v1.9.1": "charts/gateway-crds-helm/templates/generated/*.yaml",
    "github.com/prometheus-operator/prometheus-operator@v0.85.0": "example/prometheus-operator-crd/*.yaml",
    "istio.io/api@v1.31.4": "kubernetes/customresourcedefinitions.gen.yaml",
    "sigs.k8s.io/gateway-api@v1.6.1": "config/crd/standard/gateway.networking.k8s.io_*s.yaml",
    "sigs.k8s.io/gateway-api-inference-extension@v1.5.0": "config/crd/bases/inference.networking.k8s.io_*.yaml",
}
# Kinds that neither our files nor their prerequisites use.
SKIPPED: Final = ("alertmanager", "probe", "prometheuses", "prometheusagent", "scrapeconfig", "thanos", "vap_")


def schema_of(definition: dict[str, Any]) -> dict[str, Any]:
    """Convert the OpenAPI schema of a definition to a JSON schema that allows only the listed fields."""
    made = {key: value for key, value in definition.items() if not key.startswith("x-kubernetes-")}
    if "properties" in definition:
        made["properties"] = {name: schema_of(each) for name, each in definition["properties"].items()}
        if not definition.get("x-kubernetes-preserve-unknown-fields"):
            made.setdefault("additionalProperties", False)
    for key in ("items", "additionalProperties"):
        if isinstance(made.get(key), dict):
            made[key] = schema_of(made[key])
    if definition.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
        made["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if made.pop("nullable", False) and "type" in made:
        made["type"] = [made["type"], "null"]
    return made


def _definitions(module: str, files: str) -> Iterator[dict[str, Any]]:
    command = ["go", "mod", "download", "-json", module]
    fetched = subprocess.run(command, capture_output=True, text=True, check=True)
    for path in sorted(Path(json.loads(fetched.stdout)["Dir"]).glob(files)):
        if any(word in path.name for word in SKIPPED):
            continue
        # Those of Envoy Gateway are chart templates with a condition around each.
        text = "\n".join(line for line in path.read_text("utf-8").splitlines() if not line.startswith("{{"))
        yield from (each for each in YAML(typ="safe").load_all(text) if each)


def _write() -> None:
    for module, files in SOURCES.items():
        for definition in _definitions(module, files):
            group, kind = definition["spec"]["group"], definition["spec"]["names"]["kind"].lower()
            for version in definition["spec"]["versions"]:
                schema = schema_of(version["schema"]["openAPIV3Schema"])
                # Every kind has these fields, even if its definition does not list them.
                schema["properties"] |= {"apiVersion": {"type": "string"}, "kind": {"type": "string"}}
                schema["properties"]["metadata"] = {"type": "object"}
                path = SCHEMAS / group / f"{kind}_{version['name']}.json"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(schema), "utf-8")


if __name__ == "__main__":
    _write()
