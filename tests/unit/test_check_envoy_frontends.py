"""`dualpool check envoy` on routes for several of Istio's gateways, for sidecars, and for some clients."""

import json
from collections.abc import Callable
from typing import Final

import pytest

from extproc.gateways.kubernetes.istio.frontends import gateway_name
from extproc.gateways.kubernetes.istio.routes import hosts_of
from extproc.gateways.kubernetes.istio.scope import workload_of
from extproc.gateways.kubernetes.manifests import Manifests
from extproc.gateways.kubernetes.type_names import EXT_PROC
from extproc.gateways.parsing.sources import read
from tests.unit.test_check_envoy_manifests import names_of

SIDECARS: Final = "istio in sidecars"
API: Final = "istio with the Gateway API"
RULES: Final = "  http:\n"
# A rule with Istio's default retries, for everything.
RETRIED: Final = """    - match: [{%s}]
      route: [{destination: {host: vllm-long.dualpool.svc.cluster.local, port: {number: 8000}}}]
"""
RETRIES: Final = "retries-on-default-route"
HIDDEN: Final = "pool-without-route"


def with_rule(condition: str, enabled: str = "") -> Callable[[str], str]:
    """Return a change that puts a rule with a condition before the others, and the filter on for all if told."""

    def change(text: str) -> str:
        rule = RETRIED % condition
        return text.replace(RULES, RULES + rule, 1).replace("disabled: true", enabled or "disabled: true")

    return change


@pytest.mark.parametrize(
    ("gateway", "condition", "found"),
    [
        # The gateway that the rule is for: the VirtualService has the gateway `llm`, in its own namespace.
        ("istio", "gateways: [llm]", True),
        ("istio", "gateways: [dualpool/llm]", True),
        ("istio", "gateways: [./llm]", True),
        ("istio", "gateways: [llm, mesh]", True),
        ("istio", "gateways: [mesh]", False),
        ("istio", "gateways: [shop/llm]", False),
        (SIDECARS, "gateways: [mesh]", True),
        (SIDECARS, "gateways: [llm]", False),
        # Labels of the workload that asks: the EnvoyFilter selects its own.
        (SIDECARS, "sourceLabels: {llm: caller}", True),
        (SIDECARS, "sourceLabels: {llm: other}", False),
        (SIDECARS, "sourceLabels: {app: shop}", False),  # some of the callers may have this one
        (SIDECARS, "sourceNamespace: callers", True),
        (SIDECARS, "sourceNamespace: shop", False),
        # Those do not count beside gateways.
        (SIDECARS, "gateways: [mesh], sourceLabels: {llm: other}", True),
        (SIDECARS, "gateways: [mesh], sourceNamespace: shop", True),
        ("istio", "port: 8080", False),
        ("istio", "gateways: [llm], port: 8080", False),
    ],
)
def test_a_rule_for_some_clients_hides_others_only_from_them(gateway: str, condition: str, found: bool) -> None:  # noqa: FBT001
    """A rule that takes everything of the router's gateway hides the pools, and one for others does not."""
    assert found == (HIDDEN in names_of(gateway, change=with_rule(condition)))


@pytest.mark.parametrize(
    ("gateway", "condition", "found"),
    [
        ("istio", "gateways: [mesh]", False),
        (SIDECARS, "sourceLabels: {llm: other}", False),
        (SIDECARS, "sourceNamespace: shop", False),
        (SIDECARS, "sourceLabels: {app: shop}", True),
        ("istio", "sourceNamespace: shop", True),  # the namespace of the workload is not known
        ("istio", "port: 8080", True),
    ],
)
def test_a_rule_that_no_request_of_the_router_s_gateway_meets(gateway: str, condition: str, found: bool) -> None:  # noqa: FBT001
    """Its retries do no harm; those of a rule that some request may meet do."""
    assert found == (RETRIES in names_of(gateway, change=with_rule(condition, "disabled: false")))


@pytest.mark.parametrize(
    ("gateways", "found"),
    [("[llm, mesh]", False), ("[mesh, web]", True), ("[web, llm]", False), ("[other/llm]", True)],
)
def test_pools_of_a_gateway_among_others(gateways: str, found: bool) -> None:  # noqa: FBT001
    """The default route of a host may be in another object, which is also for other gateways."""
    other = f"""---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: llm-long, namespace: dualpool}}
spec:
  hosts: [llm.example.com]
  gateways: {gateways}
  http:
    - name: long
"""
    selectors = """
        apiVersion: networking.istio.io/v1
        kind: Gateway
        metadata: {name: web, namespace: dualpool}
        spec: {selector: {istio: web}}
    """
    traps = names_of("istio", selectors, change=lambda text: text.replace("    - name: long\n", other))
    assert ({"default-route-not-largest"} if found else set()) == traps - {HIDDEN if found else ""}


