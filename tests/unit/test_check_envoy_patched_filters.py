"""`dualpool check envoy` where an EnvoyPatchPolicy inserts the router's filter, and which listeners it patches."""

from typing import Final

import pytest

from extproc.core.errors import ConfigurationError
from extproc.gateways.findings import find_traps
from extproc.gateways.inputs import read_gateways
from extproc.gateways.parsing.sources import read
from extproc.gateways.router import Router
from tests.traps.patched import FILTER, SETTINGS

GATEWAY: Final = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: llm, namespace: default}
spec: {gatewayClassName: eg, listeners: [%s]}
"""
HTTP: Final = "{name: http, protocol: HTTP, port: 80}"
HTTPS: Final = "{name: https, protocol: HTTPS, port: 443}"
ROUTES: Final = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: llm, namespace: default}
spec:
  parentRefs: [{name: llm}]
  rules:
    - matches: [{headers: [{name: x-token-budget-pool, value: short}]}]
      backendRefs: [{name: short, port: 80}]
      timeouts: {request: 0s}
    - backendRefs: [{name: long, port: 80}]
      timeouts: {request: 0s}
"""
POLICY: Final = """
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyPatchPolicy
metadata: {name: router, namespace: default}
spec:
  targetRef: {group: gateway.networking.k8s.io, kind: Gateway, name: llm}
  type: JSONPatch
  jsonPatches:
"""
PATCH: Final = """
    - {type: type.googleapis.com/envoy.config.%s, name: %s, operation: {op: add, path: "%s", value: %s}}
"""
WITH_TLS: Final = "/filter_chains/0/filters/0/typed_config"
CHAIN: Final = "/default_filter_chain/filters/0/typed_config"
PER_ROUTE: Final = "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExtProcPerRoute"
CLUSTER: Final = """{
        name: dualpool, type: STRICT_DNS, connect_timeout: 1s,
        http2_protocol_options: {connection_keepalive: {interval: 15s, timeout: 5s}},
        circuit_breakers: {thresholds: [{max_requests: 64, max_pending_requests: 64}]},
        load_assignment: {cluster_name: dualpool, endpoints: [{lb_endpoints: [{endpoint: {address: {
          socket_address: {address: dualpool, port_value: 9002}}}}]}]}}"""
CLIENTS: Final = """
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: ClientTrafficPolicy
metadata: {name: llm, namespace: default}
spec:
  targetRefs: [{kind: Gateway, name: llm}]
  connection: {bufferLimit: 4Mi}
  http2: {initialStreamWindowSize: 4Mi, initialConnectionWindowSize: 64Mi}
  headers: {earlyRequestHeaders: {remove: [x-token-budget-pool, x-token-budget-estimate, x-token-budget-reason]}}
"""
# What these manifests lack in any case.
LEFT: Final = {"head-limits", "repair-missing"}


def inserted(
    settings: str = SETTINGS, name: str = "default/llm/http", path: str = f"{CHAIN}/http_filters/0"
) -> str:
    """Return a policy that inserts the router's filter, and adds its cluster."""
    filters = PATCH % ("listener.v3.Listener", name, path, FILTER % settings)
    return POLICY + filters + PATCH % ("cluster.v3.Cluster", "dualpool", "", CLUSTER)


def checked(*texts: str) -> tuple[set[str], tuple[str, ...]]:
    """Return the names of the traps besides those that these manifests always have, and what is not checked."""
    found = read_gateways((each for text in texts for each in read(text, "file.yaml")), Router())
    return {each.trap.name for each in find_traps(found.gateways, Router(), ()).found} - LEFT, found.unchecked


