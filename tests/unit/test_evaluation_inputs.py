"""Wrong input to `dualpool evaluate` is reported in a sentence, before anything takes long."""

import json
import re
from pathlib import Path

import pytest

from extproc.cli.main import main
from extproc.core.errors import ConfigurationError
from extproc.evaluation.requests import read_lengths
from extproc.evaluation.texts import all_texts, folder_texts
from extproc.evaluation.tokenizers import tokenizer


def test_wrong_inputs_are_named(tmp_path: Path) -> None:
    """A folder without texts, a trace without columns, an unknown tokenizer: each is reported in a sentence."""
    (tmp_path / "trace.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ConfigurationError, match=r"no \.txt file"):
        folder_texts(tmp_path)
    with pytest.raises(ConfigurationError, match="ContextTokens"):
        read_lengths(tmp_path / "trace.csv")
    with pytest.raises(ConfigurationError, match="'llama' is unknown; known are qwen"):
        tokenizer("llama", tmp_path)
    (tmp_path / "trace.csv").write_text("ContextTokens,GeneratedTokens\n")
    with pytest.raises(ConfigurationError, match="no request below its header"):
        read_lengths(tmp_path / "trace.csv")
    for text in ("\n", "ein Text\n"):
        (tmp_path / "de.txt").write_text(text)
        with pytest.raises(ConfigurationError, match=r"de\.txt holds \d bytes of text; at least 1000 are needed"):
            folder_texts(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file or directory"),
        (b"a,GeneratedTokens\n1,2\n", "has no column ContextTokens"),
        (b"", "has no column ContextTokens and no column GeneratedTokens"),
        (b"ContextTokens,GeneratedTokens\n1,2\n1\n", "line 3: '' is not a number of tokens"),
        (b"ContextTokens,GeneratedTokens\n1,-2\n", "line 2: '-2' is not a number of tokens"),
        (b"ContextTokens,GeneratedTokens\n1.5,2\n", "line 2: '1.5' is not a number of tokens"),
        (b"ContextTokens\xff", "not UTF-8 text"),
    ],
)
def test_what_is_wrong_with_a_trace_is_said_in_words(content: bytes | None, said: str, tmp_path: Path) -> None:
    """The file, the line and the cell, or the column that is missing, and no name of an exception."""
    path = tmp_path / "trace.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=re.escape(said)) as raised:
        read_lengths(path)
    assert "Error" not in str(raised.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--report", "no/such/folder/r.md"], "--report no/such/folder/r.md: there is no folder no/such/folder"),
        (["--report", "."], "--report .: a file is needed, and this is a folder"),
        (["--cache", __file__], f"--cache {__file__}: no folder to write to (File exists)"),
        (["--cache", f"{__file__}/cache"], f"--cache {__file__}/cache: no folder to write to (Not a directory)"),
        (["--cache", "/proc/self"], "--cache /proc/self: no folder to write to ("),
        (["--texts", "no/such/folder"], "no/such/folder: there is no such folder"),
        (["--texts", __file__], f"{__file__}: there is no such folder"),
        (["--tokenizers", "llama"], "'llama' is unknown; known are"),
        (["--only", "kinds", "--plot", "plot.png"], "--plot shows the whole comparison"),
    ],
)
def test_the_command_rejects_wrong_input_before_it_starts(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Wrong arguments are reported in one sentence with exit code 2."""
    (tmp_path / "de.txt").write_text("ein Text\n")
    (tmp_path / "trace.csv").write_text("ContextTokens,GeneratedTokens\n100,10\n")
    usual = ["--texts", str(tmp_path), "--lengths", str(tmp_path / "trace.csv"), "--cache", str(tmp_path)]
    assert 2 == main(["evaluate", *usual, *arguments])
    printed = capsys.readouterr().err
    assert said in printed
    assert 1 == printed.count("\n")


def test_what_other_packages_install_need_not_be_what_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A .json that is none, a link to nowhere, and a kind of file that nothing has, are left out of the texts."""
    usual = {"a.py": "x = 1\n" * 500, "a.json": json.dumps(["a"] * 500), "a.md": "# A\n" * 500}
    odd = {"b.json": "// not JSON\n" * 500, "c.json": '["\\ud800' + "c" * 2_000 + '"]', "d.json": "[" * 100_000}
    for name, content in (usual | odd).items():
        (tmp_path / name).write_text(content)
    (tmp_path / "e.json").symlink_to(tmp_path / "nowhere.json")
    monkeypatch.setattr("extproc.evaluation.texts.sysconfig.get_path", lambda _: str(tmp_path))
    texts = all_texts(())
    assert f"{usual['a.json']}\n{usual['a.json'].replace(' ', '')}" == texts["json"].decode()
    assert {"python", "markdown"} <= set(texts)
    assert not {"headers", "svg"} & set(texts)
