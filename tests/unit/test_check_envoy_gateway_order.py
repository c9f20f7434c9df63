"""`dualpool check envoy` on the order of Envoy Gateway's filters and routes, which an EnvoyProxy may change."""

from typing import Final

import pytest

from extproc.gateways.findings import find_traps
from extproc.gateways.inputs import read_gateways
from extproc.gateways.kubernetes.envoy_gateway.filters import http_filters
from extproc.gateways.kubernetes.envoy_gateway.processors import processors_of
from extproc.gateways.kubernetes.envoy_gateway.proxies import Proxies
from extproc.gateways.kubernetes.envoy_gateway.routes import routes_of
from extproc.gateways.kubernetes.envoy_gateway.rules import Rules
from extproc.gateways.kubernetes.manifests import Manifests
from extproc.gateways.parsing.sources import LocatedMap, Place, read
from extproc.gateways.router import Router
from tests.unit.test_check_envoy_manifests import DEPLOYED, ROOT
from tests.unit.test_check_envoy_policies import FULL_DUPLEX, GUARDED, traffic, traps

FILTERS: Final = "envoy.filters.http."
PROXY: Final = """
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyProxy
metadata: {name: %s}
spec: {%s}
"""
GATEWAY: Final = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: llm}
spec: {gatewayClassName: eg, %s}
"""
CLASS: Final = """
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: %s}
spec: {parametersRef: {kind: EnvoyProxy, name: %s, namespace: envoy}}
"""
OWN: Final = "infrastructure: {parametersRef: {kind: EnvoyProxy, name: %s}}"
LIMIT: Final = traffic(
    "kind: HTTPRoute, name: llm", "rateLimit: {global: {rules: [{limit: {requests: 9, unit: Hour}}]}}"
)
WAITING: Final = "waiting-filter-after"


def position(name: str, where: str, other: str) -> str:
    """Return an order of two filters."""
    return f"filterOrder: [{{name: {FILTERS}{name}, {where}: {FILTERS}{other}}}]"


def proxied(spec: str) -> tuple[str, str]:
    """Return our Gateway with an EnvoyProxy."""
    return PROXY % ("order", spec), GATEWAY % (OWN % "order")


@pytest.mark.parametrize(
    ("order", "found"),
    [
        ("logging: {}", True),
        (position("ratelimit", "before", "ext_proc"), False),
        (position("ext_proc", "after", "ratelimit"), False),
        (position("ratelimit", "after", "ext_proc"), True),
        (position("ext_proc", "before", "ratelimit"), True),
        (position("ratelimit", "before", "wasm"), True),  # there is none
    ],
)
def test_a_rate_limit_before_the_router(order: str, found: bool) -> None:  # noqa: FBT001
    """In full duplex it cuts bodies after the router's filter, not before it."""
    assert found == (WAITING in traps(LIMIT, *proxied(order), changes=FULL_DUPLEX, first=True))


@pytest.mark.parametrize(("where", "found"), [("after", True), ("before", False)])
def test_a_rate_limit_beside_several_processors(where: str, found: bool) -> None:  # noqa: FBT001
    """It comes after the last of them, or before the first."""
    order = proxied(position("ratelimit", where, "ext_proc"))
    assert found == (WAITING in traps(GUARDED % "llm", LIMIT, *order, changes=FULL_DUPLEX, first=True))


ELSEWHERE: Final = PROXY.replace("{name: %s}", "{name: %s, namespace: shop}")
FIRST: Final = position("ratelimit", "before", "ext_proc")
LAST: Final = position("ratelimit", "after", "ext_proc")
MERGED: Final = "mergeType: StrategicMerge"


