"""`dualpool check envoy`: each trap is found where it is, nothing else is, and what cannot be read is told."""

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from extproc.cli.main import main
from extproc.config.loading import parse
from extproc.core.errors import ConfigurationError
from extproc.gateways.findings import Finding, look
from extproc.gateways.inputs import read_gateways
from extproc.gateways.router import Router
from extproc.gateways.sources import read
from extproc.gateways.traps import TRAPS
from extproc.wire import decode
from tests.envoy.harness.gateway import (
    FILES,
    Document,
    cluster,
    connection_manager,
    ext_proc,
    load,
    route,
    virtual_host,
)
from tests.traps.bitten import BITTEN, bitten

ROOT = FILES.parent
# One gateway's manifests each.
DEPLOYED = {
    "istio": ["deploy/istio/*.yaml"],
    "istio with the Gateway API": ["deploy/istio/gateway-api/*.yaml"],
    "istio with InferencePools": ["deploy/istio/inference-pools/*.yaml"],
    "envoy gateway": ["deploy/envoy-gateway/*.yaml", "deploy/envoy-gateway/patches/*.yaml"],
}
SERVICES = ROOT / "deploy/kubernetes/service.yaml"


def found_in(text: str, router: Router | None = None) -> tuple[Finding, ...]:
    """Return the traps in a text."""
    router = router or Router()
    gateways = read_gateways(read(text, "file.yaml"), router)
    return look(gateways.gateways, router, gateways.unchecked).found


def names_in(document: Document, router: Router | None = None) -> set[str]:
    """Return the names of the traps in a document."""
    return {each.trap.name for each in found_in(json.dumps(document), router)}


def test_every_trap_has_a_patch() -> None:
    """There is one for each trap but the one that takes a router of several processes."""
    assert {trap.name for trap in TRAPS} == {*BITTEN, "one-address-for-many-workers"}
    assert len(TRAPS) == len({trap.name for trap in TRAPS})


@pytest.mark.parametrize("name", sorted(BITTEN))
def test_the_trap_is_found_and_no_other(name: str) -> None:
    """A file of `envoy/` that is patched to have one trap has that one."""
    assert {name} == names_in(bitten(name))


def test_one_address_for_several_processes() -> None:
    """A router of two processes behind one address is a trap, and one of one process is none."""
    assert {"one-address-for-many-workers"} == names_in(load("streamed"), Router(processes=2))


