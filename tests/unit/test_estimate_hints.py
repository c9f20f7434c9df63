"""`dualpool estimate` of bodies that are not understood: the message names what is wrong with them."""

from pathlib import Path

import pytest

from extproc.cli.main import main


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (rb'{"messages": [{"role": "user", "content": "cut \ud83d"}]}', "half of a surrogate pair"),
        (b'\xef\xbb\xbf{"prompt": "Hi"}', "byte order mark"),
        ('{"prompt": "Hi"}'.encode("utf-16"), "byte order mark"),
        (b" \n", "the body is empty"),
        (b'{"prompt": "cut', "Input data was truncated\n"),
        (b"[" * 200_000, "got `array`\n"),
    ],
)
def test_the_message_names_what_the_decoder_does_not(
    body: bytes, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half a character, a byte order mark and an empty file are named; only input that ends early is truncated."""
    (tmp_path / "body.json").write_bytes(body)
    assert main(["estimate", str(tmp_path / "body.json")]) == 1
    assert said in capsys.readouterr().err