@pytest.mark.parametrize(
    ("parents", "found"),
    [
        ("[{name: llm}, {name: web}]", set()),
        ("[{name: web}, {name: llm, namespace: dualpool}]", set()),
        ("[{name: web}, {name: llm, namespace: shop}]", {"default-route-not-largest", HIDDEN}),
        ("[{name: llm}, {kind: Service, name: llm}]", set()),
        ("[{name: web}]", {"default-route-not-largest"}),
        # Of which Gateway these are is not known: it may be that of the filter.
        ("[{kind: ListenerSet, name: web}]", {"default-route-not-largest", HIDDEN}),
        ("[]", {"default-route-not-largest", HIDDEN}),
    ],
)
def test_an_http_route_with_several_parents(parents: str, found: set[str]) -> None:
    """What is for the same host of one Gateway comes together, whatever else an HTTPRoute is for."""
    other = f"""---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: llm-long, namespace: dualpool}}
spec:
  parentRefs: {parents}
  hostnames: [llm.example.com]
  rules:
    - name: long
"""
    assert found == names_of(API, change=lambda text: text.replace("    - name: long\n", other))


def test_a_host_by_its_short_name() -> None:
    """It is the Service in the VirtualService's namespace, and the patches that name that in full are for it."""
    full, short = "hosts: [vllm-long.dualpool.svc.cluster.local]", "hosts: [vllm-long]"
    assert set() == names_of("istio in sidecars", change=lambda text: text.replace(full, short))


def test_everything_is_for_gateways_without_the_filter() -> None:
    """Then it is not known what the filter is for, and the routes are checked nevertheless."""

    def change(text: str) -> str:
        return text.replace("gateways: [llm]", "gateways: [mesh]").replace("      retries: {attempts: 0}\n", "")

    assert RETRIES in names_of("istio", change=change)


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("llm", "models/llm"),
        ("./llm", "models/llm"),
        ("shop/llm", "shop/llm"),
        ("llm.shop", "shop/llm"),
        ("llm.shop.svc.cluster.local", "shop/llm"),
        ("./llm.web", "models/llm.web"),
        ("mesh", "mesh"),
    ],
)
def test_names_of_gateways(name: str, full: str) -> None:
    """All of Istio's spellings mean the same gateway."""
    (service,) = read("metadata: {namespace: models}", "file.yaml")
    assert full == gateway_name(name, service)


@pytest.mark.parametrize(
    ("ignored", "found"),
    [(True, False), (False, True), ("yes", False), ("On", False), ("no", True)],
)
def test_paths_in_any_case(ignored: bool | str, found: bool) -> None:  # noqa: FBT001
    """A VirtualService may ignore the case of paths."""
    match = {"uri": {"prefix": "/V1"}, "ignoreUriCase": ignored}
    spec = {"hosts": ["a"], "http": [{"match": [match]}]}
    objects = tuple(read(json.dumps({"kind": "VirtualService", "spec": spec}), "file.yaml"))
    (host,) = hosts_of(Manifests(objects))
    (route,) = host["routes"]
    assert ("/V1", found) == (route["match"]["prefix"], route["match"]["case_sensitive"])


OTHER: Final = """
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: other, namespace: shop}
spec:
  workloadSelector: {labels: {app: web}}
  configPatches: [{applyTo: LISTENER, match: {context: GATEWAY}, patch: {operation: MERGE, value: {}}}]
"""


def test_the_router_s_workload_beside_others() -> None:
    """What is known of the workload is what the EnvoyFilter with the router's filter says."""
    assert HIDDEN in names_of(SIDECARS, OTHER, change=with_rule("sourceLabels: {llm: caller}"))
    assert HIDDEN in names_of(SIDECARS, OTHER, change=with_rule("sourceNamespace: callers"))


OURS: Final = """
kind: EnvoyFilter
metadata: {namespace: %s}
spec:
  workloadSelector: {labels: {%s}}
  configPatches:
    - match: {context: %s}
      patch: {value: {name: dualpool, typed_config: {"@type": %s}}}
"""


@pytest.mark.parametrize(
    ("second", "labels", "namespace", "is_gateway"),
    [
        (("models", "a: b, c: d", "GATEWAY"), {"a": "b", "c": "d"}, "models", True),
        (("models", "a: b, c: e", "SIDECAR_OUTBOUND"), {"a": "b"}, "models", None),
        (("shop", "a: b", "GATEWAY"), {"a": "b"}, "", True),
        (("models", "e: f", "GATEWAY"), {}, "models", True),
    ],
)
def test_the_router_s_filter_in_two_workloads(
    second: tuple[str, str, str],
    labels: dict[str, str],
    namespace: str,
    is_gateway: bool | None,  # noqa: FBT001
) -> None:
    """Only what both have is known."""
    texts = [OURS % (*each, EXT_PROC) for each in (("models", "a: b, c: d", "GATEWAY"), second)]
    found = workload_of(Manifests(tuple(each for text in texts for each in read(text, "file.yaml"))))
    assert (labels, namespace, is_gateway) == (found.labels, found.namespace, found.is_gateway)


def test_the_root_namespace_is_that_of_all_workloads() -> None:
    """An EnvoyFilter there says nothing of where the workload is."""
    (given,) = read(OURS % ("istio-system", "a: b", "ANY", EXT_PROC), "file.yaml")
    assert ("", None) == (workload_of(Manifests((given,))).namespace, workload_of(Manifests((given,))).is_gateway)
