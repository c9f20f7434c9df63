"""`dualpool check envoy` on routes and clusters beside the pools' that do no harm, and so raise no alarm."""

from copy import deepcopy
from typing import Any

import pytest

from tests.envoy.harness.gateway import Document, cluster, connection_manager, load, route, virtual_host
from tests.traps.bitten import believe_clients
from tests.traps.bitten_chain import KINDS, insert
from tests.traps.finding import names_in
from tests.unit.test_check_envoy_manifests import names_of
from tests.unit.test_check_envoy_pickers import ASKED

RETRIES = {"retry_on": "5xx"}
GET: Document = {"name": ":method", "string_match": {"exact": "GET"}}


def first(document: Document, **route_: Any) -> None:
    """Put a route before all others, on which the router's filter is on as on the whole host."""
    virtual_host(document)["routes"].insert(0, {"name": "first", **route_})


def to_pool(**more: Any) -> Document:
    """Return an action that forwards to the long pool, with Envoy's timeout of 15 s."""
    return {"cluster": "pool_long", **more}


@pytest.mark.parametrize("reply", [{"direct_response": {"status": 200}}, {"redirect": {"path_redirect": "/docs"}}])
def test_a_route_that_replies_itself_has_nothing_to_retry(reply: Document) -> None:
    """Whatever an internal client asks for, no pool gets its body."""
    document = load("streamed")
    believe_clients(document)
    first(document, match={"path": "/healthz"}, **reply)
    assert set() == names_in(document)


@pytest.mark.parametrize(
    ("match", "found"),
    [
        ({"path": "/v1/models", "headers": [GET]}, set()),
        ({"prefix": "/", "headers": [GET]}, set()),
        ({"path": "/v1/models"}, set()),
        ({"safe_regex": {"regex": "/v1/models"}}, set()),
        ({"prefix": "/v1/models/", "headers": [GET]}, set()),
        ({"prefix": "/v1/models/"}, {"retries-on-default-route"}),
        ({"path_separated_prefix": "/v1/models"}, {"retries-on-default-route"}),
        ({"path_separated_prefix": "/health"}, set()),
        ({"path": "/v1/files"}, {"retries-on-default-route"}),
        ({"path": "/v1/chat/completions"}, {"retries-on-default-route", "response-cut"}),
        ({"path": "/V1/chat/completions", "case_sensitive": False}, {"retries-on-default-route", "response-cut"}),
        ({"prefix": "/", "headers": [GET | {"invert_match": True}]}, {"retries-on-default-route", "response-cut"}),
    ],
)
def test_a_route_for_requests_that_the_router_does_not_read(match: Document, found: set[str]) -> None:
    """Requests without a body may be retried, and those to other paths than the APIs' generate nothing."""
    document = load("streamed")
    first(document, match=match, route=to_pool(retry_policy=RETRIES))
    assert found == names_in(document)


@pytest.mark.parametrize("mode", ["streamed", "buffered"])
@pytest.mark.parametrize(
    "match", [{"path": "/v1/models"}, {"prefix": "/v1/models"}, {"prefix": "/", "headers": [GET]}]
)
def test_a_route_to_the_short_pool_for_requests_that_the_router_does_not_read(match: Document, mode: str) -> None:
    """Any pool can list its models; other traps of the short pool's route are found all the same."""
    document = load(mode)
    first(document, match=match, route={"cluster": "pool_short", "timeout": "5s"})
    assert set() == names_in(document)
    del cluster(document, "short_then_long")["circuit_breakers"]
    assert "repair-limit" in names_in(document)
    assert "default-route-not-largest" not in names_in(document)


def test_a_host_for_health_needs_no_pools() -> None:
    """Its routes serve nothing that the router would place."""
    document = load("streamed")
    on = virtual_host(document)["typed_per_filter_config"]
    routes = [{"match": {"path": "/healthz"}, "route": to_pool()}]
    host = {"name": "health", "domains": ["health.example"], "typed_per_filter_config": on, "routes": routes}
    connection_manager(document)["route_config"]["virtual_hosts"].append(host)
    assert set() == names_in(document)


def canary(document: Document, weight: int) -> None:
    """Divide the default route's requests between the pools."""
    action = route(document, "long")["route"]
    del action["cluster"]
    weights = {"pool_long": 100, "pool_short": weight}
    action["weighted_clusters"] = {"clusters": [{"name": name, "weight": each} for name, each in weights.items()]}


@pytest.mark.parametrize(("weight", "found"), [(0, set()), (1, {"default-route-not-largest"})])
def test_a_cluster_of_weight_0_gets_nothing(weight: int, found: set[str]) -> None:
    """Canaries leave it in the route before their start and after their end."""
    document = load("streamed")
    canary(document, weight)
    assert found == names_in(document)


def test_a_filter_that_is_off_for_a_cluster_of_weight_0() -> None:
    """No request goes there, so it is asked for all."""
    document = load("streamed")
    canary(document, 0)
    off = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}
    clusters = route(document, "long")["route"]["weighted_clusters"]["clusters"]
    clusters[1]["typed_per_filter_config"] = {"envoy.filters.http.ext_proc": off}
    assert set() == names_in(document)


VIRTUAL = "{destination: {host: vllm-long.dualpool.svc.cluster.local, port: {number: 8000}}}"


