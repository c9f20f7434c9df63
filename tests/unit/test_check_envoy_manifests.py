"""`dualpool check envoy` on manifests of Istio and Envoy Gateway: ours pass, and traps in them are reported."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from extproc.cli.main import main
from extproc.gateways.findings import find_traps
from extproc.gateways.inputs import read_gateways
from extproc.gateways.parsing.sources import read
from extproc.gateways.router import Router
from tests.envoy.harness.gateway import FILES, load

Change = Callable[[str], str]
ROOT = FILES.parent
# The manifests of each gateway.
DEPLOYED = {
    "istio": ["deploy/istio/*.yaml"],
    "istio with the Gateway API": ["deploy/istio/gateway-api/*.yaml"],
    "istio in sidecars": ["deploy/istio/sidecar/*.yaml"],
    "istio with InferencePools": ["deploy/istio/inference-pools/*.yaml"],
    "envoy gateway": ["deploy/envoy-gateway/*.yaml", "deploy/envoy-gateway/patches/*.yaml"],
}
SERVICES = ROOT / "deploy/kubernetes/service.yaml"


@pytest.mark.parametrize("name", DEPLOYED)
def test_our_own_manifests_have_no_trap(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The files in `deploy/` pass, together with the router's own Services."""
    paths = [str(path) for pattern in DEPLOYED[name] for path in sorted(ROOT.glob(pattern))]
    assert main(["check", "envoy", str(SERVICES), *paths]) == 0, capsys.readouterr().out


def test_every_manifest_of_a_gateway_is_checked() -> None:
    """No gateway file in `deploy/` is missing from the list above."""
    checked = {path for patterns in DEPLOYED.values() for each in patterns for path in ROOT.glob(each)}
    folders = (ROOT / "deploy/istio", ROOT / "deploy/envoy-gateway")
    assert {path for folder in folders for path in folder.rglob("*.yaml")} == checked


def without(words: str) -> Change:
    """Delete a line, or a part of one."""
    return lambda text: text.replace(words, "")


MANIFESTS: list[tuple[str, str, Change, str]] = [
    (
        "istio",
        "VirtualService",
        lambda text: text.replace("      retries: {attempts: 0}\n---", "---"),
        "retries-on-default-route",
    ),
    ("istio", "EnvoyFilter", without("failure_mode_allow: true"), "fail-closed"),
    ("istio", "EnvoyFilter", without("- remove: x-token-budget-pool"), "spoofable-header"),
    ("istio", "DestinationRule", without("connectTimeout: 1s"), "slow-connect"),
    ("istio", "DestinationRule", without("http2MaxRequests: 64"), "router-breakers-large"),
    (
        "istio with the Gateway API",
        "EnvoyFilter",
        without("retry_policy: {retry_on: none}"),
        "retries-on-default-route",
    ),
    ("envoy gateway", "policy", without("failOpen: true"), "fail-closed"),
    ("envoy gateway", "policy", without("    bufferLimit: 16Mi"), "buffer-below-body-cap"),
    ("envoy gateway", "policy", without("    initialStreamWindowSize: 16Mi"), "buffer-below-body-cap"),
    ("envoy gateway", "policy", without("    initialConnectionWindowSize: 256Mi"), "connection-window-small"),
    ("envoy gateway", "policy", without("connectionKeepalive: {interval: 15s, timeout: 5s}"), "router-not-pinged"),
    ("istio", "EnvoyFilter", without("connection_keepalive: {interval: 15s, timeout: 5s}"), "router-not-pinged"),
    ("envoy gateway", "policy", without("    numAttemptsPerPriority: 1"), "repair-same-pool"),
    ("envoy gateway", "policy", without("writableNamespaces: [dualpool]"), "namespace-dropped"),
    ("envoy gateway", "policy", lambda text: text.replace("Buffered}", "Streamed}"), "streamed-without-flag"),
    ("envoy gateway", "policy", without("request: {body: Buffered}"), "headers-skipped"),
    ("envoy gateway", "policy", lambda text: text.replace("[x-token-budget-pool, ", "["), "spoofable-header"),
    ("envoy gateway", "route", without("      timeouts: {request: 0s}"), "response-cut"),
    ("envoy gateway", "route", lambda text: text.replace("value: short}", "value: small}"), "pool-without-route"),
]


@pytest.mark.parametrize(("gateway", "_", "change", "trap"), MANIFESTS)
def test_traps_in_manifests(gateway: str, _: str, change: Change, trap: str) -> None:
    """A trap of Envoy's configuration is found in the terms of Istio and Envoy Gateway, with file and line."""
    paths = [path for pattern in DEPLOYED[gateway] for path in sorted(ROOT.glob(pattern))]
    texts = {path.name: path.read_text("utf-8") for path in paths}
    documents = [each for name, text in texts.items() for each in read(change(text), name)]
    router = Router()
    found = find_traps(read_gateways(documents, router).gateways, router).found
    assert {trap} <= {each.trap.name for each in found}
    assert all(each.place.source in texts and each.place.line for each in found)


