"""`dualpool check envoy` on the manifests of a gateway that a thousand teams share."""

from typing import Any, Final

import pytest

from extproc.gateways.parsing.sources import LocatedMap
from tests.unit.test_check_envoy_manifests import names_of

OF_A_TEAM: Final = {
    "envoy gateway": """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: team-%(at)d}
spec:
  parentRefs: [{name: llm}]
  hostnames: [team-%(at)d.example.com]
  rules: [{backendRefs: [{name: team-%(at)d, port: 80}]}]
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: BackendTrafficPolicy
metadata: {name: team-%(at)d}
spec: {targetRefs: [{kind: HTTPRoute, name: team-%(at)d}], retry: {numRetries: 1}}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: team-%(at)d}
spec: {endpoints: [{ip: {address: 10.0.0.1, port: 80}}]}
---
apiVersion: v1
kind: Service
metadata: {name: team-%(at)d}
spec: {ports: [{port: 80}]}
""",
    "istio": """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: team-%(at)d}
spec:
  hosts: [team-%(at)d.example.com]
  http: [{route: [{destination: {host: team-%(at)d, port: {number: 80}}}]}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: team-%(at)d}
spec: {host: team-%(at)d}
---
apiVersion: v1
kind: Service
metadata: {name: team-%(at)d}
spec: {ports: [{port: 80, name: http}]}
""",
}


@pytest.mark.parametrize("gateway", OF_A_TEAM)
def test_thousands_of_manifests_are_not_all_compared_with_each_other(
    gateway: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The work grows with the number of routes, policies and Services, not with its square."""
    looked = [0]

    def counted(values: LocatedMap, *arguments: Any) -> Any:
        looked[0] += 1
        return dict.get(values, *arguments)

    def work(teams: int) -> int:
        looked[0] = 0
        names_of(gateway, *(OF_A_TEAM[gateway] % {"at": at} for at in range(teams)))
        return looked[0]

    monkeypatch.setattr(LocatedMap, "get", counted)
    few, more, most = (work(teams) for teams in (10, 40, 70))
    assert most - more == pytest.approx(more - few, rel=0.2)
