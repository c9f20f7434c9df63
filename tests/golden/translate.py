"""`make golden`: translates deploy/envoy-gateway/ to xDS with Envoy Gateway's own translator.

The translator (`egctl experimental translate`) is the control plane's code, in Go, without Kubernetes. It is a
program of 330 MB that takes minutes to build, so its output is kept, with its version and a digest of its input.
Tests compare the digest, and run the real Envoy with the output.
"""

import hashlib
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML

__all__ = ["EGCTL", "GOLDEN", "question_digest", "translated"]

HERE: Final = Path(__file__).parent / "envoy-gateway"
GOLDEN: Final = HERE / "xds.json"
# Where `make golden` builds it.
EGCTL: Final = HERE.parents[2] / "build" / "tools" / "egctl"
MANIFESTS: Final = HERE.parents[2] / "deploy" / "envoy-gateway"
VERSION: Final = "v1.9.1"
# Kinds without a namespace.
CLUSTER_WIDE: Final = ("GatewayClass", "Namespace")
# Parts of the dump that do not depend on the manifests.
NOT_KEPT: Final = ("BootstrapConfigDump", "SecretsConfigDump")
# Keys in the output of the kinds whose status says whether the translator accepted them.
WITH_STATUS: Final = (
    "backends",
    "backendTrafficPolicies",
    "clientTrafficPolicies",
    "envoyExtensionPolicies",
    "envoyPatchPolicies",
    "gateways",
    "httpRoutes",
)


def question() -> list[dict[str, Any]]:
    """Return the input of the translator: our manifests in their namespace, and their prerequisites."""
    documents = [
        document
        for file in (HERE / "around.yaml", *sorted(MANIFESTS.rglob("*.yaml")))
        for document in YAML(typ="safe", pure=True).load_all(file)
    ]
    for document in documents:
        if document["kind"] not in CLUSTER_WIDE:
            document["metadata"].setdefault("namespace", "dualpool")
    return documents


def question_digest() -> str:
    """Return a digest of the input, which does not depend on comments in the manifests."""
    return hashlib.sha256(json.dumps(question(), sort_keys=True).encode()).hexdigest()


def translated(egctl: Path) -> dict[str, Any]:
    """Run the translator; return what is kept: the resources' conditions, and Envoy's configuration."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        YAML(typ="safe", pure=True).dump_all(question(), file)
        file.flush()
        command = [str(egctl), "experimental", "translate", "--from", "gateway-api", "--to", "gateway-api,xds"]
        done = subprocess.run([*command, "-o", "json", "-f", file.name], capture_output=True, check=True)
    answer = json.loads(done.stdout)
    (dump,) = answer["xds"].values()
    return {
        "translator": f"github.com/envoyproxy/gateway {VERSION}",
        "question_sha256": question_digest(),
        "conditions": dict(sorted(_conditions(answer))),
        "configs": [each for each in dump["configs"] if not each["@type"].endswith(NOT_KEPT)],
    }


def _conditions(answer: dict[str, Any]) -> list[tuple[str, list[str]]]:
    found = []
    for resource in (each for key in WITH_STATUS for each in answer.get(key, [])):
        status = resource.get("status", {})
        groups = [status, *status.get("ancestors", []), *status.get("parents", [])]
        found_conditions = {f"{c['type']}={c['status']}" for group in groups for c in group.get("conditions", [])}
        found.append((f"{resource['kind']} {resource['metadata']['name']}", sorted(found_conditions)))
    return found


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(translated(EGCTL), indent=1) + "\n")
