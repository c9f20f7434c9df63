"""`dualpool check envoy` on the servers of Istio's Gateways: their hosts and ports."""

from typing import Final

import pytest

from tests.unit.test_check_envoy_frontends import HIDDEN, with_rule
from tests.unit.test_check_envoy_manifests import names_of

GATEWAY: Final = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: %s, namespace: dualpool}
spec:
  selector: {istio: ingressgateway}
  servers: [%s]
"""
SERVER: Final = "{port: {number: %d, name: a, protocol: %s}, hosts: [%s]}"
LONG: Final = "    - name: long\n"
OTHER: Final = """---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: other, namespace: %s}
spec:
  hosts: ['%s']
  gateways: [dualpool/%s]
  http:
    - name: long
"""
UPGRADE: Final = 'headers: {upgrade: {regex: ".+"}}'
ON: Final = "disabled: false"
ALONE: Final = {"default-route-not-largest"}
APART: Final = {*ALONE, HIDDEN}


def split(
    *servers: str, host: str = "*", space: str = "dualpool", gateway: str = "llm", more: str = ""
) -> set[str]:
    """Return the traps where a Gateway has these servers, and the default route is another VirtualService's.

    Another rule of ours takes no prompts, so that a host without that route has no other one for them.
    """
    other = OTHER % (space, host, gateway)

    def change(text: str) -> str:
        return text.replace(LONG, other).replace(UPGRADE, "uri: {exact: /docs}").replace("disabled: true", ON)

    return names_of("istio", GATEWAY % ("llm", ", ".join(servers)), more, change=change) - {"always-on"}


@pytest.mark.parametrize(
    ("hosts", "host", "found"),
    [
        ("llm.example.com", "*", set()),
        ("LLM.example.com", "*.Example.com", set()),
        ("dualpool/llm.example.com", "*", set()),
        ("./llm.example.com", "*", set()),
        ("'*/llm.example.com', shop/shop.example.com", "*", set()),
        ("'*.example.com'", "*", APART),
        ("'*'", "*", APART),
    ],
)
def test_hosts_that_a_gateway_shares_with_virtual_services(hosts: str, host: str, found: set[str]) -> None:
    """Routes of two VirtualServices come together at the hosts that both share with the Gateway's server."""
    assert found == split(SERVER % (80, "HTTP", hosts), host=host)


@pytest.mark.parametrize(("space", "found"), [("dualpool", set()), ("shop", ALONE)])
def test_hosts_of_a_namespace(space: str, found: set[str]) -> None:
    """A server may have a host for the VirtualServices of one namespace only."""
    assert found == split(SERVER % (80, "HTTP", "dualpool/llm.example.com"), space=space)


@pytest.mark.parametrize(
    ("servers", "found"),
    [
        ([SERVER % (80, "HTTP", "llm.example.com"), SERVER % (443, "HTTPS", "llm.example.com")], set()),
        ([SERVER % (80, "HTTP", "'*'"), SERVER % (443, "HTTPS", "llm.example.com")], APART),
        ([SERVER % (80, "HTTP2", "llm.example.com"), SERVER % (9000, "TCP", "'*'")], set()),
    ],
)
def test_servers_of_several_ports(servers: list[str], found: set[str]) -> None:
    """Each port has hosts of its own, and one for TCP has none."""
    assert found == split(*servers)


@pytest.mark.parametrize(("labels", "found"), [("ingressgateway", set()), ("web", ALONE)])
def test_gateways_of_one_workload(labels: str, found: set[str]) -> None:
    """Istio merges them: a host of both has the routes of both, and that of another workload has its own."""
    server = SERVER % (80, "HTTP", "llm.example.com")
    second = (GATEWAY % ("second", server)).replace("ingressgateway", labels)
    assert found == split(server, gateway="second", more=second)


@pytest.mark.parametrize(
    ("port", "servers", "found"),
    [
        (80, [80], True),
        (81, [80], False),
        (80, [80, 81], True),
        (81, [80, 81], True),
    ],
)
def test_a_rule_for_a_port(port: int, servers: list[int], found: bool) -> None:  # noqa: FBT001
    """Where the Gateway's ports are known, a rule for one of them hides the pools, and for another it does not."""
    gateway = GATEWAY % ("llm", ", ".join(SERVER % (each, "HTTP", "'*'") for each in servers))
    assert found == (HIDDEN in names_of("istio", gateway, change=with_rule(f"port: {port}", ON)))


@pytest.mark.parametrize(("ports", "found"), [([80], False), ([443], True), ([443, 80], False)])
def test_a_patch_of_a_host_with_its_port(ports: list[int], found: bool) -> None:  # noqa: FBT001
    """Istio's name of a host has the port: a filter that is enabled by it is off on all others."""
    gateway = GATEWAY % ("llm", ", ".join(SERVER % (each, "HTTP", "llm.example.com") for each in ports))
    named = "vhost: {name: 'llm.example.com:80', "
    assert found == (HIDDEN in names_of("istio", gateway, change=lambda text: text.replace("vhost: {", named)))


def test_a_virtual_service_without_a_host_of_its_gateway() -> None:
    """It has no routes there: Envoy answers 404, and no request gets to the router."""
    assert HIDDEN in names_of("istio", GATEWAY % ("llm", SERVER % (80, "HTTP", "llama.example.com")))