@pytest.mark.parametrize(
    ("settings", "traps"),
    [
        (SETTINGS, set()),
        (SETTINGS.replace("failureModeAllow: true,", ""), {"fail-closed"}),
        (SETTINGS.replace("sendBodyWithoutWaitingForHeaderResponse: true,", ""), {"streamed-without-flag"}),
        (SETTINGS.replace("messageTimeout: 0.5s,", "messageTimeout: 60s,"), {"message-timeout-long"}),
        (SETTINGS.replace("disableImmediateResponse: true,", ""), {"stranger-trusted"}),
    ],
)
def test_the_router_s_filter_by_a_patch(settings: str, traps: set[str]) -> None:
    """A gateway without an EnvoyExtensionPolicy asks the router, in a mode that policies have no field for."""
    assert (traps, ()) == checked(GATEWAY % HTTP, inserted(settings), CLIENTS, ROUTES)


def test_the_router_s_filter_on_all_requests() -> None:
    """It is not disabled, as a policy's is, and so is asked for requests without a route, too."""
    settings = SETTINGS.replace("metadataOptions", "allowModeOverride: true, metadataOptions")
    policy = inserted(settings).replace("responseHeaderMode: SKIP", "responseBodyMode: STREAMED")
    assert ({"always-on"}, ()) == checked(GATEWAY % HTTP, policy, CLIENTS, ROUTES)


def test_a_patch_at_the_end_of_the_filters() -> None:
    """It is behind the filter that ends the chain, which Envoy refuses."""
    policy = inserted(path=f"{CHAIN}/http_filters/-")
    assert ({"after-the-end"}, ()) == checked(GATEWAY % HTTP, policy, CLIENTS, ROUTES)


ENABLED: Final = f'{{dualpool: {{"@type": {PER_ROUTE}, overrides: {{}}}}}}'


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/typed_per_filter_config", 0),
        ("/virtual_hosts/0/typed_per_filter_config", 0),
        ("/virtual_hosts/0/routes/1/typed_per_filter_config", 1),
        ("/virtual_hosts/1/typed_per_filter_config", 1),
    ],
)
def test_a_filter_that_routes_enable(path: str, said: int) -> None:
    """A patch that enables it on the table or its host is applied; by one that is not, it may be on anywhere."""
    filter_ = inserted().replace("name: dualpool,\n", "name: dualpool, disabled: true,\n")
    enabling = PATCH % ("route.v3.RouteConfiguration", "default/llm/http", path, ENABLED)
    off, _ = checked(GATEWAY % HTTP, filter_, CLIENTS, ROUTES)
    assert {"pool-without-route"} == off
    found, unchecked = checked(GATEWAY % HTTP, filter_ + enabling, CLIENTS, ROUTES)
    assert (set(), said) == (found, len(unchecked))


def test_a_host_of_several() -> None:
    """Which of them is the first is not known."""
    enabling = PATCH % ("route.v3.RouteConfiguration", "default/llm/http", "/virtual_hosts/0/retry_policy", "{}")
    routes = ROUTES.replace("spec:", "spec:\n  hostnames: [a.example, b.example]")
    assert 1 == len(checked(GATEWAY % HTTP, inserted() + enabling, CLIENTS, routes)[1])


ON_EACH: Final = """
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyExtensionPolicy
metadata: {name: dualpool, namespace: default}
spec:
  targetRefs: [{kind: HTTPRoute, name: llm}]
  extProc:
    - backendRefs: [{name: dualpool, port: 9002}]
      failOpen: true
      messageTimeout: 500ms
      metadata: {writableNamespaces: [dualpool]}
      processingMode: {request: {body: Buffered}}
"""


