"""The command line imports only the module of the command that is given, or all of them if none is."""

import importlib
import io
from pathlib import Path
from types import ModuleType

import pytest

from extproc.cli.main import COMMANDS, main


def modules_read(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> list[str]:
    """Return the commands whose modules are imported for these arguments, none of which starts anything."""
    read: list[str] = []

    def import_module(name: str) -> ModuleType:
        read.append(name.rpartition(".")[2])
        return importlib.import_module(name)

    monkeypatch.setattr("extproc.cli.main.import_module", import_module)
    with pytest.raises(SystemExit):
        main(arguments)
    return read


def test_a_command_starts_without_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a router is down, requests pass undecided, so `serve` starts without the modules of other commands."""
    assert ["serve"] == modules_read(monkeypatch, "serve", "--help")


@pytest.mark.parametrize("argument", ["--help", "nonsense"])
def test_all_commands_are_loaded_if_none_is_given(argument: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Help and the error message name all commands."""
    assert list(COMMANDS) == modules_read(monkeypatch, argument)


def test_a_terminal_that_lacks_characters_shows_their_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name in another script is printed with escapes where the output's encoding has no such characters."""
    body = tmp_path / "body.json"
    body.write_text('{"model": "模", "messages": [{"role": "user", "content": "Hello"}]}', "utf-8")
    out = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(out, encoding="latin-1"))
    assert 0 == main(["estimate", str(body)])
    assert rb"\u6a21" in out.getvalue()


def test_a_fault_of_our_own_is_not_taken_for_a_lack_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only that error of Python's is one line; any other keeps its traceback."""

    def failing(_: object) -> None:
        raise RuntimeError("another fault")

    monkeypatch.setattr("extproc.config.loading.load", failing)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("signal.pthread_sigmask", lambda *_: None)
    with pytest.raises(RuntimeError, match="another fault"):
        main(["serve"])


def test_what_serve_would_write_to_stderr_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Warnings and unhandled exceptions are log lines from before the router is made."""
    done: list[str] = []

    def made(*_: object) -> None:
        done.append("app")
        raise KeyboardInterrupt

    monkeypatch.setattr("extproc.telemetry.log.configure_logging", lambda *_: done.append("logging"))
    monkeypatch.setattr("extproc.telemetry.stray_lines.log_stray_lines", lambda: done.append("stray lines"))
    monkeypatch.setattr("extproc.server.app.App", made)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("signal.pthread_sigmask", lambda *_: None)
    assert 130 == main(["serve"])
    assert ["logging", "stray lines", "app"] == done
