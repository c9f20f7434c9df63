"""Request lengths from traces, CDF points, means and a router's metrics;
invalid ones are refused in one sentence.
"""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server

from extproc.core.errors import ConfigurationError
from extproc.planning.workload import inputs
from extproc.planning.workload.declared import DeclaredRule, budgets, declared_tokens
from extproc.planning.workload.inputs import lengths_of_means, live_input, load_traces
from extproc.planning.workload.live import lengths_between, parse_scrape, rate_between
from extproc.planning.workload.traces import parse_trace

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
"""


def test_the_azure_csv_is_read_with_its_times() -> None:
    """Prompt, output and seconds since the first request come from the three columns."""
    lengths = parse_trace(AZURE.splitlines(), "azure.csv")

    assert lengths.prompt.tolist() == [374, 396]
    assert lengths.output.tolist() == [44, 109]
    assert lengths.arrival_s is not None
    assert lengths.arrival_s.tolist() == [0.0, pytest.approx(4.314579)]


def test_the_real_azure_trace_has_its_known_shares() -> None:
    """In the public 2023 trace, .7798, .8982 and .99996 of the requests
    have at most 2,048, 4,096 and 8,192 tokens.
    """
    data = Path(os.environ.get("DUALPOOL_DATA", "")) / "azure2023"
    files = [data / f"AzureLLMInferenceTrace_{part}.csv" for part in ("conv", "code")]
    if not all(file.exists() for file in files):
        pytest.skip(f"the Azure 2023 trace is not in {data} (set DUALPOOL_DATA)")
    lengths = load_traces([str(file) for file in files])

    shares = [round(float(np.mean(lengths.total <= limit)), 5) for limit in (2048, 4096, 8192)]

    assert (len(lengths), int(lengths.total.max())) == (28_185, 14_089)
    assert shares == [
        pytest.approx(0.7798, abs=5e-5),
        pytest.approx(0.8982, abs=5e-5),
        pytest.approx(0.99996, abs=5e-6),
    ]


def test_json_lines_are_read() -> None:
    """Lengths come from input_tokens and output_tokens; without timestamps there are no arrival times."""
    lengths = parse_trace(
        ['{"input_tokens": 7, "output_tokens": 3, "user": "x"}', "", '{"input_tokens": 9, "output_tokens": 1}'],
        "x",
    )
    assert (lengths.total.tolist(), lengths.arrival_s) == ([10, 10], None)


@pytest.mark.parametrize(
    "name", ["timestamp", "arrival_time", "time", "start_time", "startTime", "request_created_at", "created_at"]
)
def test_times_have_many_names(name: str) -> None:
    """Exports of other gateways have their own; they are the same for JSON lines and CSV."""
    row = {"prompt_tokens": 7, "completion_tokens": 3}
    lines = [json.dumps(row | {name: f"2026-11-16T18:15:{second}Z"}) for second in (20, 50)]
    cells = [f"prompt_tokens,completion_tokens,{name}", "7,3,2026-11-16 18:15:20", "7,3,2026-11-16 18:15:50"]
    for trace in (lines, cells):
        arrival_s = parse_trace(trace, "x").arrival_s
        assert arrival_s is not None
        assert arrival_s.tolist() == [0, 30]


def test_a_cdf_gives_lengths_with_its_quantiles() -> None:
    """Lengths drawn from CDF points have these points as their quantiles."""
    lengths = parse_trace(["fraction,input_tokens,output_tokens", "0,0,0", "0.5,100,10", "1,1000,20"], "cdf.csv")

    assert np.median(lengths.prompt) == pytest.approx(100, abs=1)
    assert lengths.output.max() == 20
    assert "paired at random" in lengths.note


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "t.csv: empty; known are CSV"),
        ("\n\n", "t.csv: empty"),
        (
            "2023-11-16 18:15:46.6805900,374,44\n",
            "t.csv: line 1 is '2023-11-16 18:15:46.6805900,374,44', no header with known columns",
        ),
        ("a,b,c\n1,2,3\n", "t.csv: line 1 is 'a,b,c', no header with known columns and no JSON object"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "t.csv: it has no requests"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,5\n", "t.csv: line 2: .* 2 columns"),
        (
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,5,x\n",
            "t.csv: line 2: .*'x' is not a number",
        ),
        (
            "TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,5,5\n",
            "t.csv: line 2: .*'yesterday' is neither seconds nor an ISO",
        ),
        (
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,-5,5\n",
            "t.csv: line 2: -5 tokens are negative",
        ),
        (
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,99999999999999999999,5\n",
            "t.csv: line 2: ",
        ),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,99999999999,5\n", "beyond 10,000,000"),
        (
            '[{"input_tokens": 5, "output_tokens": 5}]',
            "t.csv: .*line 1 is an array of objects: one object in each",
        ),
        ('[\n  {"input_tokens": 5, "output_tokens": 5}\n]', "line 1 is an array of objects"),
        (
            "input_tokens,output_tokens,num_model_requests\n10,5,1\n9000,50,7\n",
            "line 3: .*: the sum of 7 requests",
        ),
        ('{"input_tokens": 9000, "output_tokens": 50, "num_requests": 7}', "line 1: .*: the sum of 7 requests"),
        ("input_tokens,output_tokens,num_requests\n5,5\n", "line 2: .* 2 columns"),
        ('{"input_tokens": 5}\n', "t.csv: line 1: .*needs input_tokens and output_tokens"),
        ('{"prompt_tokens": null, "completion_tokens": null}', ".*leave out requests that failed"),
        ('{"input_tokens": 5, "output_tokens": 5}\n{"input\n', "t.csv: line 2"),
        ('{"a":' * 200_000, "t.csv: (line 1: .*recursion|the file ends too early)"),
        ("[" * 200_000, "t.csv: (.*recursion|.*Expected|the file ends too early)"),
        ("fraction,input_tokens,output_tokens\n0.4,4,4\n0.5,5,5\n", "must lie in 0..1 and end at 1"),
        ("fraction,input_tokens,output_tokens\n0.5,9,5\n1,5,5\n", "the input column of a CDF must ascend"),
        ("fraction,input_tokens,output_tokens\n", "at least 2 are needed"),
        ("fraction,input_tokens,output_tokens\n1,2\n", "line 2: '1,2': three numbers are needed"),
    ],
)
def test_a_malformed_trace_is_refused_in_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    """The error names the file, the line and what is wrong."""
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        load_traces([str(path)])


@pytest.mark.parametrize(
    "name",
    ["num_model_requests", "num_requests", "api_requests", "requests", "total_requests", "request_count"],
)
def test_rows_that_are_sums_of_several_requests_are_refused(name: str) -> None:
    """They would be taken for long requests; what is not a number under such a name is not a count."""
    row = {"prompt_tokens": 50_000, "completion_tokens": 900}
    for count in (1, 1.0, "1", None, "", "of a session", ["a"]):
        assert len(parse_trace([json.dumps(row | {name: count})], "x")) == 1
    for count in ("1", "1.0", " ", "of a session"):
        assert len(parse_trace([f"prompt_tokens,completion_tokens,{name}", f"50000,900,{count}"], "x")) == 1
    for count in (0, 5, 5.0, "5"):
        with pytest.raises(ConfigurationError, match=f"line 1: .* the sum of {count} requests"):
            parse_trace([json.dumps(row | {name: count})], "x")
        with pytest.raises(ConfigurationError, match=f"line 2: .* the sum of {count} requests"):
            parse_trace([f"prompt_tokens,completion_tokens,num_steps,{name}", f"50000,900,7,{count}"], "x")


def test_a_row_with_two_counts_is_a_sum_if_either_says_so() -> None:
    """Which of them a report fills is its own affair."""
    for counts in ((1, 5), (5, 1), (None, 5)):
        row = dict(zip(("num_model_requests", "requests"), counts, strict=True))
        with pytest.raises(ConfigurationError, match="the sum of 5 requests"):
            parse_trace([json.dumps(row | {"input_tokens": 9, "output_tokens": 1})], "x")
        cells = ",".join("" if count is None else str(count) for count in counts)
        with pytest.raises(ConfigurationError, match="the sum of 5 requests"):
            parse_trace(["num_model_requests,requests,input_tokens,output_tokens", f"{cells},9,1"], "x")


def test_a_trace_of_a_gigabyte_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """The error names the size, the limit and what to do."""
    path = tmp_path / "huge.csv"
    with path.open("wb") as file:
        os.truncate(file.fileno(), 2**30)  # sparse: takes no disk space
    with pytest.raises(
        ConfigurationError, match=r"huge.csv: 1,024 MiB; at most 256 MiB are read: a random sample"
    ):
        load_traces([str(path)])


def test_a_missing_or_binary_trace_is_refused(tmp_path: Path) -> None:
    """The error names the file and the reason."""
    with pytest.raises(ConfigurationError, match=r"nowhere.csv: No such file or directory"):
        load_traces([str(tmp_path / "nowhere.csv")])
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ConfigurationError, match=r"binary.csv: not UTF-8 text"):
        load_traces([str(tmp_path / "binary.csv")])


def test_several_traces_are_put_together_in_order_of_arrival(tmp_path: Path) -> None:
    """Two traces with arrival times are merged into one."""
    paths = [tmp_path / "a.csv", tmp_path / "b.csv"]
    for path in paths:
        path.write_text(AZURE)

    lengths = load_traces([str(path) for path in paths])

    assert lengths.prompt.tolist() == [374, 374, 396, 396]


def test_means_give_geometric_lengths() -> None:
    """The lengths have the given means, and the note says that tails are unknown."""
    lengths = lengths_of_means("69.5,214.5")
    assert lengths.prompt.mean() == pytest.approx(69.5, rel=0.02)
    assert lengths.output.mean() == pytest.approx(214.5, rel=0.02)
    assert "real tails are heavier" in lengths.note


@pytest.mark.parametrize("text", ["", "5", "a,b", "0,5", "1,2,3"])
def test_wrong_means_are_refused(text: str) -> None:
    """The error says what is needed."""
    with pytest.raises(ConfigurationError):
        lengths_of_means(text)


def scrape_text(short: int, long: int) -> str:
    """Return metrics of a router that saw `short` requests of 64..128 tokens and `long` of 4,096..6,144."""
    total = short + long
    rows = [f'dualpool_requests_total{{pool="short",reason="fits",api="chat",model="m"}} {total}']
    for name in ("prompt", "completion", "total"):
        for edge, count in ((64, 0), (128, short), (4096, short), (6144, total), ("+Inf", total)):
            rows.append(f'dualpool_actual_{name}_tokens_bucket{{model="m",le="{edge}"}} {count}')
        rows.append(f'dualpool_actual_{name}_tokens_count{{model="m"}} {total}')
        rows.append(f'dualpool_actual_{name}_tokens_sum{{model="m"}} {total}')
    return "\n".join(rows) + "\n"


def test_metrics_give_the_lengths_counted_between_two_scrapes() -> None:
    """Counts of the first scrape are subtracted; lengths are spread within their buckets."""
    first, second = parse_scrape(scrape_text(1000, 1000), "first"), parse_scrape(scrape_text(1900, 1100), "second")

    lengths = lengths_between(first, second)

    assert len(lengths) == 1000
    assert np.mean((lengths.prompt >= 64) & (lengths.prompt <= 128)) == pytest.approx(0.9, abs=0.01)
    assert lengths.prompt.max() <= 6144
    assert rate_between(first, second, 10.0) == pytest.approx(100)
    assert "paired to match the counted totals" in lengths.note


def test_one_model_of_several_is_planned_by_itself() -> None:
    """It has its own lengths and rate; without a name, all models are added up, and the plan says so."""
    mine = scrape_text(0, 1000)
    both = mine + scrape_text(3000, 0).replace('"m"', '"other"')
    text = "".join(sorted(both.splitlines(keepends=True)))
    second = parse_scrape(text, "second", "m")
    assert lengths_between(None, second).total.min() > 4000
    assert 1000 == second.requests
    together = parse_scrape(text, "second")
    assert 4000 == together.requests
    assert "2 models are planned as if they were one: other, m" in lengths_between(None, together).note
    with pytest.raises(ConfigurationError, match=r"no model 'gone'; it has 'other', 'm'$"):
        parse_scrape(text, "second", "gone")


def cumulative(name: str, counts: dict[int, int]) -> str:
    """Return a histogram in Prometheus text, from counts by upper bound."""
    rows, seen = [f"# TYPE {name} histogram"], 0
    for edge, count in counts.items():
        seen += count
        rows.append(f'{name}_bucket{{le="{edge}"}} {seen}')
    rows.append(f'{name}_bucket{{le="+Inf"}} {seen}')
    return "\n".join([*rows, f"{name}_count {seen}", f"{name}_sum 0"]) + "\n"


def test_pairs_have_the_totals_that_were_counted() -> None:
    """None of 656 requests took more than 4,096 tokens, so no pair does,
    whatever the separate histograms would allow.
    """
    text = (
        cumulative("dualpool_actual_prompt_tokens", {1024: 300, 2048: 0, 4096: 356})
        + cumulative("dualpool_actual_completion_tokens", {256: 400, 1024: 256})
        + cumulative("dualpool_actual_total_tokens", {1024: 250, 2048: 50, 4096: 356})
    )
    lengths = lengths_between(None, parse_scrape(text, "counted"))
    assert len(lengths) == 656
    assert lengths.total.max() <= 4096
    assert np.mean(lengths.total <= 1024) == pytest.approx(250 / 656, abs=0.12)  # spread evenly within buckets
    assert np.mean(lengths.total <= 2048) == pytest.approx(300 / 656, abs=0.02)
    assert np.mean(lengths.prompt <= 1024) == pytest.approx(300 / 656, abs=0.02)
    assert np.mean(lengths.output <= 256) == pytest.approx(400 / 656, abs=0.02)


def test_metrics_of_a_live_router_are_read_over_http() -> None:
    """The output of prometheus_client is read from an address, budgets included."""
    registry = CollectorRegistry()
    buckets = (64, 2048, 4096, 8192, 16384)
    names = ("actual_prompt", "actual_completion", "actual_total", "budget")
    histograms = [
        Histogram(f"dualpool_{name}_tokens", name, ["model"], registry=registry, buckets=buckets) for name in names
    ]
    for _ in range(300):
        for histogram, tokens in zip(histograms, (1000, 50, 1050, 5000), strict=True):
            histogram.labels("m").observe(tokens)
    server, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        live = live_input([f"http://127.0.0.1:{server.server_port}/metrics"], None)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

    assert (len(live.lengths), live.rate) == (300, None)
    assert "0.0% under 2,048, 0.0% under 4,096, 100.0% under 8,192" in live.lengths.note


def test_one_address_is_scraped_twice_for_a_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an interval, a router's address yields the requests handled in it and their rate, per second of the
    time that really passes between the two scrapes.
    """
    registry = CollectorRegistry()
    requests = Counter("dualpool_requests", "requests", registry=registry)
    names = ("actual_prompt", "actual_completion")
    histograms = [
        Histogram(f"dualpool_{name}_tokens", name, registry=registry, buckets=(64, 2048)) for name in names
    ]

    def answer(times: int) -> None:
        for _ in range(times):
            requests.inc()
            for histogram in histograms:
                histogram.observe(1000)

    clock = [100.0]

    def sleep(seconds: float) -> None:
        answer(30)
        clock[0] += seconds + 0.5  # for the first scrape, and a machine that is late

    monkeypatch.setattr(inputs, "time", SimpleNamespace(sleep=sleep, monotonic=lambda: clock[0]))
    answer(500)  # before the first scrape: not counted
    server, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        live = live_input([f"http://127.0.0.1:{server.server_port}/metrics"], 1.0)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

    assert (live.rate, len(live.lengths)) == (20.0, 30)


