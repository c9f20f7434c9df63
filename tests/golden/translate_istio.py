"""`make golden`: has Istio's own code make xDS of deploy/istio/, as istiod would.

The code is istiod's, in one process with a cluster that it is told of (`istio/main.go`), at the version that
`istio/go.mod` names. It takes many minutes to build, so what it said is kept, with the version that said it and a
digest of what it was asked. Tests hold the digest, and serve what is kept with the real Envoy.
"""

import hashlib
import json
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML

__all__ = ["TRANSLATOR", "VARIANTS", "Variant", "kept_at", "question_digest", "translated"]

HERE: Final = Path(__file__).parent / "istio"
# Where `make golden` builds it.
TRANSLATOR: Final = HERE.parents[2] / "build" / "tools" / "istio-translate"
MANIFESTS: Final = HERE.parents[2] / "deploy" / "istio"
GATEWAY_API: Final = "gateway.networking.k8s.io/gateway-name=llm"
# Off by default in Istio 1.31.
SWITCHES: Final = {"ENABLE_GATEWAY_API_INFERENCE_EXTENSION": "true"}


@dataclass(frozen=True)
class Variant:
    """Some of the manifests, and the proxy that they are for."""

    files: tuple[str, ...]
    around: tuple[str, ...]
    proxy: tuple[str, ...]
    """Type, namespace and labels."""


VARIANTS: Final = {
    "ingress": Variant(
        ("envoyfilter.yaml", "routes.yaml"),
        ("around.yaml",),
        ("router", "istio-system", "istio=ingressgateway"),
    ),
    "gateway-api": Variant(
        ("gateway-api/envoyfilter.yaml", "gateway-api/routes.yaml"),
        ("around.yaml", "around-gateway-api.yaml"),
        ("router", "dualpool", GATEWAY_API),
    ),
    "inference-pools": Variant(
        ("inference-pools/envoyfilter.yaml", "inference-pools/routes.yaml"),
        ("around.yaml", "around-gateway-api.yaml", "around-inference-pools.yaml"),
        ("router", "dualpool", GATEWAY_API),
    ),
    "sidecar": Variant(
        ("sidecar/envoyfilter.yaml", "sidecar/routes.yaml"),
        ("around.yaml",),
        ("sidecar", "callers", "llm=caller"),
    ),
}


def kept_at(name: str) -> Path:
    """Return where the answer to a variant is kept."""
    return HERE / f"{name}.json"


def question(name: str) -> list[dict[str, Any]]:
    """Return what the translator is asked: a variant's manifests, and what they count on."""
    variant = VARIANTS[name]
    files = [*(HERE / each for each in variant.around), *(MANIFESTS / each for each in variant.files)]
    found = [each for file in files for each in YAML(typ="safe", pure=True).load_all(file) if each]
    for route in (each for each in found if each["kind"] == "HTTPRoute"):
        # As istiod says itself of a route that it takes; it asks the pickers only of routes that have been taken.
        taken = {"parentRef": {"name": "llm"}, "controllerName": "istio.io/gateway-controller", "conditions": []}
        route["status"] = {"parents": [taken]}
    return found


def question_digest(name: str) -> str:
    """Return what changes with the manifests, but not with their comments."""
    asked = json.dumps([question(name), VARIANTS[name].proxy, sorted(SWITCHES)], sort_keys=True)
    return hashlib.sha256(asked.encode()).hexdigest()


def translated(name: str, translator: Path) -> dict[str, Any]:
    """Ask the translator, and return what is kept: what the proxy is to run.

    Raises CalledProcessError when it does not take the manifests.
    """
    manifests = "\n---\n".join(json.dumps(each) for each in question(name))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "dump.json"
        command = [str(translator), str(out), *VARIANTS[name].proxy]
        subprocess.run(command, input=manifests, text=True, capture_output=True, check=True, env=SWITCHES)
        dump = json.loads(out.read_text("utf-8"))
    (version,) = re.findall(r"istio\.io/istio (\S+)", (HERE / "go.mod").read_text("utf-8"))
    return {
        "translator": f"istio.io/istio {version}",
        "question_sha256": question_digest(name),
        "configs": [_settled(each) for each in dump["configs"]],
    }


def _settled(config: dict[str, Any]) -> dict[str, Any]:
    """Return a part of the dump in an order that is always the same."""
    return {
        key: sorted(value, key=lambda each: json.dumps(each, sort_keys=True)) if isinstance(value, list) else value
        for key, value in config.items()
    }


if __name__ == "__main__":
    for each in VARIANTS:
        kept_at(each).write_text(json.dumps(translated(each, TRANSLATOR), indent=1) + "\n", "utf-8")
