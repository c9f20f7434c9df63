import signal
import subprocess
import sys

import httpx
import pytest

from tests.plain import NO_AUTHORITIES

COMMAND = [sys.executable, "-m", "extproc.cli.main", "emulate"]
POOL = ["--model", "m", "--max-model-len", "1000", "--tokenizer", "bytes"]


def test_the_printed_url_serves_until_sigterm() -> None:
    """The command prints its URL when it listens, and ends with exit code 0 on SIGTERM."""
    with subprocess.Popen([*COMMAND, *POOL, "--name", "tiny"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().removeprefix("listening on ").strip()
        response = httpx.post(
            f"{url}/v1/completions", json={"prompt": "Hello", "max_tokens": 3}, timeout=30, verify=NO_AUTHORITIES
        )
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
    assert (response.status_code, response.headers["x-served-by"]) == (200, "tiny")
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", ""], "dualpool emulate: model: a name is needed"),
        (["--max-num-seqs", "0"], "dualpool emulate: max_num_seqs: 0 must be above 0"),
        (
            ["--tokenizer", "gpt9"],
            "dualpool emulate: tokenizer: 'gpt9' is not one of auto, qwen, cl100k, deepseek",
        ),
        (["--address", "192.0.2.1:80"], "dualpool emulate: address: cannot listen on 192.0.2.1:80"),
    ],
)
def test_wrong_settings_are_reported_in_one_line(arguments: list[str], message: str) -> None:
    """A wrong setting is reported in one line, with exit code 2."""
    done = subprocess.run([*COMMAND, *POOL, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1
