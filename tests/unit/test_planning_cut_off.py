"""Trace files that end too early, as after an interrupted copy: the error says so, not that they are unknown."""

import gzip
import json
from pathlib import Path

import pytest

from extproc.core.errors import ConfigurationError
from extproc.planning.workload.inputs import load_traces

BENCHMARK = {"date": "x", "backend": "vllm", "input_lens": [15, 6], "output_lens": [10, 2], "ttfts": [0.15, 0.2]}
CDF = {"name": "x", "cdf": [[512, 0.25], [1024, 1.0]]}
WRITTEN = [
    json.dumps(BENCHMARK, indent=4),
    json.dumps(BENCHMARK),
    json.dumps(BENCHMARK).replace(', "backend"', ',\n"backend"'),
    json.dumps(CDF, indent=1),
    json.dumps(CDF),
    json.dumps(CDF["cdf"], indent=1),
    json.dumps(CDF["cdf"]),
]
ROWS = "\n".join(json.dumps({"input_tokens": each, "output_tokens": 5}) for each in (15, 6))


def refusal(path: Path, data: bytes) -> str:
    """Write a file, expect that it is refused as a trace, and return the sentence."""
    path.write_bytes(data)
    with pytest.raises(ConfigurationError) as refused:
        load_traces([str(path)])
    return str(refused.value)


@pytest.mark.parametrize("text", WRITTEN)
def test_a_document_cut_anywhere_is_said_to_end_too_early(text: str, tmp_path: Path) -> None:
    """However it is written and wherever it is cut, the sentence names the file and that it ends too early."""
    for kept in range(1, len(text)):
        said = refusal(tmp_path / "t.json", text[:kept].encode())
        assert "t.json: the file ends too early: the JSON that begins in line 1 is not complete" == said, kept


@pytest.mark.parametrize("text", WRITTEN)
def test_a_whole_document_is_read_however_it_is_written(text: str, tmp_path: Path) -> None:
    """On one line, indented, or with its first key alone on the first line."""
    (tmp_path / "t.json").write_text(text)
    assert len(load_traces([str(tmp_path / "t.json")])) in {2, 100_000}


def test_json_lines_that_are_cut_name_the_line(tmp_path: Path) -> None:
    """In the last line it is the file that ends too early, elsewhere the line."""
    for kept in range(ROWS.index("\n") + 2, len(ROWS)):
        said = refusal(tmp_path / "t.jsonl", ROWS[:kept].encode())
        assert said.startswith("t.jsonl: line 2: '{")
        assert said.endswith(": the file ends too early: the JSON of its last line is not complete")
    said = refusal(tmp_path / "t.jsonl", (ROWS + '\n{"input_tok\n' + ROWS).encode())
    assert "t.jsonl: line 3: '{\"input_tok': the JSON of this line is not complete" == said
    said = refusal(tmp_path / "t.jsonl", ('{"input_tok\n' + ROWS).encode())
    assert said.startswith("t.jsonl: the JSON that begins in line 1: JSON is malformed")


def test_a_cut_archive_is_said_to_end_too_early(tmp_path: Path) -> None:
    """Wherever it is cut: an archive says by itself where it ends."""
    packed = gzip.compress(WRITTEN[0].encode())
    for kept in range(2, len(packed)):
        said = refusal(tmp_path / "t.gz", packed[:kept])
        assert f"{tmp_path}/t.gz: the file ends too early: the rest of the gzip archive is missing" == said, kept


@pytest.mark.parametrize("data", [b"", b"\n \r\n", gzip.compress(b"", mtime=0), "\ufeff".encode()])
def test_a_file_without_anything_in_it_is_said_to_be_empty(data: bytes, tmp_path: Path) -> None:
    """Packed or not, with blank lines or a byte order mark."""
    assert refusal(tmp_path / "t", data).startswith("t: empty; known are CSV")
