"""`dualpool check envoy` on listeners of the Gateway API in Istio: which HTTPRoutes they take, for which hosts."""

from typing import Final

import pytest

from tests.unit.test_check_envoy_frontends import API, HIDDEN
from tests.unit.test_check_envoy_manifests import names_of

GATEWAY: Final = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: llm, namespace: dualpool}
spec: {gatewayClassName: istio, listeners: [%s]}
"""
OTHER: Final = """---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: llm-long, namespace: %s}
spec:
  parentRefs: [%s]
  rules:
    - name: long
"""
PARENT: Final = "{name: llm, namespace: dualpool}"
ALONE: Final = {"default-route-not-largest"}
APART: Final = {*ALONE, HIDDEN}
OURS: Final = "hostname: llm.example.com"


def listener(name: str, port: int, *more: str, protocol: str = "HTTP") -> str:
    """Return a listener."""
    return f"{{{', '.join([f'name: {name}, port: {port}, protocol: {protocol}', *more])}}}"


def split(*listeners: str, parent: str = PARENT, space: str = "dualpool") -> set[str]:
    """Return the traps where the default route is that of another HTTPRoute, which names no host."""
    other = OTHER % (space, parent)
    gateway = GATEWAY % ", ".join(listeners)
    return names_of(API, gateway, change=lambda text: text.replace("    - name: long\n", other))


@pytest.mark.parametrize(
    ("listeners", "found"),
    [
        ([listener("http", 80, OURS)], set()),
        (
            [listener("http", 80, "hostname: LLM.example.com"), listener("https", 443, OURS, protocol="HTTPS")],
            set(),
        ),
        ([listener("http", 80, OURS), listener("tcp", 9000, protocol="TCP")], set()),
        ([listener("http", 80)], APART),
        ([listener("http", 80, "hostname: '*.example.com'")], APART),
    ],
)
def test_a_route_without_hosts_has_the_listener_s(listeners: list[str], found: set[str]) -> None:
    """At these its routes come together with those of a route that names them."""
    assert found == split(*listeners)


@pytest.mark.parametrize("chosen", ["sectionName: second", "port: 8080"])
def test_a_route_of_one_listener(chosen: str) -> None:
    """It has no part in the others, which have only the pool's route then."""
    listeners = [listener("first", 80, OURS), listener("second", 8080, OURS)]
    assert set() == split(*listeners)
    assert ALONE == split(*listeners, parent=f"{{name: llm, namespace: dualpool, {chosen}}}")


@pytest.mark.parametrize(
    ("space", "source", "found"),
    [("shop", "Same", ALONE), ("shop", "All", set()), ("''", "Same", set()), ("dualpool", "Same", set())],
)
def test_routes_of_other_namespaces(space: str, source: str, found: set[str]) -> None:
    """A listener takes them only if it says so; where a namespace is not said, it is taken to be the same."""
    allowed = f"allowedRoutes: {{namespaces: {{from: {source}}}}}"
    assert found == split(listener("http", 80, OURS, allowed), space=space)


def test_a_route_that_no_listener_takes() -> None:
    """Envoy answers its requests with 404, and the router is never asked."""
    assert HIDDEN in names_of(API, GATEWAY % listener("http", 80, "hostname: llama.example.com"))
