"""`dualpool check envoy` on the retries and timeouts that Istio gives routes, by itself and by manifests."""

import pytest

from tests.unit.test_check_envoy_manifests import names_of

VIRTUAL = "      # meshConfig.defaultHttpRetryPolicy.\n      retries: {attempts: 0}\n"
PATCH = "            retry_policy: {retry_on: none}\n"
LONG = "    - name: long\n"
SHORT = "    - name: short\n"
TRAP = {"retries-on-default-route"}
CONFIG_MAP = """
apiVersion: v1
kind: ConfigMap
metadata: {{name: {name}, namespace: istio-system}}
data: {{mesh: "{text}"}}
"""
OPERATOR = """
apiVersion: install.istio.io/v1alpha1
kind: IstioOperator
spec: {meshConfig: {defaultHttpRetryPolicy: {attempts: 0}}}
"""
SAIL = """
apiVersion: sailoperator.io/v1
kind: Istio
metadata: {name: default}
spec: {values: {meshConfig: {defaultHttpRetryPolicy: {attempts: 0}}}}
"""


def of_virtual_service(retries: str, *more: str) -> set[str]:
    """Return the traps if the default route of the VirtualService says this of retries."""
    said = f"      retries: {retries}\n" if retries else ""
    return names_of("istio", *more, change=lambda text: text.replace(VIRTUAL, said))


@pytest.mark.parametrize(
    ("retries", "found"),
    [
        ("{attempts: 3, retryOn: '503'}", TRAP),
        ("{attempts: 3, retryOn: '503, 429'}", TRAP),
        ("{attempts: 3, retryOn: '5'}", set()),
        ("{attempts: 3}", TRAP),
        ("{attempts: 3, retryOn: gateway-error}", TRAP),
        ("", TRAP),
        ("null", TRAP),
        ("{}", set()),
        ("{retryIgnorePreviousHosts: true}", set()),
    ],
)
def test_retries_of_a_virtual_service(retries: str, found: set[str]) -> None:
    """Numbers of three digits are statuses; retries without attempts are none, unlike none at all or null."""
    assert found == of_virtual_service(retries)


@pytest.mark.parametrize(
    ("mesh", "found"),
    [
        (CONFIG_MAP.format(name="istio", text="defaultHttpRetryPolicy: {attempts: 0}"), set()),
        (CONFIG_MAP.format(name="istio-1-31", text="defaultHttpRetryPolicy: {attempts: 0}"), set()),
        (CONFIG_MAP.format(name="istio", text="defaultHttpRetryPolicy: {attempts: 1, retryOn: '503'}"), TRAP),
        (CONFIG_MAP.format(name="istio", text="accessLogFile: /dev/stdout"), TRAP),
        (CONFIG_MAP.format(name="istio", text="{{ .Values.mesh }}: ["), TRAP),
        (CONFIG_MAP.format(name="shop", text="defaultHttpRetryPolicy: {attempts: 0}"), TRAP),
        (OPERATOR, set()),
        (SAIL, set()),
    ],
)
def test_retries_of_the_mesh(mesh: str, found: set[str]) -> None:
    """A route that does not mention retries has those of the mesh's settings, if these are in the input."""
    assert found == of_virtual_service("", mesh)
    without_patch = {"retries-on-default-route"} & names_of(
        "istio with the Gateway API", mesh, change=lambda text: text.replace(PATCH, "")
    )
    assert found == without_patch


def test_a_route_s_own_retries_hide_the_mesh_s() -> None:
    """The mesh's settings do not disable the retries that a route asks for."""
    assert TRAP == of_virtual_service("{attempts: 1}", OPERATOR)


@pytest.mark.parametrize(
    ("retry", "found"), [("{}", TRAP), ("{codes: [503]}", TRAP), ("{attempts: 0, codes: [503]}", set())]
)
def test_retry_of_an_http_route(retry: str, found: set[str]) -> None:
    """A rule's `retry` without attempts means two."""

    def change(text: str) -> str:
        return text.replace(PATCH, "").replace(LONG, f"{LONG}      retry: {retry}\n")

    assert found == names_of("istio with the Gateway API", change=change)


def test_refusals_that_a_virtual_service_retries() -> None:
    """The statuses of a VirtualService's `retryOn` repair what the short pool refuses."""
    words = "              retry_on: retriable-status-codes,connect-failure,refused-stream,reset\n"
    codes = "              retriable_status_codes: [400, 404, 413, 422, 503]\n"
    retries = "      retries: {attempts: 1, retryOn: 'connect-failure,400,404,413,422,503'}\n"

    def patched(text: str) -> str:
        return text.replace(words + codes, "")

    def change(text: str) -> str:
        return patched(text).replace(SHORT, SHORT + retries)

    assert {"repair-missing"} == names_of("istio", change=patched)
    assert set() == names_of("istio", change=change)


@pytest.mark.parametrize(
    ("timeouts", "found"),
    [
        ("timeouts: {backendRequest: 60s}", {"response-cut"}),
        ("timeouts: {request: 0s, backendRequest: 60s}", {"response-cut"}),
        ("timeouts: {request: 60s}", {"response-cut"}),
        ("timeouts: {request: 60s, backendRequest: 0s}", {"response-cut"}),
        ("timeouts: {request: 0s, backendRequest: 0s}", set()),
        ("timeouts: {backendRequest: 60s}\n      retry: {attempts: 0}", set()),
    ],
)
def test_timeouts_of_an_http_route(timeouts: str, found: set[str]) -> None:
    """The timeout of the backend is that of the whole response, unless the rule says what to retry."""

    def change(text: str) -> str:
        return text.replace("            timeout: 0s\n", "").replace(LONG, f"{LONG}      {timeouts}\n")

    assert found == names_of("istio with the Gateway API", change=change)


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ("set: {x-envoy-retry-on: 5xx}", TRAP),
        ("add: {X-Envoy-Retry-Grpc-On: cancelled}", TRAP),
        ("set: {x-a: b}", set()),
    ],
)
def test_a_rule_that_adds_a_header_for_retries(headers: str, found: set[str]) -> None:
    """Envoy obeys it as it would obey an internal client's, although the route has no retries of its own."""
    rule = f"{LONG}      headers: {{request: {{{headers}}}}}\n"
    assert found == names_of("istio", change=lambda text: text.replace(LONG, rule))
