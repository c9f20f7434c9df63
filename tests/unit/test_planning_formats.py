"""Trace formats of other projects, gzipped or not, and the share that a prefix cache holds."""

import gzip
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from extproc.core.errors import ConfigurationError
from extproc.planning.workload.inputs import load_traces
from extproc.planning.workload.lengths import LeftOut, Lengths
from extproc.planning.workload.options import WorkloadOptions, workload_of

MOONCAKE = [
    {"timestamp": 0, "input_length": 1500, "output_length": 10, "hash_ids": [1, 2, 3]},
    {"timestamp": 3000, "input_length": 1100, "output_length": 20, "hash_ids": [1, 2, 9]},
    {"timestamp": 4500, "input_length": 1024, "output_length": 5, "hash_ids": [1, 2]},
]
BURST_GPT = (
    "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,x,472,18,490,log\n8,x,9,1,10,log\n"
)
SERVE_GEN = "request_id,timestamp,input_tokens,output_tokens\n0,1.5,100,7\n1,2.0,200,8\n"
LOG = {"time": "2026-01-02T03:04:05.678Z", "pool": "short", "estimate": 900, "prompt_tokens": 640.0, "status": 200}


def load(tmp_path: Path, text: str, name: str = "t") -> Lengths:
    """Write a file and read it as a trace."""
    path = tmp_path / name
    path.write_text(text)
    return load_traces([str(path)])


def lines(rows: list[dict[str, object]]) -> str:
    """Return JSON lines."""
    return "\n".join(map(json.dumps, rows))


def test_mooncake_has_milliseconds_and_prefixes(tmp_path: Path) -> None:
    """Times become seconds; blocks seen in an earlier prompt are cached, but never the last token."""
    lengths = load(tmp_path, lines(MOONCAKE))
    assert [1500, 1100, 1024] == lengths.prompt.tolist()
    assert lengths.arrival_s is not None
    assert [0.0, 3.0, 4.5] == lengths.arrival_s.tolist()
    assert lengths.cached is not None
    assert [0, 1024, 1008] == lengths.cached.tolist()


@pytest.mark.parametrize(
    ("text", "prompt", "output", "times"),
    [
        (BURST_GPT, [472, 9], [18, 1], [0.0, 3.0]),
        (SERVE_GEN, [100, 200], [7, 8], [0.0, 0.5]),
        ('{"prompt_tokens": 12, "completion_tokens": 3}\n', [12], [3], None),
        ('{"input_lens": [5, 6], "output_lens": [1, 2], "ttfts": [0.1, 0.2]}', [5, 6], [1, 2], None),
        (json.dumps(LOG), [640], [260], [0.0]),
    ],
    ids=["BurstGPT", "ServeGen", "usage", "benchmark_serving", "access log"],
)  # fmt: skip
def test_formats_are_recognised_by_their_names(
    tmp_path: Path, text: str, prompt: list[int], output: list[int], times: list[float] | None
) -> None:
    """The names of columns and keys decide, not their order."""
    lengths = load(tmp_path, text)
    assert (prompt, output) == (lengths.prompt.tolist(), lengths.output.tolist())
    assert times == (None if lengths.arrival_s is None else lengths.arrival_s.tolist())


@pytest.mark.parametrize("text", ['{"cdf": [[512, 0.25], [1024, 1.0]]}', "[[512, 0.25],\n [1024, 1.0]]"])
def test_a_cdf_of_totals_is_divided_as_fleet_sim_does(tmp_path: Path, text: str) -> None:
    """Four fifths of each total are taken as the prompt, and the note says so."""
    lengths = load(tmp_path, text)
    assert lengths.total.max() <= 1025
    assert np.mean(lengths.prompt <= 410) == pytest.approx(0.25, abs=0.01)
    assert "80% of each is taken as the prompt" in lengths.note


def test_a_gzipped_trace_is_read(tmp_path: Path) -> None:
    """It is recognised and unpacked."""
    path = tmp_path / "t.jsonl.gz"
    path.write_bytes(gzip.compress(lines(MOONCAKE).encode()))
    assert len(load_traces([str(path)])) == 3


