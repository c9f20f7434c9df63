"""The files in `envoy/`: valid, different only where intended, and consistent with the router's limits."""

import subprocess
from typing import Any

import pytest

from extproc.config.schema import Configuration
from extproc.wire import decode
from tests.envoy.harness.gateway import (
    FILES,
    Document,
    cluster,
    connection_manager,
    envoy_binary,
    ext_proc,
    load,
    route,
    virtual_host,
)

NAMES = ["buffered", "full-duplex", "streamed", "streamed-access-log", "workers"]
# Envoy warns about features that are work in progress; the head of the file that uses one says so.
ACCESS_LOG_WARNING = "ai_protocol_manager.proto' marked as work-in-progress"


PROTOCOL = (
    "/static_resources/clusters/3/typed_extension_protocol_options"
    "/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
)


def test_all_files_are_known() -> None:
    """The tests run every file, and the folder is not a package, which would shadow Envoy's messages."""
    assert NAMES == sorted(path.stem for path in FILES.glob("*.yaml"))
    assert [] == list(FILES.rglob("__init__.py"))


@pytest.mark.parametrize("name", [*NAMES, "two-models/envoy"])
def test_envoy_accepts_the_file(name: str) -> None:
    """The unmodified file, ports included, passes Envoy's own validation without a warning."""
    command = [envoy_binary(), "--mode", "validate", "-c", str(FILES / f"{name}.yaml"), "--log-level", "warning"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    # Validation warns that the global connection limits are not set; only a deployment can know them.
    known = ("global_downstream_max_connections", *([ACCESS_LOG_WARNING] if "access-log" in name else []))
    warnings = [line for line in result.stderr.splitlines() if not any(each in line for each in known)]
    assert (0, []) == (result.returncode, warnings)


def differences(one: Any, other: Any, path: str = "") -> set[str]:
    """Return the paths at which two documents differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        found: set[str] = set()
        for key in one.keys() | other.keys():
            found |= differences(one.get(key), other.get(key), f"{path}/{key}")
        return found
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        found = set()
        for at, (left, right) in enumerate(zip(one, other, strict=True)):
            found |= differences(left, right, f"{path}/{at}")
        return found
    return set() if one == other else {path.rpartition("/typed_config/")[2]}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "buffered",
            {
                "/static_resources/clusters/3/circuit_breakers/thresholds/0/max_pending_requests",
                "/static_resources/clusters/3/circuit_breakers/thresholds/0/max_requests",
                "processing_mode/request_body_mode",
                "send_body_without_waiting_for_header_response",
                "route_config/virtual_hosts/0/request_body_buffer_limit",
                "route_config/virtual_hosts/0/routes/1/match/headers/0/range_match/start",
                "route_config/virtual_hosts/0/routes/1/match/runtime_fraction/default_value/numerator",
                "/layered_runtime/layers/0/static_layer/dualpool.bypass_percent",
            },
        ),
        (
            "full-duplex",
            {
                "/static_resources/clusters/3/circuit_breakers/thresholds/0/max_pending_requests",
                "/static_resources/clusters/3/circuit_breakers/thresholds/0/max_requests",
                "processing_mode/request_body_mode",
                "processing_mode/request_trailer_mode",
                "send_body_without_waiting_for_header_response",
                "/static_resources/clusters/3/common_lb_config",
                "/static_resources/clusters/3/outlier_detection",
                f"{PROTOCOL}/explicit_http_config/http2_protocol_options/connection_keepalive",
                f"{PROTOCOL}/explicit_http_config/http2_protocol_options/initial_stream_window_size",
                f"{PROTOCOL}/explicit_http_config/http2_protocol_options/max_outbound_frames",
                "message_timeout",
                "/static_resources/clusters/3/health_checks/0/interval",
                "/static_resources/clusters/3/health_checks/0/no_traffic_interval",
            },
        ),
        (
            "workers",
            {
                "/static_resources/clusters/3/circuit_breakers/thresholds/0/max_pending_requests",
                "/static_resources/clusters/3/circuit_breakers/thresholds/0/max_requests",
                "/static_resources/clusters/3/load_assignment/endpoints/0/lb_endpoints",
                "/static_resources/clusters/3/outlier_detection",
                "/static_resources/clusters/3/health_checks/0/interval",
                "/static_resources/clusters/3/health_checks/0/no_traffic_interval",
            },
        ),
    ],
)
def test_files_differ_in_nothing_else(name: str, expected: set[str]) -> None:
    """The files differ only in what their heads list, so that a fix in one cannot be missing in another."""
    assert expected == differences(load("streamed"), load(name))


def test_learning_from_the_log_adds_four_things() -> None:
    """Without its filter, routes, log and cluster, the file is streamed.yaml with other response modes."""
    document = load("streamed-access-log")
    manager, host = connection_manager(document), virtual_host(document)
    for place, added in (
        (manager["http_filters"], {"token_usage"}),
        (manager["access_log"], {"envoy.access_loggers.http_grpc"}),
        (host["routes"], {"short_completions", "long_completions"}),
        (document["static_resources"]["clusters"], {"dualpool_log"}),
    ):
        assert added <= {each["name"] for each in place}
        place[:] = [each for each in place if each["name"] not in added]
    expected = {f"processing_mode/response_{part}_mode" for part in ("header", "body")}
    assert expected == differences(load("streamed"), document)
    assert {"SKIP", "NONE"} == {
        ext_proc(document)["processing_mode"][f"response_{p}_mode"] for p in ("header", "body")
    }


def milliseconds(duration: str) -> float:
    """Convert an Envoy duration such as `0.5s` to milliseconds."""
    return float(duration.removesuffix("s")) * 1000


def listener(document: Document) -> Document:
    """Return the only listener."""
    only: Document = document["static_resources"]["listeners"][0]
    return only


@pytest.mark.parametrize("name", NAMES)
def test_limits_fit_the_router_s_defaults(name: str) -> None:
    """Deadline below message_timeout, held bytes below the buffer limit, buffer limit below the message limit."""
    document, router = load(name), Configuration()
    assert router.exchange.deadline_ms * 2 <= milliseconds(ext_proc(document)["message_timeout"])
    held = router.exchange.max_held_bytes
    buffered: int = listener(document)["per_connection_buffer_limit_bytes"]
    assert held < buffered
    largest_message: int = virtual_host(document).get("request_body_buffer_limit", buffered)
    assert largest_message < router.listen.max_message_bytes
    health = cluster(document, "dualpool")["health_checks"][0]
    assert milliseconds(health["interval"]) * 2 < router.drain_s * 1000


@pytest.mark.parametrize(("name", "max_requests"), [("streamed", 64), ("buffered", 1024), ("full-duplex", 16384)])
def test_concurrent_requests_at_the_router_are_few_and_not_all_for_learning(name: str, max_requests: int) -> None:
    """Besides kept streams, Envoy admits what is decided in 20 ms at 2,000/s; more if it must wait for uploads."""
    threshold = cluster(load(name), "dualpool")["circuit_breakers"]["thresholds"][0]
    assert max_requests == threshold["max_requests"] == threshold["max_pending_requests"]
    kept = Configuration().learning.max_streams
    assert 40 <= max_requests - kept
    assert name != "streamed" or max_requests - kept <= 2_000 * 0.020


@pytest.mark.parametrize("name", NAMES)
def test_the_buffer_filter_holds_every_small_body(name: str) -> None:
    """The route for small bodies matches none that the buffer filter before the router would refuse."""
    document = load(name)
    per_filter = route(document, "small_body")["typed_per_filter_config"]
    length = route(document, "small_body")["match"]["headers"][0]["range_match"]
    assert length["end"] - 1 == per_filter["whole_small_bodies"]["buffer"]["max_request_bytes"]
    assert route(document, "short")["route"] == route(document, "small_body")["route"]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_the_router_s_defaults(name: str) -> None:
    """The stripped headers, the short route's header and value, and the port are the router's defaults."""
    document, router = load(name), Configuration()
    manager = connection_manager(document)
    mutations = manager["early_header_mutation_extensions"][0]["typed_config"]["mutations"]
    headers = router.headers
    assert [headers.pool, headers.estimate, headers.reason] == [each["remove"] for each in mutations]
    match = route(document, "short")["match"]["headers"][0]
    assert (headers.pool, router.pools[0].name) == (match["name"], match["string_match"]["exact"])
    endpoint = cluster(document, "dualpool")["load_assignment"]["endpoints"][0]["lb_endpoints"][0]
    port = endpoint["endpoint"]["address"]["socket_address"]["port_value"]
    assert router.listen.address.endswith(f":{port}")


@pytest.mark.parametrize("name", NAMES)
def test_router_gets_all_headers_that_it_reads(name: str) -> None:
    """Envoy forwards exactly the request and response headers that the router reads."""
    patterns = ext_proc(load(name))["forward_rules"]["allowed_headers"]["patterns"]
    forwarded = {pattern["exact"] for pattern in patterns}
    assert decode.Decoder()._request_fields.keys() | decode._RESPONSE_FIELDS.keys() == forwarded
