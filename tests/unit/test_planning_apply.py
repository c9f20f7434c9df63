"""The sentence, tables, plot, JSON and files of a plan agree with each other."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from extproc.cli import main as command_line
from extproc.config.loading import load
from extproc.documents import read_document
from extproc.planning.output.apply import _in_flight, _Pool, _servers
from tests.unit.planning_command import refusal_of

QUESTION = ["--rate", "10", "--model", "llama-3-8b", "--gpu", "h100-80g", "--times", "roofline", "--simulate"]
QUESTION += ["--requests", "2000", "--objective", "<=8192: ttft 3s; else: ttft 30s", "--cache", "none"]
QUESTION += ["--spare", "0", "--tune", "none", "--router", "oracle"]
QUESTION += ["--balance", "full-scan", "--threshold", "3072"]


def document(path: Path) -> Any:
    """Return the content of a YAML file."""
    return read_document(path.read_text())


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, object], Path]:
    """Run one plan that writes everything it can; return its JSON and its directory."""
    folder = tmp_path_factory.mktemp("plan")
    (folder / "out").mkdir()
    (folder / "out" / "sglang-medium.args").touch()  # left by an earlier plan
    (folder / "out" / "notes.txt").touch()
    trace = folder / "t.jsonl"
    rows = (
        {"input_tokens": 30_000 if n % 10 == 0 else 200 + n % 900, "output_tokens": 50 + n % 100}
        for n in range(2000)
    )
    trace.write_text("\n".join(map(json.dumps, rows)))
    arguments = ["plan", "--trace", str(trace), *QUESTION, "--apply", str(folder / "out"), "--json"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command_line, "COMMANDS", ("plan",))
        printed: list[str] = []
        patch.setattr("builtins.print", lambda *text, **_: printed.append(" ".join(map(str, text))))
        assert command_line.main(arguments) == 0
    return json.loads(printed[0]), folder / "out"


def test_sentence_json_and_files_name_the_same_fleet(planned: tuple[dict[str, object], Path]) -> None:
    """The sentence's GPU count is that of a fleet in the JSON and of the replicas in the files."""
    plan, out = planned
    sentence = str(plan["recommendation"])
    fleets = plan["fleets"]
    assert isinstance(fleets, list)
    values = document(out / "servers.yaml")["pools"]
    gpus = sum(
        pool["replicas"] * int(re.findall(r"--tensor-parallel-size (\d+)", " ".join(pool["vllm"]["args"]))[0])
        for pool in values
    )
    assert f": {gpus} GPUs" in sentence
    assert gpus in [fleet["cost"]["gpus"] for fleet in fleets]


def test_the_routers_configuration_is_one_that_it_reads(planned: tuple[dict[str, object], Path]) -> None:
    """dualpool.yaml loads, and its thresholds do not exceed the max_model_len of their pools."""
    _, out = planned
    if not (out / "dualpool.yaml").exists():
        assert len(list(out.glob("vllm-*.args"))) == 1, "one pool needs no router"
        return
    pools = load(out / "dualpool.yaml").pools
    for pool in pools:
        args = (out / f"vllm-{pool.name}.args").read_text()
        assert int(re.findall(r"--max-model-len (\d+)", args)[0]) >= pool.max_budget_tokens


def test_no_file_of_an_earlier_plan_is_left(planned: tuple[dict[str, object], Path]) -> None:
    """An earlier plan's files would contradict this plan; files that no plan wrote stay."""
    _, out = planned
    assert not (out / "sglang-medium.args").exists()
    assert (out / "notes.txt").exists()


def test_envoys_limits_leave_refusing_to_the_engine(planned: tuple[dict[str, object], Path]) -> None:
    """No circuit breaker is below that of the files of envoy/, however few sequences the instances run."""
    _, out = planned
    for cluster in document(out / "envoy.yaml")["clusters"]:
        limits = cluster["circuit_breakers"]["thresholds"][0]
        assert limits["max_requests"] == limits["max_connections"] == limits["max_pending_requests"] >= 8_192


@pytest.mark.parametrize(("rate", "short", "long"), [(10, 8_192, 16_384), (10_000, 600_160, 1_200_180)])
def test_the_largest_pool_takes_all_requests_while_the_router_is_down(rate: int, short: int, long: int) -> None:
    """Its limit is the sum of all; those that may wait 30 s within the objective fit a pool of few sequences."""
    pools = [_Pool(name, 0, 0, 1, "gpu", may_run, ()) for name, may_run in (("short", 160), ("long", 20))]
    assert _in_flight(pools, 30 * rate) == [short, long]


def test_envoy_balances_as_the_plan_did(planned: tuple[dict[str, object], Path]) -> None:
    """A plan that simulated a full scan of the instances does not configure Envoy to compare only two of them."""
    plan, out = planned
    assert plan["balancing"] == "LEAST_REQUEST, FULL_SCAN"
    for cluster in document(out / "envoy.yaml")["clusters"]:
        (policy,) = cluster["load_balancing_policy"]["policies"]
        chosen = policy["typed_extension_config"]["typed_config"]
        assert chosen["selection_method"] == "FULL_SCAN"
        assert chosen["@type"].endswith(".least_request.v3.LeastRequest")
        assert "lb_policy" not in cluster


@example("[sxm] h100: 80g")
@example("#2")
@given(st.text(st.characters(exclude_categories=["C", "Z"])))
def test_a_gpu_of_any_name_is_named_in_the_servers_file(name: str) -> None:
    """A catalogue's names may have what YAML reads as a comment, a list or a mapping."""
    written: Any = read_document(_servers([_Pool("all", 8_192, 8_192, 2, name, 1_024, ())], "vllm"))
    assert [name] == [pool["gpu"] for pool in written["pools"]]


def test_files_need_a_simulation(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The cost model alone makes no recommendation that could be applied."""
    monkeypatch.setattr(command_line, "COMMANDS", ("plan",))
    refused = refusal_of(["--mean-tokens", "500,100", "--rate", "9", "--apply", "out"], capsys)
    assert "--apply out: is only used with --simulate" in refused