@pytest.mark.parametrize(
    ("gateway", "old", "new"),
    [
        ("istio", "- name: short\n", "- name: short\n      retries: {attempts: 1, perTryTimeout: 10s}\n"),
        ("envoy gateway", "backOff: {baseInterval: 1ms}", "backOff: {baseInterval: 1ms}\n      timeout: 10s"),
        ("envoy gateway", "streamIdleTimeout: 600s", "streamIdleTimeout: 20s"),
        (
            "envoy gateway",
            "    tcp: {connectTimeout: 1s}",
            "    http: {maxStreamDuration: 20s}\n    tcp: {connectTimeout: 1s}",
        ),
    ],
)
def test_responses_that_manifests_cut(gateway: str, old: str, new: str) -> None:
    """Each setting that ends a response early is found."""
    assert {"response-cut"} == names_of(gateway, change=lambda text: text.replace(old, new))


TARGETS = """  targetRefs:
    - {group: gateway.networking.k8s.io, kind: HTTPRoute, name: llm}
    - {group: gateway.networking.k8s.io, kind: HTTPRoute, name: llm-short}
"""
LABELLED = """  targetSelectors:
    - {group: gateway.networking.k8s.io, kind: HTTPRoute, matchLabels: {routed: "yes"}}
"""


@pytest.mark.parametrize(
    ("gateway", "changes"),
    [
        ("istio", {"host: dualpool.dualpool.svc.cluster.local": "host: '*.dualpool.svc.cluster.local'"}),
        ("istio", {"host: dualpool.dualpool.svc.cluster.local": "host: '*'"}),
        (
            "envoy gateway",
            {
                TARGETS: LABELLED,
                "{name: llm}": '{name: llm, labels: {routed: "yes"}}',
                "{name: llm-short}": '{name: llm-short, labels: {routed: "yes"}}',
            },
        ),
    ],
)
def test_manifests_that_name_their_targets_otherwise(gateway: str, changes: dict[str, str]) -> None:
    """Wildcards and selectors reach what names would."""
    missing = set(changes)

    def change(text: str) -> str:
        for old, new in changes.items():
            if old in text:
                missing.discard(old)
            text = text.replace(old, new)
        return text

    assert set() == names_of(gateway, change=change)
    assert set() == missing


def test_limits_of_a_port_count() -> None:
    """A DestinationRule may set the router's limits for its port only."""

    def change(text: str) -> str:
        documents = text.split("\n---\n")
        at = next((number for number, each in enumerate(documents) if "http2MaxRequests" in each), None)
        if at is None:
            return text
        head, _, policy = documents[at].partition("  trafficPolicy:\n")
        lines = policy.splitlines()
        lines[0] = "    - port: {number: 9002}\n  " + lines[0]
        policy = "\n  ".join(lines)
        documents[at] = f"{head}  trafficPolicy:\n    portLevelSettings:\n{policy}\n"
        return "\n---\n".join(documents)

    assert set() == names_of("istio", change=change)


def test_another_gateways_policy_is_not_ours() -> None:
    """The ClientTrafficPolicy of another Gateway is ignored, wherever it stands."""
    other = """
        apiVersion: gateway.envoyproxy.io/v1alpha1
        kind: ClientTrafficPolicy
        metadata: {name: other}
        spec: {targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: other}]}
    """
    assert set() == names_of("envoy gateway", other, first=True)


def names_of(gateway: str, *more: str, change: Change = str, first: bool = False) -> set[str]:
    """Return the traps in the manifests of a gateway, with others behind or before them."""
    paths = [path for pattern in DEPLOYED[gateway] for path in sorted(ROOT.glob(pattern))]
    ours = [change(path.read_text("utf-8")) for path in paths]
    texts = [*more, *ours] if first else [*ours, *more]
    documents = [each for number, text in enumerate(texts) for each in read(text, f"{number}.yaml")]
    router = Router()
    return {each.trap.name for each in find_traps(read_gateways(documents, router).gateways, router).found}


@pytest.mark.parametrize(
    "condition",
    [
        "method: {exact: OPTIONS}",
        "method: {regex: GET|HEAD}",
        "authority: {prefix: shop}",
        "scheme: {exact: http}",
        "queryParams: {debug: {exact: '1'}}",
        "withoutHeaders: {x-mine: {}}",
        "sourceLabels: {app: shop}",
        "headers: {x-mine: {exact: a}}",
    ],
)
def test_a_route_with_a_condition_hides_no_other(condition: str) -> None:
    """Whatever the condition of a route before ours, it does not take all of our requests."""

    def before(text: str) -> str:
        route = (
            f"  http:\n    - match: [{{{condition}}}]\n      name: other\n      directResponse: {{status: 204}}\n"
        )
        return text.replace("  http:\n", route, 1)

    assert set() == names_of("istio", change=before)


