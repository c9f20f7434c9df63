"""The chart in deploy/helm, rendered by the real helm."""

import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

__all__ = [
    "CHART",
    "EVERYTHING",
    "HELM",
    "KUBERNETES",
    "MOUNTED",
    "NO_HELM",
    "PROVIDERS",
    "ROOT",
    "STORE",
    "documents",
    "helm",
    "provider",
    "rejected",
    "rendered",
]

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "dualpool"
HELM = shutil.which("helm", path=str(Path(sys.executable).parent)) or shutil.which("helm")
NO_HELM = "no helm here: requirements/checks.txt has it for Linux on x86_64 only"
KUBERNETES = "1.34"
# Per provider: the values that select it, and the files of deploy/ that it corresponds to.
PROVIDERS = {
    "none": ((), ()),
    "envoy-gateway": ((), ("envoy-gateway/routes.yaml", "envoy-gateway/policies.yaml")),
    "istio": ((), ("istio/routes.yaml", "istio/envoyfilter.yaml")),
    "istio, Gateway API": (
        ("provider.istio.gatewayApi=true",),
        ("istio/gateway-api/routes.yaml", "istio/gateway-api/envoyfilter.yaml"),
    ),
    "istio, sidecars": (
        ("provider.istio.sidecar.namespace=callers",),
        ("istio/sidecar/routes.yaml", "istio/sidecar/envoyfilter.yaml"),
    ),
    "istio-inferencepool": ((), ("istio/inference-pools/routes.yaml", "istio/inference-pools/envoyfilter.yaml")),
}
EVERYTHING = (
    "autoscaling.enabled=true",
    "autoscaling.targetStreamsPerSecond=400",
    "monitoring.prometheus.enabled=true",
    "monitoring.dashboards.enabled=true",
    "topologySpread.zone=DoNotSchedule",
)
# Values: a store, and a volume of the user's own.
STORE = "config.state.store.url=redis://store"
MOUNTED = (
    "volumes[0].name=own",
    "volumes[0].emptyDir.sizeLimit=64Mi",
    "volumeMounts[0].name=own",
    "volumeMounts[0].mountPath=/var/lib/dualpool",
)


def helm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run helm."""
    assert HELM is not None
    return subprocess.run([HELM, *arguments], capture_output=True, text=True, check=False, timeout=60)


@cache
def rendered(
    *settings: str, release: str = "dualpool", namespace: str = "dualpool", chart: Path = CHART
) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the manifests that the chart renders with these values, by kind and name."""
    sets = [word for setting in settings for word in ("--set", setting)]
    ran = helm("template", release, chart, "-n", namespace, "--kube-version", KUBERNETES, *sets)
    assert 0 == ran.returncode, ran.stderr
    found = [document for document in YAML(typ="safe", pure=True).load_all(ran.stdout) if document]
    return {(each["kind"], each["metadata"]["name"]): each for each in found}


def rejected(*settings: str) -> str:
    """Return helm's error message for values that it rejects."""
    sets = [word for setting in settings for word in ("--set", setting)]
    ran = helm("template", "dualpool", CHART, "--kube-version", KUBERNETES, *sets)
    assert 0 != ran.returncode
    return ran.stderr


def provider(name: str) -> tuple[str, ...]:
    """Return the values that select a provider."""
    return (f"provider.name={name.partition(',')[0]}", *PROVIDERS[name][0])


def documents(path: Path) -> list[dict[str, Any]]:
    """Return the documents in a file."""
    return [document for document in YAML(typ="safe", pure=True).load_all(path) if document]
