"""`dualpool check envoy` on Envoy Gateway's EnvoyPatchPolicies: what it applies, and what it says it does not."""

from pathlib import Path

import pytest

from extproc.core.errors import ConfigurationError
from extproc.gateways.findings import find_traps
from extproc.gateways.inputs import read_gateways
from extproc.gateways.parsing.sources import read
from extproc.gateways.router import Router
from tests.envoy.harness.gateway import FILES

FOLDER = FILES.parent / "deploy/envoy-gateway"
MANAGER = "/default_filter_chain/filters/0/typed_config"
POLICY = """
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyPatchPolicy
metadata: {name: more}
spec:
  type: JSONPatch
  jsonPatches:
    - type: type.googleapis.com/envoy.config.%s
      name: dualpool/llm/http
      operation: {%s}
"""


def checked(*more: str, policies: str = "") -> tuple[set[str], tuple[str, ...]]:
    """Return the names of the traps, and what is not checked, in our manifests and more."""
    files = [FOLDER / name for name in ("policies.yaml", "routes.yaml", "patches/listener.yaml")]
    texts = [(file, file.read_text("utf-8")) for file in files]
    given = [(file, policies if policies and file.name == "policies.yaml" else text) for file, text in texts]
    given += [(Path("more.yaml"), text) for text in more]
    found = read_gateways((each for file, text in given for each in read(text, file.name)), Router())
    return {each.trap.name for each in find_traps(found.gateways, Router(), ()).found}, found.unchecked


def test_our_own_patches_are_applied() -> None:
    """Nothing in our manifests is left unchecked."""
    assert (set(), ()) == checked()


@pytest.mark.parametrize(
    ("kind", "operation", "said"),
    [
        (
            "route.v3.RouteConfiguration",
            "op: add, path: /virtual_hosts/0/routes/0/route/retry_policy, value: {retry_on: 5xx}",
            "add RouteConfiguration /virtual_hosts/0/routes/0/route/retry_policy",
        ),
        (
            "route.v3.RouteConfiguration",
            "op: add, jsonPath: '..routes[*].route', path: retry_policy, value: {retry_on: 5xx}",
            "add RouteConfiguration ..routes[*].route retry_policy",
        ),
        ("cluster.v3.Cluster", "op: add, path: '', value: {name: other}", "add Cluster"),
        (
            "listener.v3.Listener",
            f"op: replace, path: {MANAGER}/http_filters/0/typed_config/failure_mode_allow, value: false",
            f"replace Listener {MANAGER}/http_filters/0/typed_config/failure_mode_allow",
        ),
        (
            "listener.v3.Listener",
            f"op: add, path: {MANAGER}/http_filters/-, value: {{name: other}}",
            f"add Listener {MANAGER}/http_filters/-",
        ),
        (
            "listener.v3.Listener",
            f"op: remove, path: {MANAGER}/early_header_mutation_extensions",
            f"remove Listener {MANAGER}/early_header_mutation_extensions",
        ),
    ],
)
def test_a_patch_that_is_not_applied_is_reported(kind: str, operation: str, said: str) -> None:
    """Whatever a patch does that the checker cannot follow, it says so instead of passing over it."""
    sentence = f"more.yaml:8: the patch ({said}) is not applied, and so is not checked"
    assert (set(), (sentence,)) == checked(POLICY % (kind, operation))


def test_a_patch_of_the_connection_manager_is_applied() -> None:
    """A field that it sets counts."""
    operation = f"op: add, path: {MANAGER}/stream_idle_timeout, value: 5s"
    assert ({"response-cut"}, ()) == checked(POLICY % ("listener.v3.Listener", operation))


@pytest.mark.parametrize(("value", "traps"), [("yes", set()), ("True", set()), ("no", {"fail-closed"})])
def test_fail_open_in_the_booleans_of_kubernetes(value: str, traps: set[str]) -> None:
    """Kubernetes reads YAML 1.1, in which `yes` is true."""
    policies = (FOLDER / "policies.yaml").read_text("utf-8")
    assert "failOpen: true" in policies
    assert (traps, ()) == checked(policies=policies.replace("failOpen: true", f"failOpen: {value}"))


def test_a_patch_replaces_what_a_field_held() -> None:
    """As JSON Patch does: without its filters, the connection manager asks no router."""
    with pytest.raises(ConfigurationError, match="no ext_proc filter"):
        checked(POLICY % ("listener.v3.Listener", f"op: replace, path: {MANAGER}/http_filters, value: []"))
