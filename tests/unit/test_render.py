"""`dualpool render`: the gateway configuration for given settings, and the files of `envoy/` for the defaults."""

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from envoy.config.bootstrap.v3.bootstrap_pb2 import Bootstrap
from google.protobuf.json_format import MessageToDict

from extproc.cli.main import main
from extproc.config.loading import parse
from extproc.config.schema import Configuration
from extproc.config.worker_addresses import listen_settings_of
from extproc.gateways.findings import find_traps
from extproc.gateways.inputs import read_gateways
from extproc.gateways.parsing.sources import read
from extproc.gateways.parsing.typed import typed
from extproc.gateways.render.chain import connection_window_bytes
from extproc.gateways.render.envoy import render_envoy
from extproc.gateways.render.envoy_gateway import render_envoy_gateway
from extproc.gateways.render.istio import render_istio
from extproc.gateways.render.numbers import Mode, Numbers
from extproc.gateways.render.text import yaml_of
from extproc.gateways.render.vllm import render_vllm
from extproc.gateways.router import Router
from tests.envoy.harness.gateway import FILES

# One setting of each kind that a gateway's configuration depends on.
SETTINGS = """
listen: {address: "unix:/run/dualpool.sock", max_message_bytes: 8388608}
pools:
  - {name: small, max_budget_tokens: 4096, max_model_len: 5120}
  - {name: medium, max_budget_tokens: 16384}
  - {name: huge, max_budget_tokens: 131072}
headers: {pool: x-pool, estimate: x-estimate, reason: x-reason}
tenant_header: x-tenant
exchange: {deadline_ms: 400, max_held_bytes: 3145728}
drain_s: 3
"""


def meaning(text: str) -> dict[str, Any]:
    """Return a bootstrap as Envoy reads it: without comments, order or formatting."""
    unknown: list[str] = []
    (values,) = read(text, "file.yaml")
    message = typed(values, Bootstrap(), unknown)
    assert [] == unknown
    found: dict[str, Any] = MessageToDict(message)
    return found


@pytest.mark.parametrize("mode", Mode)
def test_the_files_equal_what_is_rendered_for_the_defaults(mode: Mode) -> None:
    """Each file of `envoy/` equals the rendered one, except for comments and layout."""
    assert meaning((FILES / f"{mode}.yaml").read_text("utf-8")) == meaning(
        render_envoy(Numbers(Configuration(), mode))
    )


def test_the_file_of_two_workers_equals_what_is_rendered_for_two() -> None:
    """`envoy/workers.yaml` equals the output for `--workers 2`: an endpoint per
    worker, and twice as many requests at a time.
    """
    shipped = (FILES / "workers.yaml").read_text("utf-8")
    assert meaning(shipped) == meaning(render_envoy(Numbers(Configuration(), workers=2)))


def objects(texts: Iterable[str]) -> dict[tuple[str, str], Any]:
    """Return the manifests in some texts by kind and name."""
    found = [each for text in texts for each in read(text, "file.yaml")]
    return {(each["kind"], each["metadata"]["name"]): json.loads(json.dumps(each)) for each in found}


MANIFESTS: list[tuple[Callable[[Numbers], str], list[str]]] = [
    (render_istio, ["istio/envoyfilter.yaml", "istio/routes.yaml"]),
    (render_envoy_gateway, ["envoy-gateway/policies.yaml", "envoy-gateway/routes.yaml"]),
]


@pytest.mark.parametrize(("render", "files"), MANIFESTS)
def test_the_manifests_equal_what_is_rendered_for_the_defaults(
    render: Callable[[Numbers], str], files: list[str]
) -> None:
    """These files of `deploy/` hold exactly the rendered values."""
    shipped = [(FILES.parent / "deploy" / file).read_text("utf-8") for file in files]
    assert objects(shipped) == objects([render(Numbers(Configuration()))])


@pytest.mark.parametrize(("render", "_"), MANIFESTS)
def test_rendered_manifests_fit_all_settings(render: Callable[[Numbers], str], _: list[str]) -> None:
    """The checker finds only what Envoy Gateway cannot express: the limits on headers."""
    configuration = parse(SETTINGS)
    router = Router(configuration)
    gateways = read_gateways(read(render(Numbers(configuration)), "file.yaml"), router).gateways
    found = {each.trap.name for each in find_traps(gateways, router).found}
    # It cannot express which headers to withhold from the router either, so none is withheld.
    assert found <= {"head-limits"}


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("settings", ["", SETTINGS], ids=["defaults", "all settings"])
def test_the_rendered_configuration_has_no_trap(mode: Mode, settings: str) -> None:
    """Whatever the router's settings, the gateway that is rendered for them has no trap."""
    configuration = parse(settings)
    router = Router(configuration)
    gateways = read_gateways(read(render_envoy(Numbers(configuration, mode)), "file.yaml"), router).gateways
    assert [] == [(each.trap.name, each.what) for each in find_traps(gateways, router).found]


