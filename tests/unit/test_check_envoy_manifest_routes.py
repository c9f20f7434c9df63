"""`dualpool check envoy` on the names and the order that control planes give the routes of manifests."""

from typing import Final

import pytest

from extproc.gateways.kubernetes.type_names import MANAGER
from tests.unit.test_check_envoy_manifests import PATCH, names_of

API: Final = "istio with the Gateway API"
LONG: Final = "    - name: long\n"
SHORT: Final = "    - name: short\n"
OTHER_ROUTE: Final = """---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: llm-long, namespace: dualpool}
spec:
  parentRefs: [{name: %s}]
  hostnames: [llm.example.com]
  rules:
    - name: long
"""
OTHER_SERVICE: Final = """---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: llm-long, namespace: dualpool}
spec:
  hosts: [llm.example.com]
  gateways: [%s]
  http:
    - name: long
"""
POOL: Final = "          headers: [{name: x-token-budget-pool, value: short}]\n"
ANY: Final = "        - path: {type: PathPrefix, value: /}\n"
EXPRESSION: Final = "        - path: {type: RegularExpression, value: '/v1/.*'}\n"


@pytest.mark.parametrize(
    ("gateway", "other", "its", "found"),
    [
        (API, OTHER_ROUTE, "llm", set()),
        # The filter is not in this Gateway, and so no request for a pool arrives there.
        (API, OTHER_ROUTE, "web", {"default-route-not-largest"}),
        ("istio", OTHER_SERVICE, "llm", set()),
        ("istio", OTHER_SERVICE, "web", {"default-route-not-largest", "pool-without-route"}),
    ],
)
def test_pools_in_objects_of_their_own(gateway: str, other: str, its: str, found: set[str]) -> None:
    """What is for the same host of the same gateway comes together, in however many objects."""
    assert found == names_of(gateway, change=lambda text: text.replace(LONG, other % its))


def test_a_virtual_service_before_that_takes_all() -> None:
    """Of several VirtualServices for a host, Istio puts what takes everything last."""
    first = """
        apiVersion: networking.istio.io/v1
        kind: VirtualService
        metadata: {name: long, namespace: dualpool}
        spec:
          hosts: [llm.example.com]
          gateways: [llm]
          http:
            - name: long
              retries: {attempts: 0}
              route: [{destination: {host: vllm-long.dualpool.svc.cluster.local, port: {number: 8000}}}]
    """
    assert set() == names_of("istio", first, first=True)


@pytest.mark.parametrize(
    ("match", "found"),
    [
        ("{uri: {prefix: /}}", True),
        ("{uri: {regex: .*}}", True),
        ("{queryParams: {debug: {exact: '1'}}}", False),
        ("{uri: {prefix: /v2}}", False),
    ],
)
def test_rules_behind_one_that_takes_all(match: str, found: bool) -> None:  # noqa: FBT001
    """Istio leaves them out, before it puts what takes everything last."""
    early = (
        f"    - match: [{match}]\n      name: long\n      retries: {{attempts: 0}}\n"
        f"      route: [{{destination: {{host: a}}}}]\n"
    )
    traps = names_of("istio", change=lambda text: text.replace(SHORT, early + SHORT))
    assert found == ("pool-without-route" in traps)


@pytest.mark.parametrize(
    ("gateway", "changes"),
    [
        (API, {"    - name: long\n      matches": "    - matches", "{name: long}": "{name: dualpool.llm.2}"}),
        (
            "istio",
            {
                "        - headers: {x-token": "        - name: pool\n          headers: {x-token",
                "{name: short}": "{name: short.pool}",
            },
        ),
    ],
)
def test_names_that_istio_gives_routes(gateway: str, changes: dict[str, str]) -> None:
    """A rule without a name is called by its place, and a match adds its own name: patches go by these."""

    def change(text: str) -> str:
        for old, new in changes.items():
            text = text.replace(old, new)
        return text

    assert set() == names_of(gateway, change=change)


@pytest.mark.parametrize(("gateway", "found"), [("envoy gateway", set()), (API, {"pool-without-route"})])
def test_an_expression_beside_a_prefix(gateway: str, found: set[str]) -> None:
    """Envoy Gateway tries expressions before prefixes, Istio after them."""
    assert found == names_of(gateway, change=lambda text: text.replace(ANY + POOL, EXPRESSION + POOL))