def test_a_broken_archive_is_refused_in_one_sentence(tmp_path: Path) -> None:
    """For a file that is not gzip or ends early, the error names the file."""
    path = tmp_path / "t.jsonl.gz"
    for data in (b"no archive", gzip.compress(lines(MOONCAKE).encode())[:-12]):
        path.write_bytes(data)
        with pytest.raises(ConfigurationError, match=r"t\.jsonl\.gz"):
            load_traces([str(path)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"cdf": [[512, 1.0]]}', "1 point"),
        ('{"input_lens": [5], "output_lens": []}', "of one length"),
        ('[["a", 1]]', "Expected"),
        ("time,tokens\n1,2\n", "line 1 is"),
        ("input_tokens,output_tokens\n1\n", "1 columns"),
        ('{"input_lens": [99999999999999999999], "output_lens": [1]}', "t: "),
    ],
)
def test_a_malformed_trace_is_refused_in_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    """Too few points, lists of different lengths, missing cells."""
    with pytest.raises(ConfigurationError, match=message) as refused:
        load(tmp_path, text)
    assert "\n" not in str(refused.value)


def test_a_stated_share_is_cached_in_whole_blocks(tmp_path: Path) -> None:
    """A third of a prompt of 1,500 tokens is 31 blocks of 16; the rest is computed."""
    path = tmp_path / "t"
    path.write_text(lines(MOONCAKE))
    lengths, _ = workload_of(WorkloadOptions(trace=(str(path),), rate=1.0, prefix_cache="0.333"))
    assert lengths.cached is not None
    assert [496, 352, 336] == lengths.cached.tolist()
    assert [1004, 748, 688] == lengths.computed.tolist()


def test_the_real_mooncake_trace_has_its_known_share_of_prefixes() -> None:
    """37.4 % of the prompt tokens of its 12,031 conversations are in blocks that were seen before."""
    path = Path(os.environ.get("DUALPOOL_DATA", "")) / "mooncake" / "conversation_trace.jsonl"
    if not path.exists():
        pytest.skip(f"the Mooncake trace is not at {path} (set DUALPOOL_DATA)")
    lengths, _ = workload_of(WorkloadOptions(trace=(str(path),), rate=1.0, prefix_cache="trace"))
    assert lengths.cached is not None
    assert 12_031 == len(lengths)
    assert lengths.cached.sum() / lengths.prompt.sum() == pytest.approx(0.3736, abs=1e-4)
    assert (lengths.cached < lengths.prompt).all()


@pytest.mark.parametrize("asked", ["1", "-0.1", "nan", "much", "trace"])
def test_an_impossible_share_is_refused(tmp_path: Path, asked: str) -> None:
    """Shares are from 0 to below 1; `trace` needs hash_ids."""
    path = tmp_path / "t"
    path.write_text('{"input_tokens": 5, "output_tokens": 5}\n')
    with pytest.raises(ConfigurationError, match="--prefix-cache"):
        workload_of(WorkloadOptions(trace=(str(path),), rate=1.0, prefix_cache=asked))


QUOTED = (
    '"GeneratedTokens","Model, its name","ContextTokens","TIMESTAMP"\n"7","a, b","100","1.5"\n"8","c","200","2"\n'
)
AS_FLOATS = "Timestamp,Request tokens,Response tokens\n1.5,100.0,7.0\n2.0,200.0,8.0\n"
WITH_ZONES = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    "2024-05-10 00:00:00+00:00,100,7\n2024-05-10 00:00:00.500000+00:00,200,8\n"
)
JSON_DATES = (
    '{"timestamp": "2024-05-10T02:00:00+02:00", "input_tokens": 100.0, "output_tokens": 7}\n'
    '{"timestamp": "2024-05-10T00:00:00.5", "input_tokens": 200, "output_tokens": 8}\n'
)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo"])
@pytest.mark.parametrize(
    "text",
    [QUOTED, AS_FLOATS, WITH_ZONES, JSON_DATES, "\ufeff" + SERVE_GEN, "\n\r\n" + SERVE_GEN.replace("\n", "\r\n")],
)
def test_variants_that_other_programs_write_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, zone: str
) -> None:
    """Quoted cells, tokens as 100.0, dates with and without a zone or a fraction, empty lines and Windows line
    ends are read the same in any time zone.
    """
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        lengths = load(tmp_path, text)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert ([100, 200], [7, 8]) == (lengths.prompt.tolist(), lengths.output.tolist())
    assert lengths.arrival_s is not None
    assert [0.0, 0.5] == lengths.arrival_s.tolist()


@pytest.mark.parametrize(("name", "packed"), [("t.csv", True), ("t.csv.gz", False)])
def test_an_archive_is_recognised_by_its_bytes(tmp_path: Path, *, name: str, packed: bool) -> None:
    """A gzipped file without the suffix is unpacked; a plain file with the suffix is read as it is."""
    path = tmp_path / name
    path.write_bytes(gzip.compress(SERVE_GEN.encode()) if packed else SERVE_GEN.encode())
    assert [100, 200] == load_traces([str(path)]).prompt.tolist()


