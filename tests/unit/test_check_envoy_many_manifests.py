"""`dualpool check envoy` on the manifests of a gateway that a thousand teams share."""

import sys
from collections import Counter
from typing import Final

import pytest

from extproc.gateways.findings import find_traps
from extproc.gateways.inputs import read_gateways
from extproc.gateways.parsing.sources import read
from extproc.gateways.router import Router
from tests.unit.test_check_envoy_manifests import DEPLOYED, ROOT

ROUTE: Final = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: team-%(at)d}
spec:
  parentRefs: [{name: llm}]
  hostnames: [team-%(at)d.example.com]
  rules: [{backendRefs: [{name: team-%(at)d, port: 80}]}]
---
"""
PROCESSOR: Final = """
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyExtensionPolicy
metadata: {name: team-%(at)d}
spec:
  targetRefs: [{kind: HTTPRoute, name: team-%(at)d}]
  extProc: [{backendRefs: [{name: guard-%(at)d, port: 9000}], processingMode: {request: {}}}]
"""
OF_A_TEAM: Final = {
    "envoy gateway": ROUTE
    + """
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
    "envoy gateway with a processor of each team": ROUTE + PROCESSOR,
    "envoy gateway with a Gateway of each team": """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: team-%(at)d}
spec: {gatewayClassName: eg, infrastructure: {parametersRef: {name: team-%(at)d}}}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyProxy
metadata: {name: team-%(at)d}
spec: {filterOrder: [{name: envoy.filters.http.ext_proc, before: envoy.filters.http.ratelimit}]}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: ClientTrafficPolicy
metadata: {name: team-%(at)d}
spec: {targetRefs: [{kind: Gateway, name: team-%(at)d}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: team-%(at)d}
spec:
  parentRefs: [{name: team-%(at)d}]
  rules: [{backendRefs: [{name: team-%(at)d, port: 80}]}]
---
"""
    + PROCESSOR,
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


def calls(gateway: str, teams: int) -> int:
    """Return how many functions are called to check our manifests together with those of some teams."""
    paths = [path for pattern in DEPLOYED[gateway.partition(" with ")[0]] for path in sorted(ROOT.glob(pattern))]
    texts = [
        *(path.read_text("utf-8") for path in paths),
        *(OF_A_TEAM[gateway] % {"at": at} for at in range(teams)),
    ]
    documents = [each for number, text in enumerate(texts) for each in read(text, f"{number}.yaml")]
    counted = Counter[str]()
    router = Router()
    sys.setprofile(lambda _frame, event, _argument: counted.update([event]))
    try:
        find_traps(read_gateways(documents, router).gateways, router)
    finally:
        sys.setprofile(None)
    return counted["call"] + counted["c_call"]


@pytest.mark.parametrize("gateway", OF_A_TEAM)
def test_thousands_of_manifests_are_not_all_compared_with_each_other(gateway: str) -> None:
    """The work grows with the number of routes, policies, processors and Services, not with its square."""
    few, more, most = (calls(gateway, teams) for teams in (10, 40, 70))
    assert most - more == pytest.approx(more - few, rel=0.1)
