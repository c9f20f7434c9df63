"""Invalid planner inputs of every kind: one sentence that names the input, exit code 2, at once."""

import gzip
import re
from pathlib import Path

import pytest

from extproc.cli import main as command_line
from tests.unit.planning_command import write_trace

CSV, CDF = "input_tokens,output_tokens\n", "fraction,input_tokens,output_tokens\n"
GPU = "memory_gb: 80, bandwidth_gb_s: 2000, bf16_tflops: 300, link_gb_s: 300"

# Contents of a trace, and a part of the error sentence.
TRACES: dict[str, tuple[str | bytes, str]] = {
    "no known column": ("a,b\n1,2\n", "line 1 is 'a,b'"),
    "a header alone": (CSV, "it has no requests"),
    "a row too short": (CSV + "1\n", "line 2: '1': 1 columns"),
    "no number": (CSV + "1,x\n", "line 2: '1,x'"),
    "half a token": (CSV + "1.5,2\n", "line 2"),
    "beyond 64 bits": (CSV + "99999999999999999999,2\n", "line 2: 99,999,999,999,999,999,999 tokens are beyond"),
    "empty prompts": (CSV + "0,2\n0,3\n", "all prompts are empty"),
    "no text": (b"\xff\xfe\x00\x01", "not UTF-8 text"),
    "no date": ("TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,5,5\n", "line 2: 'yesterday,5,5'"),
    "one length alone": ('{"input_tokens": 5}\n', "line 1"),
    "a word for a number": ('{"input_tokens": "x", "output_tokens": 4}\n', "line 1"),
    "null for a row": ('{"input_tokens": 5, "output_tokens": 4}\nnull\n', "line 2: 'null'"),
    "infinite tokens": ('{"input_tokens": 1e400, "output_tokens": 4}\n', "line 1"),
    "words for blocks": ('{"input_length": 5, "output_length": 2, "hash_ids": ["a"]}\n', "line 1"),
    "a time without end": (
        '{"timestamp": 1e308, "input_tokens": 5, "output_tokens": 4}\n',
        "line 1: a time of 1e+308",
    ),
    "an empty list": ("[]", "0 point(s) of a CDF"),
    "no points": ('{"cdf": []}', "0 point(s)"),
    "one point": ('{"cdf": [[1, 1]]}', "1 point(s) of a CDF: at least 2"),
    "points that descend": ('{"cdf": [[1, 0.5], [2, 0.4]]}', "must ascend"),
    "no list of points": ('{"cdf": "x"}', "line 1"),
    "triples": ("[[1, 2, 3], [4, 5, 6]]", "known are CSV"),
    "half a document": ('{"cdf": [[1, 0.5], [2,', "the file ends too early"),
    "brackets without end": ("[" * 800_000, "known are CSV"),
    "negative points": ('{"cdf": [[-5, 0.5], [9, 1.0]]}', "negative"),
    "points beyond all": ('{"cdf": [[1e300, 0.5], [1e301, 1.0]]}', "is beyond 10,000,000"),
    "lists of two lengths": (
        '{"input_lens": [1, 2], "output_lens": [1]}',
        "input_lens and output_lens of one length",
    ),
    "negative lengths": ('{"input_lens": [1, -2], "output_lens": [1, 1]}', "input tokens -2 are negative"),
    "fractions that end early": (CDF + "0.5,1,1\n0.9,2,2\n", "end at 1, not at 0.9"),
    "a point too short": (CDF + "1,1\n", "line 2: '1,1': three numbers"),
}
ZIPPED: dict[str, tuple[bytes, str]] = {
    "not zipped": (b"no gzip", "line 1 is 'no gzip', no header with known columns and no JSON object"),
    "cut off": (gzip.compress(CSV.encode() + b"5,5\n")[:-9], "the file ends too early"),
}
# Options added to a workload and a rate, and a part of the error sentence.
OPTIONS: dict[str, str] = {
    "--rate nan": "--rate nan: requests per second must be positive",
    "--rate x": "--rate: invalid float value: 'x'",
    "--rate 1e12": "at most 1e+09",
    "--model gpt-9": "model 'gpt-9' is not in the catalogue",
    "--gpu h900": "gpu 'h900' is not in the catalogue",
    "--gpu b200 h100-80g --simulate": "the price of b200 is not known",
    "--tp 3": "a divisor of each is needed",
    "--tp 99999": "must be at least 1 and at most 1,024",
    "--dp 2": "has no experts to share",
    "--long-context 10": "--long-context 10: must be at least 1,024",
    "--long-context 200000": "--long-context 200,000: llama-3-70b takes at most 131,072 tokens",
    "--long-context 9999999": "not even 16 GPUs hold the weights and 9,999,999 tokens",
    "--weight-bytes nan": "--weight-bytes nan",
    "--kv-bytes inf": "--kv-bytes inf",
    "--batched-tokens 0": "--batched-tokens 0: must be at least 1",
    "--spare 1.5": "--spare: invalid int value",
    "--price -3": "--price -3: must be at least 0.01",
    "--engine vllm-9.9": "invalid choice: 'vllm-9.9'",
    "--times measured --gpu mi300x": "--times measured: there are none for",
    "--measured 1,2": "three or four numbers",
    "--measured 1,2,inf": "must be positive, from",
    "--ttft nan": "nan",
    "--tpot-ms 0": "0",
    "--success 2": "2",
    "--objective else:ttft": "'ttft' or 'tpot' and a time in s or ms is needed",
    "--objective <=8192:": "the last class must be 'else:'",
    "--objective <=0:;else:": "a class holds up to 1 to 10,000,000 tokens",
    "--objective <=99999999999999999999:;else:": "a class holds up to 1 to",
    "--objective <=8192:;<=4096:;else:": "classes must be in ascending order",
    "--objective else:;else:": "classes must be in ascending order",
    "--prefix-cache trace": "has no hash_ids",
    "--prefix-cache nan": "a share from 0 to below 1",
    "--declared guess": "invalid choice: 'guess'",
    "--simulate --threshold 0": "--threshold 0: must be positive and below the long context of 65,536",
    "--simulate --threshold 70000": "--threshold 70,000: must be positive and below the long context of 65,536",
    "--simulate --threshold x": "--threshold: invalid int value",
    "--simulate --requests 10": "at least 2000",
    "--simulate --seeds 101": "1 to 100 seeds",
    "--simulate --jobs 0": "1 process",
    "--simulate --pools 5": "argument --pools: invalid choice: ",
    "--simulate --head-room nan": "a factor from 1 to 16",
    "--simulate --choice-count 101": "must be from 2 to 100",
    "--simulate --arrivals trace": "it has no arrival times",
    "--simulate --day-curve trace": "covers 0.0 hours",
    "--simulate --day-curve /nowhere": "No such file",
    "--catalogue /nowhere": "No such file",
    "extra": "extra",
}
CATALOGUES: dict[str, tuple[str, str]] = {
    "a list": ("[]", "gpus and models are needed, not '[]'"),
    "gpu for gpus": (f"gpu: {{x: {{{GPU}}}}}", "'gpu' is not known; known are gpus, models"),
    "a list of GPUs": ("gpus: []", "Expected `object`, got `array`"),
    "no profile": ("gpus: {x: }", "Expected `object`"),
    "half a profile": ("gpus: {x: {memory_gb: 5}}", "missing required field"),
    "a word for a size": (f"gpus: {{x: {{{GPU.replace('80', 'eighty')}}}}}", "Expected `float`"),
    "no sequences": (f"gpus: {{x: {{{GPU}, max_num_seqs: 0}}}}", "x: 0 is not allowed"),
    "no YAML": ("a: b: c", "mapping values are not allowed"),
    "itself": ("&a [*a]", "mine.yaml"),
}
PROMPTS, COMPLETIONS = ("dualpool_actual_" + name + "_tokens_bucket" for name in ("prompt", "completion"))
METRICS: dict[str, tuple[str, str]] = {
    "nothing": ("", "is not in it; is this a router's /metrics?"),
    "something else": ("garbage\n", "not the Prometheus text"),
    "a word for a count": (f'{PROMPTS}{{le="64"}} x\n', "not the Prometheus text"),
    "no count": (f'{PROMPTS}{{le="+Inf"}} NaN\n{COMPLETIONS}{{le="+Inf"}} NaN\n', "a bucket that counts nan"),
    "counts that fall": (
        f'{PROMPTS}{{le="64"}} 5\n{PROMPTS}{{le="+Inf"}} 3\n{COMPLETIONS}{{le="+Inf"}} 5\n',
        "have lower counts than those below",
    ),
}


