"""`make golden`: translates deploy/istio/ to xDS with Istio's own code.

The code is istiod's, run in one process on a simulated cluster (`istio/main.go`), at the version in
`istio/go.mod`. It takes many minutes to build, so its output is kept, with its version and a digest of its input.
Tests compare the digest, and run the real Envoy with the output.
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
    """A selection of the manifests, and the proxy that they are for."""

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
    """Return the file in which the output for a variant is kept."""
    return HERE / f"{name}.json"


def question(name: str) -> list[dict[str, Any]]:
    """Return the input of the translator: a variant's manifests, and their prerequisites."""
    variant = VARIANTS[name]
    files = [*(HERE / each for each in variant.around), *(MANIFESTS / each for each in variant.files)]
    found = [each for file in files for each in YAML(typ="safe", pure=True).load_all(file) if each]
    for route in (each for each in found if each["kind"] == "HTTPRoute"):
        # The status that istiod sets on accepted routes; only for those does it configure endpoint pickers.
        taken = {"parentRef": {"name": "llm"}, "controllerName": "istio.io/gateway-controller", "conditions": []}
        route["status"] = {"parents": [taken]}
    return found


def question_digest(name: str) -> str:
    """Return a digest of the input, which does not depend on comments in the manifests."""
    inputs = json.dumps([question(name), VARIANTS[name].proxy, sorted(SWITCHES)], sort_keys=True)
    return hashlib.sha256(inputs.encode()).hexdigest()


def translated(name: str, translator: Path) -> dict[str, Any]:
    """Run the translator; return what is kept: the proxy's configuration.

    Raises CalledProcessError if it does not accept the manifests.
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
    """Return a part of the dump with its lists sorted, since their order varies."""
    return {
        key: sorted(value, key=lambda each: json.dumps(each, sort_keys=True)) if isinstance(value, list) else value
        for key, value in config.items()
    }


if __name__ == "__main__":
    for each in VARIANTS:
        kept_at(each).write_text(json.dumps(translated(each, TRANSLATOR), indent=1) + "\n", "utf-8")
