"""The command `dualpool plan`: recommendation, JSON, cache, and each
bad input as one sentence with exit code 2.
"""

import json
import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from extproc.cli import main as command_line
from tests.unit.planning_command import HEADER, write_trace

Run = Callable[..., tuple[int, str, str]]
SMALL = ("--model", "llama-3-8b", "--gpu", "h100-80g")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Return a function that runs `dualpool plan` with a separate cache
    and returns exit code, output and errors.
    """
    monkeypatch.setattr(command_line, "COMMANDS", ("plan",))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def plan(*arguments: str | float | Path) -> tuple[int, str, str]:
        code = command_line.main(["plan", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return plan


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Write a trace of short requests with some long ones, at one request a second."""
    return write_trace(tmp_path / "trace.csv")


def test_a_plan_ends_with_a_recommendation(run: Run, trace: Path) -> None:
    """The last lines say what to do, with the sizes of both fleets."""
    code, out, _ = run("--trace", trace, "--rate", 200, *SMALL)
    last = " ".join(out.split("Sensitivity")[1].split())
    assert code == 0
    assert "keep one pool of" in last or "two pools at" in last
    assert "vs right" in out


def test_two_pools_are_recommended_if_they_pay(run: Run, trace: Path) -> None:
    """With the paper's rates, the sentence names threshold, sizes,
    dollars, and the rate from which two pools pay.
    """
    _, out, _ = run("--trace", trace, "--rate", 1000, "--measured", "2.8,11.2,2.8")
    sentence = " ".join(" ".join(out.splitlines()[-2:]).split())
    assert "two pools at" in sentence
    assert "instead of 1436 GPUs, saves $" in sentence
    assert "req/s keep one pool" in sentence
    assert "Measured rates are used at every threshold" in " ".join(out.split())


def test_a_saving_of_zero_has_no_minus_sign(run: Run, trace: Path) -> None:
    """A marginally slower short pool loses three thousandths of a per cent, printed as +0.0%."""
    _, out, _ = run("--trace", trace, "--rate", 1000, "--measured", "2.8,2.7999,2.8")
    assert "+0.0%" in out
    assert "-0.0%" not in out


