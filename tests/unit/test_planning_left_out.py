"""Requests whose lengths a router's metrics or access log lack: they are counted, and notes say what follows."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from extproc.cli import main as command_line
from extproc.core.errors import ConfigurationError
from extproc.planning.workload.inputs import live_input, load_traces
from extproc.planning.workload.lengths import LeftOut
from extproc.planning.workload.traces import parse_trace

Plan = Callable[..., dict[str, Any]]
LOG = {
    "time": "2026-01-02T03:04:05.678Z",
    "pool": "short",
    "estimate": 900,
    "prompt_tokens": 640.0,
    "reason": "fits",
}
NOT_READ = LOG | {"pool": "long", "estimate": None, "prompt_tokens": None}
EARLY, NO_ROUTER = NOT_READ | {"reason": "early"}, NOT_READ | {"reason": None, "pool": None}
EARLY_NOTE = (
    "2 of 10 requests (20.0%) are left out because of their size: the router sent them to the largest pool early, "
    "before it had read them. They are longer than what fits any other pool. Where the plan's rate counts them, "
    "they are planned like the others: its largest pool is too small for them, and its long context may be."
)
UNDECIDED_NOTE = (
    "1 of 10 requests (10.0%) are left out because no router estimated them. They may have any length; "
    "where the plan's rate counts them, they are planned like the others."
)


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Plan:
    """Return a function that runs `dualpool plan` and returns its JSON."""
    monkeypatch.setattr(command_line, "COMMANDS", ("plan",))

    def made(*arguments: str) -> dict[str, Any]:
        assert 0 == command_line.main(["plan", *arguments, "--rate", "9", "--times", "roofline", "--json"])
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return made


def log(path: Path, *rows: dict[str, object]) -> str:
    """Write an access log; return its path."""
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def scrape(path: Path, read: int, early: int, late: int) -> str:
    """Write a scrape of a router that read the responses to all requests that it estimated; return its path."""
    rows = []
    for name in ("prompt", "completion", "total"):
        rows += [f'dualpool_actual_{name}_tokens_bucket{{model="m",le="{edge}"}} {read}' for edge in (64, "+Inf")]
        rows.append(f'dualpool_actual_{name}_tokens_count{{model="m"}} {read}')
    for pool, reason, model, count in (
        ("short", "fits", "m", read),
        ("long", "early", "", early),
        ("long", "deadline", "", late),
    ):
        rows.append(
            f'dualpool_requests_total{{pool="{pool}",reason="{reason}",api="chat",model="{model}"}} {count}'
        )
    path.write_text("\n".join(rows) + "\n")
    return str(path)


def test_a_plan_from_an_access_log_counts_what_it_leaves_out(plan: Plan, tmp_path: Path) -> None:
    """The JSON has the requests that were decided early and those without a decision; notes name the effect."""
    found = plan("--trace", log(tmp_path / "a.log", *[LOG] * 7, EARLY, EARLY, NO_ROUTER))
    assert {"early": 2, "undecided": 1, "requests": 10} == found["workload"]["left_out"]
    assert 7 == found["workload"]["requests"]
    assert {EARLY_NOTE, UNDECIDED_NOTE} <= set(found["notes"])


def test_a_plan_from_metrics_counts_what_it_leaves_out(plan: Plan, tmp_path: Path) -> None:
    """The histograms of lengths hold estimated requests only; the counter of requests holds the others, too."""
    found = plan("--metrics", scrape(tmp_path / "m", 7, 2, 1))
    assert {"early": 2, "undecided": 1, "requests": 10} == found["workload"]["left_out"]
    assert {EARLY_NOTE, UNDECIDED_NOTE} <= set(found["notes"])


def test_requests_before_the_first_scrape_are_not_counted(tmp_path: Path) -> None:
    """What is left out is counted between two scrapes, like the lengths."""
    first, second = scrape(tmp_path / "1", 100, 50, 30), scrape(tmp_path / "2", 107, 52, 31)
    assert LeftOut(2, 1, 10) == live_input([first, second], None).lengths.left_out


def test_requests_that_were_not_read_may_be_of_any_model(tmp_path: Path) -> None:
    """Their model is not known, so they count for each model that is planned by itself."""
    path = scrape(tmp_path / "m", 7, 2, 1)
    assert LeftOut(2, 1, 10) == live_input([path], None, "m").lengths.left_out


def test_several_logs_are_counted_together(tmp_path: Path) -> None:
    """Beside a trace that leaves nothing out, the shares are those of the logs."""
    plain = tmp_path / "t.csv"
    plain.write_text("input_tokens,output_tokens\n5,5\n")
    paths = [log(tmp_path / "a", LOG, EARLY), log(tmp_path / "b", LOG, NO_ROUTER), str(plain)]
    assert LeftOut(1, 1, 4) == load_traces(paths).left_out


def test_nothing_is_noted_where_nothing_is_left_out(plan: Plan, tmp_path: Path) -> None:
    """A log whose requests all have an estimate."""
    found = plan("--trace", log(tmp_path / "a.log", LOG, LOG))
    assert {"early": 0, "undecided": 0, "requests": 2} == found["workload"]["left_out"]
    assert not [note for note in found["notes"] if "left out" in note]


def test_envoys_own_lines_in_a_containers_log_are_no_rows() -> None:
    """The log of a container has both: what Envoy says of itself, also before the first request, is left out."""
    own = "[2026-11-29 22:36:02.754][16307][warning][main] [source/server/server.cc:1059] There is no limit"
    row = '{"estimate": 700, "prompt_tokens": 500, "reason": "fits", "time": "2026-11-29T22:36:03Z"}'
    lengths = parse_trace([own, row, own, row], "container.log")
    assert ([500, 500], 2) == (lengths.prompt.tolist(), lengths.left_out.requests)
    with pytest.raises(ConfigurationError, match=r"container\.log: line 2:"):
        parse_trace([row, "[2026-11-29 another log"], "container.log")
