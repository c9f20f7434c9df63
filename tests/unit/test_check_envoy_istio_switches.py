"""`dualpool check envoy` on settings of istiod, Services and patches that change what Istio generates."""

from typing import Final

import pytest

from extproc.core.errors import ConfigurationError
from extproc.gateways.kubernetes.type_names import EXT_PROC, MANAGER
from tests.unit.test_check_envoy_manifests import PATCH, names_of

OFF: Final = "ENABLE_100_CONTINUE_HEADERS"
DEPLOYMENT: Final = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: %s, namespace: istio-system}
spec: {template: {spec: {containers: [{name: discovery, env: [{name: A}, {name: %s, value: "%s"}]}]}}}
"""
OPERATOR: Final = """
apiVersion: install.istio.io/v1alpha1
kind: IstioOperator
spec: {%s}
"""
SAIL: Final = """
apiVersion: sailoperator.io/v1
kind: Istio
metadata: {name: default}
spec: {values: {pilot: {env: {%s: %s}}}}
"""


@pytest.mark.parametrize(
    ("installed", "found"),
    [
        (DEPLOYMENT % ("istiod", OFF, "false"), False),
        (DEPLOYMENT % ("istiod-1-31", OFF, "F"), False),
        (DEPLOYMENT % ("istiod", OFF, "0"), False),
        (DEPLOYMENT % ("istiod", OFF, "true"), True),
        (DEPLOYMENT % ("istiod", "B", "false"), True),
        (DEPLOYMENT % ("web", OFF, "false"), True),
        (OPERATOR % f'components: {{pilot: {{k8s: {{env: [{{name: {OFF}, value: "false"}}]}}}}}}', False),
        (OPERATOR % f"values: {{pilot: {{env: {{{OFF}: false}}}}}}", False),
        (SAIL % (OFF, '"false"'), False),
        (SAIL % (OFF, '"true"'), True),
    ],
)
def test_istiod_leaves_100_continue_to_envoy(installed: str, found: bool) -> None:  # noqa: FBT001
    """Then clients that wait for it do not hang; without the input nothing is known of that, and they may."""
    buffered = ("request_body_mode: STREAMED", "request_body_mode: BUFFERED")
    assert found == ("expect-hangs" in names_of("istio", installed, change=lambda text: text.replace(*buffered)))


def test_a_patch_that_sets_it_nevertheless() -> None:
    """An EnvoyFilter may have it passed on."""
    value = f"{{typed_config: {{'@type': {MANAGER}, proxy_100_continue: true}}}}"
    patch = PATCH.format(kind="NETWORK_FILTER", match="", value=value)
    installed = DEPLOYMENT % ("istiod", OFF, "false")
    buffered = ("request_body_mode: STREAMED", "request_body_mode: BUFFERED")
    assert "expect-hangs" in names_of("istio", installed, patch, change=lambda text: text.replace(*buffered))


ROUTER: Final = """
apiVersion: v1
kind: Service
metadata: {name: %s, namespace: dualpool}
spec: {clusterIP: None, ports: [{port: 80, name: http}, {port: %d, %s}]}
"""


@pytest.mark.parametrize(
    ("service", "found"),
    [
        (ROUTER % ("dualpool", 9002, "name: grpc"), False),
        (ROUTER % ("dualpool", 9002, "name: grpc-ext-proc"), False),
        (ROUTER % ("dualpool", 9002, "name: http2"), False),
        (ROUTER % ("dualpool", 9002, "name: http"), True),
        (ROUTER % ("dualpool", 9002, "name: http, appProtocol: grpc"), False),
        (ROUTER % ("dualpool", 9002, "name: grpc, appProtocol: http"), True),
        (ROUTER % ("dualpool", 9002, "appProtocol: kubernetes.io/h2c"), False),
        (ROUTER % ("web", 9002, "name: http"), False),
        (ROUTER % ("dualpool", 9003, "name: http"), False),  # of that port nothing is known
    ],
)
def test_the_protocol_of_the_router_s_service(service: str, found: bool) -> None:  # noqa: FBT001
    """Istio derives it from the port's name, or its `appProtocol`; gRPC needs HTTP/2."""
    assert found == ("router-without-http2" in names_of("istio", service, change=_without_pings))


def _without_pings(text: str) -> str:
    """Leave out the patch that pings the router, which also makes its cluster speak HTTP/2."""
    before, found, after = text.partition("    # Closes the connection to a router that hangs")
    return before + after[after.index("    # The short pool and") :] if found else text


@pytest.mark.parametrize(("name", "found"), [("dualpool", {"message-timeout-long"}), ("other", set())])
def test_a_patch_of_one_filter(name: str, found: set[str]) -> None:
    """What is merged into another filter is none of the router's."""
    manager = "name: envoy.filters.network.http_connection_manager"
    match = f"listener: {{filterChain: {{filter: {{{manager}, subFilter: {{name: {name}}}}}}}}}"
    value = f"{{typed_config: {{'@type': {EXT_PROC}, message_timeout: 10s}}}}"
    assert found == names_of("istio", PATCH.format(kind="HTTP_FILTER", match=match, value=value))


@pytest.mark.parametrize("number", ["many", "-1", "1.5", "9" * 19])
def test_numbers_that_are_none(number: str) -> None:
    """They are refused with their place, whatever is wrong with them."""
    with pytest.raises(ConfigurationError, match=r"\d+\.yaml:\d+.*http2MaxRequests is not a whole number"):
        names_of("istio", change=lambda text: text.replace("http2MaxRequests: 64", f"http2MaxRequests: {number}"))


AUTHORIZATION: Final = """
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: %s, namespace: istio-system}
spec:
  configPatches:
    - applyTo: HTTP_FILTER
      match:
        context: GATEWAY
        listener:
          filterChain: {filter: {name: envoy.filters.network.http_connection_manager, subFilter: {name: %s}}}
      patch:
        operation: %s
        value:
          name: authorization
          typed_config:
            "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz
            grpc_service: {envoy_grpc: {cluster_name: authorization}}
"""


@pytest.mark.parametrize(
    ("anchor", "operation", "first", "found"),
    [
        ("envoy.filters.http.router", "INSERT_BEFORE", True, set()),
        ("envoy.filters.http.router", "INSERT_BEFORE", False, {"auth-after"}),
        ("dualpool", "INSERT_BEFORE", False, set()),
        ("dualpool", "INSERT_AFTER", False, {"auth-after"}),
        ("dualpool", "INSERT_AFTER", True, set()),
        ("dualpool", "INSERT_FIRST", False, set()),
        ("dualpool", "ADD", True, {"auth-after", "after-the-end"}),
        ("istio.stats", "INSERT_AFTER", True, set()),
    ],
)
def test_the_place_of_another_filter(anchor: str, operation: str, first: bool, found: set[str]) -> None:  # noqa: FBT001
    """Each patch puts its filter beside one that is there by then, or nowhere."""
    name = "authorization" if first else "more-authorization"
    assert found == names_of("istio", AUTHORIZATION % (name, anchor, operation))
