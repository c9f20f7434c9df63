"""`dualpool check envoy`: each trap is found, and no other; unreadable input is reported."""

import ast
import io
import json
from pathlib import Path

import pytest

from extproc.cli.main import main
from extproc.config.loading import parse
from extproc.core.errors import ConfigurationError
from extproc.gateways.findings import find_traps
from extproc.gateways.inputs import read_gateways
from extproc.gateways.parsing.sources import read
from extproc.gateways.router import Router
from extproc.gateways.traps import TRAPS
from extproc.wire import decode
from tests.envoy.harness.gateway import FILES, cluster, connection_manager, ext_proc, load, route, virtual_host
from tests.traps.bitten import BITTEN, bitten
from tests.traps.finding import found_in, names_in

ROOT = FILES.parent


def test_every_trap_has_a_patch() -> None:
    """Each trap has a patch, except for those of a router of several processes, or that learns from the log."""
    assert {trap.name for trap in TRAPS} == {*BITTEN, "one-address-for-many-workers", "access-log-missing"}
    assert len(TRAPS) == len({trap.name for trap in TRAPS})


@pytest.mark.parametrize("name", sorted(BITTEN))
def test_the_trap_is_found_and_no_other(name: str) -> None:
    """A file of `envoy/` that is patched to contain one trap is reported to have exactly that one."""
    assert {name} == names_in(bitten(name))


def test_one_address_for_several_processes() -> None:
    """A router of two processes behind one address is a trap; a router of one process is not."""
    assert {"one-address-for-many-workers"} == names_in(load("streamed"), Router(processes=2))


