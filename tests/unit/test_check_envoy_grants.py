"""`dualpool check envoy` on references to other namespaces, which a ReferenceGrant has to allow."""

from typing import Final

import pytest

from extproc.gateways.kubernetes.grants import ungranted
from extproc.gateways.kubernetes.manifests import Manifests
from extproc.gateways.parsing.sources import read

ROUTE: Final = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: llm, namespace: %s}
spec: {rules: [{backendRefs: [{name: short%s}]}]}
"""
POLICY: Final = """
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: %s
metadata: {name: router, namespace: web}
spec: {%s}
"""
GRANT: Final = """
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: any, namespace: %s}
spec:
  from: [{group: %s, kind: %s, namespace: %s}]
  to: [{group: %s, kind: %s%s}]
"""
API: Final = "gateway.networking.k8s.io"
ENVOY: Final = "gateway.envoyproxy.io"
OTHER: Final = ROUTE % ("web", ", namespace: llm, port: 80")
ALLOWED: Final = GRANT % ("llm", API, "HTTPRoute", "web", "''", "Service", "")


def said(*texts: str) -> list[str]:
    """Return the sentences on these objects."""
    return list(ungranted(Manifests(tuple(each for text in texts for each in read(text, "f.yaml")))))


@pytest.mark.parametrize(
    "route",
    [ROUTE % ("web", ""), ROUTE % ("web", ", namespace: web"), ROUTE % ("''", ", namespace: llm")],
)
def test_references_in_one_namespace(route: str) -> None:
    """They need no grant, nor is it known that they do where a namespace is not said."""
    assert [] == said(route)


def test_a_reference_that_nothing_allows() -> None:
    """It is said once for all of its kind between two namespaces: the grant may be somewhere else."""
    sentence = (
        "f.yaml:5: whether each HTTPRoute of web may refer to the Service short of llm is not checked: "
        "no ReferenceGrant in the input allows it"
    )
    assert [sentence] == said(OTHER, OTHER)
    (many,) = said(*(OTHER.replace("short", name) for name in "abcd"))
    assert "the Service a, b, c and more of llm" in many


@pytest.mark.parametrize(
    ("grant", "allowed"),
    [
        (ALLOWED, True),
        (ALLOWED.replace("Service", "Service, name: short"), True),
        (ALLOWED.replace("Service", "Service, name: long"), False),
        (ALLOWED.replace("namespace: llm", "namespace: ''"), True),
        (ALLOWED.replace("namespace: llm", "namespace: long"), False),
        (ALLOWED.replace("namespace: web", "namespace: shop"), False),
        (ALLOWED.replace("HTTPRoute", "GRPCRoute"), False),
        (ALLOWED.replace("kind: Service", "kind: Secret"), False),
        (ALLOWED.replace(API + ",", "other,"), False),
        (ALLOWED.replace("to: [{group: ''", "to: [{group: other"), False),
    ],
)
def test_grants(grant: str, allowed: bool) -> None:  # noqa: FBT001
    """One in the namespace of the server allows what it names, with all fields."""
    assert allowed == (not said(OTHER, grant))


@pytest.mark.parametrize(
    ("kind", "spec", "target"),
    [
        ("EnvoyExtensionPolicy", "extProc: [{backendRefs: [%s]}]", "''"),
        ("SecurityPolicy", "extAuth: {grpc: {backendRefs: [%s]}}", "''"),
        ("SecurityPolicy", "extAuth: {http: {backendRefs: [%s]}}", "''"),
    ],
)
def test_policies(kind: str, spec: str, target: str) -> None:
    """The servers of processors and of authorization need one as well, for the policy's kind."""
    policy = POLICY % (kind, spec % "{name: dualpool, namespace: llm, port: 9002}")
    assert 1 == len(said(policy, ALLOWED))
    assert [] == said(policy, GRANT % ("llm", ENVOY, kind, "web", target, "Service", ""))


def test_backends() -> None:
    """Envoy Gateway's Backends are of another group than Services."""
    route = OTHER.replace("port: 80", f"group: {ENVOY}, kind: Backend")
    assert 1 == len(said(route, ALLOWED))
    assert [] == said(route, GRANT % ("llm", API, "HTTPRoute", "web", ENVOY, "Backend", ", name: short"))
