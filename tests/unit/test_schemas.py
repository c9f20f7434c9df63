"""Every manifest is valid by the published schema of its kind, according to kubeconform."""

import json
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from extproc.config.schema import Configuration
from extproc.gateways.render.envoy_gateway import render_envoy_gateway
from extproc.gateways.render.istio import render_istio
from extproc.gateways.render.numbers import Numbers
from tests.golden.schemas import SCHEMAS, schema_of
from tests.unit.chart import EVERYTHING, HELM, NO_HELM, PROVIDERS, documents, provider, rendered

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBECONFORM = ROOT / "build" / "tools" / "kubeconform"
READY = pytest.mark.skipif(
    not (KUBECONFORM.exists() and SCHEMAS.exists()),
    reason="no kubeconform or no schemas here: `make tools` gets them, where there is Go",
)
# Kinds that Kubernetes itself defines; test_chart.py validates them.
KUBERNETES = {"v1", "apps/v1", "policy/v1", "autoscaling/v2", "networking.k8s.io/v1"}
LOCATION = f"{SCHEMAS}/{{{{.Group}}}}/{{{{.ResourceKind}}}}_{{{{.ResourceAPIVersion}}}}.json"


def faults(manifests: Iterable[dict[str, Any]], folder: Path) -> dict[str, str]:
    """Return kubeconform's findings by kind and name; a kind without a schema is a finding, too."""
    path = folder / "manifests.yaml"
    # JSON is valid YAML in every version; YAML 1.2 is not always read the same as YAML 1.1.
    path.write_text("\n---\n".join(map(json.dumps, manifests)), "utf-8")
    command = [str(KUBECONFORM), "-strict", "-verbose", "-output", "json", "-schema-location", LOCATION, str(path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    said = json.loads(ran.stdout)["resources"]
    assert said, ran.stderr
    return {f"{each['kind']} {each['name']}": each["msg"] for each in said if each["status"] != "statusValid"}


def foreign(manifests: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the manifests that Kubernetes itself does not define; files may contain other documents."""
    return [each for each in manifests if "." in str(each.get("apiVersion")) and not own(each["apiVersion"])]


def own(version: str) -> bool:
    """Whether a kind is defined by Kubernetes itself, or never sent to it."""
    return version in KUBERNETES or version.startswith("kustomize")


FILES = [path for path in sorted(DEPLOY.rglob("*.yaml")) if "helm" not in path.parts and foreign(documents(path))]


@READY
@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_shipped_manifests_are_valid(path: Path, tmp_path: Path) -> None:
    """Every manifest in `deploy/` of a kind that Kubernetes does not define."""
    assert {} == faults(foreign(documents(path)), tmp_path)


@READY
@pytest.mark.skipif(HELM is None, reason=NO_HELM)
@pytest.mark.parametrize("name", PROVIDERS)
def test_the_charts_output_is_valid(name: str, tmp_path: Path) -> None:
    """For every provider, with all options switched on."""
    switched = ("provider.envoyGateway.patches=true", "provider.envoyGateway.accessLog=true")
    made = foreign(rendered(*provider(name), *EVERYTHING, *switched).values())
    assert {"ServiceMonitor", "PrometheusRule"} <= {each["kind"] for each in made}
    assert {} == faults(made, tmp_path)


@READY
@pytest.mark.parametrize("render", [render_istio, render_envoy_gateway])
def test_rendered_manifests_are_valid(render: Callable[[Numbers], str], tmp_path: Path) -> None:
    """The output of `dualpool render` for a gateway."""
    made = list(YAML(typ="safe", pure=True).load_all(render(Numbers(Configuration()))))
    assert {} == faults(foreign(made), tmp_path)


def at(manifest: dict[str, Any], path: str) -> tuple[Any, Any]:
    """Return the container of a field, and the field's key in it."""
    *above, last = (int(part) if part.isdigit() else part for part in path.split("."))
    value: Any = manifest
    for part in above:
        value = value[part]
    return value, last


# The place of a field, and its change: a new name, or a new value.
WRONG = {
    "envoy-gateway/policies.yaml EnvoyExtensionPolicy spec.extProc.0.failOpen": {"name": "failopen"},
    "envoy-gateway/policies.yaml EnvoyExtensionPolicy spec.extProc.0.processingMode.request.body": {
        "value": "Whole"
    },
    "envoy-gateway/policies.yaml BackendTrafficPolicy spec.retry.numRetries": {"value": "once"},
    "envoy-gateway/routes.yaml HTTPRoute spec.rules.0.backendRefs": {"name": "backends"},
    "istio/envoyfilter.yaml EnvoyFilter spec.configPatches.0.patch.operation": {"value": "PUT"},
    "istio/envoyfilter.yaml EnvoyFilter spec.workloadSelector": {"name": "workloadselector"},
    "istio/routes.yaml VirtualService spec.http.0.retries": {"name": "retry"},
    "istio/routes.yaml DestinationRule spec.trafficPolicy.connectionPool.http.http2MaxRequests": {"value": "64"},
    "istio/inference-pools/routes.yaml HTTPRoute spec.rules.0.matches.0.path.type": {"value": "Prefix"},
}


@READY
@pytest.mark.parametrize("where", WRONG)
def test_a_wrong_field_is_a_fault(where: str, tmp_path: Path) -> None:
    """A misspelled field, or one with a value that is not allowed, does not pass."""
    file, kind, path = where.split()
    manifest = next(each for each in documents(DEPLOY / file) if each["kind"] == kind and has(each, path))
    assert {} == faults([manifest], tmp_path)
    holder, key = at(manifest, path)
    old = holder.pop(key)
    holder[WRONG[where].get("name", key)] = WRONG[where].get("value", old)
    assert [f"{kind} {manifest['metadata']['name']}"] == list(faults([manifest], tmp_path))


def has(manifest: dict[str, Any], path: str) -> bool:
    """Whether a manifest has a field."""
    try:
        holder, key = at(manifest, path)
    except (KeyError, IndexError):
        return False
    return key in holder


@READY
def test_a_kind_without_a_schema_is_a_fault(tmp_path: Path) -> None:
    """A kind for which there is no schema does not count as valid."""
    manifest = {"apiVersion": "gateway.example.com/v1", "kind": "Filter", "metadata": {"name": "x"}}
    assert ["Filter x"] == list(faults([manifest], tmp_path))


def test_a_definition_becomes_a_schema_without_other_fields() -> None:
    """Unlisted fields are refused, unless the definition preserves them."""
    listed = {"type": "object", "properties": {"a": {"type": "string", "nullable": True}}}
    assert {
        "type": "object",
        "properties": {"a": {"type": ["string", "null"]}},
        "additionalProperties": False,
    } == schema_of(listed)
    kept = listed | {"x-kubernetes-preserve-unknown-fields": True}
    assert "additionalProperties" not in schema_of(kept)
    free = {"type": "object", "additionalProperties": {"x-kubernetes-int-or-string": True}}
    either = {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    assert free | {"additionalProperties": either} == schema_of(free)