@pytest.mark.parametrize("path", sorted(FILES.glob("*.yaml")), ids=lambda path: path.stem)
def test_our_own_files_have_no_trap(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The files in `envoy/` pass, except that the AI Protocol Manager, still unpublished, is not checked."""
    code = main(["check", "envoy", str(path)])
    said = capsys.readouterr().out.splitlines()
    unknown = [line for line in said if line.startswith("not checked: ") and ".ai_protocol_manager.v3." in line]
    assert (2 if path.stem == "streamed-access-log" else 0) == len(unknown)
    assert (0, [f"1 gateway: none of {len(TRAPS)} traps"]) == (
        code,
        [line for line in said if line not in unknown],
    )


def test_a_gateway_is_compared_with_the_default_configuration_unless_another_is_given(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is found without --config may be due to the default pools, so standard error names them."""
    example = FILES / "two-models"
    assert 1 == main(["check", "envoy", str(example / "envoy.yaml")])
    assert "default configuration (pools short, long); --config FILE" in capsys.readouterr().err
    assert 0 == main(["check", "envoy", str(example / "envoy.yaml"), "--config", str(example / "dualpool.yaml")])
    assert "" == capsys.readouterr().err


def test_traps_name_the_tests_that_show_them() -> None:
    """Each trap names a test on the real Envoy, and the test exists."""
    for name, (file, test) in {trap.name: trap.shown_by.split("::") for trap in TRAPS}.items():
        tree = ast.parse((ROOT / "tests/envoy" / file).read_text("utf-8"))
        assert test in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, name


def test_the_checker_expects_the_headers_that_the_router_reads() -> None:
    """The checker expects the headers that the router decodes, including that of the tenant."""
    wanted = decode.Decoder("x-tenant")._request_fields.keys() | decode._RESPONSE_FIELDS.keys()
    assert wanted == set(Router(parse("tenant_header: x-tenant")).reads)


@pytest.mark.parametrize(
    ("settings", "traps"),
    [
        ("exchange: {deadline_ms: 450}", {"message-timeout"}),
        ("exchange: {max_held_bytes: 2097152}", {"buffer-below-early-decision"}),
        ("tenant_header: x-tenant", {"headers-not-forwarded"}),
        ("learning: {source: access_log}", {"access-log-missing"}),
        ("headers: {estimate: x-other}", {"spoofable-header", "headers-refused"}),
        (
            "pools: [{name: small, max_budget_tokens: 1}, {name: long, max_budget_tokens: 2}]",
            {"pool-without-route"},
        ),
    ],
)
def test_traps_depend_on_the_routers_settings(settings: str, traps: set[str]) -> None:
    """The same file has traps for a router with another configuration."""
    assert traps == names_in(load("streamed"), Router(parse(settings)))


def test_the_file_with_the_access_log_has_what_its_router_learns_from() -> None:
    """The router that learns from the access log has no trap behind the file that sends one."""
    assert set() == names_in(load("streamed-access-log"), Router(parse("learning: {source: access_log}")))


@pytest.mark.parametrize(("limit", "traps"), [(786_432, {"buffer-below-early-decision"}), (786_433, set())])
def test_a_buffer_has_to_hold_more_than_the_router_waits_for(limit: int, traps: set[str]) -> None:
    """Envoy stops sending when its buffer is full, so one as large as `max_held_bytes` is too small."""
    document = load("streamed")
    document["static_resources"]["listeners"][0]["per_connection_buffer_limit_bytes"] = limit
    assert traps == names_in(document)
    # A host's limit raises the listener's in this mode, too.
    virtual_host(document)["request_body_buffer_limit"] = 786_433
    assert set() == names_in(document)


@pytest.mark.parametrize("mode", ["streamed", "buffered"])
def test_a_host_s_limit_lowers_none(mode: str) -> None:
    """Below the listener's it limits what a retry keeps, and nothing else."""
    document = load(mode)
    virtual_host(document)["request_body_buffer_limit"] = 65_536
    route(document, "very_large_body")["match"]["headers"][0]["range_match"]["start"] = (1 << 20) + 1
    assert {"repair-body-limit"} == names_in(document)


@pytest.mark.parametrize(("limit", "traps"), [(786_432, {"buffer-below-body-cap"}), (786_433, set())])
def test_a_body_that_envoy_holds_has_to_be_larger_than_the_router_waits_for(limit: int, traps: set[str]) -> None:
    """In BUFFERED, too, a buffer as large as `max_held_bytes` is too small, whatever bypasses the router."""
    document = load("buffered")
    del virtual_host(document)["request_body_buffer_limit"]
    document["static_resources"]["listeners"][0]["per_connection_buffer_limit_bytes"] = limit
    route(document, "very_large_body")["match"]["headers"][0]["range_match"]["start"] = limit + 1
    assert traps == names_in(document)


@pytest.mark.parametrize("limit", ["headers", "bytes"])
def test_each_limit_of_request_heads_is_a_trap(limit: str) -> None:
    """Envoy's default is too small for either of them, when the other one is raised."""
    document = load("streamed")
    manager = connection_manager(document)
    if limit == "headers":
        del manager["common_http_protocol_options"]
    else:
        del manager["max_request_headers_kb"]
    assert {"head-limits"} == names_in(document)


@pytest.mark.parametrize(("connection", "traps"), [(1 << 24, {"connection-window-small"}), ((1 << 24) + 1, set())])
def test_a_connection_holds_more_than_one_stream(connection: int, traps: set[str]) -> None:
    """A connection's window of the size of one stream's lets one upload block the others."""
    document = load("streamed")
    sizes = {"initial_stream_window_size": 1 << 24, "initial_connection_window_size": connection}
    connection_manager(document)["http2_protocol_options"] = sizes
    assert traps == names_in(document)


def test_a_bypass_that_no_request_takes_is_none() -> None:
    """In BUFFERED, bodies over the limit are refused where the route around the router is at 0 %."""
    document = load("buffered")
    route(document, "very_large_body")["match"]["runtime_fraction"]["default_value"]["numerator"] = 0
    assert {"buffer-below-body-cap"} == names_in(document)


@pytest.mark.parametrize("mode", ["BUFFERED", "BUFFERED_PARTIAL"])
def test_responses_that_envoy_holds_are_a_trap(mode: str) -> None:
    """It holds them in both modes, up to a limit or beyond it."""
    document = load("streamed")
    ext_proc(document)["processing_mode"]["response_body_mode"] = mode
    assert {"response-buffered"} == names_in(document)


def test_a_pool_that_is_down_is_repaired_by_its_status_alone() -> None:
    """Envoy answers 503 for a pool without a server, so a route that retries this status needs no condition."""
    document = load("streamed")
    policy = route(document, "short")["route"]["retry_policy"]
    assert 503 in policy["retriable_status_codes"]
    policy["retry_on"] = "retriable-status-codes"
    assert set() == names_in(document)
    policy["retriable_status_codes"].remove(503)
    assert {"repair-missing"} == names_in(document)


@pytest.mark.parametrize("condition", ["connect-failure", "reset", "reset-before-request", "5xx", "gateway-error"])
def test_a_pool_that_is_down_is_repaired_by_any_condition_that_finds_it_down(condition: str) -> None:
    """Each of these conditions of Envoy retries a request that finds no server, so its status is not needed."""
    document = load("streamed")
    policy = route(document, "short")["route"]["retry_policy"]
    policy["retriable_status_codes"].remove(503)
    policy["retry_on"] = f"retriable-status-codes,{condition}"
    assert set() == names_in(document)


@pytest.mark.parametrize(("retries", "traps"), [(3, {"repair-limit"}), (99, {"repair-limit"}), (100, set())])
def test_a_hundred_repairs_at_a_time_are_enough(retries: int, traps: set[str]) -> None:
    """Envoy's 3 and anything below 100 is a trap: above it, clients get the smaller pool's refusals."""
    document = load("streamed")
    cluster(document, "short_then_long")["circuit_breakers"]["thresholds"] = [{"max_retries": retries}]
    assert traps == names_in(document)


@pytest.mark.parametrize(("strips", "traps"), [(False, {"repair-declined"}), (True, set())])
def test_a_number_of_retries_that_is_removed_at_once_declines_no_repair(
    strips: bool,  # noqa: FBT001
    traps: set[str],
) -> None:
    """The header of internal clients may be removed by the pool's route, or before a route is chosen."""
    document = bitten("repair-declined")
    if strips:
        stripped = connection_manager(document)["early_header_mutation_extensions"]
        stripped[0]["typed_config"]["mutations"].append({"remove": "x-envoy-max-retries"})
    assert traps == names_in(document)


@pytest.mark.parametrize("unread", ["body", "response"])
def test_skipped_response_headers_harm_only_a_router_that_reads_responses(unread: str) -> None:
    """Without response bodies, or if the router learns from the access log, headers may be skipped."""
    document = bitten("response-headers-skipped")
    if unread == "body":
        ext_proc(document)["processing_mode"]["response_body_mode"] = "NONE"
        assert set() == names_in(document)
    else:
        # The log itself is missing in this file, too.
        router = Router(parse("learning: {source: access_log}"))
        assert {"access-log-missing"} == names_in(document, router)


@pytest.mark.parametrize(("codec", "traps"), [("AUTO", {"buffer-below-early-decision"}), ("HTTP1", set())])
def test_the_window_of_a_stream_limits_bodies_over_http2(codec: str, traps: set[str]) -> None:
    """The smaller of the two limits counts, unless the listener speaks HTTP/1.1 only."""
    document = load("streamed")
    manager = connection_manager(document)
    manager["codec_type"] = codec
    manager["http2_protocol_options"] = {"initial_stream_window_size": 65_536}
    assert traps == names_in(document)
    (found, *_) = [*found_in(json.dumps(document)), None]
    assert found is None or "http2_protocol_options.initial_stream_window_size is 65,536" in found.what


@pytest.mark.parametrize("mode", ["streamed", "buffered", "full-duplex"])
@pytest.mark.parametrize("longest", ["1s", "0s", "600s"])
def test_the_longest_exchange_with_the_router(mode: str, longest: str) -> None:
    """It bounds requests and responses in full duplex only; a limit of 10 minutes is no trap."""
    document = load(mode)
    (options,) = cluster(document, "dualpool")["typed_extension_protocol_options"].values()
    options["common_http_protocol_options"] = {"max_stream_duration": longest}
    cut = (mode, longest) == ("full-duplex", "1s")
    assert ({"full-duplex-stream-cut"} if cut else set()) == names_in(document)


@pytest.mark.parametrize("internal", [False, True])
def test_headers_of_internal_clients_only(internal: bool) -> None:  # noqa: FBT001
    """Envoy removes them from requests of all others before it chooses a route; nobody is internal by default."""
    document = load("streamed")
    manager = connection_manager(document)
    stripped = manager.pop("early_header_mutation_extensions")
    names = [each["remove"] for each in stripped[0]["typed_config"]["mutations"]]
    manager["route_config"]["internal_only_headers"] = names
    if internal:
        manager["internal_address_config"] = {"cidr_ranges": [{"address_prefix": "10.0.0.0", "prefix_len": 8}]}
    assert internal is ("spoofable-header" in names_in(document))


def test_a_trap_is_reported_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The finding names the file and line of the setting, followed by the reason and the fix."""
    text = (FILES / "streamed.yaml").read_text().replace("message_timeout: 0.5s", "message_timeout: 0.1s")
    path = tmp_path / "envoy.yaml"
    path.write_text(text)
    assert 1 == main(["check", "envoy", str(path)])
    out = capsys.readouterr().out
    (finding,) = found_in(text)
    line = 1 + text[: text.index("message_timeout: 0.1s")].count("\n")
    assert f"{path}:{line}: error: message_timeout is 100 ms" in out
    assert line == finding.place.line
    assert all(part in out for part in ("[message-timeout]", "why   In STREAMED", "fix   STREAMED"))


def test_json_and_sarif(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """JSON and SARIF hold the same findings: SARIF has a rule for every trap, and a result for each finding."""
    path = tmp_path / "envoy.json"
    path.write_text(json.dumps(bitten("fail-closed")))
    assert 1 == main(["check", "envoy", str(path), "--json"])
    (found,) = json.loads(capsys.readouterr().out)["found"]
    assert ("fail-closed", "error", str(path)) == (found["trap"], found["severity"], found["source"])
    assert found["path"].endswith("http_filters[1].typed_config")
    assert 1 == main(["check", "envoy", str(path), "--sarif"])
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    (result,) = run["results"]
    assert [trap.name for trap in TRAPS] == [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert ("fail-closed", "error") == (result["ruleId"], result["level"])
    assert TRAPS[result["ruleIndex"]].name == "fail-closed"
    assert str(path) == result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]


NO_VALUE = "{'@type': type.googleapis.com/google.protobuf.StringValue}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "static_resources: {listeners: [{nmae: x}]}",
            "listeners[0].nmae (file.yaml:1): Listener has no field nmae",
        ),
        ("static_resources: {listeners: 3}", "listeners"),
        (
            f"{{static_resources: {{}}, bootstrap_extensions: [{{typed_config: {NO_VALUE}}}]}}",
            "not a value that Envoy accepts: 'value'",
        ),
        ("static_resources: {}", "no ext_proc filter in file.yaml"),
        ("a: [", "not YAML: line 1"),
        ("a: 1\na: 2", "line 2: a is given twice"),
        ("a: 1", "neither an Envoy bootstrap"),
        ("- a", "not a mapping"),
        ("[" * 200, "file.yaml"),
        ("a: \0", "not YAML: unacceptable character #x0000"),
        ("a: !!int x", "not YAML: "),
        ("a: &a [*a]", "nested too deeply"),
        ('{"a":' * 101 + "1" + "}" * 101, "nested too deeply; at most 100 levels are allowed"),
        ("{" + "[" * 100_000, "file.yaml"),
        ("", "the input is empty: give all files of one gateway"),
    ],
)
def test_unreadable_input_is_reported(text: str, said: str) -> None:
    """A misspelled field, invalid YAML, and a file without a gateway are each reported in a sentence."""
    with pytest.raises(ConfigurationError) as error:
        found_in(text)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("file", "why"),
    [
        ("nowhere.yaml", "FILE nowhere.yaml: No such file or directory"),
        ("", "FILE .: Is a directory"),
        (
            "http://127.0.0.1:9901",
            "FILE http:/127.0.0.1:9901: No such file or directory; a running Envoy is given with --live",
        ),
    ],
)
def test_a_file_that_cannot_be_read_is_named(file: str, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In words; an address in its place is told how to be given."""
    assert 2 == main(["check", "envoy", file])
    assert f"dualpool check: {why}\n" == capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["nowhere.yaml"], ["--live", "file:///etc/hostname"]])