def refused(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Run the command; expect exit code 2, nothing on standard output, and
    one sentence with these words.

    The argument parser exits the program itself and prints its usage before the sentence.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command_line, "COMMANDS", ("plan",))
        try:
            code: object = command_line.main(["plan", *arguments])
        except SystemExit as stop:
            code = stop.code
    printed = capsys.readouterr()
    assert (code, printed.out) == (2, "")
    sentences = [line for line in printed.err.splitlines() if re.match(r"dualpool[^:]*: ", line)]
    assert len(sentences) == 1
    assert words in sentences[0]
    assert "Traceback" not in printed.err
    assert "Warning" not in printed.err


@pytest.mark.parametrize("kind", TRACES)
def test_an_impossible_trace_is_refused(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For every format, the sentence names the file, and the line if there is one."""
    text, words = TRACES[kind]
    path = tmp_path / "trace"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(["--trace", str(path), "--rate", "9"], words, capsys)


@pytest.mark.parametrize("kind", ZIPPED)
def test_a_trace_that_cannot_be_unpacked_is_refused(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files that are not zipped, and truncated ones."""
    content, words = ZIPPED[kind]
    path = tmp_path / "trace.gz"
    path.write_bytes(content)
    refused(["--trace", str(path), "--rate", "9"], words, capsys)


@pytest.mark.parametrize("options", OPTIONS)
def test_impossible_options_are_refused(options: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are refused before any search begins."""
    trace = write_trace(tmp_path / "t.csv")
    source = ["--mean-tokens", "500,100"] if "trace" in options else ["--trace", str(trace)]
    words = OPTIONS[options]
    refused([*source, "--rate", "9", *options.split(" ")], words, capsys)


@pytest.mark.parametrize("kind", CATALOGUES)
def test_an_impossible_catalogue_is_refused(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The sentence names the file."""
    text, words = CATALOGUES[kind]
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    refused(["--mean-tokens", "500,100", "--rate", "9", "--catalogue", str(path)], words, capsys)


@pytest.mark.parametrize("kind", METRICS)
def test_impossible_metrics_are_refused(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Metrics that no router exposes."""
    text, words = METRICS[kind]
    path = tmp_path / "metrics"
    path.write_text(text)
    refused(["--metrics", str(path), "--rate", "9"], words, capsys)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("--rate 9", "exactly one of --trace, --metrics and --mean-tokens is needed"),
        ("--mean-tokens 500,100", "--rate is needed"),
        ("--mean-tokens 500 --rate 9", "two numbers are needed"),
        ("--mean-tokens -5,5 --rate 9", "--mean-tokens"),
        ("--mean-tokens=-5,5 --rate 9", "--mean-tokens -5,5: both must be from 1 to 10,000,000 tokens"),
        ("--mean-tokens 5,5 --trace /dev/null --rate 9", "exactly one of --trace"),
        ("--trace /nowhere --rate 9", "No such file"),
        ("--trace / --rate 9", "Is a directory"),
        ("--trace /dev/null --rate 9", "empty"),
        ("--metrics http://127.0.0.1:1/metrics --rate 9", "127.0.0.1:1"),
        ("paper --rate 9", "--rate 9: is not used by"),
        ("paper --trace /nowhere", "No such file"),
        ("papers", "invalid choice: 'papers'"),
    ],
)
def test_incomplete_questions_are_refused(asked: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """No workload or rate, two workloads, or files that do not exist."""
    refused(asked.split(" "), words, capsys)
