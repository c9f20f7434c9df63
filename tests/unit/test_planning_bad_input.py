"""Impossible profiles, means and points: each is refused in one sentence with exit code 2."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from extproc.cli import main as command_line
from tests.unit.planning_command import refusal_of

Refused = Callable[..., str]
GPU = "memory_gb: 80, bandwidth_gb_s: 2000, bf16_tflops: 300, link_gb_s: 300"
MODEL = "params_b: 8, active_params_b: 8, weight_bytes: 2, hidden_size: 4096, layers: 32, max_context: 131072"
YARN = "native_context: 9000, original_context: 0, rope_theta: 10000"
HEADS = "attention: {kind: gqa, query_heads: 32, kv_heads: 8, head_dim: 128}"


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Return a function that runs `dualpool plan`, expects exit code 2 and
    one error line, and returns that line.
    """
    monkeypatch.setattr(command_line, "COMMANDS", ("plan",))

    return lambda *arguments: refusal_of([*map(str, arguments)], capsys)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (f"gpus: {{mine: {{{GPU.replace('80', '.nan')}}}}}", "mine: nan is not allowed"),
        (f"gpus: {{mine: {{{GPU.replace('2000', '.inf')}}}}}", "mine: inf is not allowed"),
        (f"gpus: {{mine: {{{GPU}, fp8_tflops: 0}}}}", "mine: 0.0 is not allowed"),
        (f"gpus: {{mine: {{{GPU}, price_usd_h: -1}}}}", "mine: -1.0 is not allowed"),
        (f"gpus: {{mine: {{{GPU}, max_num_batched_tokens: 10000000}}}}", "10,000,000: at most 1,048,576"),
        (
            f"models: {{mine: {{{MODEL}, {HEADS}, routed: {{params_b: 7, experts: 0, experts_per_token: 8}}}}}}",
            "mine.routed: 0 is not allowed",
        ),
        (
            f"models: {{mine: {{{MODEL}, {HEADS}, routed: {{params_b: 9, experts: 16, experts_per_token: 8}}}}}}",
            "mine.routed: params_b 9 is more than the model's 8",
        ),
        (
            f"models: {{mine: {{{MODEL}, {HEADS}, routed: {{params_b: 7, experts: 4, experts_per_token: 8}}}}}}",
            "mine.routed: 8 experts_per_token of 4 experts: at most 4",
        ),
        (
            f"models: {{mine: {{{MODEL.replace('active_params_b: 8', 'active_params_b: 9')}, {HEADS}}}}}",
            "mine: active_params_b 9 is more than params_b 8",
        ),
        (
            f"models: {{mine: {{{MODEL}, {HEADS}, table_params_b: -1}}}}",
            "mine: table_params_b -1: must not be negative",
        ),
        (
            f"models: {{mine: {{{MODEL}, {HEADS}, yarn: {{{YARN}}}}}}}",
            "mine.yarn: 0 is not allowed",
        ),
        (f"models: {{mine: {{{MODEL}, {HEADS}, table_params_b: .nan}}}}", "mine: table_params_b nan"),
        (f'gpus: {{"a\\e[2J": {{{GPU}}}}}', r"gpus: 'a\x1b[2J': a name has printable characters only"),
        (f"models: {{mine: {{{MODEL}, {HEADS}, table_params_b: 4}}}}", "both tables are in active_params_b 8"),
    ],
)
def test_an_impossible_profile_is_refused(refused: Refused, tmp_path: Path, entry: str, message: str) -> None:
    """For numbers that are not finite, zero, negative or contradictory, the
    error names the profile and what is allowed.
    """
    path = tmp_path / "mine.yaml"
    path.write_text(entry)
    assert message in refused("--mean-tokens", "100,100", "--rate", "9", "--catalogue", path)


@pytest.mark.parametrize("means", ["nan,5", "inf,5", "5,inf", "0.5,5", "5,1e300"])
def test_impossible_means_are_refused(refused: Refused, means: str) -> None:
    """A mean is a number of tokens of at least 1."""
    assert "both must be from 1 to 10,000,000 tokens" in refused("--mean-tokens", means, "--rate", "9")


@pytest.mark.parametrize(
    ("points", "column"),
    [
        ("0,1,1\n0.5,nan,5\n1,9,9\n", "input"),
        ("0,1,1\nnan,5,5\n1,9,9\n", "fraction"),
        ("0.5,5,5\n1,5,inf\n", "output"),
    ],
)
def test_points_that_are_not_finite_are_refused(
    refused: Refused, tmp_path: Path, points: str, column: str
) -> None:
    """The error names the column of the distribution function."""
    path = tmp_path / "cdf.csv"
    path.write_text("fraction,input_tokens,output_tokens\n" + points)
    message = refused("--trace", path, "--rate", "9")
    assert f"the {column} column of a CDF must hold finite numbers" in message


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    """Write a scrape of a router that has handled one request."""
    rows = [
        f'dualpool_actual_{name}_tokens_bucket{{le="{edge}"}} 1'
        for name in ("prompt", "completion")
        for edge in ("64", "+Inf")
    ]
    path = tmp_path / "metrics"
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.mark.parametrize("seconds", ["-3", "nan", "inf", "0"])
def test_seconds_between_scrapes_are_positive(refused: Refused, metrics: Path, seconds: str) -> None:
    """An interval that could never elapse is refused."""
    message = refused("--metrics", metrics, metrics, "--scrape-interval", seconds)
    assert f"--scrape-interval {seconds}: seconds must be positive and finite" in message


