"""`dualpool check envoy` on Istio's AuthorizationPolicies with a provider that gets bodies."""

from typing import Final

import pytest

from extproc.gateways.inputs import read_gateways
from extproc.gateways.parsing.sources import read
from extproc.gateways.router import Router
from tests.unit.test_check_envoy_manifests import DEPLOYED, ROOT

POLICY: Final = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: guard, namespace: %s}
spec: {action: %s, provider: {name: opa}, selector: {matchLabels: {%s}}, rules: [{}]}
"""
MESH: Final = """
apiVersion: install.istio.io/v1alpha1
kind: IstioOperator
spec: {meshConfig: {extensionProviders: [{name: other}, {name: opa, %s: {service: opa, port: 9191, %s}}]}}
"""
GUARD: Final = POLICY % ("istio-system", "CUSTOM", "istio: ingressgateway")
WHOLE: Final = "includeRequestBodyInCheck: {maxRequestBytes: 8192}"
PARTIAL: Final = "includeRequestBodyInCheck: {maxRequestBytes: 4096, allowPartialMessage: true}"
MISSING: Final = "is not in the input: whether it refuses large bodies is not checked"


def said(*texts: str) -> tuple[str, ...]:
    """Return what is not checked of our manifests with these objects."""
    paths = [path for pattern in DEPLOYED["istio"] for path in sorted(ROOT.glob(pattern))]
    documents = (
        each for text in [*(path.read_text("utf-8") for path in paths), *texts] for each in read(text, "f")
    )
    return read_gateways(documents, Router()).unchecked


@pytest.mark.parametrize("kind", ["envoyExtAuthzHttp", "envoyExtAuthzGrpc"])
@pytest.mark.parametrize(("body", "refuses"), [(WHOLE, True), (PARTIAL, False), ("pathPrefix: /", False)])
def test_a_provider_that_gets_bodies(kind: str, body: str, refuses: bool) -> None:  # noqa: FBT001
    """That it refuses large ones is said, if it gets whole ones; of which requests depends on the rules."""
    unchecked = said(GUARD, MESH % (kind, body))
    assert refuses == bool(unchecked)
    assert all("refuses bodies over 8192 bytes; of which requests is not checked" in each for each in unchecked)


def test_a_provider_that_is_not_in_the_input() -> None:
    """What it gets is not known."""
    (sentence,) = said(GUARD)
    assert sentence.endswith(f'the provider "opa" of the AuthorizationPolicy "guard" {MISSING}')


@pytest.mark.parametrize(
    ("namespace", "action", "labels", "counts"),
    [
        ("istio-system", "CUSTOM", "", True),
        ("''", "CUSTOM", "", True),
        ("istio-system", "CUSTOM", "app: gateway", True),
        ("istio-system", "CUSTOM", "istio: egressgateway", False),
        ("istio-system", "ALLOW", "", False),
    ],
)
def test_policies_that_do_not_count(namespace: str, action: str, labels: str, counts: bool) -> None:  # noqa: FBT001
    """Those of other workloads, and those that ask no provider."""
    assert counts == bool(said(POLICY % (namespace, action, labels)))


def test_a_policy_of_another_namespace() -> None:
    """It is for other workloads, where the namespace of the router's is known."""
    paths = [path for pattern in DEPLOYED["istio in sidecars"] for path in sorted(ROOT.glob(pattern))]
    texts = [path.read_text("utf-8") for path in paths]
    for namespace, counts in (("callers", True), ("web", False)):
        policy = POLICY % (namespace, "CUSTOM", "")
        documents = (each for text in [*texts, policy] for each in read(text, "f"))
        assert counts == any(MISSING in each for each in read_gateways(documents, Router()).unchecked)
