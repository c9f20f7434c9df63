"""Every number of a plan is the same in its sentence, tables, plots,
page, JSON and files.

The fleets are stated, not simulated: the tests cover everything that the command says about them.
"""

import base64
import html
import json
import re
from pathlib import Path
from typing import Any

import pytest

from extproc.config.loading import load
from extproc.documents import read_document
from tests.unit.planning_cases import CASES, LONG, PAGES, Said, asked

pytest.importorskip("matplotlib", reason="the report needs matplotlib")

# Helm refuses any other top-level key.
CHART = Path(__file__).parents[2] / "deploy" / "helm" / "dualpool" / "values.schema.json"
CHARTS_VALUES = json.loads(CHART.read_text())["properties"]


@pytest.mark.parametrize("case", CASES)
def test_every_number_of_a_plan_is_the_same_everywhere(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sizes, money, latencies, thresholds and flags are the same wherever the plan states them."""
    said = asked(case, tmp_path, monkeypatch)
    check_sizes_and_money(said)
    check_sentence(said)
    check_latencies_and_shares(said)
    check_cost_model(said)
    check_files(said)
    check_routers_file(said, tmp_path)
    if case in PAGES:
        check_page(said)


@pytest.mark.parametrize("case", ["two pools", "two pools that spill"])
def test_a_fleet_that_needs_to_spill_says_so(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files cannot turn spill on, because it needs addresses: the sentence says it, also in dualpool.yaml."""
    said = asked(case, tmp_path, monkeypatch)
    for text in (said.plan["recommendation"], said.files["dualpool.yaml"]):
        assert ("planned with --spill" in text) == (case == "two pools that spill")


@pytest.mark.parametrize(
    ("case", "kind"), [("two pools", "byteclass"), ("two pools by the paper's estimator", "ema")]
)
def test_the_router_estimates_as_the_plan_did(
    case: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fleet that was planned with another estimator than the router's default gets that one, in both files."""
    said = asked(case, tmp_path, monkeypatch)
    file = tmp_path / "router.yaml"
    file.write_text(said.files["dualpool.yaml"])
    assert load(file).estimator.kind == kind
    assert {"config": document(said.files["dualpool.yaml"])} == document(said.files["values.yaml"])


@pytest.mark.parametrize("case", ["two pools", "two pools by the oracle", "one pool"])
def test_the_oracle_is_said_not_to_be_the_router(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fleet that was planned with all lengths known is not that of the router in the files, which estimates."""
    said, known = asked(case, tmp_path, monkeypatch), case == "two pools by the oracle"
    assert known == any("--router byteclass shows it" in note for note in said.plan["notes"])
    for name in {"dualpool.yaml", "values.yaml"} & said.files.keys():
        assert known == ("# Planned with --router oracle" in said.files[name])


def money(usd: float | None) -> str:
    """Return dollars per year as the tables show them."""
    if usd is None:
        return "-"
    return f"${usd / 1e6:,.2f}M" if usd >= 1e6 else f"${usd / 1e3:,.0f}K"


def check_sizes_and_money(said: Said) -> None:
    """Each fleet's row on the terminal shows its cost from the JSON, which adds up."""
    spare = 1 if "spare(s)" in said.text else 0
    for fleet in said.plan["fleets"]:
        cost, setups = fleet["cost"], fleet["design"]["setups"]
        instances = [size + spare for size in fleet["typical"]["instances"]]
        each = [setup["instance"]["tensor_parallel"] for setup in setups]
        assert instances == cost["instances"]
        assert each == cost["gpus_per_instance"]
        assert sum(a * b for a, b in zip(instances, each, strict=True)) == cost["gpus"]
        assert 8760 * cost["gpus"] == cost["gpu_hours_per_year"]
        prices = [setup["price_usd_h"] for setup in setups]
        if None in prices:
            assert cost["usd_per_year"] is None
        else:
            hourly = sum(a * b * usd for a, b, usd in zip(instances, each, prices, strict=True))
            assert cost["usd_per_year"] == pytest.approx(8760 * hourly)
        assert size_row(fleet) in lines_of(said.text)


def size_row(fleet: dict[str, Any]) -> str:
    """Return a fleet's row in the table of sizes, from the JSON."""
    cost, hours = fleet["cost"], fleet["cost"]["gpu_hours_per_year"]
    gpu_hours = f"{hours / 1e6:,.2f}M" if hours >= 1e6 else f"{hours:,}"
    interval = f"{fleet['instances']:.1f} ± {fleet['half_width']:.1f}"
    interval += ", not steady" if fleet["not_steady"] else ""
    interval += ", not all judged" if fleet["not_judged"] else ""
    return (
        f"{fleet['design']['name']} {cost['shape']} {interval} {cost['gpus']:,} {gpu_hours} "
        f"{money(cost['usd_per_year'])}"
    )


def lines_of(text: str) -> set[str]:
    """Return the lines with runs of spaces collapsed."""
    return {" ".join(line.split()) for line in text.splitlines()}


def check_sentence(said: Said) -> None:
    """Terminal and JSON have the same sentence; its GPUs and dollars are those of the fleets."""
    sentence = said.plan["recommendation"]
    assert " ".join(said.text.split()).endswith(" ".join(sentence.split()))
    if not said.recommended:
        assert "no recommendation" in sentence
        return
    assert said.fleet["not_judged"] == re.findall(r"; not judged, too few requests: (.*)", sentence)
    fleets = {fleet["design"]["name"]: fleet["cost"] for fleet in said.plan["fleets"]}
    cost = said.fleet["cost"]
    assert f"{said.recommended} ({cost['shape']} GPUs" in sentence
    assert f"): {cost['gpus']} GPUs" in sentence
    stated_gpus = {int(n) for n in re.findall(r"(?:need|instead of|:) (\d+)", sentence)}
    assert stated_gpus <= {each["gpus"] for each in fleets.values()}
    if saved := re.search(r"instead of (\d+), saves \$([\d,]+)K", sentence):
        ones = [each for name, each in fleets.items() if name.startswith("one pool")]
        other = min(ones, key=lambda each: each["usd_per_year"])
        assert int(saved[1]) == other["gpus"]
        assert saved[2] == f"{(other['usd_per_year'] - cost['usd_per_year']) / 1e3:,.0f}"
    # A simulated fleet that is not steady still met the objective, and must not be described as missing it.
    kinds = {len(fleet["design"]["contexts"]) > 1 for fleet in said.plan["fleets"]}
    assert ("no two pools are known to meet" in sentence) == (True not in kinds)
    assert ("no single pool is known to meet" in sentence) == (False not in kinds)
    if "which cost" in sentence:
        assert case_costs_more(said, sentence)
    if said.plan["failure"] is not None:
        assert said.plan["failure"]["instances"] == cost["instances"]


def case_costs_more(said: Said, sentence: str) -> bool:
    """Return whether the extra dollars are those of two pools over the recommended fleet."""
    two = next(each["cost"] for each in said.plan["fleets"] if each["design"]["name"].startswith("two"))
    more = two["usd_per_year"] - said.fleet["cost"]["usd_per_year"]
    return two["gpus"] <= said.fleet["cost"]["gpus"] and f"which cost ${more / 1e3:,.0f}K a year more" in sentence


def check_latencies_and_shares(said: Said) -> None:
    """The table rows on latencies, preemptions and refusals show the summaries from the JSON."""
    for fleet in said.plan["fleets"]:
        assert set(service_rows(fleet)) <= lines_of(said.text)


def service_rows(fleet: dict[str, Any]) -> list[str]:
    """Return a fleet's rows in the tables of service, from the JSON."""
    did, name = fleet["typical"]["summary"], fleet["design"]["name"]
    felt, every = did["by_length"][0], did["all"]
    p99 = f"{felt['latency']['ttft_p99_s']:.2f} ± {felt['ttft_p99_half_s']:.2f}"
    served = (
        f"{name} {every['ttft_p50_s']:.2f} / {every['ttft_p99_s']:.2f} {every['tpot_p50_s'] * 1e3:.0f} / "
        f"{every['tpot_p99_s'] * 1e3:.0f} {did['preemptions_per_1000']:.1f} {did['misrouted']:.2%} "
        f"{did['rejected']:.2%} {did['truncated']:.2%}"
    )
    return [f"{name} {p99} / {felt['latency']['tpot_p99_s'] * 1e3:.0f}", served]


def check_cost_model(said: Said) -> None:
    """The text shows the instances, GPUs and dollars of the cost model's three fleets."""
    analysis, gpus = said.plan["analysis"], said.plan["gpus_per_instance"]
    ones = [(analysis[name], f"{analysis[name]['instances']:,}") for name in ("long", "right_sized")]
    best = analysis["best"]
    two = best | {"instances": best["short_instances"] + best["long_instances"]}
    for one, pools in (*ones, (two, f"{best['short_instances']} + {best['long_instances']}")):
        row_end = f" {pools} {one['instances'] * gpus:,} {money(one['usd_per_year'])}"
        assert any(line.endswith(row_end) for line in lines_of(said.text))


def check_files(said: Said) -> None:
    """Replicas, GPUs, thresholds and max_model_len in the files are those of the JSON."""
    if not said.recommended:
        assert {} == said.files
        return
    cost, design = said.fleet["cost"], said.fleet["design"]
    pools = document(said.files["servers.yaml"])["pools"]
    flags = [dict(zip(args[::2], args[1::2], strict=True)) for args in (pool["vllm"]["args"] for pool in pools)]
    assert cost["instances"] == [pool["replicas"] for pool in pools]
    assert cost["gpu_names"] == [pool["gpu"] for pool in pools]
    assert design["contexts"] == [pool["maxBudgetTokens"] for pool in pools]
    assert cost["gpus_per_instance"] == [int(each["--tensor-parallel-size"]) for each in flags]
    assert design["model_lens"] == [int(each["--max-model-len"]) for each in flags]
    for setup, each in zip(design["setups"], flags, strict=True):
        assert setup["long_prefill_tokens"] == int(each.get("--long-prefill-token-threshold", 0))
        if setup["long_prefill_tokens"]:
            assert f"--long-prefill-token-threshold {setup['long_prefill_tokens']}" in said.plan["recommendation"]
    clusters = document(said.files["envoy.yaml"])["clusters"]
    own = [
        max(8_192, 2 * pool["replicas"] * int(each["--max-num-seqs"]))
        for pool, each in zip(pools, flags, strict=True)
    ]
    for pool, cluster, most in zip(pools, clusters, [*own[:-1], sum(own)], strict=True):
        # Containers get each item as one word of the command line.
        assert pool["vllm"]["args"] == said.files[f"vllm-{pool['name']}.args"].split()
        assert f"pool_{pool['name']}" == cluster["name"]
        assert most == cluster["circuit_breakers"]["thresholds"][0]["max_requests"]


def document(text: str) -> Any:
    """Return the content of a YAML file."""
    return read_document(text)


def check_routers_file(said: Said, folder: Path) -> None:
    """dualpool.yaml has the sentence and the design's thresholds, and so have the
    chart's values. One pool needs no such file.
    """
    contexts = said.fleet["design"]["contexts"] if said.recommended else [LONG]
    if len(contexts) == 1:
        assert not {"dualpool.yaml", "values.yaml"} & said.files.keys()
        return
    path = folder / "dualpool.yaml"
    path.write_text(said.files["dualpool.yaml"])
    assert f"# {said.plan['recommendation']}" == said.files["dualpool.yaml"].splitlines()[0]
    pools = load(path).pools
    assert contexts == [pool.max_budget_tokens for pool in pools]
    assert said.fleet["design"]["model_lens"] == [pool.max_model_len for pool in pools]
    values = document(said.files["values.yaml"])
    assert {"config": document(said.files["dualpool.yaml"])} == values
    assert values.keys() <= CHARTS_VALUES.keys()


def check_page(said: Said) -> None:
    """The page has the sentence, the rows of all tables, and bars labelled with each fleet's GPUs."""
    assert html.escape(said.plan["recommendation"]) in said.page
    rows = {" ".join(row) for row in rows_of(said.page)}
    for fleet in said.plan["fleets"]:
        assert {size_row(fleet), *service_rows(fleet)} <= rows
    (image,) = re.findall(r'<h3>Fleet sizes</h3><img [^>]*base64,([^"]+)"', said.page)
    labels = re.findall(r"<!--\s+([\d,]+)\s+-->", base64.b64decode(image).decode())
    totals = [f"{fleet['cost']['gpus']:,}" for fleet in said.plan["fleets"]]
    assert totals == labels[-len(totals) :]


def rows_of(page: str) -> list[list[str]]:
    """Return the cells of all tables of the page."""
    return [
        [html.unescape(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row)]
        for row in re.findall(r"<tr>(.*?)</tr>", page)
    ]