def test_pools_in_another_namespace() -> None:
    """A backend's own namespace is part of its cluster's name."""
    names = "outbound|8000||vllm-short.models.svc", "outbound|8000||vllm-long.models.svc"

    def change(text: str) -> str:
        for old, new in zip(("vllm-short", "vllm-long"), names, strict=True):
            text = text.replace(f"{{name: {old}, port: 8000}}", f"{{name: {old}, namespace: models, port: 8000}}")
            text = text.replace(f"{old}.dualpool.svc", new.rpartition("|")[2])
        return text.replace("metadata: {name: vllm-short, namespace: dualpool}", "metadata: {name: vllm-short}")

    assert set() == names_of(API, change=change)


@pytest.mark.parametrize("condition", ["gateways: [mesh]", "port: 8080"])
def test_a_route_for_another_gateway(condition: str) -> None:
    """A rule for another gateway, or port, hides none of ours."""
    rule = f"  http:\n    - match: [{{{condition}}}]\n      directResponse: {{status: 204}}\n"
    assert set() == names_of("istio", change=lambda text: text.replace("  http:\n", rule, 1))


def test_what_istio_sets_in_every_connection_manager() -> None:
    """Buffered mode waits for bodies of clients that wait for 100 Continue, and for those of upgrades."""
    undone = f"{{typed_config: {{'@type': {MANAGER}, proxy_100_continue: false}}}}"
    patch = PATCH.format(kind="NETWORK_FILTER", match="", value=undone)

    def buffered(text: str) -> str:
        return text.replace("request_body_mode: STREAMED", "request_body_mode: BUFFERED")

    waiting = {"expect-hangs", "upgrade-hangs"}
    assert {"expect-hangs"} == waiting & names_of("istio", patch, change=buffered)
    assert waiting == waiting & names_of("istio", change=lambda text: buffered(text).replace("{upgrade: ", "{x: "))


@pytest.mark.parametrize(
    ("policy", "found"),
    [
        ("", {"upgrade-hangs"}),
        ("httpUpgrade: [{type: spdy/3.1}]", {"upgrade-hangs"}),
        ("requestBuffer: {limit: 16Mi}", set()),
    ],
)
def test_upgrades_that_envoy_gateway_allows(policy: str, found: set[str]) -> None:
    """Envoy Gateway lets requests switch to WebSocket, unless the route's policy says otherwise."""
    targets = "    - {group: gateway.networking.k8s.io, kind: HTTPRoute, name: llm-upgrade}\n"

    def change(text: str) -> str:
        text = text.replace("name: upgrade, value: ", "name: x-upgrade, value: ")
        return text.replace(targets, f"{targets}  {policy}\n")

    assert found == names_of("envoy gateway", change=change)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("{type: PathPrefix, value: /v1}", {"pool-without-route"}),
        ("{type: PathPrefix, value: /v1/}", {"pool-without-route"}),
        ("{type: PathPrefix, value: /v}", set()),  # a prefix of whole segments
        ("{type: PathPrefix, value: /v1/chat}", set()),
        ("{type: PathPrefix, value: /docs}", set()),
    ],
)
def test_a_default_route_with_a_longer_path_than_the_pool_s(path: str, found: set[str]) -> None:
    """The longer path comes first, so that no request of any API gets to the pool's route."""
    given = "      matches: [{path: {type: PathPrefix, value: /}}]\n"
    traps = names_of(API, change=lambda text: text.replace(given, f"      matches: [{{path: {path}}}]\n"))
    assert found == traps & {"pool-without-route"}


TO_LONG: Final = "{destination: {host: vllm-long.dualpool.svc.cluster.local, port: {number: 8000}}"
TO_SHORT: Final = TO_LONG.replace("long", "short")


@pytest.mark.parametrize(
    ("route", "found"),
    [
        (f"{TO_LONG}, weight: 100}}, {TO_SHORT}}}", set()),
        (f"{TO_SHORT}}}, {TO_LONG}, weight: 100}}", set()),
        (f"{TO_LONG}, weight: 99}}, {TO_SHORT}, weight: 1}}", {"default-route-not-largest"}),
        (f"{TO_LONG}, weight: 0}}", set()),
    ],
)
def test_destinations_without_a_weight(route: str, found: set[str]) -> None:
    """Of several destinations of a VirtualService one without a weight gets nothing, and one alone everything."""
    assert found == names_of("istio", change=lambda text: text.replace(f"[{TO_LONG}}}]", f"[{route}]"))