def test_help_states_the_defaults(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Each option that has a default states it."""
    monkeypatch.setattr(command_line, "COMMANDS", ("plan",))
    monkeypatch.setenv("COLUMNS", "300")
    with pytest.raises(SystemExit):
        command_line.main(["plan", "--help"])
    options = capsys.readouterr().out.split("\n  --")[1:]
    texts = {each.replace(",", " ").split()[0]: each for each in options}
    defaults = vars(command_line._parser(["plan", "--help"]).parse_args(["plan"]))
    named = {name: value for name, value in defaults.items() if value and name not in {"command", "what", "run"}}
    assert len(named) > 10
    without = [name for name in named if name != "defaults" and "default" not in texts[name.replace("_", "-")]]
    assert [] == without


def test_json_holds_the_whole_plan(run: Run, trace: Path) -> None:
    """Standard output is one JSON object with the analysis of each rule and the recommendation."""
    _, out, _ = run("--trace", trace, "--rate", 50, "--ttft", 5, "--json")
    plan = json.loads(out)
    assert {"analysis", "sensitivity", "fleets", "recommendation", "workload"} <= plan.keys()
    assert [one["rule"] for one in plan["sensitivity"]] == ["truth", "1.5x", "1024", "4096", "none"]
    assert plan["workload"]["requests"] == 600


def test_a_simulation_is_cached_by_its_inputs(run: Run, trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same question is not simulated twice; another number of seeds is another question."""
    question: list[str | int | Path] = [
        "--trace",
        trace,
        "--rate",
        20,
        *SMALL,
    ]
    question += (
        "--simulate",
        "--tune",
        "none",
        "--router",
        "oracle",
        "--requests",
        2000,
        "--seeds",
        1,
        "--threshold",
        2048,
        "--json",
    )
    _, first, progress = run(*question)
    # Standard error is not a terminal here, so each finished design has its own line.
    assert ["simulating: 1 of 3 done", "simulating: 3 of 3 done"] == [
        line[:23] for line in progress.splitlines() if line[:13] in {"simulating: 1", "simulating: 3"}
    ]

    def never(*_: object) -> None:
        pytest.fail("simulated again")

    monkeypatch.setattr("extproc.planning.simulation.runner.smallest_fleets", never)
    _, second, _ = run(*question)

    assert json.loads(first) == json.loads(second)
    names = [fleet["design"]["name"] for fleet in json.loads(first)["fleets"]]
    assert names == ["one pool of 65,536", "one pool of 16,384", "two pools at 2,048"]


@pytest.mark.parametrize(
    "question",
    [
        "--mean-tokens 9000,400 --rate 4 --threshold 16384 --tune none",
        "--mean-tokens 3000,40 --rate 1 --threshold 4096 --tune parallelism --long-context 32768",
    ],
)
def test_measured_rates_change_nothing_that_is_simulated(run: Run, question: str) -> None:
    """They are the cost model's; instances and batches of the simulated fleets are chosen by iteration times."""
    options = "--model llama-3-8b --gpu l40s --ttft 30 --times roofline --simulate --router oracle --requests 2000"
    asked = [*question.split(), *options.split(), "--json"]
    plain, rated = (json.loads(run(*asked, *rates)[1]) for rates in ([], ["--measured", ".5,1,.3"]))
    assert plain["analysis"]["long"]["rate_per_instance"] != rated["analysis"]["long"]["rate_per_instance"]
    assert (plain["searched"], plain["fleets"]) == (rated["searched"], rated["fleets"])


def test_a_given_threshold_that_leaves_a_pool_empty_is_named(run: Run, trace: Path) -> None:
    """Two pools are not simulated where one would get no requests; a note names the thresholds asked for."""
    options = "--simulate --tune parallelism --router oracle --requests 2000 --times roofline --threshold 64 2048"
    _, out, _ = run("--trace", trace, "--rate", 5, *SMALL, *options.split(), "--json")
    plan = json.loads(out)
    assert [[65_536], [65_536], [2_048, 65_536]] == [fleet["design"]["contexts"] for fleet in plan["fleets"]]
    notes = [note for note in plan["notes"] if "not simulated" in note]
    assert ["Two pools at 64 are not simulated: one of them gets fewer than 20 of the requests"] == [
        note.partition(", or")[0] for note in notes
    ]


def test_brackets_in_the_names_of_profiles_are_printed_as_they_are(run: Run, tmp_path: Path) -> None:
    """They are no styles of the terminal's, which would swallow them or end the command."""
    gpu = "memory_gb: 80, bandwidth_gb_s: 2000, bf16_tflops: 300, link_gb_s: 300, price_usd_h: "
    (tmp_path / "mine.yaml").write_text(f"gpus: {{'dear[/x]': {{{gpu}9}}, 'cheap[sxm]': {{{gpu}1}}}}")
    options = "--model llama-3-8b --rate 2 --simulate --tune parallelism --router oracle --requests 2000"
    question = ["--mean-tokens", "90,5", *options.split(), "--threshold", 512, "--long-context", 2048]
    gpus = ["--gpu", "dear[/x]", "cheap[sxm]", "--catalogue", tmp_path / "mine.yaml"]
    code, out, _ = run(*question, *gpus)
    assert (code, "2 x 1 cheap[sxm] GPUs" in " ".join(out.split())) == (0, True)


def test_simulated_fleets_are_priced_with_their_spares(run: Run, trace: Path) -> None:
    """The table and the JSON give GPUs, GPU-hours and dollars per year, which include one spare for each pool."""
    question: list[str | int | Path] = [
        "--trace",
        trace,
        "--rate",
        20,
        *SMALL,
    ]
    question += (
        "--simulate",
        "--tune",
        "none",
        "--router",
        "oracle",
        "--requests",
        2000,
        "--seeds",
        1,
        "--threshold",
        2048,
        "--price",
        2,
    )
    two = json.loads(run(*question, "--json")[1])["fleets"][-1]
    cost, sizes = two["cost"], two["typical"]["instances"]

    assert cost["instances"] == [size + 1 for size in sizes]
    assert cost["gpus"] == sum(sizes) + 2
    assert cost["gpu_hours_per_year"] == cost["gpus"] * 8760
    assert cost["usd_per_year"] == cost["gpus"] * 8760 * 2

    _, out, _ = run(*question)
    simulated = out.split("Simulated: the smallest fleets", 1)[1]
    row = next(line for line in simulated.splitlines() if line.startswith("two pools at 2,048"))
    assert row.split()[-2:] == [f"{cost['gpu_hours_per_year']:,}", f"${cost['usd_per_year'] / 1e3:,.0f}K"]
    for column in ("GPU-h/year", "rejected", "truncated", "TTFT s", "P50 / P99"):
        assert column in simulated


def test_the_routers_own_estimator_is_in_the_loop_by_default(run: Run, trace: Path) -> None:
    """Byte classes rarely exceed their bound, the paper's mean is exceeded
    by one prompt in five, the truth never.
    """
    question: list[str | int | Path] = ["--trace", trace, "--rate", 20, "--model", "llama-3-8b"]
    question += (
        "--gpu",
        "h100-80g",
        "--simulate",
        "--tune",
        "none",
        "--requests",
        2000,
        "--seeds",
        1,
        "--threshold",
        2048,
        "--balance",
        "full-scan",
        "--json",
    )

    def under_counted(*more: str) -> float:
        two_pools = json.loads(run(*question, *more)[1])["fleets"][-1]
        return float(two_pools["typical"]["summary"]["under_counted"])

    default = under_counted()
    assert 0 < default < 0.05
    assert default == under_counted("--router", "byteclass")
    assert 0.1 < under_counted("--router", "ema")
    assert under_counted("--router", "oracle") == 0


def test_the_balancer_can_be_round_robin(run: Run, trace: Path) -> None:
    """Round robin needs at least as many instances as least request, and gives other results."""
    question: list[str | int | Path] = ["--trace", trace, "--rate", 40, "--model", "llama-3-8b"]
    question += (
        "--gpu",
        "h100-80g",
        "--simulate",
        "--tune",
        "none",
        "--router",
        "oracle",
        "--requests",
        2000,
        "--seeds",
        1,
        "--threshold",
        2048,
        "--json",
    )
    least = json.loads(run(*question)[1])["fleets"]
    turns = json.loads(run(*question, "--balance", "round-robin")[1])["fleets"]
    assert [fleet["design"] for fleet in turns] == [fleet["design"] for fleet in least]
    assert all(b["instances"] >= a["instances"] for a, b in zip(least, turns, strict=True))
    assert turns != least


def test_searches_over_processes_find_the_same_fleets(run: Run, trace: Path) -> None:
    """--jobs affects only the run time."""
    question: list[str | int | Path] = [
        "--trace",
        trace,
        "--rate",
        20,
        *SMALL,
    ]
    question += (
        "--simulate",
        "--tune",
        "none",
        "--router",
        "oracle",
        "--requests",
        2000,
        "--seeds",
        1,
        "--threshold",
        2048,
        "--json",
        "--cache",
        "none",
    )
    assert json.loads(run(*question)[1]) == json.loads(run(*question, "--jobs", 2)[1])


def test_users_add_profiles_of_their_own(run: Run, trace: Path, tmp_path: Path) -> None:
    """A file in the catalogue's format adds a GPU."""
    mine = tmp_path / "mine.yaml"
    mine.write_text("gpus: {mine: {memory_gb: 300, bandwidth_gb_s: 9000, bf16_tflops: 2000, link_gb_s: 900}}")
    code, out, _ = run("--trace", trace, "--rate", 50, "--gpu", "mine", "--catalogue", mine)
    assert code == 0
    assert "llama-3-70b on 1 x mine" in out
    assert "No price is known for this GPU" in out


def test_the_paper_without_its_trace_says_where_to_get_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the data, the command says what it needs."""
    monkeypatch.setenv("DUALPOOL_DATA", str(tmp_path))
    code, _, error = run("paper")
    assert code == 2
    assert "Azure/AzurePublicDataset" in error


def bad(tmp_path: Path, text: str) -> Path:
    """Write a malformed trace."""
    path = tmp_path / "bad.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "bad.csv: empty"),
        ("2023-11-16 18:15:46,374,44\n", "bad.csv: line 1 is"),
        ("TIMESTAMP,In,Out\n2023-11-16 18:15:46,374,44\n", "bad.csv: line 1 is"),
        (HEADER + "2023-11-16 18:15:46,-374,44\n", "bad.csv: line 2: -374 tokens are negative"),
    ],
)
def test_a_wrong_trace_exits_2_with_one_sentence(run: Run, tmp_path: Path, text: str, message: str) -> None:
    """Empty, headerless, wrong-column and negative traces give one line and no traceback."""
    expect_sentence(run("--trace", bad(tmp_path, text), "--rate", 10), message)


def test_a_gigabyte_exits_2_with_one_sentence(run: Run, tmp_path: Path) -> None:
    """A trace that is too large is refused before it is read."""
    path = bad(tmp_path, "")
    os.truncate(path, 2**30)
    expect_sentence(run("--trace", path, "--rate", 10), "bad.csv: 1,024 MiB; at most 256 MiB are read")


def test_a_report_without_matplotlib_is_refused_before_anything_runs(
    run: Run, trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plots are optional: without matplotlib --report says what to install."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for module in ("extproc.planning.output.plots", "extproc.planning.output.report"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    result = run("--trace", trace, "--rate", 9, "--report", tmp_path / "out")
    expect_sentence(result, "--report needs matplotlib: install dualpool[plots]")


def test_an_objective_that_no_fleet_meets_says_which_and_how_near(run: Run, trace: Path) -> None:
    """Prompts of 12,000 tokens cannot start within 100 ms with any number of instances."""
    arguments = (
        "--trace",
        trace,
        "--rate",
        20,
        *SMALL,
        "--tp",
        1,
        "--ttft",
        0.1,
    )
    for simulation in (
        (),
        ("--simulate", "--tune", "none", "--requests", 2000, "--seeds", 1, "--threshold", 2048),
    ):
        result = run(*arguments, *simulation)
        expect_sentence(
            result, "objective TTFT 0.1 s: no fleet of llama-3-8b on 1 x h100-80g meets it, the best is 0.3"
        )
        assert "the prefill of a prompt of 12,000 tokens" in result[2]


def test_more_gpus_are_taken_if_the_fewest_that_fit_are_too_slow(run: Run, trace: Path) -> None:
    """Without --tp, an instance is chosen that can meet the objective."""
    arguments = ("--trace", trace, "--rate", 20, *SMALL, "--ttft", 0.2)
    code, out, _ = run(*arguments)
    assert code == 0
    assert "llama-3-8b on 2 x h100-80g" in out


def test_the_objective_that_is_proposed_can_be_met(run: Run, trace: Path) -> None:
    """Its class ends where prompts are still fast enough."""
    arguments = ("--trace", trace, "--rate", 20, *SMALL, "--tp", 1)
    refused = run(*arguments, "--ttft", 0.1)
    proposed = refused[2].split("--objective '")[1].split("'")[0]
    # The times that were measured are shorter than those that are computed without the extra dualpool[measured].
    reached = 4096 if find_spec("aiconfigurator_core") else 2048
    assert proposed.startswith(f"<={reached}: ttft 0.1s; else: ")
    assert run(*arguments, "--objective", proposed)[0] == 0
    missed = run(*arguments, "--objective", "<=4096: ttft 1s; else: ttft 100ms")
    expect_sentence(missed, "objective TTFT 0.1 s of longer requests: no fleet of llama-3-8b on 1 x h100")


def test_requests_over_every_context_are_reported_without_simulating(run: Run, trace: Path) -> None:
    """A tenth of the requests does not fit the long context, so no fleet serves 99.9 % of them."""
    result = run("--trace", trace, "--rate", 20, "--long-context", 8192)
    expect_sentence(result, "objective success 99.90%: no fleet meets it, the best is 90.000%")
    assert "longer than 8,192 tokens (--long-context)" in result[2]


def test_an_objective_on_success_that_no_fleet_meets_says_how_near(run: Run, trace: Path) -> None:
    """Requests longer than the long context are refused by every fleet."""
    arguments = (
        "--trace",
        trace,
        "--rate",
        20,
        *SMALL,
        "--long-context",
        8192,
    )
    result = run(*arguments, "--simulate", "--tune", "none", "--requests", 2000, "--seeds", 1, "--threshold", 2048)
    expect_sentence(result, "objective success 99.90%: no fleet meets it, the best is")


def expect_sentence(result: tuple[int, str, str], message: str) -> None:
    """Check for exit code 2 and exactly one line that holds the message."""
    code, out, error = result
    assert (code, out) == (2, "")
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert "Traceback" not in error