@pytest.mark.parametrize("path", sorted(FILES.glob("*.yaml")), ids=lambda path: path.stem)
def test_our_own_files_have_no_trap(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is in `envoy/` passes."""
    code = main(["check", "envoy", str(path)])
    assert (0, f"1 gateway: none of {len(TRAPS)} traps\n") == (code, capsys.readouterr().out)


@pytest.mark.parametrize("name", DEPLOYED)
def test_our_own_manifests_have_no_trap(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is in `deploy/` passes, together with the router's own Services."""
    paths = [str(path) for pattern in DEPLOYED[name] for path in sorted(ROOT.glob(pattern))]
    assert main(["check", "envoy", str(SERVICES), *paths]) == 0, capsys.readouterr().out


def test_every_manifest_of_a_gateway_is_checked() -> None:
    """No file of a gateway in `deploy/` is forgotten above."""
    checked = {path for patterns in DEPLOYED.values() for each in patterns for path in ROOT.glob(each)}
    folders = (ROOT / "deploy/istio", ROOT / "deploy/envoy-gateway")
    assert {path for folder in folders for path in folder.rglob("*.yaml")} == checked


def test_traps_name_the_tests_that_show_them() -> None:
    """Each trap has a test on the real Envoy, and it exists."""
    for name, (file, test) in {trap.name: trap.shown_by.split("::") for trap in TRAPS}.items():
        tree = ast.parse((ROOT / "tests/envoy" / file).read_text("utf-8"))
        assert test in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, name


def test_what_the_router_reads_is_what_is_asked_for() -> None:
    """The checker looks for the headers that the router decodes, its tenant's among them."""
    wanted = decode.Decoder("x-tenant")._request_fields.keys() | decode._RESPONSE_FIELDS.keys()
    assert wanted == set(Router(parse("tenant_header: x-tenant")).reads)


@pytest.mark.parametrize(
    ("settings", "trap"),
    [
        ("exchange: {deadline_ms: 450}", "message-timeout"),
        ("exchange: {max_held_bytes: 2097152}", "buffer-below-early-decision"),
        ("tenant_header: x-tenant", "headers-not-forwarded"),
        ("headers: {estimate: x-other}", "spoofable-header"),
        ("pools: [{name: small, max_budget_tokens: 1}, {name: long, max_budget_tokens: 2}]", "pool-without-route"),
    ],
)
def test_the_router_s_own_settings_count(settings: str, trap: str) -> None:
    """The same file has traps for a router that is configured otherwise."""
    assert {trap} == names_in(load("streamed"), Router(parse(settings)))


def test_a_trap_is_told_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """File and line are where the setting stands; why it bites and the mend follow."""
    text = (FILES / "streamed.yaml").read_text().replace("message_timeout: 0.5s", "message_timeout: 0.1s")
    path = tmp_path / "envoy.yaml"
    path.write_text(text)
    assert 1 == main(["check", "envoy", str(path)])
    out = capsys.readouterr().out
    (finding,) = found_in(text)
    line = 1 + text[: text.index("message_timeout: 0.1s")].count("\n")
    assert f"{path}:{line}: error: message_timeout is 100 ms" in out
    assert line == finding.place.line
    assert all(part in out for part in ("[message-timeout]", "why   In STREAMED", "mend  STREAMED"))


def test_json_and_sarif(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Programs get the same: SARIF has a rule for every trap, and a result for each that was found."""
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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "static_resources: {listeners: [{nmae: x}]}",
            "listeners[0].nmae (file.yaml:1): Listener has no field nmae",
        ),
        ("static_resources: {listeners: 3}", "listeners"),
        ("static_resources: {}", "no ext_proc filter in file.yaml"),
        ("a: [", "not YAML: line 1"),
        ("a: 1\na: 2", "line 2: a is given twice"),
        ("a: 1", "neither a bootstrap of Envoy's"),
        ("- a", "no mapping"),
        ("[" * 200, "file.yaml"),
        ("a: &a [*a]", "nested too deeply"),
        ("{" + "[" * 100_000, "file.yaml"),
        ("", "no ext_proc filter in nothing"),
    ],
)
def test_what_cannot_be_read_is_told(text: str, said: str) -> None:
    """A misspelled field, what is no YAML, and what is no gateway's configuration are told in a sentence."""
    with pytest.raises(ConfigurationError) as error:
        found_in(text)
    assert said in str(error.value)


@pytest.mark.parametrize("arguments", [[], ["nowhere.yaml"], ["--live", "file:///etc/hostname"]])
def test_exit_2_for_what_cannot_be_read(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing given, no such file, or no such address: exit 2, and why."""
    assert 2 == main(["check", "envoy", *arguments])
    assert "dualpool check" in capsys.readouterr().err


def test_a_type_that_is_not_known_is_told_and_left() -> None:
    """A control plane's own filter is no reason to look at nothing."""
    document = load("streamed")
    manager = document["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    own = {"name": "own", "typed_config": {"@type": "type.googleapis.com/istio.Something", "x": 1}}
    manager["http_filters"].insert(0, own)
    read_ = read_gateways(read(json.dumps(document), "file.yaml"), Router())
    assert ((), 1) == (look(read_.gateways, Router()).found, len(read_.unchecked))
    assert "istio.Something is not a type" in read_.unchecked[0]


RETRIES = {"retry_on": "5xx"}
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def retries_of_the_host(document: Document) -> None:
    """Say it for all routes at once; the short one has its own."""
    virtual_host(document)["retry_policy"] = RETRIES


def retries_of_the_cluster(document: Document) -> None:
    """Say it where the requests go."""
    kind = f"type.googleapis.com/{HTTP_OPTIONS}"
    explicit: Document = {"http_protocol_options": {}}
    options = {"@type": kind, "explicit_http_config": explicit, "retry_policy": RETRIES}
    cluster(document, "pool_long")["typed_extension_protocol_options"] = {HTTP_OPTIONS: options}


def retries_of_none(document: Document) -> None:
    """Have a policy that says none, which is one."""
    route(document, "long")["route"]["retry_policy"] = RETRIES | {"num_retries": 0}


def small_bodies_that_are_not_waited_for(document: Document) -> None:
    """Retry small bodies that may not have ended."""
    del route(document, "small_body")["typed_per_filter_config"]


def buffered_by_the_filter_and_streamed_by_the_route(document: Document) -> None:
    """Have one route's own mode, and retries on it."""
    ext_proc(document)["processing_mode"]["request_body_mode"] = "BUFFERED"
    del ext_proc(document)["send_body_without_waiting_for_header_response"]
    virtual_host(document)["request_body_buffer_limit"] = 32 << 20
    runtime = route(document, "very_large_body")["match"]["runtime_fraction"]["default_value"]
    runtime["numerator"] = 100
    mode = ext_proc(document)["processing_mode"] | {"request_body_mode": "STREAMED"}
    kind = "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExtProcPerRoute"
    overrides = {"@type": kind, "overrides": {"processing_mode": mode}}
    long = route(document, "long")
    long["typed_per_filter_config"] = {"envoy.filters.http.ext_proc": overrides}
    long["route"]["retry_policy"] = RETRIES
    ext_proc(document)["send_body_without_waiting_for_header_response"] = True


@pytest.mark.parametrize(
    "change",
    [
        retries_of_the_host,
        retries_of_the_cluster,
        retries_of_none,
        small_bodies_that_are_not_waited_for,
        buffered_by_the_filter_and_streamed_by_the_route,
    ],
)
def test_retries_are_found_wherever_they_are_said(change: Callable[[Document], None]) -> None:
    """Host, cluster and route can give a request retries; whether they bite is the mode's, route by route."""
    document = load("streamed")
    change(document)
    assert {"retries-on-default-route"} == names_in(document)


@pytest.mark.parametrize("mode", ["buffered", "full-duplex"])
def test_retries_are_no_trap_in_other_modes(mode: str) -> None:
    """Where a body is whole or echoed, retries double nothing."""
    document = load(mode)
    BITTEN["retries-on-default-route"](document)
    assert set() == names_in(document)


def test_a_condition_that_envoy_does_not_know_is_none() -> None:
    """What is merged over Istio's default to take it away is no trap."""
    document = load("streamed")
    route(document, "long")["route"]["retry_policy"] = {"retry_on": "none"}
    assert set() == names_in(document)


def test_a_filter_that_is_off_everywhere_is_told() -> None:
    """A filter that no route switches on asks nobody, and would otherwise have no trap at all."""
    document = load("streamed")
    filters = connection_manager(document)["http_filters"]
    next(each for each in filters if each["name"] == "envoy.filters.http.ext_proc")["disabled"] = True
    assert {"pool-without-route"} == names_in(document)


def test_one_limit_is_one_finding() -> None:
    """A limit that holds for several routes is told once, for the route that requests arrive on."""
    (finding,) = found_in(json.dumps(bitten("buffer-below-body-cap")))
    assert '"long"' in finding.what


def test_routes_that_are_not_asked_about_are_left_alone() -> None:
    """Another host on the same gateway, with the filter off, may do as it likes."""
    document = load("streamed")
    off = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}
    action = {"cluster": "pool_long", "timeout": "1s", "retry_policy": RETRIES}
    other = {
        "name": "other",
        "domains": ["other.example"],
        "typed_per_filter_config": {"envoy.filters.http.ext_proc": off},
        "routes": [{"match": {"prefix": "/"}, "route": action}],
    }
    connection_manager(document)["route_config"]["virtual_hosts"].append(other)
    assert set() == names_in(document)


Change = Callable[[str], str]


def without(words: str) -> Change:
    """Leave a line out, or a part of one."""
    return lambda text: text.replace(words, "")


MANIFESTS: list[tuple[str, str, Change, str]] = [
    (
        "istio",
        "VirtualService",
        lambda text: text.replace("      retries: {attempts: 0}\n---", "---"),
        "retries-on-default-route",
    ),
    ("istio", "EnvoyFilter", without("failure_mode_allow: true"), "fail-closed"),
    ("istio", "EnvoyFilter", without("- remove: x-token-budget-pool"), "spoofable-header"),
    ("istio", "DestinationRule", without("connectTimeout: 1s"), "slow-connect"),
    ("istio", "DestinationRule", without("http2MaxRequests: 16384"), "router-breakers-large"),
    (
        "istio with the Gateway API",
        "EnvoyFilter",
        without("retry_policy: {retry_on: none}"),
        "retries-on-default-route",
    ),
    ("envoy gateway", "policy", without("failOpen: true"), "fail-closed"),
    ("envoy gateway", "policy", without("    bufferLimit: 16Mi"), "buffer-below-body-cap"),
    ("envoy gateway", "policy", without("    numAttemptsPerPriority: 1"), "repair-same-pool"),
    ("envoy gateway", "policy", without("writableNamespaces: [dualpool]"), "namespace-dropped"),
    ("envoy gateway", "policy", lambda text: text.replace("Buffered}", "Streamed}"), "streamed-without-flag"),
    ("envoy gateway", "policy", without("request: {body: Buffered}"), "headers-skipped"),
    ("envoy gateway", "policy", lambda text: text.replace("[x-token-budget-pool, ", "["), "spoofable-header"),
    ("envoy gateway", "route", without("      timeouts: {request: 0s}"), "response-cut"),
    ("envoy gateway", "route", lambda text: text.replace("value: short}", "value: small}"), "pool-without-route"),
]


@pytest.mark.parametrize(("gateway", "_", "change", "trap"), MANIFESTS)
def test_traps_in_manifests(gateway: str, _: str, change: Change, trap: str) -> None:
    """What bites in Envoy's words is found in those of Istio and Envoy Gateway, with file and line."""
    paths = [path for pattern in DEPLOYED[gateway] for path in sorted(ROOT.glob(pattern))]
    texts = {path.name: path.read_text("utf-8") for path in paths}
    documents = [each for name, text in texts.items() for each in read(change(text), name)]
    router = Router()
    found = look(read_gateways(documents, router).gateways, router).found
    assert {trap} <= {each.trap.name for each in found}
    assert all(each.place.source in texts and each.place.line for each in found)


def test_a_cluster_ip_is_known_by_its_service() -> None:
    """A Service with a ClusterIP, read beside an Envoy that goes to its name, is one address for many servers."""
    document = load("streamed")
    host = "dualpool.dualpool.svc.cluster.local"
    for each in document["static_resources"]["clusters"]:
        if each["name"] == "dualpool":
            address = each["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]
            address["socket_address"]["address"] = host
    service: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "dualpool", "namespace": "dualpool"},
        "spec": {"ports": [{"port": 9002}]},
    }

    def found() -> set[str]:
        texts = [json.dumps(document), json.dumps(service)]
        router = Router()
        documents = [each for text in texts for each in read(text, "file.json")]
        return {each.trap.name for each in look(read_gateways(documents, router).gateways, router).found}

    assert {"cluster-ip"} == found()
    service["spec"]["clusterIP"] = "None"
    assert set() == found()
