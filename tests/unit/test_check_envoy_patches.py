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
        (
            "listener.v3.Listener",
            f"op: add, path: {MANAGER}/early_header_mutation_extensions/0, value: {{name: other}}",
            f"add Listener {MANAGER}/early_header_mutation_extensions/0",
        ),
        (
            "listener.v3.Listener",
            "op: add, path: /filter_chains/0/filters/1, value: {name: other}",
            "add Listener /filter_chains/0/filters/1",
        ),
        (
            "listener.v3.Listener",
            f"op: move, from: {MANAGER}/http_filters/0, path: {MANAGER}/http_filters/1",
            f"move Listener {MANAGER}/http_filters/1",
        ),
        ("listener.v3.Listener", "op: add, path: '', value: {name: other}", "add Listener"),
        (
            "cluster.v3.Cluster",
            "op: add, path: /lb_policy, value: ROUND_ROBIN",
            "add Cluster /lb_policy",
        ),
    ],
)
def test_a_patch_that_is_not_applied_is_reported(kind: str, operation: str, said: str) -> None:
    """Whatever a patch does that the checker cannot follow, it says so instead of passing over it."""
    sentence = f"more.yaml:8: the patch ({said}) is not applied, and so is not checked"
    assert (set(), (sentence,)) == checked(POLICY % (kind, operation))


# The filter is also on where it must not be: on requests without a route, upgrades and very large bodies.
EVERYWHERE = {"always-on", "upgrade-hangs", "buffer-below-body-cap"}
FLAG = "send_body_without_waiting_for_header_response"


@pytest.mark.parametrize(
    ("operation", "traps"),
    [
        (f"op: add, path: {MANAGER}/stream_idle_timeout, value: 5s", {"response-cut"}),
        (f"op: remove, path: {MANAGER}/early_header_mutation_extensions", {"spoofable-header"}),
        (f"op: remove, path: {MANAGER}/server_name", set()),
        ("op: replace, path: /per_connection_buffer_limit_bytes, value: 65536", {"buffer-below-body-cap"}),
        (
            f"op: replace, path: {MANAGER}/http_filters/0/typed_config/failure_mode_allow, value: false",
            {"fail-closed"},
        ),
        (f"op: remove, path: {MANAGER}/http_filters/0/disabled", EVERYWHERE),
        (f"op: add, path: {MANAGER}/http_filters/0/typed_config/{FLAG}, value: true", set()),
        (f"op: remove, path: {MANAGER}/http_filters/7", set()),
        (f"op: add, path: {MANAGER}/http_filters/-, value: {{name: other}}", {"after-the-end"}),
        (f"op: add, path: {MANAGER}/http_filters/2, value: {{name: other}}", {"after-the-end"}),
        (f"op: add, path: {MANAGER}/http_filters/1, value: {{name: other}}", set()),
        (f"op: remove, path: {MANAGER}/http_filters/2/disabled", set()),
        (
            "op: replace, path: /filter_chains/0/filters/0/typed_config/stream_idle_timeout, value: 5s",
            {"response-cut"},
        ),
    ],
)
def test_a_patch_of_the_connection_manager_is_applied(operation: str, traps: set[str]) -> None:
    """What it sets or removes counts; where it finds nothing, nothing changes."""
    assert (traps, ()) == checked(POLICY % ("listener.v3.Listener", operation))


def test_the_mode_that_policies_have_no_field_for() -> None:
    """STREAMED with its flag, which a patch gives to the filter of a policy."""
    policies = (FOLDER / "policies.yaml").read_text("utf-8").replace("Buffered}", "Streamed}")
    operation = f"op: add, path: {MANAGER}/http_filters/0/typed_config/{FLAG}, value: true"
    patch = POLICY % ("listener.v3.Listener", operation)
    assert "streamed-without-flag" in checked(policies=policies)[0]
    assert "streamed-without-flag" not in checked(patch, policies=policies)[0]


OTHER_FILTERS = """
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: %s
metadata: {name: other}
spec: {%s}
"""


