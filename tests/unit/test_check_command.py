from pathlib import Path

import pytest

from extproc.cli.main import main
from tests.unit.tokenizer_files import byte_level


def written(folder: Path, text: str) -> str:
    """Return the path of a configuration file with this text."""
    file = folder / "router.yaml"
    file.write_text(text)
    return str(file)


@pytest.mark.parametrize("kind", [[], ["config"]], ids=["FILE", "config FILE"])
def test_a_good_file_ends_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: list[str]) -> None:
    """A valid file is reported as such on stdout, and the exit code is 0."""
    file = written(tmp_path, "mode: shadow")
    assert 0 == main(["check", *kind, file])
    assert (f"configuration file {file}: valid\n", "") == capsys.readouterr()


def test_every_fault_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each fault is one line with the file's name, however many there are, and the exit code is 2."""
    pools = "".join(f"\n- {{name: p{number}, max_budget_tokens: no}}" for number in range(300))
    file = written(tmp_path, f"mode: on\npools:{pools}\n")
    assert 2 == main(["check", file])
    lines = capsys.readouterr().err.splitlines()
    assert 301 == len(lines)
    assert {f"configuration file {file}"} == {line.partition(": ")[0] for line in lines}
    assert f"configuration file {file}: mode: 'on' given; allowed: enforce, shadow, off" == lines[0]
    assert "pools[299].max_budget_tokens" in lines[-1]


def test_a_file_that_cannot_be_read_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A missing file is reported as a fault."""
    assert 2 == main(["check", str(tmp_path / "nothing.yaml")])
    assert "No such file" in capsys.readouterr().err


def test_tokenizers_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A tokenizer file that the router could not read is a fault of the configuration; a good one is not."""
    pytest.importorskip("fastokens", reason="needs dualpool[exact]")
    good, bad = byte_level(tmp_path), "nothing.json"
    assert 0 == main(["check", written(tmp_path, f"estimator: {{exact: {{m: {good}}}}}")])
    capsys.readouterr()
    file = written(tmp_path, f"estimator: {{exact: {{m: {good}, n: {bad}}}}}")
    assert 2 == main(["check", file])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"configuration file {file}: estimator.exact.n: {bad!r} given: ")


def test_a_second_file_is_not_taken_for_a_kind_of_file(capsys: pytest.CaptureFixture[str]) -> None:
    """Files are checked one by one; the error names the one that is too many."""
    with pytest.raises(SystemExit) as ended:
        main(["check", "one.yaml", "two.yaml"])
    assert 2 == ended.value.code
    assert "unrecognized arguments: two.yaml" in capsys.readouterr().err


def test_a_file_may_be_called_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The word is a kind of file only before a file's name."""
    (tmp_path / "config").write_text("mode: shadow")
    monkeypatch.chdir(tmp_path)
    assert 0 == main(["check", "config"])
    assert 0 == main(["check", "config", "config"])