def test_query_parameters_of_an_http_route_are_a_condition() -> None:
    """A rule for requests with a parameter does not take those without."""

    def before(text: str) -> str:
        match = "matches: [{queryParams: [{name: debug, value: '1'}]}]"
        rule = f"  rules:\n    - {match}\n      backendRefs: [{{name: debug, port: 80}}]\n"
        return text.replace("  rules:\n", rule, 1)

    assert set() == names_of("istio with the Gateway API", change=before)


@pytest.mark.parametrize(
    ("condition", "found"), [("exact: '1'", True), ("exact: '2'", False), ("prefix: '1'", False)]
)
def test_values_of_query_parameters_are_conditions(condition: str, found: bool) -> None:  # noqa: FBT001
    """A rule for one value of a parameter hides no route for another one, but one for the same value."""
    before = f"    - match: [{{queryParams: {{v: {{{condition}}}}}}}]\n      directResponse: {{status: 204}}\n"
    headers = "        - headers: {x-token"

    def change(text: str) -> str:
        text = text.replace("  http:\n", "  http:\n" + before, 1)
        return text.replace(
            headers, headers.replace("headers", "queryParams: {v: {exact: '1'}}\n          headers")
        )

    assert found == ("pool-without-route" in names_of("istio", change=change))


PATCH = """
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {{name: other, namespace: istio-system}}
spec:
  configPatches:
    - applyTo: {kind}
      match: {{context: GATEWAY, {match}}}
      patch: {{operation: MERGE, value: {value}}}
"""


@pytest.mark.parametrize(
    ("kind", "match", "value", "traps"),
    [
        (
            "HTTP_ROUTE",
            "routeConfiguration: {vhost: {name: 'shop.example.com:80'}}",
            "{route: {timeout: 1s}}",
            set(),
        ),
        (
            "HTTP_ROUTE",
            "routeConfiguration: {vhost: {name: 'llm.example.com:80'}}",
            "{route: {timeout: 1s}}",
            {"response-cut"},
        ),
        *(
            ("HTTP_ROUTE", f"routeConfiguration: {{vhost: {vhost}}}", "{route: {timeout: 1s}}", found)
            for vhost, found in (
                ("{domainName: shop.example.com}", set()),
                ("{domainName: llm.example.com}", {"response-cut"}),
                ("{route: {action: REDIRECT}}", set()),
                ("{route: {action: DIRECT_RESPONSE}}", set()),
                ("{route: {action: ROUTE, name: long}}", {"response-cut"}),
            )
        ),
        (
            "VIRTUAL_HOST",
            "routeConfiguration: {vhost: {name: 'shop.example.com:443'}}",
            "{retry_policy: {retry_on: 5xx}}",
            set(),
        ),
        (
            "NETWORK_FILTER",
            "listener: {filterChain: {filter: {name: envoy.filters.network.tcp_proxy}}}",
            "{typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy}}",  # noqa: E501
            set(),
        ),
        ("CLUSTER", "cluster: {portNumber: 8000}", "{connect_timeout: 30s}", {"slow-connect"}),
        ("CLUSTER", "cluster: {portNumber: 9002}", "{connect_timeout: 30s}", set()),
        ("CLUSTER", "cluster: {subset: v1}", "{connect_timeout: 30s}", set()),
    ],
)
def test_a_patch_applies_to_what_it_matches(kind: str, match: str, value: str, traps: set[str]) -> None:
    """Other applications' EnvoyFilters do not change our hosts or our connection manager."""
    assert traps == names_of("istio", PATCH.format(kind=kind, match=match, value=value))


@pytest.mark.parametrize("first", [True, False])
def test_routes_of_other_hosts_do_not_count(first: bool) -> None:  # noqa: FBT001
    """Another application's HTTPRoute for its own host is none of the router's, in any order of the files."""
    shop = """
        apiVersion: gateway.networking.k8s.io/v1
        kind: HTTPRoute
        metadata: {name: shop}
        spec:
          parentRefs: [{name: llm}]
          hostnames: [shop.example]
          rules: [{backendRefs: [{name: shop, port: 80}]}]
    """
    assert set() == names_of("envoy gateway", shop, first=first)


def test_a_cluster_ip_is_recognised_by_its_service() -> None:
    """If Envoy connects to the name of a Service with a ClusterIP, many servers share one address."""
    document = load("streamed")
    host = "dualpool.dualpool.svc.cluster.local"
    for each in document["static_resources"]["clusters"]:
        if each["name"] == "dualpool":
            address = each["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]
            address["socket_address"]["address"] = host
    service: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "dualpool", "namespace": "dualpool"},
        "spec": {"ports": [{"port": 9002}]},
    }

    def found() -> set[str]:
        texts = [json.dumps(document), json.dumps(service)]
        router = Router()
        documents = [each for text in texts for each in read(text, "file.json")]
        return {each.trap.name for each in find_traps(read_gateways(documents, router).gateways, router).found}

    assert {"cluster-ip"} == found()
    service["spec"]["clusterIP"] = "None"
    assert set() == found()