@pytest.mark.parametrize(
    ("kind", "spec", "known"),
    [
        ("BackendTrafficPolicy", "faultInjection: {}", False),
        ("BackendTrafficPolicy", "rateLimit: {local: {}}", False),
        ("BackendTrafficPolicy", "rateLimit: {global: {}}", True),
        ("ClientTrafficPolicy", "healthCheck: {path: /}", False),
        ("ClientTrafficPolicy", "headers: {lateResponseHeaders: {}}", False),
        ("ClientTrafficPolicy", "grpc: {enableWeb: true}", False),
        ("EnvoyExtensionPolicy", "lua: []", False),
        ("EnvoyProxy", "geoIP: {}", False),
        ("Backend", "type: DynamicResolver", False),
        ("Backend", "type: Endpoints", True),
        ("SecurityPolicy", "csrf: {}", False),
        ("SecurityPolicy", "cors: {}", True),
        ("GRPCRoute", "", False),
        ("HTTPRoute", "rules: [{sessionPersistence: {}}]", False),
        ("HTTPRoute", "rules: [{filters: [{type: CORS}]}]", False),
        ("HTTPRoute", "rules: [{filters: [{type: URLRewrite}]}]", True),
    ],
)
def test_positions_of_filters_that_are_not_known(kind: str, spec: str, known: bool) -> None:  # noqa: FBT001
    """Where Envoy Gateway may have inserted a filter that is not reconstructed, such patches are reported."""
    operation = f"op: replace, path: {MANAGER}/http_filters/0/typed_config/failure_mode_allow, value: false"
    found = checked(OTHER_FILTERS % (kind, spec), POLICY % ("listener.v3.Listener", operation))
    assert known == (not found[1]) == ("fail-closed" in found[0])


@pytest.mark.parametrize(
    ("name", "applied"),
    [
        ("dualpool/llm/http", True),
        ("tcp-8080", True),
        ("http-8080", True),
        ("other/llm/http", True),  # our manifests do not say in which namespace they are
        ("dualpool/web/http", False),
    ],
)
def test_patches_of_another_gateway(name: str, applied: bool) -> None:  # noqa: FBT001
    """They change nothing on ours."""
    policy = POLICY.replace("dualpool/llm/http", name)
    operation = f"op: add, path: {MANAGER}/stream_idle_timeout, value: 5s"
    assert (({"response-cut"} if applied else set()), ()) == checked(policy % ("listener.v3.Listener", operation))


def test_policies_in_the_order_of_their_priorities() -> None:
    """The one with the highest is applied last."""
    late, early = (
        POLICY.replace("type: JSONPatch", f"type: JSONPatch\n  priority: {priority}")
        % ("listener.v3.Listener", f"op: add, path: {MANAGER}/stream_idle_timeout, value: {value}")
        for priority, value in ((2, "600s"), (-1, "5s"))
    )
    assert (set(), ()) == checked(late, early)
    assert ({"response-cut"}, ()) == checked(late.replace("600s", "5s"), early.replace("5s", "600s"))


def test_a_priority_that_is_no_number() -> None:
    """It is a sentence with its place."""
    policy = POLICY.replace("type: JSONPatch", "type: JSONPatch\n  priority: high")
    with pytest.raises(ConfigurationError, match=r"more\.yaml:7: priority is not a whole number"):
        checked(policy % ("cluster.v3.Cluster", "op: add, path: '', value: {name: other}"))


@pytest.mark.parametrize(
    ("first", "second", "last"),
    [
        ("name: a", "name: b", "second"),
        ("name: b", "name: a", "first"),
        (
            "name: b, creationTimestamp: '2026-01-01T00:00:00Z'",
            "name: a, creationTimestamp: '2026-01-02T00:00:00Z'",
            "second",
        ),
    ],
)
def test_policies_of_the_same_priority(first: str, second: str, last: str) -> None:
    """The youngest is applied last, or that whose name comes last."""
    texts = [
        POLICY.replace("name: more", name)
        % ("listener.v3.Listener", f"op: add, path: {MANAGER}/stream_idle_timeout, value: {value}")
        for name, value in ((first, "5s"), (second, "600s"))
    ]
    assert (({"response-cut"} if last == "first" else set()), ()) == checked(*texts)


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