def test_one_file_has_no_interval(refused: Refused, metrics: Path) -> None:
    """A file is scraped once; an interval for it would have no effect, so it is refused."""
    message = refused("--metrics", metrics, "--scrape-interval", "5", "--rate", "9")
    assert "is one file; a second scrape or an address is needed" in message


@pytest.mark.parametrize("rate", ["--rate", "--scrape-interval"])
@pytest.mark.parametrize(
    ("scrapes", "said"),
    [
        ([5, 5], "has counted no response since {0}: two scrapes with traffic between them are needed"),
        ([5, 3], "lower counts than those below; {0} is not the earlier scrape, or the router restarted"),
    ],
)
def test_two_scrapes_without_traffic_between_them_are_refused(
    refused: Refused, tmp_path: Path, scrapes: list[int], said: str, rate: str
) -> None:
    """The error names both files, and which of them has to be the earlier one, whatever gives the rate."""
    paths = [tmp_path / "first", tmp_path / "second"]
    for path, count in zip(paths, scrapes, strict=True):
        names = ("prompt", "completion")
        rows = [f'dualpool_actual_{name}_tokens_bucket{{le="+Inf"}} {count}' for name in names]
        path.write_text("\n".join(rows) + "\n")
    message = refused("--metrics", *paths, rate, "9")
    assert f"{paths[1]}: " in message
    assert said.format(paths[0]) in message


def test_an_address_cannot_be_the_earlier_of_two_scrapes(refused: Refused, metrics: Path) -> None:
    """It is scraped now: no time would pass until the second, whatever interval is said to be between them."""
    for second in ("http://127.0.0.1:9/metrics", metrics):
        message = refused("--metrics", "http://127.0.0.1:9/metrics", second, "--scrape-interval", "60")
        assert "--metrics http://127.0.0.1:9/metrics: an address is scraped now" in message


def test_two_scrapes_without_rate_or_seconds_are_refused(refused: Refused, metrics: Path) -> None:
    """The error says what gives the rate."""
    metrics.with_name("later").write_text(metrics.read_text().replace("} 1", "} 2"))
    message = refused("--metrics", metrics, metrics.with_name("later"))
    assert "(the seconds between the two scrapes, with --scrape-interval, give it, too)" in message


def test_a_third_scrape_is_refused(refused: Refused, metrics: Path) -> None:
    """Two scrapes define one interval; a third one would be ignored."""
    assert "3 scrapes are given: one or two are read" in refused("--metrics", metrics, metrics, metrics)


@pytest.fixture
def rude_server() -> Iterator[str]:
    """Listen at an address, answer there in another protocol, and return the address."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        thread.join()


def test_a_server_of_another_protocol_is_refused(refused: Refused, rude_server: str) -> None:
    """The error says that the server does not speak HTTP."""
    message = refused("--metrics", f"http://{rude_server}/metrics", "--rate", "9")
    assert ": no HTTP server" in message


@pytest.mark.parametrize(
    "address", ["http://h:abc/metrics", "http://h/a b", "http://", "http://[::1/", "http://\u00fc:99999/"]
)
def test_an_impossible_address_is_refused(refused: Refused, address: str) -> None:
    """The error names the address."""
    assert address in refused("--metrics", address, "--rate", "9")


def test_metrics_have_a_limit(refused: Refused, tmp_path: Path) -> None:
    """A file larger than any router writes is refused before it is read
    into memory, and never silently truncated.
    """
    path = tmp_path / "huge"
    path.touch()
    os.truncate(path, 2**34)
    assert "more than 16 MiB of metrics" in refused("--metrics", path, "--rate", "9")


def test_a_pipe_is_read_up_to_the_same_limit(refused: Refused, tmp_path: Path) -> None:
    """The size of a pipe is not known in advance, so its bytes are counted; a line without an end is refused."""
    for text, message in (
        ("\n".rjust(2**16), "pipe: more than 256 MiB"),
        ("0" * 2**16, "pipe: line 2 is longer than 1,048,576 characters"),
    ):
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        thread = threading.Thread(target=pour, args=(pipe, text))
        thread.start()
        said = refused("--trace", pipe, "--rate", "9")
        thread.join()
        pipe.unlink()
        assert message in said


def pour(pipe: Path, text: str) -> None:
    """Write a header, then a text repeatedly until the reader closes the pipe."""
    try:
        with pipe.open("w") as file:
            file.write("TIMESTAMP,ContextTokens,GeneratedTokens\n")
            while True:
                file.write(text)
    except BrokenPipeError:
        pass


def test_an_address_without_a_scheme_is_no_file(refused: Refused) -> None:
    """The error says how an address begins, since it would otherwise only name a file that nobody meant."""
    message = refused("--metrics", "localhost:9090", "--rate", "9")
    assert message.endswith("localhost:9090: No such file or directory; an address begins with http://\n")