@pytest.mark.parametrize(
    ("render", "mode"),
    [
        *((render_envoy, mode) for mode in Mode),
        (render_istio, Mode.STREAMED),
        (render_envoy_gateway, Mode.BUFFERED),
    ],
)
@pytest.mark.parametrize(
    "settings", ["listen: {max_message_bytes: 1048576}", "exchange: {max_held_bytes: 33554432}"]
)
def test_unusual_sizes_give_no_trap(render: Callable[[Numbers], str], mode: Mode, settings: str) -> None:
    """Whatever the router waits for, the gateway holds more, over HTTP/1.1 and HTTP/2."""
    configuration = parse(settings)
    router = Router(configuration)
    gateways = read_gateways(read(render(Numbers(configuration, mode)), "file.yaml"), router).gateways
    found = [(each.trap.name, each.what) for each in find_traps(gateways, router).found]
    assert [] == [each for each in found if each[0] != "head-limits"]


def test_messages_below_what_the_router_waits_for_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A body in mode BUFFERED is one message: the two settings exclude each other."""
    path = tmp_path / "c.yaml"
    path.write_text("{listen: {max_message_bytes: 1048576}, exchange: {max_held_bytes: 33554432}}")
    assert 2 == main(["render", "envoy-gateway", "--config", str(path)])
    assert "listen.max_message_bytes: 1048576 given; mode BUFFERED needs 41943040" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "name", "code"),
    [
        ("istio", "upgrade", 2),
        ("envoy-gateway", "upgrade", 2),
        ("envoy-gateway", "very-large-body", 2),
        ("envoy", "upgrade", 0),
    ],
)
def test_names_of_pools_that_routes_have(kind: str, name: str, code: int, tmp_path: Path) -> None:
    """Where a route's name matters, a pool with the name of another route is refused."""
    path = tmp_path / "c.yaml"
    path.write_text(f"pools: [{{name: {name}, max_budget_tokens: 1000}}, {{name: long, max_budget_tokens: 9000}}]")
    assert code == main(["render", kind, "--config", str(path)])


def test_the_window_of_a_connection_is_one_that_http2_allows() -> None:
    """RFC 9113, 6.9.1: at most 2^31 - 1 bytes; Envoy refuses a configuration with more."""
    configuration = parse("exchange: {max_held_bytes: 536870912}\nlisten: {max_message_bytes: 1073741824}")
    window = connection_window_bytes(Numbers(configuration).buffer_bytes)
    assert 2**31 - 1 == window


def test_settings_are_in_the_rendered_configuration() -> None:
    """Pools, names, times, sizes and addresses are those of the configuration."""
    text = render_envoy(Numbers(parse(SETTINGS)))
    for said in (
        "cluster: small_then_medium_then_huge",
        "cluster: medium_then_huge",
        "string_match: {exact: medium}",
        "- {remove: x-reason}",
        "- {exact: x-tenant}",
        "message_timeout: 0.75s",
        "per_connection_buffer_limit_bytes: 4194304",
        "pipe: {path: /run/dualpool.sock}",
        "interval: 1s",
    ):
        assert said in text, said
    assert "x-token-budget" not in text


MODELS = """
pools:
  - {name: a-short, max_budget_tokens: 8192, models: [model-a, "model-a-*"]}
  - {name: b-short, max_budget_tokens: 8192, models: [model-b]}
  - {name: b-long, max_budget_tokens: 65536, models: [model-b]}
  - {name: a-long, max_budget_tokens: 131072, models: ["model-a*"]}
"""


def test_a_refusal_is_retried_in_pools_that_serve_its_model() -> None:
    """With pools for several models, each falls back to larger pools of its
    model; a model's largest pool has no fallback.
    """
    configuration = parse(MODELS)
    router = Router(configuration)
    for render in (render_envoy, render_istio, render_envoy_gateway):
        text = render(Numbers(configuration))
        gateways = read_gateways(read(text, "file.yaml"), router).gateways
        assert {each.trap.name for each in find_traps(gateways, router).found} <= {"head-limits"}
    envoy = render_envoy(Numbers(configuration))
    for said in ("cluster: a-short_then_a-long", "cluster: b-short_then_b-long", "cluster: pool_b-long"):
        assert said in envoy, said
    assert "b-long_then" not in envoy
    # A body's length says nothing about its model.
    assert "small_body" not in envoy
    assert "vllm serve model-b --max-model-len 65536" in render_vllm(configuration)


@pytest.mark.parametrize("mode", Mode)
def test_every_choice_is_explained(mode: Mode) -> None:
    """A comment precedes each setting that a reader would ask about."""
    lines = [line.strip() for line in render_envoy(Numbers(Configuration(), mode)).splitlines()]
    asked = ["message_timeout", "failure_mode_allow", "early_header_mutation_extensions", "retriable_status_codes"]
    asked += ["per_connection_buffer_limit_bytes", "max_request_headers_kb", "- name: long", "retry_priority"]
    for start in asked:
        at = next(number for number, line in enumerate(lines) if line.startswith(start))
        assert lines[at - 1].startswith("# "), start
    assert all(len(line) <= 118 for line in lines if line.startswith("#"))