def test_unreadable_input_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """No argument, a missing file and an unreachable address exit with code 2 and a message."""
    assert 2 == main(["check", "envoy", *arguments])
    assert "dualpool check" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name",
    [
        "istio.Something",
        "envoy.extensions.filters.http.buffer.v3.Newer",
        "envoy.extensions.filters.http.buffer.v3.buffer_pb2.Buffer",
        "google.protobuf.Newer",
    ],
)
def test_an_unknown_type_is_reported_and_skipped(name: str) -> None:
    """Neither a control plane's own filter nor a newer type of Envoy's prevents the rest from being checked."""
    document = load("streamed")
    manager = document["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    own = {"name": "own", "typed_config": {"@type": f"type.googleapis.com/{name}", "x": 1}}
    manager["http_filters"].insert(0, own)
    read_ = read_gateways(read(json.dumps(document), "file.yaml"), Router())
    assert ((), 1) == (find_traps(read_.gateways, Router()).found, len(read_.unchecked))
    assert f"{name} is not a known Envoy type" in read_.unchecked[0]


def test_a_gateway_from_standard_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`-` is standard input, for what another program generates; one that is closed is reported."""
    text = (FILES / "streamed.yaml").read_bytes()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
    assert (0, f"1 gateway: none of {len(TRAPS)} traps\n") == (
        main(["check", "envoy", "-"]),
        capsys.readouterr().out,
    )
    monkeypatch.setattr("sys.stdin", None)
    assert 2 == main(["check", "envoy", "-"])
    assert "standard input is closed" in capsys.readouterr().err