def test_metrics_from_files_give_rate_and_lengths(tmp_path: Path) -> None:
    """Two files and the seconds between them give a workload."""
    for name, short in (("a", 1000), ("b", 3000)):
        (tmp_path / name).write_text(scrape_text(short, 10))
    live = live_input([str(tmp_path / "a"), str(tmp_path / "b")], 100.0)
    assert (live.rate, len(live.lengths)) == (20.0, 2000)


def test_measured_budgets_decide_which_requests_are_short() -> None:
    """Alpha at a bucket's edge is the share of budgets below it, whatever the
    lengths; other rules ignore the budgets.
    """
    budgets_counted = ((128, 0), (4096, 300), (8192, 700), (16384, 1000), ("+Inf", 1000))
    rows = [f'dualpool_budget_tokens_bucket{{model="m",le="{edge}"}} {count}' for edge, count in budgets_counted]

    lengths = lengths_between(None, parse_scrape(scrape_text(1000, 0) + "\n".join(rows) + "\n", "m"))

    assert lengths.total.max() <= 256
    measured = budgets(lengths, DeclaredRule.TRUTH)
    assert [float(np.mean(measured <= edge)) for edge in (4096, 8192, 16384)] == [0.3, 0.7, 1.0]
    declared = declared_tokens(lengths, DeclaredRule.TRUTH)
    assert declared is not None
    assert 8192 < (lengths.prompt + declared).max() <= 16384
    assert budgets(lengths, DeclaredRule.FIXED_1024).max() <= 1.18 * 128 + 1 + 1024
    chosen = lengths.subset(measured <= 4096)
    assert chosen.budget is not None
    assert chosen.budget.max() <= 4096


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<html>no</html>", "not the Prometheus text of a router"),
        ('dualpool_actual_prompt_tokens_bucket{le="nan"} 1\n', "a bucket up to nan tokens"),
        ('dualpool_actual_prompt_tokens_bucket{le="5"} NaN\n', "a bucket that counts nan"),
        ('dualpool_actual_prompt_tokens_bucket{le="5"} -1\n', "a bucket that counts -1"),
        ("up 1\n", "dualpool_actual_prompt_tokens and dualpool_actual_completion_tokens is not in it"),
    ],
)
def test_metrics_of_something_else_are_refused(text: str, message: str) -> None:
    """The error names what is missing."""
    with pytest.raises(ConfigurationError, match=message):
        parse_scrape(text, "m")


def test_a_counter_that_decreased_gives_no_rate() -> None:
    """The numbers in the error distinguish a restarted router from an idle one."""
    first, second = parse_scrape(scrape_text(1000, 0), "first"), parse_scrape(scrape_text(10, 0), "second")
    with pytest.raises(ConfigurationError, match=r"went from 1000 to 10 in 10 s: the rate cannot be computed"):
        rate_between(first, second, 10.0)