@pytest.mark.parametrize(
    ("objects", "moved"),
    [
        ([PROXY % ("a", FIRST), GATEWAY % (OWN % "a")], True),
        ([PROXY % ("a", FIRST), GATEWAY % (OWN % "b")], False),
        ([PROXY % ("a", FIRST), PROXY % ("b", ""), GATEWAY % (OWN % "a"), CLASS % ("eg", "b")], True),
        ([PROXY % ("a", FIRST), PROXY % ("b", ""), GATEWAY % "", CLASS % ("eg", "a")], True),
        ([PROXY % ("a", FIRST), PROXY % ("b", ""), GATEWAY % "", CLASS % ("eg", "b")], False),
        ([PROXY % ("a", FIRST), PROXY % ("b", ""), GATEWAY % "", CLASS % ("other", "a")], False),
        ([PROXY % ("a", FIRST), GATEWAY % "", CLASS % ("eg", "a")], True),
        ([ELSEWHERE % ("a", FIRST), GATEWAY % "", CLASS % ("eg", "a")], False),
        ([PROXY % ("a", ""), PROXY % ("b", FIRST), GATEWAY % (OWN % "a"), CLASS % ("eg", "b")], False),
        ([PROXY % ("a", MERGED), PROXY % ("b", FIRST), GATEWAY % (OWN % "a"), CLASS % ("eg", "b")], True),
        ([PROXY % ("a", MERGED), GATEWAY % (OWN % "a"), CLASS % ("eg", "b")], False),
        (
            [
                *(PROXY % ("a", f"{MERGED}, {LAST}"), PROXY % ("b", FIRST)),
                *(GATEWAY % (OWN % "a"), CLASS % ("eg", "b")),
            ],
            False,
        ),
        ([PROXY % ("a", FIRST), PROXY % ("b", FIRST)], False),  # of which Gateways they are is not known
    ],
)
def test_the_proxy_of_a_gateway(objects: list[str], moved: bool) -> None:  # noqa: FBT001
    """It is the Gateway's own, or else that of its class, or the one merged into the other."""
    assert moved == (WAITING not in traps(LIMIT, *objects, changes=FULL_DUPLEX, first=True))


@pytest.mark.parametrize(
    ("objects", "found"),
    [
        (PROXY % ("a", "preserveRouteOrder: true"), True),
        (f"{PROXY % ('a', '')}---{PROXY % ('b', '')}", False),
        (f"{PROXY % ('a', 'a: b')}---{GATEWAY.replace('llm', 'web') % (OWN % 'b')}", True),
    ],
)
def test_a_proxy_of_a_gateway_that_is_not_there(objects: str, found: bool) -> None:  # noqa: FBT001
    """The only one is taken for its."""
    manifests = Manifests(tuple(read(objects, "file.yaml")))
    assert found == (Proxies(manifests).of_gateway("llm", "") is not None)


@pytest.mark.parametrize(
    ("namespace", "of_gateway", "found"),
    [("shop", "", "shop"), ("shop", "shop", "shop"), ("web", "", "web"), ("", "shop", "shop"), ("", "web", "web")],
)
def test_proxies_of_the_same_name(namespace: str, of_gateway: str, found: str) -> None:
    """A Gateway refers to an EnvoyProxy of its own namespace."""
    proxies = [PROXY.replace("%s}", f"a, namespace: {each}}}", 1) % f"said: {each}" for each in ("web", "shop")]
    gateway = GATEWAY.replace("{name: llm}", f"{{name: llm, namespace: '{namespace}'}}") % (OWN % "a")
    objects = tuple(each for text in [*proxies, gateway] for each in read(text, "file.yaml"))
    assert {"said": found} == Proxies(Manifests(objects)).of_gateway("llm", of_gateway)


@pytest.mark.parametrize(
    ("order", "unchecked"),
    [
        (position("ext_proc", "before", "lua"), True),
        (position("session_persistence", "after", "ext_proc"), True),
        (position("ext_proc", "before", "ext_authz"), False),
        (position("ext_proc", "before", "buffer"), False),
        (position("wasm", "before", "lua"), False),
    ],
)
def test_an_order_that_is_not_known(order: str, unchecked: bool) -> None:  # noqa: FBT001
    """Where the router's filter is put before, or behind, a filter that is not reconstructed, that is said."""
    paths = [path for pattern in DEPLOYED["envoy gateway"] for path in sorted(ROOT.glob(pattern))]
    texts = [*(path.read_text("utf-8") for path in paths), *proxied(order)]
    found = read_gateways([each for text in texts for each in read(text, "file.yaml")], Router())
    assert unchecked == any("the order of" in each for each in found.unchecked)


