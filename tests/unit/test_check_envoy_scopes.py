"""`dualpool check envoy` on EnvoyFilters of other workloads, contexts and ports: they do not change a gateway."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.gateways.findings import find_traps
from extproc.gateways.inputs import Read, read_gateways
from extproc.gateways.kubernetes.istio.scope import GATEWAY_LABEL, Scope
from extproc.gateways.parsing.sources import read
from extproc.gateways.router import Router
from tests.unit.test_check_envoy_manifests import DEPLOYED, ROOT

# Ends responses after a second.
PATCH = """
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {{name: other, {metadata}}}
spec:
  {spec}
  configPatches:
    - applyTo: NETWORK_FILTER
      match: {{{match}}}
      patch: {{operation: MERGE, value: {{typed_config: {{"@type": {manager}, {cut}}}}}}}
    - applyTo: HTTP_ROUTE
      match: {{{match}}}
      patch: {{operation: REMOVE}}
"""
CUT = "common_http_protocol_options: {max_stream_duration: 1s}"
MANAGER = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
INGRESS = "workloadSelector: {labels: {istio: ingressgateway}}"
EGRESS = "workloadSelector: {labels: {istio: egressgateway, app: egress}}"
TARGETS = "targetRefs: [{{kind: Gateway, group: gateway.networking.k8s.io, name: {}}}]"
ROOT_SPACE = "namespace: istio-system"


def read_with(gateway: str, metadata: str, spec: str, match: str) -> Read:
    """Return what is read from the manifests of a gateway together with another EnvoyFilter."""
    other = PATCH.format(metadata=metadata, spec=spec or "priority: 0", match=match, manager=MANAGER, cut=CUT)
    paths = [path for pattern in DEPLOYED[gateway] for path in sorted(ROOT.glob(pattern))]
    texts = [*(path.read_text("utf-8") for path in paths), other]
    documents = [each for number, text in enumerate(texts) for each in read(text, f"{number}.yaml")]
    return read_gateways(documents, Router())


def names_in(found: Read) -> set[str]:
    """Return the traps in what was read."""
    return {each.trap.name for each in find_traps(found.gateways, Router()).found}


@pytest.mark.parametrize(
    ("gateway", "metadata", "spec", "match"),
    [
        ("istio", ROOT_SPACE, INGRESS, "context: SIDECAR_INBOUND"),
        ("istio", ROOT_SPACE, EGRESS, "context: GATEWAY"),
        ("istio", ROOT_SPACE, EGRESS, ""),
        ("istio in sidecars", "namespace: shop", "", "context: ANY"),
        ("istio in sidecars", "namespace: callers", "", "listener: {portNumber: 9000}"),
        ("istio with the Gateway API", "namespace: shop", "", "context: GATEWAY"),
        ("istio with the Gateway API", "namespace: dualpool", TARGETS.format("shop"), ""),
    ],
)
def test_a_patch_of_another_place_changes_nothing(gateway: str, metadata: str, spec: str, match: str) -> None:
    """A patch that can never meet the router's filter is neither applied nor reported as unchecked."""
    found = read_with(gateway, metadata, spec, match)
    assert (set(), ()) == (names_in(found), found.unchecked)


@pytest.mark.parametrize(
    ("gateway", "metadata", "spec", "match"),
    [
        ("istio", ROOT_SPACE, "", "context: GATEWAY"),
        ("istio", ROOT_SPACE, "workloadSelector: {labels: {app: gateway}}", "context: ANY"),
        ("istio", "namespace: shop", "", ""),
        ("istio in sidecars", ROOT_SPACE, "", "listener: {portNumber: 8000}"),
        ("istio in sidecars", "labels: {}", "", ""),
        ("istio with the Gateway API", "namespace: dualpool", TARGETS.format("llm"), ""),
        ("istio with the Gateway API", "namespace: dualpool", "targetRefs: [{kind: Service, name: shop}]", ""),
    ],
)
def test_a_patch_that_may_meet_the_filter_counts(gateway: str, metadata: str, spec: str, match: str) -> None:
    """A patch that applies to the gateway, or may, is checked with it."""
    found = read_with(gateway, metadata, spec, match)
    assert "response-cut" in names_in(found)
    assert len(found.unchecked) == 1


WORDS = st.sampled_from(["", "a", "b"])
SCOPES = st.builds(
    Scope,
    namespace=st.sampled_from(["", "a", "b", "istio-system"]),
    labels=st.dictionaries(st.sampled_from(["x", GATEWAY_LABEL]), WORDS).map(lambda each: frozenset(each.items())),
    targets=st.frozensets(st.tuples(st.sampled_from(["Gateway", "Service"]), WORDS), max_size=2),
    context=st.sampled_from(["", "ANY", "GATEWAY", "SIDECAR_INBOUND"]),
    port=st.sampled_from(["", "80", "443"]),
)


@given(SCOPES, SCOPES)
def test_meeting_is_mutual(one: Scope, other: Scope) -> None:
    """Each scope meets itself, and two scopes meet in either order."""
    assert one.may_meet(one)
    assert one.may_meet(other) is other.may_meet(one)