@pytest.mark.parametrize(
    ("listeners", "name", "section", "patched"),
    [
        ([HTTP, HTTPS], "default/llm/http", "", "some"),
        ([HTTP, HTTPS], "default/llm/https", "https", "all"),
        ([HTTP, HTTPS], "default/llm/https", "http", "none"),
        ([HTTP], "default/llm/https", "", "none"),
        ([HTTP, HTTPS.replace("HTTPS", "TLS")], "default/llm/http", "", "all"),
        ([HTTP, HTTPS.replace("443", "443, hostname: other.example")], "default/llm/http", "", "all"),
        ([HTTP, HTTPS.replace("443", "443, hostname: '*.example'")], "default/llm/http", "", "some"),
        ([HTTP, HTTP.replace("http,", "again,")], "default/llm/http", "", "all"),
        ([HTTP, HTTP.replace("http,", "again,")], "default/llm/again", "", "none"),
        ([HTTPS], "tcp-443", "", "all"),
        ([HTTPS], "https-443", "", "all"),
        ([HTTPS], "tcp-80", "", "none"),
    ],
)
def test_which_listener_is_patched(listeners: list[str], name: str, section: str, patched: str) -> None:
    """Its name is that of a listener with routes of the router's, the first of its port, or that of the port."""
    routes = ROUTES.replace("[{name: llm}]", f"[{{name: llm, sectionName: '{section}'}}]")
    routes = routes.replace("spec:", "spec:\n  hostnames: [llm.example]")
    chain = WITH_TLS if name.endswith(("https", "443")) else CHAIN
    heads = POLICY + "".join(
        PATCH % ("listener.v3.Listener", name, f"{chain}/{field}", value)
        for field, value in (
            ("max_request_headers_kb", 96),
            ("common_http_protocol_options/max_headers_count", 200),
        )
    )
    texts = [GATEWAY % ", ".join(listeners), heads, ON_EACH, routes]
    found = read_gateways((each for text in texts for each in read(text, "file.yaml")), Router())
    heads_kib = {each.limits.max_head_kib for each in found.gateways}
    assert {"all": {96}, "some": {60, 96}, "none": {60}}[patched] == heads_kib
    missing = [each for each in found.unchecked if "no Gateway in the input has the listener" in each]
    assert (patched == "none" and section != "http") == bool(missing)


def test_a_filter_on_a_listener_without_routes() -> None:
    """Nothing that is in the input asks the router."""
    with pytest.raises(ConfigurationError, match="no ext_proc filter"):
        checked(GATEWAY % HTTP, inserted(name="default/llm/https"), CLIENTS, ROUTES)


@pytest.mark.parametrize(("origin", "attached"), [("Same", False), ("All", True), ("Selector", True)])
def test_routes_of_another_namespace(origin: str, attached: bool) -> None:  # noqa: FBT001
    """A listener takes those of its own namespace, unless it says otherwise."""
    listener = HTTP.replace("port", f"allowedRoutes: {{namespaces: {{from: {origin}}}}}, port")
    routes = ROUTES.replace("namespace: default", "namespace: shop").replace(
        "[{name: llm}]", "[{name: llm, namespace: default}]"
    )
    if attached:
        assert (set(), ()) == checked(GATEWAY % listener, inserted(), CLIENTS, routes)
    else:
        with pytest.raises(ConfigurationError, match="no ext_proc filter"):
            checked(GATEWAY % listener, inserted(), CLIENTS, routes)


def test_a_gateway_that_is_not_in_the_input() -> None:
    """Each listener that is patched counts; the others are not known."""
    both = inserted() + inserted(name="default/llm/https").removeprefix(POLICY)
    assert (set(), ()) == checked(both, CLIENTS, ROUTES)


@pytest.mark.parametrize(
    ("listeners", "chain", "patched"),
    [
        ([HTTP], CHAIN, True),
        ([HTTP], WITH_TLS, False),
        ([HTTP.replace("HTTP", "HTTPS")], CHAIN, False),
        ([HTTP.replace("HTTP", "HTTPS")], WITH_TLS, True),
        ([HTTP.replace("HTTP", "HTTPS")], WITH_TLS.replace("0", "1", 1), False),
        ([HTTP], CHAIN.replace("0", "1"), False),
    ],
)
def test_the_filter_chain_of_a_listener(listeners: list[str], chain: str, patched: bool) -> None:  # noqa: FBT001
    """It is the default one without TLS, and one of the others with it: a patch of another one does nothing."""
    texts = [GATEWAY % ", ".join(listeners), inserted(path=f"{chain}/http_filters/0"), CLIENTS, ROUTES]
    if patched:
        assert (set(), ()) == checked(*texts)
    else:
        with pytest.raises(ConfigurationError, match="no ext_proc filter") as error:
            checked(*texts)
        assert any(chain.split("/")[1] in each for each in error.value.sentences[1:])