def test_vllm_gets_the_pools_limits() -> None:
    """Each pool's servers get the limits that the router assumes; a pool without head-room is pointed out."""
    text = render_vllm(parse(SETTINGS))
    assert "vllm serve MODEL --max-model-len 5120 --max-num-seqs 256 --port 8000" in text
    assert "head-room of 1,024" in text
    assert "recommended: max_model_len: 20480" in text
    assert text.count("vllm serve") == 3


def test_the_command_writes_to_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`dualpool render KIND --config FILE` prints the output for the file."""
    path = tmp_path / "dualpool.yaml"
    path.write_text(SETTINGS)
    assert 0 == main(["render", "envoy", "--config", str(path), "--mode", "buffered"])
    assert render_envoy(Numbers(parse(SETTINGS), Mode.BUFFERED)) == capsys.readouterr().out
    assert 0 == main(["render", "vllm", "--config", str(path)])
    assert render_vllm(parse(SETTINGS)) == capsys.readouterr().out


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("settings", ["", SETTINGS], ids=["ports", "sockets"])
def test_the_configuration_rendered_for_workers_has_no_trap(mode: Mode, settings: str) -> None:
    """Each process is an endpoint, at the address that `dualpool serve --workers` gives it."""
    configuration = parse(settings)
    router = Router(configuration, processes=3)
    text = render_envoy(Numbers(configuration, mode, workers=3))
    gateways = read_gateways(read(text, "file.yaml"), router).gateways
    assert [] == [(each.trap.name, each.what) for each in find_traps(gateways, router).found]
    (cluster,) = (each for name, each in gateways[0].clusters.items() if name == "dualpool")
    (addresses,) = cluster.priorities
    expected = {listen_settings_of(configuration.listen, each).address for each in range(3)}
    assert expected == {
        each if each.startswith("unix:") else each.replace("127.0.0.1", "[::]") for each in addresses
    }


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["istio", "--workers", "2"], "one port"),
        (["vllm", "--workers", "2"], "one port"),
        (["istio", "--mode", "full-duplex"], "no other than streamed"),
        (["vllm", "--mode", "buffered"], "no other than streamed"),
        (["istio", "--config", "TLS"], "a DestinationRule with `tls`"),
        (["envoy-gateway", "--config", "TLS"], "a BackendTLSPolicy"),
    ],
)
def test_unsupported_options_are_refused(
    arguments: list[str], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a gateway cannot have is refused: several workers with one port, another mode, TLS to the router."""
    (tmp_path / "tls").write_text("listen: {tls: {certificate_file: /c, private_key_file: /k}}")
    assert 2 == main(["render", *(str(tmp_path / "tls") if each == "TLS" else each for each in arguments)])
    assert why in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["envoy", "istio", "envoy-gateway"])
def test_a_gateway_without_what_the_router_learns_from_is_not_rendered(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is rendered has no gRPC access log: a router that learns from one would learn nothing, unnoticed."""
    file = tmp_path / "c.yaml"
    file.write_text("learning: {source: access_log}")
    assert 2 == main(["render", kind, "--config", str(file)])
    assert "envoy/streamed-access-log.yaml" in capsys.readouterr().err
    assert 0 == main(["render", "vllm", "--config", str(file)])


@pytest.mark.parametrize("kind", ["envoy", "istio", "envoy-gateway"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_port_that_is_not_known_yet_is_refused(
    kind: str, workers: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With port 0 the system chooses the router's port when it starts: no gateway can be told it before."""
    if workers > 1 and kind != "envoy":
        return
    file = tmp_path / "c.yaml"
    file.write_text("listen: {address: '127.0.0.1:0'}")
    assert 2 == main(["render", kind, "--config", str(file), "--workers", str(workers)])
    assert "listen.address: '127.0.0.1:0' given" in capsys.readouterr().err


def test_without_the_extra_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If Envoy's dataclasses are not installed, one sentence says what to install."""
    for name in [
        name for name in sys.modules if name.startswith(("envoy_data_plane", "extproc.gateways.render."))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "envoy_data_plane", None)
    assert 2 == main(["render", "envoy"])
    assert "dualpool[render]" in capsys.readouterr().err


@pytest.mark.parametrize(
    "value",
    [
        {"a": "yes", "b": "1.5", "c": "a: b", "d": "", "e": "#", "f": "0x1", "g": "%A%", "h": "it's", "i": "- x"},
        {"a": [1, 2.0, True, None], "b": [], "c": {}, "d": [{"name": "x", "y": [{"z": 1}]}], "e": "1.500s"},
        {"a": "é", "b": 'q"', "c": "a\nb", "d": "x" * 200, "e": [["a"]], "@type": "t"},
    ],
)
def test_written_values_are_read_back_unchanged(value: dict[str, Any]) -> None:
    """Reading the written text gives the same values, except for trailing zeros of durations."""
    (again,) = read(yaml_of(value, {}), "file.yaml")
    wanted = json.dumps(value, sort_keys=True).replace("1.500s", "1.5s").replace("2.0", "2")
    assert wanted == json.dumps(again, sort_keys=True)
