import io

import pytest
from rich.console import Console

from extproc.core.placing.policy import Pool
from extproc.demo.latency import Latency
from extproc.demo.outcomes import Logged, Outcome, summarise
from extproc.demo.screen import LiveTable, show_summary, show_try_it
from extproc.demo.workload import workload


@pytest.fixture
def console() -> Console:
    """Return a terminal of 80 columns that records its output."""
    return Console(width=80, file=io.StringIO(), record=True)


@pytest.fixture
def outcomes() -> list[Outcome]:
    """Return a run in which the short pool served everything, and the last request failed."""
    asks = workload(40, 65_536)
    served = [Outcome(ask, 200, pool="short", prompt_tokens=100) for ask in asks[:-1]]
    return [*served, Outcome(asks[-1], 503, pool="long", error="no healthy upstream")]


def test_the_live_table_fits_80_columns(console: Console, outcomes: list[Outcome]) -> None:
    """No kind, heading or ratio is cut off."""
    table = LiveTable(40)
    for outcome in outcomes:
        table.add(outcome)
    table.learned = {"cjk": 3.9, "indic": 2.8, "latin": 4.2, "markup": 3.4, "two_byte": 5.1}
    console.print(table)
    text = console.export_text()
    assert "…" not in text
    assert "near the limit" in text
    assert "short pool fails" in text
    assert "40 of 40 answered" in text


def test_the_summary_says_what_happened_in_words(console: Console, outcomes: list[Outcome]) -> None:
    """Counts, errors, ratios, latency and failures are all printed."""
    logged = {outcome.ask.number: Logged("fits", 700, 600) for outcome in outcomes}
    summary = summarise(outcomes, logged, {"latin": 4.2, "indic": 2.8}, Pool("short", 8192))
    show_summary(console, summary, Latency(without_router_ms=1.0, with_router_ms=2.5), 3.0)
    text = console.export_text()
    for words in (
        "40 requests in 3.0 s",
        "39 served by the short pool",
        "fits 40",
        "The likeliest count was 500% off at the median, 500% at p90",
        f"placed by an upper bound; prompts above it (under-counted): {summary.undercounted}.",
        "1.50 ms at the median",
        "503",
    ):
        assert words in " ".join(text.split()), words


def test_the_curl_line_can_be_pasted(console: Console) -> None:
    """The example command stays on one line, however narrow the terminal is."""
    show_try_it(console, "http://127.0.0.1:12345", "demo-model")
    line = next(line for line in console.export_text().splitlines() if "curl" in line)
    assert line.strip().startswith("curl -i http://127.0.0.1:12345/v1/chat/completions -H")
    assert line.rstrip().endswith("}'")