@pytest.mark.parametrize(("weight", "found"), [(0, set()), (1, {"default-route-not-largest"})])
@pytest.mark.parametrize(
    ("gateway", "long"), [("istio", VIRTUAL), ("istio with the Gateway API", "{name: vllm-long, port: 8000}")]
)
def test_a_backend_of_weight_0_gets_nothing(gateway: str, long: str, weight: int, found: set[str]) -> None:
    """The same in manifests, where the controller of a canary writes the weights."""
    both = [f"{long[:-1]}, weight: 100}}", f"{long.replace('vllm-long', 'vllm-short')[:-1]}, weight: {weight}}}"]
    assert found == names_of(gateway, change=lambda text: text.replace(f"[{long}]", f"[{', '.join(both)}]"))


@pytest.mark.parametrize("value", ["{}", "{regex: '*'}"])
def test_any_value_of_a_header_in_istio(value: str) -> None:
    """Istio's own sign for it is a star, which is no regular expression."""
    assert set() == names_of("istio", change=lambda text: text.replace("{exact: short}", value))


@pytest.mark.parametrize("value", ["{exact: short}", "{}", "{regex: '*'}"])
def test_a_default_route_without_the_header(value: str) -> None:
    """What a VirtualService excludes by a header it does not exclude by its absence."""
    route = "    - name: long\n"
    without = f"      match: [{{withoutHeaders: {{x-token-budget-pool: {value}}}}}]\n"
    assert set() == names_of("istio", change=lambda text: text.replace(route, route + without))


@pytest.mark.parametrize("kind", ["local_ratelimit.v3.LocalRateLimit", "admission_control.v3.AdmissionControl"])
def test_one_limit_for_all_routes(kind: str) -> None:
    """A limit that no route changes is the same before the router's filter and after it."""
    document = load("streamed")
    insert(document, "limit", kind, before=True)
    own = {"limit": {"@type": f"{KINDS}.filters.http.{kind}"}}
    virtual_host(document)["typed_per_filter_config"] |= own
    assert set() == names_in(document)


def test_limits_of_routes() -> None:
    """A route's own descriptors count as its settings."""
    document = load("streamed")
    insert(document, "limit", "ratelimit.v3.RateLimit", before=True)
    route(document, "short")["route"]["rate_limits"] = [{"actions": [{"remote_address": {}}]}]
    assert {"rate-limit-before"} == names_in(document)


@pytest.mark.parametrize("mode", ["streamed", "buffered"])
def test_a_buffer_without_a_limit(mode: str) -> None:
    """A limit of 0 is none; in mode BUFFERED that is more than gRPC takes."""
    document = load(mode)
    document["static_resources"]["listeners"][0]["per_connection_buffer_limit_bytes"] = 0
    virtual_host(document).pop("request_body_buffer_limit", None)
    connection_manager(document)["codec_type"] = "HTTP1"
    assert ({"message-limit"} if mode == "buffered" else set()) == names_in(document)


REDIRECTS: Document = {
    "name": "docs",
    "domains": ["docs.example"],
    "routes": [{"match": {"prefix": "/"}, "redirect": {"https_redirect": True}}],
}


def test_a_host_that_redirects_all_needs_no_pools() -> None:
    """The filter may be on for it, as it is for all hosts of a gateway that leads clients to HTTPS."""
    document = load("streamed")
    on = virtual_host(document)["typed_per_filter_config"]
    hosts = connection_manager(document)["route_config"]["virtual_hosts"]
    hosts.append(REDIRECTS | {"typed_per_filter_config": on})
    assert set() == names_in(document)


def test_a_listener_that_redirects_all_is_none_of_the_router_s() -> None:
    """Nothing that it lacks matters next to the one that serves; alone it is checked, since nothing else is."""
    document = load("streamed")
    listeners = document["static_resources"]["listeners"]
    listeners.append(deepcopy(listeners[0]) | {"name": "http"})
    manager = listeners[1]["filter_chains"][0]["filters"][0]["typed_config"]
    manager["route_config"]["virtual_hosts"] = [REDIRECTS]
    del manager["early_header_mutation_extensions"]
    assert set() == names_in(document)
    del listeners[0]
    assert "spoofable-header" in names_in(document)


@pytest.mark.parametrize("number", [1, 2])
def test_other_listeners_with_filters_that_ask_others(number: int) -> None:
    """Next to a filter that names the router, those that do not are none of it, however many they are."""
    document = load("streamed")
    listeners = document["static_resources"]["listeners"]
    listeners.append(deepcopy(listeners[0]) | {"name": "other"})
    manager = listeners[1]["filter_chains"][0]["filters"][0]["typed_config"]
    ours = next(each for each in manager["http_filters"] if each["name"] == "envoy.filters.http.ext_proc")
    manager["http_filters"].remove(ours)
    for at in range(number):
        settings = {"@type": ours["typed_config"]["@type"], **ASKED}
        manager["http_filters"].insert(0, {"name": f"other {at}", "typed_config": settings})
    assert set() == names_in(document)


def test_a_second_filter_that_only_observes() -> None:
    """Of two that name the router, the one whose replies count is checked."""
    document = load("streamed")
    filters = connection_manager(document)["http_filters"]
    ours = next(each for each in filters if each["name"] == "envoy.filters.http.ext_proc")
    second = deepcopy(ours) | {"name": "dualpool-observes"}
    second["typed_config"]["observability_mode"] = True
    filters.insert(0, second)
    assert set() == names_in(document)