def test_filter_chains_of_one_port() -> None:
    """Each listener with TLS has its own, in the order of the Gateway."""
    ports = [HTTPS.replace("443", f"443, hostname: {name}.example").replace("https", name) for name in ("a", "b")]
    filter_ = inserted(
        SETTINGS.replace("failureModeAllow: true,", ""), "default/llm/a", f"{WITH_TLS}/http_filters/0"
    )
    for name, at in (("a", "0"), ("b", "1")):
        routes = ROUTES.replace("spec:", f"spec:\n  hostnames: [{name}.example]")
        first, second = filter_, filter_.replace("filter_chains/0", "filter_chains/1")
        assert {"fail-closed"} == checked(GATEWAY % ", ".join(ports), (first, second)[int(at)], CLIENTS, routes)[0]
        with pytest.raises(ConfigurationError, match="no ext_proc filter"):
            checked(GATEWAY % ", ".join(ports), (second, first)[int(at)], CLIENTS, routes)


@pytest.mark.parametrize(("table", "off"), [("a", True), ("b", False)])
def test_tables_of_routes_of_one_port(table: str, off: bool) -> None:  # noqa: FBT001
    """Listeners with TLS have one each, although Envoy's listener has the name of the first."""
    ports = [HTTPS.replace("443", f"443, hostname: {name}.example").replace("https", name) for name in ("a", "b")]
    path = f"{WITH_TLS.replace('0', '1', 1)}/http_filters/0"
    filter_ = inserted(name="default/llm/a", path=path).replace(
        "name: dualpool,\n", "name: dualpool, disabled: true,\n"
    )
    host = "/virtual_hosts/0/typed_per_filter_config"
    enabling = PATCH % ("route.v3.RouteConfiguration", f"default/llm/{table}", host, ENABLED)
    routes = ROUTES.replace("spec:", "spec:\n  hostnames: [b.example]")
    assert off == (
        "pool-without-route" in checked(GATEWAY % ", ".join(ports), filter_ + enabling, CLIENTS, routes)[0]
    )


def test_a_filter_before_the_connection_manager() -> None:
    """A limit of connections is one: a patch of the first filter is not one of the manager's filters."""
    limited = CLIENTS.replace("connection: {", "connection: {connectionLimit: {value: 1000}, ")
    second = inserted(path=f"{CHAIN.replace('filters/0', 'filters/1')}/http_filters/0")
    assert (set(), ()) == checked(GATEWAY % HTTP, second, limited, ROUTES)
    for clients in ([limited], [limited, CLIENTS]):
        with pytest.raises(ConfigurationError, match="no ext_proc filter"):
            checked(GATEWAY % HTTP, inserted(), *clients, ROUTES)


def test_a_replacement_of_what_is_not_there() -> None:
    """Envoy Gateway has no settings of filters on hosts: a patch that replaces them does nothing."""
    filter_ = inserted().replace("name: dualpool,\n", "name: dualpool, disabled: true,\n")
    path = "/virtual_hosts/0/typed_per_filter_config"
    adding = PATCH % ("route.v3.RouteConfiguration", "default/llm/http", path, ENABLED)
    replacing = adding.replace("op: add", "op: replace")
    assert {"pool-without-route"} == checked(GATEWAY % HTTP, filter_ + replacing, CLIENTS, ROUTES)[0]
    off = adding.replace("overrides: {}", "disabled: true")
    assert set() == checked(GATEWAY % HTTP, filter_ + off + replacing, CLIENTS, ROUTES)[0]


def test_patches_without_routes() -> None:
    """The filter is checked, and that its routes are not is said."""
    found, unchecked = checked(inserted(SETTINGS.replace("failureModeAllow: true,", "")), CLIENTS)
    assert {"fail-closed"} == found
    assert any("no routes" in each for each in unchecked)