def test_a_benchmark_may_be_one_long_line(tmp_path: Path) -> None:
    """benchmark_serving writes the lengths, texts and times of all requests into one line."""
    saved = {"date": "x", "input_lens": [5, 6], "output_lens": [1, 2], "generated_texts": ["word " * 300_000, ""]}
    assert [5, 6] == load(tmp_path, json.dumps(saved)).prompt.tolist()


def test_a_benchmark_without_lengths_says_what_it_lacks(tmp_path: Path) -> None:
    """Without --save-detailed there is nothing to plan from."""
    with pytest.raises(ConfigurationError, match="--save-detailed"):
        load(tmp_path, '{"completed": 5, "total_input_tokens": 99}')


def test_undecided_requests_are_left_out_of_an_access_log(tmp_path: Path) -> None:
    """Envoy writes null if the router was unreachable or set no metadata; these requests are counted."""
    lengths = load(tmp_path, lines([LOG | {"estimate": None, "prompt_tokens": None}, LOG]))
    assert [640] == lengths.prompt.tolist()
    assert LeftOut(0, 1, 2) == lengths.left_out


def test_mooncake_s_milliseconds_may_be_texts(tmp_path: Path) -> None:
    """A number in quotes is in the same unit as one without."""
    rows = [{**row, "timestamp": str(row["timestamp"])} for row in MOONCAKE]
    lengths = load(tmp_path, lines(rows))
    assert lengths.arrival_s is not None
    assert [0.0, 3.0, 4.5] == lengths.arrival_s.tolist()


@pytest.mark.parametrize("missing", ["null", "NaN"])
def test_a_trace_in_which_some_times_are_missing_has_none_and_says_so(tmp_path: Path, missing: str) -> None:
    """Whether the others are in order, and how far apart, is not known; lengths are those of all requests."""
    if missing == "null":
        text = "\n".join(
            f'{{"input_tokens": 5, "output_tokens": 2, "time": {time}}}' for time in ("1", "null", "3")
        )
    else:
        text = "time,input_tokens,output_tokens\n" + "".join(f"{time},5,2\n" for time in ("1", "NaN", "3"))
    lengths = load(tmp_path, text)
    assert (3, None) == (len(lengths), lengths.arrival_s)
    assert "1 of 3 requests of t have no time: the times of the others are not used." == lengths.note


def test_dates_of_mooncake_s_rows_are_not_milliseconds(tmp_path: Path) -> None:
    """A number is in milliseconds, as in Mooncake's traces; a date is a date."""
    for times, span_s in ((("2024-01-01T00:00:00Z", "2024-01-01T01:00:00Z"), 3_600), ((0, 3_600), 3.6)):
        rows: list[dict[str, object]] = [
            {"timestamp": time, "input_length": 5, "output_length": 2} for time in times
        ]
        arrival_s = load(tmp_path, lines(rows)).arrival_s
        assert arrival_s is not None
        assert span_s == pytest.approx(arrival_s[-1])


@pytest.mark.parametrize(
    "header", ["fraction,input_tokens,output_tokens", '"Fraction","Input_Tokens","Output_Tokens"']
)
def test_the_header_of_a_cdf_may_be_quoted_and_capitalised(header: str, tmp_path: Path) -> None:
    """Its points are quantiles, not requests."""
    lengths = load(tmp_path, f'{header}\n0.5,"100",10\n1,1000,100\n')
    assert len(lengths.prompt) == 100_000


def test_an_access_log_of_undecided_requests_only_is_refused(tmp_path: Path) -> None:
    """It has nothing to plan from."""
    with pytest.raises(ConfigurationError, match="it has no requests"):
        load(tmp_path, lines([LOG | {"estimate": None}]))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1,7.5,3", "'7.5' is not a whole number of tokens"),
        ("1,nan,3", "'nan' is not a number of tokens"),
        ("1,,3", "'' is not a number of tokens .leave out rows of requests that failed"),
        ('1,"7,3', "unexpected end of data: quotes must end on their line"),
        ("1700000000000,7,3", "not milliseconds"),
    ],
)
def test_a_wrong_cell_names_its_line(tmp_path: Path, row: str, message: str) -> None:
    """Fractions of tokens, cells that are not numbers, an open quote, times in another unit."""
    with pytest.raises(ConfigurationError, match=message) as refused:
        load(tmp_path, f"\ntimestamp,input_tokens,output_tokens\n{row}\n")
    assert "line 3" in str(refused.value)