def test_processors_of_several_policies() -> None:
    """The first ones of all policies come before the second ones, each by the names of their policies."""
    policy = """
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyExtensionPolicy
metadata: {name: %s}
spec: {extProc: [{backendRefs: [{name: a}]}, {backendRefs: [{name: b}]}]}
"""
    manifests = Manifests(tuple(each for name in ("z", "c") for each in read(policy % name, "file.yaml")))
    filters = http_filters(Place("file.yaml"), [], processors_of(manifests), LocatedMap(Place("file.yaml")))
    found = ["/".join(each["name"].split("/")[-3:]) for each in filters[:-1]]
    assert ["c/extproc/0", "z/extproc/0", "c/extproc/1", "z/extproc/1"] == found


CAP: Final = "buffer-below-body-cap"
BUFFERED: Final = {
    "metadata: {name: llm}\nspec:\n  targetRefs:\n    - {group: gateway.networking.k8s.io, kind: HTTPRoute": (
        "metadata: {name: llm}\nspec:\n  requestBuffer: {limit: 4Mi}\n"
        "  targetRefs:\n    - {group: gateway.networking.k8s.io, kind: HTTPRoute"
    ),
    "    bufferLimit: 16Mi": "",
}


@pytest.mark.parametrize(
    ("order", "found"),
    [
        ("logging: {}", False),
        (position("buffer", "after", "ext_proc"), True),
        (position("ext_proc", "after", "buffer"), False),
    ],
)
def test_a_request_buffer(order: str, found: bool) -> None:  # noqa: FBT001
    """Envoy Gateway holds whole bodies before the router reads them: then the listener's limit does not matter."""
    assert found == (CAP in traps(*proxied(order), changes=BUFFERED))


@pytest.mark.parametrize("limit", ["4Mi", "256Mi"])
def test_a_request_buffer_that_holds_more_than_a_message(limit: str) -> None:
    """A body over the router's limit of a message does not get to it."""
    changes = {old: new.replace("4Mi", limit) for old, new in BUFFERED.items()}
    assert ({"message-limit"} if limit == "256Mi" else set()) == traps(changes=changes)


def test_routes_in_the_order_of_the_file() -> None:
    """With `preserveRouteOrder` the default route takes all requests if it comes before the pool's."""
    assert {"pool-without-route", "upgrade-hangs", CAP} & traps(*proxied("preserveRouteOrder: true"))
    assert set() == traps(*proxied("preserveRouteOrder: false"))


@pytest.mark.parametrize(
    ("settings", "protocols"),
    [
        ("retry: {}", ["websocket"]),
        ("requestBuffer: {limit: 4Mi}", []),
        ("httpUpgrade: [{type: spdy/3.1}]", ["spdy/3.1"]),
        ("requestBuffer: {limit: 4Mi}\n  httpUpgrade: [{type: websocket}]", ["websocket"]),
    ],
)
def test_protocols_to_which_requests_may_switch(settings: str, protocols: list[str]) -> None:
    """A request buffer, for which an upgrade has no end, leaves only those that its policy lists."""
    to = "[{backendRefs: [{name: vllm-long}]}]"
    route = f"kind: HTTPRoute\nmetadata: {{name: llm}}\nspec: {{parentRefs: [{{name: llm}}], rules: {to}}}"
    policy = traffic("kind: HTTPRoute, name: llm", settings)
    manifests = Manifests(tuple(each for text in (route, policy) for each in read(text, "file.yaml")))
    found = [made for rule in Rules(manifests, []).all for _, made in routes_of(rule)]
    assert [protocols] == [[each["upgrade_type"] for each in made["route"]["upgrade_configs"]] for made in found]


def test_the_place_of_a_host() -> None:
    """What is missing among its routes is reported at the HTTPRoute on which the router is asked."""
    paths = [path for pattern in DEPLOYED["envoy gateway"] for path in sorted(ROOT.glob(pattern))]
    texts = {
        path.name: path.read_text("utf-8").replace("name: x-token-budget-pool", "name: x-other") for path in paths
    }
    documents = [each for name, text in texts.items() for each in read(text, name)]
    (hit,) = [
        each
        for each in find_traps(read_gateways(documents, Router()).gateways, Router()).found
        if each.trap.name == "pool-without-route"
    ]
    route = next(each for each in documents if (each["kind"], each["metadata"]["name"]) == ("HTTPRoute", "llm"))
    assert route.place == hit.place
